package dcv

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// everyHost manages all names.
func everyHost(string) (managed, exact bool) { return true, false }

// writtenOut manages the given names, which are in the config.
func writtenOut(hosts ...string) func(string) (bool, bool) {
	return func(host string) (managed, exact bool) {
		for _, h := range hosts {
			if h == host {
				return true, true
			}
		}
		return false, false
	}
}

// look asks a store as a request does. It returns the body, or "" if there is none.
func look(t testing.TB, s *Store, host, file string) string {
	t.Helper()
	f := s.find(host, PathPrefix+file)
	if f == nil {
		var err error
		if f, err = s.remote.find(t.Context(), host, PathPrefix+file); err != nil {
			t.Error(err)
		}
	}
	if f == nil {
		return ""
	}
	return string(f.body)
}

// strangers send that many requests per second for random files until stop is called, which returns
// how many were answered.
func strangers(t testing.TB, s *Store, perSecond int, host func() string) (stop func() int) {
	var asked atomic.Int64
	var group sync.WaitGroup
	ended := make(chan struct{})
	group.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-ended:
				return
			case <-time.After(time.Second / time.Duration(perSecond)):
			}
			group.Go(func() {
				if got := look(t, s, host(), fmt.Sprintf("unknown%d.txt", i)); got != "" {
					t.Errorf("a stranger got %q", got)
				}
				asked.Add(1)
			})
		}
	})
	return func() int {
		close(ended)
		group.Wait()
		return int(asked.Load())
	}
}

// TestFirstLookFindsTheFile: a CA that is given a file comes at once and to any instance, often only
// once or twice. Earlier requests must not keep the file from it: neither those of strangers, nor
// our own check for a file in that folder before the order.
func TestFirstLookFindsTheFile(t *testing.T) {
	sites := map[string]func(string) (bool, bool){
		"written out": writtenOut("shop.example.com"),
		"twin":        writtenOut("www.shop.example.com"),
		"catch-all":   everyHost,
		"wildcard": func(host string) (bool, bool) {
			return strings.HasSuffix(host, ".example.com"), false
		},
	}
	for _, perSecond := range []int{0, 10, 20, 200, 2000} {
		for _, delay := range []time.Duration{0, 30 * time.Millisecond, 400 * time.Millisecond} {
			if perSecond == 2000 && delay > 100*time.Millisecond {
				continue // more than maxHeld would have to wait
			}
			for site, managed := range sites {
				t.Run(fmt.Sprintf("%d per second, storage takes %s, %s", perSecond, delay, site), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						storage := newMemoryStorage("shared")
						storage.delay = delay
						ordering, other := NewStore(), NewStore()
						defer ordering.Manage(storage, managed)()
						defer other.Manage(storage, managed)()
						if perSecond > 0 {
							stop := strangers(t, other, perSecond, func() string { return "shop.example.com" })
							defer stop()
						}
						for i := range 10 {
							time.Sleep(rand.N(200 * time.Millisecond)) // of the bubble
							id := fmt.Sprintf("order-%d", i)
							// The vendor's file is not known before the order, so we check for one
							// of our own.
							if i%2 == 0 {
								probe := challenge(t, id+"-probe", "probe.txt", "probe", "shop.example.com")
								must(t, ordering.Present(t.Context(), storage, probe))
								for _, host := range []string{"shop.example.com", "www.shop.example.com"} {
									if got := look(t, other, host, "probe.txt"); got != "probe" {
										t.Errorf("%s: our own check of %s found %q", id, host, got)
									}
								}
								must(t, ordering.CleanUp(t.Context(), storage, probe.ID, nil))
							}
							file := challenge(t, id, id+".txt", id, "shop.example.com")
							must(t, ordering.Present(t.Context(), storage, file))
							if i%3 == 0 {
								time.Sleep(rand.N(100 * time.Millisecond))
							}
							for _, host := range []string{"shop.example.com", "www.shop.example.com"} {
								began := time.Now()
								if got := look(t, other, host, id+".txt"); got != id {
									t.Errorf("%s: the first request to %s got %q", id, host, got)
								}
								if took := time.Since(began); took >= holdTime {
									t.Errorf("%s: the first request took %s", id, took)
								}
							}
							must(t, ordering.CleanUp(t.Context(), storage, id, nil))
						}
					})
				})
			}
		}
	}
}

// TestLateStorage: a storage may list or return what was written only some time later. Nothing that
// was seen before then may delay it further.
func TestLateStorage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newMemoryStorage("shared")
		storage.lag = 300 * time.Millisecond
		s := NewStore()
		defer s.Manage(storage, everyHost)()
		stop := strangers(t, s, 20, func() string { return "example.com" })
		defer stop()
		must(t, NewStore().Present(t.Context(), storage, challenge(t, "a", "a.txt", "one", "example.com")))
		written := time.Now()
		for range 2 {
			if got := look(t, s, "example.com", "a.txt"); got != "" {
				t.Fatalf("got %q before it can be seen", got)
			}
		}
		time.Sleep(time.Until(written.Add(storage.lag))) // of the bubble
		if got := look(t, s, "example.com", "a.txt"); got != "one" {
			t.Errorf("got %q once it can be seen", got)
		}
	})
}

func TestKnownFileIsAnsweredAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newMemoryStorage("shared")
		storage.delay = 30 * time.Millisecond
		s := NewStore()
		defer s.Manage(storage, everyHost)()
		must(t, NewStore().Present(t.Context(), storage, challenge(t, "a", "A.txt", "one", "example.com")))
		look(t, s, "example.com", "A.txt")
		storage.resetCount()
		began := time.Now()
		for range 1000 {
			if got := look(t, s, "example.com", "a.txt"); got != "one" {
				t.Fatalf("got %q", got)
			}
		}
		if n := storage.count(""); n != 0 || time.Since(began) != 0 {
			t.Errorf("%d operations in %s", n, time.Since(began))
		}
	})
}

// TestVisitorsShareReads: perspectives of a CA come at the same moment, and all of them must get the
// file.
func TestVisitorsShareReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newMemoryStorage("shared")
		storage.delay = 30 * time.Millisecond
		must(t, NewStore().Present(t.Context(), storage, challenge(t, "a", "a.txt", "one", "example.com")))
		s := NewStore()
		defer s.Manage(storage, writtenOut("example.com"))()
		var visitors sync.WaitGroup
		for range 6 {
			visitors.Go(func() {
				if got := look(t, s, "example.com", "a.txt"); got != "one" {
					t.Errorf("got %q", got)
				}
			})
		}
		visitors.Wait()
		// The first visitor's read has begun when the others come.
		if n := storage.count("load"); n > 2 {
			t.Errorf("%d loads", n)
		}
	})
}

// removalSeen returns how long after its clean-up elsewhere a file is last served, to a client that
// asks without a pause.
func removalSeen(t *testing.T, s *Store) (last time.Duration) {
	t.Helper()
	cleaned := time.Now()
	for time.Since(cleaned) < 3*time.Second {
		if look(t, s, "example.com", "a.txt") == "one" {
			last = time.Since(cleaned)
		}
		time.Sleep(time.Millisecond) // of the bubble
	}
	return last
}

func TestRemovalIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newMemoryStorage("shared")
		one, two := NewStore(), NewStore()
		for _, s := range []*Store{one, two} {
			defer s.Manage(storage, writtenOut("example.com", "example.org"))()
		}
		must(t, one.Present(t.Context(), storage,
			challenge(t, "a", "a.txt", "one", "example.com", "example.org"), challenge(t, "b", "b.txt", "two", "example.com")))
		for _, s := range []*Store{one, two} {
			look(t, s, "example.com", "unknown.txt") // so both have read
			look(t, s, "www.example.com", "unknown.txt")
		}
		must(t, one.CleanUp(t.Context(), storage, "a", []string{"example.com"}))
		for _, host := range []string{"example.com", "www.example.com"} {
			if got := look(t, one, host, "a.txt"); got != "" {
				t.Errorf("%s is still served by the instance that cleaned up", host)
			}
		}
		if last := removalSeen(t, two); last >= knownAge {
			t.Errorf("it was served for another %s", last)
		}
		if got := look(t, two, "example.com", "b.txt"); got != "two" {
			t.Errorf("the other order: got %q", got)
		}
		if got := look(t, two, "example.org", "a.txt"); got != "one" {
			t.Errorf("the other host: got %q", got)
		}
		if got := look(t, two, "www.example.com", "a.txt"); got != "" {
			t.Errorf("the twin: got %q", got)
		}
	})
}

// TestStorageFailsForAWhile: an outage of the storage must not remove what is known, and what is
// known is corrected when the outage is over.
func TestStorageFailsForAWhile(t *testing.T) {
	for name, managed := range map[string]func(string) (bool, bool){"written out": writtenOut("example.com"), "catch-all": everyHost} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				broken := errors.New("no connection to storage")
				storage := newMemoryStorage("shared")
				s, ordering := NewStore(), NewStore()
				defer s.Manage(storage, managed)()
				must(t, ordering.Present(t.Context(), storage, challenge(t, "a", "a.txt", "one", "example.com")))
				must(t, ordering.Present(t.Context(), storage, challenge(t, "b", "b.txt", "two", "www.example.com")))
				look(t, s, "example.com", "a.txt")

				storage.set(func() { storage.fail = broken })
				var told int
				for range 50 {
					time.Sleep(100 * time.Millisecond) // of the bubble
					for file, want := range map[string]string{"a.txt": "one", "b.txt": "two", "c.txt": ""} {
						f, err := s.remote.find(t.Context(), "example.com", PathPrefix+file)
						if got := f != nil; got != (want != "") || got && string(f.body) != want {
							t.Fatalf("%s: got %v", file, f)
						}
						if err != nil {
							told++
							if !errors.Is(err, broken) {
								t.Errorf("got error %v", err)
							}
						}
					}
				}
				if told < 3 || told > 6 {
					t.Errorf("the error was reported %d times in 5 seconds, want about once a second", told)
				}

				storage.set(func() { storage.fail = nil })
				must(t, ordering.CleanUp(t.Context(), storage, "a", nil))
				time.Sleep(knownAge)
				s.remote.warned.Store(time.Now().UnixNano()) // the last of the errors
				if got := look(t, s, "example.com", "a.txt"); got != "" {
					t.Errorf("got %q after the outage", got)
				}
				if got := look(t, s, "example.com", "b.txt"); got != "two" {
					t.Errorf("got %q after the outage", got)
				}
			})
		})
	}
}

// TestOneValueFails: a value that cannot be loaded keeps its last known files, and hides no others.
func TestOneValueFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := &failingKey{memoryStorage: newMemoryStorage("shared")}
		s, ordering := NewStore(), NewStore()
		defer s.Manage(storage, writtenOut("example.com"))()
		must(t, ordering.Present(t.Context(), storage, challenge(t, "a", "a.txt", "one", "example.com")))
		look(t, s, "example.com", "a.txt")
		storage.key = valueKey("example.com", "a")
		must(t, ordering.Present(t.Context(), storage, challenge(t, "b", "b.txt", "two", "example.com")))
		for file, want := range map[string]string{"a.txt": "one", "b.txt": "two"} {
			time.Sleep(2 * knownAge) // of the bubble
			f, err := s.remote.find(t.Context(), "example.com", PathPrefix+file)
			if f == nil || string(f.body) != want || err == nil {
				t.Errorf("%s: got %v, %v", file, f, err)
			}
		}
	})
}

// failingKey is a storage that cannot load one key.
type failingKey struct {
	*memoryStorage
	key string
}

func (f *failingKey) Load(ctx context.Context, key string) ([]byte, error) {
	if key == f.key {
		return nil, errors.New("checksum mismatch")
	}
	return f.memoryStorage.Load(ctx, key)
}

// TestVisitorGoesAway: a visitor that goes away does not end the read for others.
func TestVisitorGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newMemoryStorage("shared")
		storage.delay = 30 * time.Millisecond
		s := NewStore()
		defer s.Manage(storage, writtenOut("example.com"))()
		must(t, NewStore().Present(t.Context(), storage, challenge(t, "a", "a.txt", "one", "example.com")))
		ctx, cancel := context.WithCancel(t.Context())
		var visitors sync.WaitGroup
		visitors.Go(func() {
			if f, err := s.remote.find(ctx, "example.com", PathPrefix+"a.txt"); f != nil || err != nil {
				t.Errorf("got %v, %v", f, err)
			}
		})
		synctest.Wait()
		visitors.Go(func() {
			if got := look(t, s, "example.com", "a.txt"); got != "one" {
				t.Errorf("got %q", got)
			}
		})
		synctest.Wait()
		cancel()
		visitors.Wait()
	})
}

// TestManageAcrossReloads: what is known about a storage outlives a config that uses it, and the
// config's permission does not.
func TestManageAcrossReloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, fresh := newMemoryStorage("shared"), newMemoryStorage("shared")
		other := newMemoryStorage("other")
		s := NewStore()
		release := s.Manage(old, everyHost)
		must(t, NewStore().Present(t.Context(), old, challenge(t, "a", "a.txt", "one", "example.com")))
		must(t, NewStore().Present(t.Context(), other, challenge(t, "b", "b.txt", "two", "example.com")))
		look(t, s, "example.com", "a.txt")
		releaseFresh := s.Manage(fresh, everyHost)
		releaseOther := s.Manage(other, writtenOut("example.com"))
		release()
		release()
		old.resetCount()
		if got := look(t, s, "example.com", "a.txt"); got != "one" {
			t.Errorf("a file that was known before the reload: got %q", got)
		}
		if got := look(t, s, "example.com", "b.txt"); got != "two" {
			t.Errorf("a file in the other storage: got %q", got)
		}
		time.Sleep(2 * knownAge) // of the bubble
		look(t, s, "example.com", "a.txt")
		if n := old.count(""); n != 0 || fresh.count("") == 0 {
			t.Errorf("the old config's storage was asked %d times, the new one's %d times", n, fresh.count(""))
		}
		releaseFresh()
		releaseOther()
		fresh.resetCount()
		if got := look(t, s, "example.com", "a.txt"); got != "" || fresh.count("") != 0 {
			t.Errorf("after the release: got %q by %d operations", got, fresh.count(""))
		}
	})
}

// TestManagedChanges: before a config has started, nothing is managed; afterwards it is.
func TestManagedChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newMemoryStorage("shared")
		s := NewStore()
		var started atomic.Bool
		defer s.Manage(storage, func(string) (bool, bool) { return started.Load(), false })()
		must(t, NewStore().Present(t.Context(), storage, challenge(t, "a", "a.txt", "one", "example.com")))
		storage.resetCount()
		if got := look(t, s, "example.com", "a.txt"); got != "" || storage.count("") != 0 {
			t.Errorf("before the start: got %q by %d operations", got, storage.count(""))
		}
		started.Store(true)
		if got := look(t, s, "example.com", "a.txt"); got != "one" {
			t.Errorf("after the start: got %q", got)
		}
	})
}
