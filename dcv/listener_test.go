package dcv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

func fetch(t *testing.T, addr, host, path string) (int, string) {
	t.Helper()
	a := (&site{t: t, HTTP: mustPort(t, addr)}).get(host, path)
	return a.status, a.body
}

func mustPort(t *testing.T, addr string) int {
	t.Helper()
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	must(t, err)
	return tcp.Port
}

func refused(addr string) bool {
	conn, err := net.Dial("tcp", addr)
	if err == nil {
		conn.Close()
	}
	return err != nil
}

func TestServe(t *testing.T) {
	present(t, "listener", testFile, testBody, "shop.example.com")
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))

	var group sync.WaitGroup
	releases := make(chan func(), 8)
	for range cap(releases) {
		group.Go(func() {
			release, err := Serve(t.Context(), addr, zap.NewNop())
			if err != nil {
				t.Error(err)
				return
			}
			releases <- release
		})
	}
	group.Wait()
	close(releases)
	if status, body := fetch(t, addr, "www.shop.example.com", PathPrefix+testFile); status != 200 || body != testBody {
		t.Errorf("file: %d %q", status, body)
	}
	for _, path := range []string{"/", PathPrefix + "other.txt"} {
		if status, _ := fetch(t, addr, "shop.example.com", path); status != 404 {
			t.Errorf("%s: %d", path, status)
		}
	}
	n := 0
	for release := range releases {
		if n++; n == cap(releases) {
			if status, _ := fetch(t, addr, "shop.example.com", PathPrefix+testFile); status != 200 {
				t.Errorf("last user: %d", status)
			}
		}
		release()
		release() // counts once
	}
	if !refused(addr) {
		t.Error("the listener outlives its users")
	}
}

func TestServeOnBusyPort(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	_, err = Serve(t.Context(), ln.Addr().String(), nil)
	var busy *ListenError
	if !errors.As(err, &busy) || busy.Addr != ln.Addr().String() {
		t.Fatalf("got %v", err)
	}
	for _, part := range []string{ln.Addr().String(), "dcv directive"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not tell %q", err, part)
		}
	}
	if len(temporary.open) != 0 {
		t.Error("the failed listener is remembered")
	}
}

// The listener of a running order must not keep a new config from its port.
func TestServeLeavesThePortToCaddy(t *testing.T) {
	present(t, "yield", testFile, testBody, "shop.example.com")
	s := newSite(t)
	addr := fmt.Sprintf("127.0.0.1:%d", s.HTTP)
	s.load(s.adapt("cert_issuer dcvtest\nauto_https disable_redirects", "shop.example.com {\nrespond secure\n}"))
	if HTTPServed(observed.ctx) {
		t.Fatal("Caddy listens already")
	}
	release, err := Serve(t.Context(), addr, nil)
	must(t, err)
	defer release()
	if status, body := fetch(t, addr, "shop.example.com", PathPrefix+testFile); status != 200 || body != testBody {
		t.Errorf("own listener: %d %q", status, body)
	}
	s.load(s.adapt("cert_issuer dcvtest", "shop.example.com {\nrespond secure\n}"))
	s.wantServed(map[string]string{"shop.example.com": "308 https://shop.example.com/other"})
}

// After it has stepped aside, the listener comes back when the port is free.
func TestServeComesBack(t *testing.T) {
	ls := &listeners{open: make(map[string]*listener)}
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	release, err := ls.serve(context.Background(), addr, nil)
	must(t, err)
	l := ls.open[addr]
	ls.yield(func(port int) bool { return port == l.port+1 })
	if refused(addr) {
		t.Fatal("left a port that nobody wants")
	}
	ls.yield(func(port int) bool { return port == l.port })
	taken, err := net.Listen("tcp", addr)
	must(t, err)
	ls.comeBack(l)
	if l.server != nil || l.back == nil {
		t.Error("came back to a port that is taken, or gave up")
	}
	if _, err := ls.serve(context.Background(), addr, nil); err == nil {
		t.Error("a second user was not told that the port is taken")
	}
	must(t, taken.Close())
	ls.comeBack(l)
	if refused(addr) {
		t.Error("did not come back")
	}
	release()
	if !refused(addr) || len(ls.open) != 0 {
		t.Error("still there after the release")
	}
	ls.comeBack(l)
	if !refused(addr) {
		t.Error("came back without users")
	}
}

// Real sockets do not work in a bubble of fake time, so the timer is tested with
// an address that cannot be listened on.
func TestServeComesBackByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ls := &listeners{open: make(map[string]*listener)}
		l := &listener{addr: "no port", users: 1, logger: zap.NewNop()}
		ls.mu.Lock()
		ls.comeBackLater(l)
		first := l.back
		ls.mu.Unlock()
		time.Sleep(yieldTime + time.Second) // of the bubble
		ls.mu.Lock()
		defer ls.mu.Unlock()
		if l.back == first || !l.back.Stop() {
			t.Error("did not try, or does not plan to try again")
		}
	})
}
