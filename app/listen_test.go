package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"github.com/caddy-commercial/caddy-commercial/dcv"
)

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

func refused(addr string) bool {
	conn, err := net.Dial("tcp", addr)
	if err == nil {
		conn.Close()
	}
	return err != nil
}

// ours returns the apps of a config that has one of our issuers, and possibly others.
func ours(more object) object {
	apps := object{"tls": tlsApp(nil, policy("apptest", "shop.example.com"))}
	for name, app := range more {
		apps[name] = app
	}
	return apps
}

// TestListen: whatever sockets Caddy has, the file can be fetched wherever a CA may come, and the
// sites answer as usual.
func TestListen(t *testing.T) {
	publish(t)
	s := newSite(t)
	port := fmt.Sprint(s.http)
	for title, tc := range map[string]struct {
		listen []string // of Caddy
		binds  []string // of the issuer
		want   map[string]string
		closed []string // addresses that nothing listens on afterwards
	}{
		"nothing": {
			want:   map[string]string{"127.0.0.1": "404 no such validation file", "127.0.0.2": "404 no such validation file"},
			closed: []string{"127.0.0.1"},
		},
		"all addresses": {
			listen: []string{":" + port},
			want:   map[string]string{"127.0.0.1": "200 web", "127.0.0.2": "200 web"},
		},
		"all addresses, but we are to bind to one": {
			listen: []string{"0.0.0.0:" + port}, binds: []string{"127.0.0.1"},
			want: map[string]string{"127.0.0.1": "200 web", "127.0.0.2": "200 web"},
		},
		"another address": {
			listen: []string{"127.0.0.2:" + port},
			want:   map[string]string{"127.0.0.1": "404 no such validation file", "127.0.0.2": "200 web"},
			closed: []string{"127.0.0.1"},
		},
		"one of two": {
			listen: []string{"127.0.0.2:" + port}, binds: []string{"127.0.0.1", "127.0.0.2"},
			want:   map[string]string{"127.0.0.1": "404 no such validation file", "127.0.0.2": "200 web"},
			closed: []string{"127.0.0.1"},
		},
		"unix socket": {
			listen: []string{"unix/" + t.TempDir() + "/web.sock"},
			want:   map[string]string{"127.0.0.1": "404 no such validation file"},
			closed: []string{"127.0.0.1"},
		},
	} {
		t.Run(title, func(t *testing.T) {
			more := object{"http": s.httpApp(tc.listen...)}
			if len(tc.listen) == 0 {
				more = nil
			}
			a := s.load(s.config(true, ours(more)))
			release, err := a.Listen(t.Context(), tc.binds, s.http)
			defer release()
			if err != nil {
				t.Fatal(err)
			}
			for host, want := range tc.want {
				addr := net.JoinHostPort(host, port)
				for range 16 { // the kernel may have a choice
					if got := get(addr, testFile); got != "200 the file" {
						t.Fatalf("the file at %s: %s", addr, got)
					}
					if got := get(addr, "/page"); got != want {
						t.Fatalf("%s: %s, want %s", addr, got, want)
					}
				}
			}
			release()
			release()
			for _, host := range tc.closed {
				if !refused(net.JoinHostPort(host, port)) {
					t.Errorf("%s is open after the release", host)
				}
			}
		})
	}
}

// TestListenWithDescriptor: only the socket shows where a descriptor leads.
func TestListenWithDescriptor(t *testing.T) {
	publish(t)
	s := newSite(t)
	addr := fmt.Sprintf("127.0.0.1:%d", s.http)
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	file, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	a := s.load(s.config(true, ours(object{"http": s.httpApp(fmt.Sprintf("fd/%d", file.Fd()))})))
	ln.Close()
	release, err := a.Listen(t.Context(), []string{"127.0.0.1"}, s.http)
	defer release()
	if err != nil {
		t.Fatal(err)
	}
	if got := get(addr, testFile); got != "200 the file" {
		t.Errorf("the file: %s", got)
	}
}

// TestListenOnBusyPort: a port that is taken causes a warning.
func TestListenOnBusyPort(t *testing.T) {
	publish(t)
	s := newSite(t)
	addr := fmt.Sprintf("127.0.0.1:%d", s.http)
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a := s.load(s.config(true, ours(nil)))
	release, err := a.Listen(t.Context(), []string{"127.0.0.1", "host.invalid"}, s.http)
	defer release()
	problem, ok := errors.AsType[*dcv.ListenError](err)
	if !ok || problem.Addr != addr || !strings.Contains(err.Error(), "host.invalid") {
		t.Fatalf("got %v", err)
	}
	ln.Close()
	eventually(t, "the listener", func() bool { return get(addr, testFile) == "200 the file" })
}

// TestReloadsWhileListening: while an order is pending, any config can be loaded, with the same
// addresses or without the plugin, and a config that fails changes nothing.
func TestReloadsWhileListening(t *testing.T) {
	publish(t)
	s := newSite(t)
	addr := fmt.Sprintf("127.0.0.1:%d", s.http)
	listen := func(a *App) {
		t.Helper()
		if _, err := a.Listen(t.Context(), []string{"127.0.0.1"}, s.http); err != nil {
			t.Fatal(err)
		}
	}
	fetch := func(when string) {
		t.Helper()
		if got := get(addr, testFile); got != "200 the file" {
			t.Errorf("the file %s: %s", when, got)
		}
	}
	alone, web := s.config(true, ours(nil)), s.config(true, ours(object{"http": s.httpApp(addr)}))
	without := s.config(true, object{"http": s.httpApp(addr)})
	failing := s.config(true, ours(object{"http": s.httpApp(addr), "apptest": object{"fail": true}}))
	for range 3 {
		a := s.load(alone)
		listen(a)
		fetch("at first")
		for range 4 {
			if err := caddy.Load(failing, true); err == nil {
				t.Fatal("the failing config was loaded")
			}
			fetch("after a config that failed")
			if got := get(addr, "/page"); got != "404 no such validation file" {
				t.Errorf("after a config that failed: %s", got)
			}
		}
		b := s.load(alone)
		fetch("before the next config listens")
		listen(b)
		fetch("with the next config")
		s.load(web)
		fetch("from Caddy's server")
		if got := get(addr, "/page"); got != "200 web" {
			t.Errorf("from Caddy's server: %s", got)
		}
		listen(s.load(alone))
		s.load(without)
		for range 16 {
			if got := get(addr, "/page"); got != "200 web" {
				t.Errorf("without the plugin: %s", got)
			}
		}
		listen(s.load(alone))
		s.load(alone) // has not listened yet
		fetch("although nothing listens at the moment")
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
		if !refused(addr) {
			t.Error("the port is open after Caddy has stopped")
		}
	}
	a := newest.Load()
	if _, err := a.Listen(t.Context(), nil, s.http); !errors.Is(err, ErrNotStarted) {
		t.Errorf("listening for a config that has ended: %v", err)
	}
}

// TestACMEBesideUs: requests by the CA of an ACME issuer are answered at our listener as Caddy's
// servers would answer them.
func TestACMEBesideUs(t *testing.T) {
	s := newSite(t)
	addr := fmt.Sprintf("127.0.0.1:%d", s.http)
	for _, reload := range []bool{false, true} { // the newest config knows
		token := fmt.Sprintf("token-%v", reload)
		a := s.load(s.config(true, object{"tls": tlsApp(nil, object{"subjects": []string{"shop.example.com"}, "issuers": []object{
			{"module": "apptest"}, {"module": "acme", "ca": "https://127.0.0.1:1/" + token},
		}})}))
		if !reload {
			if _, err := a.Listen(t.Context(), []string{"127.0.0.1"}, s.http); err != nil {
				t.Fatal(err)
			}
		}
		issuer := a.tlsApp().Automation.Policies[0].Issuers[1]
		challenge, err := json.Marshal(acme.Challenge{
			Type: acme.ChallengeTypeHTTP01, Token: token, KeyAuthorization: token + ".thumbprint",
			Identifier: acme.Identifier{Type: "dns", Value: "shop.example.com"},
		})
		if err != nil {
			t.Fatal(err)
		}
		// This is how certmagic shares challenges between servers.
		key := path.Join("acme", certmagic.StorageKeys.Safe(issuer.IssuerKey()), "challenge_tokens", "shop.example.com.json")
		if err := a.ctx.Storage().Store(t.Context(), key, challenge); err != nil {
			t.Fatal(err)
		}
		if got := get(addr, "/.well-known/acme-challenge/"+token); got != "200 "+token+".thumbprint" {
			t.Errorf("after a reload %v: %s", reload, got)
		}
		if got := get(addr, "/.well-known/acme-challenge/other"); got != "404 no such validation file" {
			t.Errorf("another token: %s", got)
		}
	}
}

// floodReloads is how often a config is replaced under load.
const floodReloads = 100

// TestReloadsUnderFlood: strangers send requests below the validation path while configs come and
// go, in every order of apps. The file of another server is found all the time.
func TestReloadsUnderFlood(t *testing.T) {
	s := newSite(t)
	addr := fmt.Sprintf("127.0.0.1:%d", s.http)
	apps := ours(object{"http": s.httpApp(addr), "apptest": object{"slow": "2ms"}})
	web := apps["http"].(object)["servers"].(object)["web"].(object)
	web["routes"] = append([]object{{"handle": []object{{"handler": "dcv"}}}}, web["routes"].([]object)...)
	config := s.config(false, apps)
	s.load(config)

	elsewhere := dcv.NewStore() // that of another process
	ch, err := dcv.NewChallenge("elsewhere", []string{"shop.example.com"}, "ELSEWHERE.txt", "from elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	if err := elsewhere.Present(t.Context(), &certmagic.FileStorage{Path: s.dir}, ch); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var crowd sync.WaitGroup
	defer crowd.Wait()
	defer stop()
	for i := range 3 {
		crowd.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				getOnce(addr, fmt.Sprintf("%sSTRANGER%d-%d.txt", dcv.PathPrefix, i, n))
			}
		})
	}
	fetched := 0
	crowd.Go(func() {
		for ctx.Err() == nil {
			if got, ok := getOnce(addr, dcv.PathPrefix+"ELSEWHERE.txt"); ok && got != "200 from elsewhere" {
				t.Errorf("the file of another server: %s", got)
			} else if ok {
				fetched++
			}
		}
	})
	for range floodReloads {
		s.load(config)
	}
	stop()
	crowd.Wait()
	if fetched == 0 {
		t.Error("nothing was fetched")
	}
	t.Logf("fetched %d times", fetched)
}
