package dcv

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestFloodOfOneHost: however many clients ask, one host costs 20 reads per second.
func TestFloodOfOneHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage, same := newMemoryStorage("shared"), newMemoryStorage("shared")
		s := NewStore()
		defer s.Manage(storage, writtenOut("example.com"))()
		defer s.Manage(same, writtenOut("example.com"))() // as during a reload
		must(t, NewStore().Present(t.Context(), storage, challenge(t, "a", "a.txt", "one", "example.com")))
		storage.resetCount()
		const lasting = 5 * time.Second
		stop := strangers(t, s, 2000, func() string { return "example.com" })
		time.Sleep(lasting) // of the bubble
		n := stop()
		if n < 9000 {
			t.Errorf("only %d strangers", n)
		}
		lists, loads := storage.count("list")+same.count("list"), storage.count("load")+same.count("load")
		// A read is a listing of two folders. The last strangers have waited for one more.
		if limit := 20*int(lasting/time.Second) + 2; lists > 2*limit || loads > limit || lists < limit {
			t.Errorf("%d lists and %d loads for %d strangers, at most %d reads are allowed", lists, loads, n, limit)
		}
	})
}

// TestFloodOfHosts: names that somebody makes up, however many, cost one listing of all hosts.
func TestFloodOfHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newMemoryStorage("shared")
		s := NewStore()
		defer s.Manage(storage, everyHost)()
		for i := range 3 {
			must(t, NewStore().Present(t.Context(), storage, challenge(t, "a", "a.txt", "one", fmt.Sprintf("%d.example.org", i))))
		}
		storage.resetCount()
		const lasting = 5 * time.Second
		stop := strangers(t, s, 2000, func() string { return fmt.Sprintf("%d.example.com", rand.N(100_000)) })
		time.Sleep(lasting) // of the bubble
		n := stop()
		if lists, limit := storage.count(""), 20*int(lasting/time.Second)+2; lists > limit || lists < 20 {
			t.Errorf("%d operations for %d strangers, at most %d are allowed", lists, n, limit)
		}
		if n := len(s.remote.all()[0].cache.hosts); n != 0 {
			t.Errorf("%d made up hosts are remembered", n)
		}
		for i := range 3 {
			if got := look(t, s, fmt.Sprintf("%d.example.org", i), "a.txt"); got != "one" {
				t.Errorf("got %q", got)
			}
		}
	})
}

// TestImpossibleRequests: what cannot be a file or a host costs the storage nothing, and neither
// does what is not managed.
func TestImpossibleRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newMemoryStorage("shared")
		s := NewStore()
		defer s.Manage(storage, everyHost)()
		began := time.Now()
		for _, ask := range [][2]string{
			{"", "a.txt"}, {"*.example.com", "a.txt"}, {"exa mple.com", "a.txt"}, {"../example.com", "a.txt"}, {"example..com", "a.txt"},
			{strings.Repeat("a", 254), "a.txt"}, {"example.com", "../a.txt"}, {"example.com", "a/b.txt"}, {"example.com", ".a"},
			{"example.com", strings.Repeat("a", maxFileName+1)}, {"example.com", "a\x00.txt"}, {"example.com", "a;b"},
		} {
			if got := look(t, s, ask[0], ask[1]); got != "" {
				t.Errorf("%q: got %q", ask, got)
			}
		}
		none := NewStore()
		defer none.Manage(storage, writtenOut("example.org"))()
		look(t, none, "example.com", "a.txt")
		look(t, none, "www.www.example.org", "a.txt")
		if n := storage.count(""); n != 0 || time.Since(began) != 0 {
			t.Errorf("%d operations in %s", n, time.Since(began))
		}
	})
}

// TestHangingStorage: a storage that hangs holds a limited number of requests for a limited time.
// The others, and afterwards all, get what was last known.
func TestHangingStorage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newMemoryStorage("shared")
		s := NewStore()
		defer s.Manage(storage, writtenOut("example.com"))()
		must(t, NewStore().Present(t.Context(), storage, challenge(t, "a", "a.txt", "one", "example.com")))
		look(t, s, "example.com", "a.txt")
		time.Sleep(2 * knownAge) // of the bubble
		storage.set(func() { storage.gate = make(chan struct{}) })
		storage.resetCount()

		const excess = 100
		began := time.Now()
		var atOnce, late atomic.Int64
		var visitors sync.WaitGroup
		for i := range maxHeld + excess {
			visitors.Go(func() {
				file, want := "a.txt", "one"
				if i%2 == 0 {
					file, want = "unknown.txt", ""
				}
				f, _ := s.remote.find(t.Context(), "example.com", PathPrefix+file)
				if got := f != nil; got != (want != "") {
					t.Errorf("%s: got %v", file, f)
				}
				switch took := time.Since(began); {
				case took == 0:
					atOnce.Add(1)
				case took <= holdTime:
					late.Add(1)
				default:
					t.Errorf("a request was held for %s", took)
				}
			})
		}
		synctest.Wait()
		if n := atOnce.Load(); n != excess {
			t.Errorf("%d requests were answered at once, want %d", n, excess)
		}
		if n := storage.count(""); n != 2 { // a list of each of the two folders
			t.Errorf("%d operations wait", n)
		}
		visitors.Wait()
		if n := late.Load(); n != maxHeld {
			t.Errorf("%d requests were held, want %d", n, maxHeld)
		}
		close(storage.gate)
		time.Sleep(maxReadInterval)
		// The error may be that of the read before, of which nobody has been told yet.
		f, _ := s.remote.find(t.Context(), "example.com", PathPrefix+"a.txt")
		if f == nil || string(f.body) != "one" || s.remote.held.Load() != 0 {
			t.Errorf("afterwards: got %v, %d are held", f, s.remote.held.Load())
		}
	})
}

// TestManyHosts: the hosts of a config may be more than are remembered, and slow to read.
func TestManyHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newMemoryStorage("shared")
		storage.delay = 10 * time.Millisecond
		s := NewStore()
		defer s.Manage(storage, func(string) (bool, bool) { return true, true })()
		for i := range 3 * maxHosts / maxHeld {
			var visitors sync.WaitGroup
			for j := range maxHeld {
				visitors.Go(func() { look(t, s, fmt.Sprintf("%d.%d.example.com", i, j), "a.txt") })
			}
			visitors.Wait()
			if i%2 == 0 {
				time.Sleep(time.Second) // of the bubble
			}
		}
		if n := len(s.remote.all()[0].cache.hosts); n > maxHosts {
			t.Errorf("%d hosts are remembered", n)
		}
		must(t, NewStore().Present(t.Context(), storage, challenge(t, "a", "a.txt", "one", "new.example.com")))
		if got := look(t, s, "new.example.com", "a.txt"); got != "one" {
			t.Errorf("got %q", got)
		}
	})
}
