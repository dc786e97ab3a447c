package dcv

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/certmagic"
)

// visit requests a file from a store as a CA does.
func visit(t testing.TB, s *Store, host, file string) {
	t.Helper()
	ask(t, newHandler(), s, httptest.NewRequest(http.MethodGet, "http://"+host+PathPrefix+file, nil))
}

// TestMisses: a request for the path of a live challenge is recorded, whatever the answer was. No
// other request leaves a trace.
func TestMisses(t *testing.T) {
	storage := newMemoryStorage("shared")
	must(t, NewStore().Present(t.Context(), storage, challenge(t, "other", "B2.txt", "two", "example.org")))
	s := NewStore()
	defer s.Manage(storage, writtenOut("example.org"))()
	must(t, s.Present(t.Context(), nil, challenge(t, "a", "A1.txt", "one", "example.com")))
	visit(t, s, "example.org", "unknown.txt") // so the other's files are known
	failing := func(err error) caddyhttp.Handler {
		return caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return err })
	}
	for _, tc := range []struct {
		method, target string
		next           caddyhttp.Handler
		id             string
		status         int
	}{
		{"POST", "example.com" + PathPrefix + "A1.txt", next, "a", passed},
		{"GET", "www.example.com" + PathPrefix + "A1.tx%74", next, "a", passed},
		{"GET", "example.com" + PathPrefix + "A1.TXT", failing(nil), "a", 200},
		{"GET", "example.com" + PathPrefix + "A1.TXT", failing(errors.New("broken")), "a", 500},
		{"GET", "example.com" + PathPrefix + "A1.TXT", failing(caddyhttp.Error(404, errors.New("none"))), "a", 404},
		{"GET", "example.org" + PathPrefix + "B2.TXT", next, "other", passed},
		{"GET", "example.com" + PathPrefix + "A2.txt", next, "", 0},
		{"POST", "example.com" + PathPrefix + "A1.txt/", next, "", 0},
		{"GET", "example.net" + PathPrefix + "A1.txt", next, "", 0},
		{"POST", "example.net" + PathPrefix + "A1.txt", next, "", 0},
	} {
		t.Run(tc.method+" "+tc.target, func(t *testing.T) {
			s.visits.byID = nil
			r := httptest.NewRequest(tc.method, "http://"+tc.target, nil)
			_ = newHandler().serve(s, httptest.NewRecorder(), r, tc.next)
			if tc.id == "" {
				if len(s.visits.byID) > 0 {
					t.Errorf("it was recorded: %v", s.visits.byID)
				}
				return
			}
			if v := s.Visits(tc.id); len(v) != 1 || v[0].Status != tc.status || v[0].RemoteAddr == "" {
				t.Errorf("got %+v", v)
			}
		})
	}
}

// With the host in its target, a request may have a line as long as Caddy takes one, of which nothing
// but the host is kept.
func TestLongRequestLines(t *testing.T) {
	const size, hosts = 16 << 10, 256
	storage := newMemoryStorage("shared")
	s := NewStore()
	defer s.Manage(storage, func(string) (managed, exact bool) { return true, true })()
	must(t, s.Present(t.Context(), nil, challenge(t, "a", "a.txt", "one", "example.com")))
	must(t, NewStore().Present(t.Context(), storage, challenge(t, "b", "b.txt", "two", "0.example.org")))
	come := func(host, file string) {
		t.Helper()
		line := "GET http://" + host + PathPrefix + file + "?" + strings.Repeat("a", size) + " HTTP/1.1\r\nHost: x\r\n\r\n"
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(line)))
		must(t, err)
		ask(t, newHandler(), s, r)
	}
	before := heap()
	for i := range hosts {
		come("example.com", "a.txt")
		come(fmt.Sprintf("%d.example.org", i), "b.txt")
	}
	if n := s.VisitCount("a") + s.VisitCount("b"); n != hosts+1 {
		t.Fatalf("%d visits", n)
	}
	if kept := int64(heap() - before); kept > hosts*size/4 {
		t.Errorf("%d bytes are kept of %d requests", kept, 2*hosts)
	}
	runtime.KeepAlive(s)
}

// heap is how many bytes are in use.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// written is what WriteVisits has passed on.
type written struct {
	t     *testing.T
	store *Store
	fail  error

	calls, visits int
	count         uint64
	last          []Visit
}

func (w *written) write(storage certmagic.Storage, group string) error {
	w.t.Helper()
	return w.store.WriteVisits(w.t.Context(), storage, group, func(_ context.Context, id string, newest []Visit, count uint64) error {
		if id != "a" {
			w.t.Errorf("visits of %q", id)
		}
		if w.fail != nil {
			return w.fail
		}
		w.calls, w.visits, w.count, w.last = w.calls+1, w.visits+len(newest), w.count+count, newest
		return nil
	})
}

func (w *written) want(calls, visits int, count uint64) {
	w.t.Helper()
	if w.calls != calls || w.visits != visits || w.count != count {
		w.t.Errorf("%d writes of %d visits for %d, want %d, %d, %d", w.calls, w.visits, w.count, calls, visits, count)
	}
}

func ofGroup(t *testing.T, group string) Challenge {
	ch := challenge(t, "a", "a.txt", "one", "example.com")
	ch.Group = group
	return ch
}

func TestWriteVisits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStore()
		must(t, s.Present(t.Context(), nil, ofGroup(t, "ours")))
		w := &written{t: t, store: s}
		tick := func(d time.Duration) {
			time.Sleep(d) // of the bubble
			must(t, w.write(nil, "ours"))
		}
		visit(t, s, "example.com", "a.txt")
		tick(writeAfter - 1)
		w.want(0, 0, 0)
		time.Sleep(time.Nanosecond)
		must(t, w.write(nil, "theirs"))
		w.want(0, 0, 0)
		tick(0)
		w.want(1, 1, 1)
		tick(time.Hour) // there is nothing new
		w.want(1, 1, 1)

		// Ten thousand requests in ten minutes, and the minute after them.
		for i := range 10_000 {
			visit(t, s, "example.com", "a.txt")
			if i%10 == 9 {
				tick(600 * time.Millisecond)
			}
		}
		tick(time.Minute)
		w.want(12, 1+11*maxVisits, 10_001)
		if got := w.last[len(w.last)-1].Time; time.Since(got) > 61*time.Second {
			t.Errorf("the newest visit that was written came at %s", got)
		}
		if n := s.VisitCount("a"); n != 10_001 || len(s.Visits("a")) != maxVisits {
			t.Errorf("%d visits, of which %d are remembered", n, len(s.Visits("a")))
		}

		// What fails is retried after a while.
		visit(t, s, "example.com", "a.txt")
		time.Sleep(writeEvery)
		w.fail = errors.New("no connection")
		if err := w.write(nil, "ours"); !errors.Is(err, w.fail) {
			t.Errorf("error = %v", err)
		}
		w.fail = nil
		tick(writeEvery - 1)
		w.want(12, 1+11*maxVisits, 10_001)
		tick(1)
		w.want(13, 2+11*maxVisits, 10_002)

		visit(t, s, "example.com", "a.txt")
		must(t, s.CleanUp(t.Context(), nil, "a", nil))
		tick(time.Hour)
		w.want(13, 2+11*maxVisits, 10_002)
		if len(s.visits.byID) > 0 {
			t.Errorf("%v is left", s.visits.byID)
		}
	})
}

// TestWriteVisitsOfAnotherInstance: the visits to another instance's challenge are written for as
// long as it is live, and then forgotten.
func TestWriteVisitsOfAnotherInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newMemoryStorage("shared")
		ordering, s := NewStore(), NewStore()
		defer s.Manage(storage, everyHost)()
		must(t, ordering.Present(t.Context(), storage, ofGroup(t, "ours")))
		w := &written{t: t, store: s}

		visit(t, s, "www.example.com", "a.txt")
		time.Sleep(writeAfter) // of the bubble
		storage.resetCount()
		must(t, w.write(storage, "theirs"))
		must(t, w.write(storage, "ours"))
		must(t, w.write(storage, "ours"))
		w.want(1, 1, 1)
		if n := storage.count(""); n != 1 {
			t.Errorf("%d operations", n)
		}
		visit(t, s, "example.com", "a.txt")
		time.Sleep(writeEvery - 1)
		must(t, w.write(storage, "ours"))
		w.want(1, 1, 1)
		time.Sleep(time.Nanosecond)
		must(t, w.write(storage, "ours"))
		w.want(2, 2, 2)
		time.Sleep(writeEvery)
		must(t, w.write(storage, "ours"))
		if len(s.visits.byID) > 0 {
			t.Errorf("%v is left", s.visits.byID)
		}

		visit(t, s, "example.com", "a.txt")
		time.Sleep(writeAfter)
		storage.set(func() { storage.fail = errors.New("no connection") })
		if err := w.write(storage, "ours"); !errors.Is(err, storage.fail) {
			t.Errorf("error = %v", err)
		}
		storage.set(func() { storage.fail = nil })
		visit(t, s, "example.com", "a.txt")
		time.Sleep(writeEvery)
		must(t, w.write(storage, "ours"))
		w.want(3, 4, 4)

		visit(t, s, "example.com", "a.txt")
		must(t, ordering.CleanUp(t.Context(), storage, "a", nil))
		time.Sleep(writeEvery)
		must(t, w.write(storage, "ours"))
		w.want(3, 4, 4)
		if len(s.visits.byID) > 0 {
			t.Errorf("%v is left", s.visits.byID)
		}
	})
}

// TestVisitedIsBounded: the number of challenges of others that are remembered is limited, and those
// that nobody writes are kept no longer than necessary.
func TestVisitedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStore()
		other := func(id string) *file { return &file{id: id, group: "none", presented: time.Now()} }
		for i := range maxVisited + 1 {
			s.visits.add(other(fmt.Sprint(i)), Visit{Time: time.Now()})
		}
		if n := len(s.visits.byID); n != maxVisited {
			t.Errorf("%d challenges are remembered", n)
		}
		must(t, s.Present(t.Context(), nil, challenge(t, "a", "a.txt", "one", "example.com")))
		visit(t, s, "example.com", "a.txt")
		if s.VisitCount("a") != 1 {
			t.Error("there is no room for our own challenge")
		}
		time.Sleep(writeAfter + unwrittenFor + time.Second) // of the bubble
		s.visits.add(other("late"), Visit{Time: time.Now()})
		if s.VisitCount("late") != 1 {
			t.Errorf("there is no room; %d challenges are remembered", len(s.visits.byID))
		}
	})
}

// TestVisitsThroughProxies: six perspectives of a CA that come through one proxy count as six, if
// the config trusts it.
func TestVisitsThroughProxies(t *testing.T) {
	for client, want := range map[string]string{"": "192.0.2.1:1234", "192.0.2.1": "192.0.2.1:1234", "2001:db8::7": "2001:db8::7"} {
		r := httptest.NewRequest(http.MethodGet, "http://example.com"+PathPrefix+"A1.txt", nil)
		r = r.WithContext(context.WithValue(r.Context(), caddyhttp.VarsCtxKey, map[string]any{caddyhttp.ClientIPVarKey: client}))
		if got := visitOf(r, "example.com", 200).RemoteAddr; got != want {
			t.Errorf("client %q comes from %s, want %s", client, got, want)
		}
		if r.RemoteAddr = "@"; client == "2001:db8::7" && visitOf(r, "example.com", 200).RemoteAddr != want { // a Unix socket
			t.Errorf("client %q comes from %s, want %s", client, visitOf(r, "example.com", 200).RemoteAddr, want)
		}
	}
}
