package dcv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

const loopback = "127.0.0.1"

func refused(addr string) bool {
	conn, err := net.Dial("tcp", addr)
	if err == nil {
		conn.Close()
	}
	return err != nil
}

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

// listenAt calls Listen for a config without servers.
func listenAt(t *testing.T, port int) (*Lease, error) {
	t.Helper()
	lease, err := Listen(t.Context(), new(Front), loopback, port, zap.NewNop())
	t.Cleanup(lease.Release)
	return lease, err
}

func TestListen(t *testing.T) {
	present(t, "listener", testFile, testBody, "shop.example.com")
	s := &site{t: t, HTTP: freePort(t)}
	addr := fmt.Sprintf("%s:%d", loopback, s.HTTP)

	var group sync.WaitGroup
	leases := make(chan *Lease, 8)
	for range cap(leases) {
		group.Go(func() {
			lease, err := listenAt(t, s.HTTP)
			if err != nil {
				t.Error(err)
			}
			leases <- lease
		})
	}
	group.Wait()
	close(leases)
	if got := s.get("www.shop.example.com", PathPrefix+testFile); got.status != http.StatusOK || got.body != testBody {
		t.Errorf("file: %v", got)
	}
	for _, path := range []string{"/", PathPrefix + "other.txt", "/.well-known/acme-challenge/x"} {
		if got := s.get("shop.example.com", path); got.status != http.StatusNotFound {
			t.Errorf("%s: %v", path, got)
		}
	}
	n := 0
	for lease := range leases {
		if n++; n == cap(leases) {
			if got := s.get("shop.example.com", PathPrefix+testFile); got.status != http.StatusOK {
				t.Errorf("last user: %v", got)
			}
		}
		lease.Release()
		lease.Release() // counts once
	}
	if !refused(addr) {
		t.Error("the listener outlived its users")
	}
}

// TestListenOnBusyPort: a port that somebody else has causes a warning, and is taken as soon as it
// is free.
func TestListenOnBusyPort(t *testing.T) {
	testBusyPort(t, func(addr string) (net.Listener, error) { return net.Listen("tcp", addr) })
}

func testBusyPort(t *testing.T, open func(addr string) (net.Listener, error)) {
	present(t, "busy", testFile, testBody, "shop.example.com")
	s := &site{t: t, HTTP: freePort(t)}
	addr := fmt.Sprintf("%s:%d", loopback, s.HTTP)
	taken, err := open(addr)
	must(t, err)
	lease, err := listenAt(t, s.HTTP)
	var busy *ListenError
	if !errors.As(err, &busy) || busy.Addr != addr {
		t.Fatalf("got %v", err)
	}
	for _, part := range []string{addr, "pass " + PathPrefix + " on"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	must(t, taken.Close())
	eventually(t, "the listener", func() bool { return !refused(addr) })
	if got := s.get("shop.example.com", PathPrefix+testFile); got.body != testBody {
		t.Errorf("file: %v", got)
	}
	lease.Release()
	if !refused(addr) {
		t.Error("still there after the release")
	}
}

// TestListenWaitsForASolver: a port that becomes free in a moment is not an error.
func TestListenWaitsForASolver(t *testing.T) {
	port := freePort(t)
	solver, err := net.Listen("tcp", fmt.Sprintf("%s:%d", loopback, port))
	must(t, err)
	time.AfterFunc(retryInterval/2, func() { solver.Close() })
	if _, err := listenAt(t, port); err != nil {
		t.Error(err)
	}
}

// Two orders begin while the port is taken. The second one finds it free before it is tried again
// for the first one.
func TestPortIsFreeBeforeTheRetry(t *testing.T) {
	port := freePort(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // waits for nothing
	taken, err := net.Listen("tcp", fmt.Sprintf("%s:%d", loopback, port))
	must(t, err)
	first, err := Listen(ctx, new(Front), loopback, port, zap.NewNop())
	t.Cleanup(first.Release)
	if err == nil {
		t.Fatal("listens on a port that is taken")
	}
	must(t, taken.Close())
	second, err := listenAt(t, port)
	must(t, err)
	if second.listener != first.listener {
		t.Fatal("the listener is not shared")
	}
	temporary.tryAgain(first.listener) // as the timer does
	if n := sharers(loopback, port); n != 1 {
		t.Errorf("%d sockets are open", n)
	}
}

// TestReleasedBeforeThePortIsFree: a port that nobody waits for any more must not be taken later.
func TestReleasedBeforeThePortIsFree(t *testing.T) {
	port := freePort(t)
	addr := fmt.Sprintf("%s:%d", loopback, port)
	taken, err := net.Listen("tcp", addr)
	must(t, err)
	lease, err := listenAt(t, port)
	if err == nil {
		t.Fatal("listens on a port that is taken")
	}
	lease.Release()
	must(t, taken.Close())
	temporary.mu.Lock()
	defer temporary.mu.Unlock()
	if len(temporary.open) != 0 || lease.listener.retry != nil {
		t.Error("the listener is still remembered")
	}
}

// TestLingering: real sockets do not work in a bubble of fake time, so the timers are tested with an
// address that is only claimed to be open.
func TestLingering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ls := &listeners{open: make(map[string]*listener)}
		l := &listener{addr: "somewhere", logger: zap.NewNop(), socket: closedSocket{}, ready: make(chan struct{})}
		l.stand = newStand(l)
		ls.open[l.addr] = l
		use := func() *Lease {
			ls.mu.Lock()
			defer ls.mu.Unlock()
			return ls.use(l)
		}
		isOpen := func() bool {
			ls.mu.Lock()
			defer ls.mu.Unlock()
			return ls.open[l.addr] == l
		}
		use().Leave()
		time.Sleep(lingerTime - time.Second)
		if !isOpen() {
			t.Fatal("closed before the next config could ask for it")
		}
		last := use() // by the next config
		time.Sleep(lingerTime)
		if !isOpen() {
			t.Fatal("closed although it has a user again")
		}
		last.Leave()
		last.Release() // no longer does anything
		time.Sleep(lingerTime + time.Second)
		if isOpen() {
			t.Error("still open although nobody came back")
		}
		synctest.Wait()
	})
}

type closedSocket struct{ net.Listener }

func (closedSocket) Close() error { return nil }

// pipes is a listener with a single connection, which works in a bubble of fake time.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	conn, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}

func (p pipes) Addr() net.Addr { return new(net.TCPAddr) }
func (p pipes) Close() error   { return nil }

// Who promises a body and sends none does not keep a connection of the listener.
func TestBodyThatNeverComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStand(&listener{logger: zap.NewNop()})
		socket := make(pipes)
		s.serve(socket)
		client, server := net.Pipe()
		defer client.Close()
		socket <- server
		must(t, client.SetDeadline(time.Now().Add(time.Hour)))
		_, err := io.WriteString(client, "POST /x HTTP/1.1\r\nHost: shop.example.com\r\nContent-Length: 9\r\n\r\n")
		must(t, err)
		began := time.Now()
		if _, err := io.ReadAll(client); err != nil || time.Since(began) > guestTime+2*ownTimeout {
			t.Errorf("the connection is open after %s: %v", time.Since(began), err)
		}
		close(socket)
		s.close(socket)
		synctest.Wait()
	})
}

// TestHandOver: a config that wants the port gets it at once, whatever it is. Until the listener
// learns who takes over, it holds requests that are not for it.
func TestHandOver(t *testing.T) {
	present(t, "handover", testFile, testBody, "shop.example.com")
	s := newSite(t)
	s.load(s.adapt("cert_issuer dcvtest\nauto_https disable_redirects", "shop.example.com {\nrespond secure\n}"))
	lease, err := Listen(t.Context(), NewFront(observed.ctx), loopback, s.HTTP, zap.NewNop())
	must(t, err)
	t.Cleanup(lease.Release)
	if got := s.get("shop.example.com", PathPrefix+testFile); got.status != http.StatusOK || got.body != testBody {
		t.Errorf("own listener: %v", got)
	}
	// Without the plugin, nobody announces the new config.
	config := s.adapt("auto_https off", "http:// {\nrespond plain\n}")
	must(t, caddy.Load(config, true))
	front := NewFront(caddy.ActiveContext())

	// The kernel distributes connections to both. Closing a socket resets the connections that wait
	// in its queue. A visitor sees that as a lost connection, but never as a wrong answer.
	const visitors = 64
	answers := make(chan string, visitors)
	for range visitors {
		go func() { answers <- tryGet(s.HTTP, "/page") }()
	}
	eventually(t, "a request that is held", func() bool { return len(lease.listener.stand.held) > 0 })
	HandOver(front)
	served := 0
	for range visitors {
		switch got := <-answers; {
		case got == "200 plain":
			served++
		case answered.MatchString(got):
			t.Errorf("a visitor got %q", got)
		}
	}
	if served == 0 {
		t.Error("no visitor was served")
	}
	if got := s.get("shop.example.com", "/other").String(); got != "200 plain" {
		t.Errorf("after the handover: %q", got)
	}
	must(t, caddy.Stop())
	eventually(t, "a listener that is closed", func() bool { return refused(fmt.Sprintf("%s:%d", loopback, s.HTTP)) })
}

// TestReleaseWhileSharing: a listener that is released while a config is being loaded still waits
// for it.
func TestReleaseWhileSharing(t *testing.T) {
	port := freePort(t)
	lease, err := listenAt(t, port)
	must(t, err)
	addr := caddy.NetworkAddress{Network: "tcp", Host: loopback, StartPort: uint(port), EndPort: uint(port)}
	other, err := addr.Listen(t.Context(), 0, net.ListenConfig{})
	must(t, err)
	lease.Release()
	if lease.listener.linger == nil {
		t.Error("closed while requests wait for the config")
	}
	must(t, other.(io.Closer).Close())
	CloseUnused()
}

// answered is what tryGet returns if there was an answer.
var answered = regexp.MustCompile(`^\d{3} `)

// tryGet returns the status and the body, or what went wrong.
func tryGet(port int, path string) string {
	transport := &http.Transport{DisableKeepAlives: true}
	req, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://%s:%d%s", loopback, port, path), nil)
	if err != nil {
		return err.Error()
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s", resp.StatusCode, body)
}
