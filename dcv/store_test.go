package dcv

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"
)

func challenge(t testing.TB, id, file, body string, hosts ...string) Challenge {
	t.Helper()
	ch, err := NewChallenge(id, hosts, file, body)
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// wantFile checks what is served under a host and file; "" means nothing.
func wantFile(t *testing.T, s *Store, host, file, want string) {
	t.Helper()
	got, ok := s.Lookup(host, PathPrefix+file)
	if ok != (want != "") || string(got) != want {
		t.Errorf("%s %s: got %q, want %q", host, file, got, want)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestPresentAndCleanUp(t *testing.T) {
	ctx := t.Context()
	s := NewStore()
	must(t, s.Present(ctx, nil, challenge(t, "a", "A.txt", "one", "example.com", "shop.example.org")))
	for _, host := range []string{"example.com", "www.example.com", "shop.example.org", "WWW.Shop.Example.org:8080"} {
		wantFile(t, s, host, "A.txt", "one")
		wantFile(t, s, host, "a.txt", "one")
		wantFile(t, s, host, "A.TXT", "")
	}
	wantFile(t, s, "example.org", "A.txt", "")

	must(t, s.Present(ctx, nil, challenge(t, "a", "B.txt", "two", "example.com")))
	wantFile(t, s, "example.com", "A.txt", "")
	wantFile(t, s, "www.example.com", "B.txt", "two")
	wantFile(t, s, "shop.example.org", "A.txt", "one")

	must(t, s.CleanUp(ctx, nil, "other", nil))
	must(t, s.CleanUp(ctx, nil, "a", []string{"EXAMPLE.com"}))
	wantFile(t, s, "example.com", "B.txt", "")
	wantFile(t, s, "www.example.com", "B.txt", "")
	wantFile(t, s, "shop.example.org", "A.txt", "one")
	must(t, s.CleanUp(ctx, nil, "a", nil))
	if n := len(*s.live.Load()); n != 0 || len(s.logs) != 0 {
		t.Errorf("%d hosts and %d logs are left", n, len(s.logs))
	}

	if err := s.Present(ctx, nil, Challenge{ID: "x", Hosts: []string{"example.com"}, Path: "/index.html", Body: []byte("x")}); err == nil {
		t.Error("presented a file of another directory")
	}
}

// DigiCert's file is always called fileauth.txt, so orders do meet there.
func TestSameFileOfSeveralOrders(t *testing.T) {
	const file = "fileauth.txt"
	ctx := t.Context()
	s := NewStore()
	must(t, s.Present(ctx, nil, challenge(t, "apex", file, "apex", "example.com")))
	must(t, s.Present(ctx, nil, challenge(t, "www", file, "www", "www.example.com")))
	wantFile(t, s, "example.com", file, "apex")
	wantFile(t, s, "www.example.com", file, "www")
	must(t, s.Present(ctx, nil, challenge(t, "newer", file, "newer", "example.com")))
	wantFile(t, s, "example.com", file, "newer")
	wantFile(t, s, "www.example.com", file, "www")
	must(t, s.CleanUp(ctx, nil, "www", []string{"www.example.com"}))
	wantFile(t, s, "www.example.com", file, "newer")
	must(t, s.CleanUp(ctx, nil, "newer", []string{"example.com"}))
	wantFile(t, s, "example.com", file, "apex")
	wantFile(t, s, "www.example.com", file, "apex")

	// One order, a body for each of its names.
	must(t, s.Present(ctx, nil, challenge(t, "order", file, "for apex", "example.com")))
	must(t, s.Present(ctx, nil, challenge(t, "order", file, "for www", "www.example.com")))
	wantFile(t, s, "example.com", file, "for apex")
	wantFile(t, s, "www.example.com", file, "for www")
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStore()
		storage := newMemoryStorage("shared")
		ch := challenge(t, "a", "a.txt", "one", "example.com")
		ch.Expires = time.Now().Add(time.Hour)
		must(t, s.Present(t.Context(), storage, ch))
		wantFile(t, s, "example.com", "a.txt", "one")
		time.Sleep(time.Hour) // of the bubble
		wantFile(t, s, "example.com", "a.txt", "")
		must(t, s.Present(t.Context(), storage, challenge(t, "b", "b.txt", "two", "example.com")))
		files, err := readHost(t.Context(), storage, "example.com")
		if err != nil || len(files) != 1 || files[0].id != "b" {
			t.Errorf("storage has %v, %v", files, err)
		}
	})
}

// fromCluster asks an instance that presented nothing itself.
func fromCluster(t *testing.T, s *Store, host, file string) string {
	t.Helper()
	f, err := s.remote.find(t.Context(), host, PathPrefix+file)
	if err != nil {
		t.Fatal(err)
	}
	if f == nil {
		return ""
	}
	return string(f.body)
}

func everyHost(string) bool { return true }

func TestClusterServesWhatAnotherInstancePresented(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		storage := newMemoryStorage("shared")
		one, two := NewStore(), NewStore()
		release := two.Manage(storage, func(host string) bool { return host == "example.com" })
		must(t, one.Present(ctx, storage, challenge(t, "a", "A.txt", "one", "example.com", "example.org")))
		must(t, one.Present(ctx, storage, challenge(t, "b", "B.txt", "two", "example.com")))
		for _, host := range []string{"example.com", "www.example.com"} {
			for file, want := range map[string]string{"A.txt": "one", "B.txt": "two", "b.txt": "two", "C.txt": ""} {
				if got := fromCluster(t, two, host, file); got != want {
					t.Errorf("%s %s: got %q, want %q", host, file, got, want)
				}
			}
			if n := storage.loaded(host); n != 3 { // two writers read before they write
				t.Errorf("%s was read %d times, want once by the visitor", host, n-2)
			}
		}
		if got := fromCluster(t, two, "example.org", "A.txt"); got != "" {
			t.Errorf("unmanaged host: got %q", got)
		}

		must(t, one.CleanUp(ctx, storage, "a", []string{"example.com", "example.org"}))
		time.Sleep(readInterval) // of the bubble
		if got := fromCluster(t, two, "example.com", "A.txt"); got != "" {
			t.Errorf("cleaned up: got %q", got)
		}
		if got := fromCluster(t, two, "example.com", "B.txt"); got != "two" {
			t.Errorf("other order: got %q", got)
		}
		must(t, one.CleanUp(ctx, storage, "b", []string{"example.com"}))
		if n := storage.keys(); n != 0 {
			t.Errorf("%d keys are left in storage", n)
		}
		release()
		release()
		before := storage.allLoads()
		time.Sleep(readInterval)
		fromCluster(t, two, "example.com", "A.txt")
		if storage.allLoads() != before {
			t.Error("storage was read after the release")
		}
	})
}

// Perspectives of a CA come at the same moment, and all must get the file.
func TestVisitorsWaitForOneRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newMemoryStorage("shared")
		must(t, NewStore().Present(t.Context(), storage, challenge(t, "a", "a.txt", "one", "example.com")))
		before := storage.loaded("example.com")
		storage.gate = make(chan struct{})
		s := NewStore()
		defer s.Manage(storage, everyHost)()
		var visitors sync.WaitGroup
		for range 6 {
			visitors.Go(func() {
				f, err := s.remote.find(t.Context(), "example.com", PathPrefix+"a.txt")
				if f == nil || err != nil {
					t.Errorf("got %v, %v", f, err)
				}
			})
		}
		synctest.Wait()
		close(storage.gate)
		visitors.Wait()
		if n := storage.loaded("example.com") - before; n != 1 {
			t.Errorf("%d reads", n)
		}
	})
}

// Strangers ask for random files under managed and unmanaged hosts.
func TestFloodReadsStorageOncePerSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newMemoryStorage("shared")
		s := NewStore()
		managed := func(host string) bool { return host == "example.com" }
		defer s.Manage(storage, managed)()
		sameStorage := newMemoryStorage("shared") // as during a reload
		defer s.Manage(sameStorage, managed)()
		const seconds = 10
		for range seconds {
			var visitors sync.WaitGroup
			for visitor := range 50 {
				visitors.Go(func() {
					for i := range 20 {
						file := PathPrefix + fmt.Sprintf("%d-%d.txt", visitor, i)
						for _, host := range []string{"example.com", fmt.Sprintf("%d.example.org", i), "www.example.org"} {
							if f, err := s.remote.find(t.Context(), host, file); f != nil || err != nil {
								t.Errorf("got %v, %v", f, err)
							}
						}
					}
				})
			}
			visitors.Wait()
			time.Sleep(readInterval) // of the bubble
		}
		if n := storage.loaded("example.com") + sameStorage.loaded("example.com"); n != seconds {
			t.Errorf("managed host: %d reads in %d seconds", n, seconds)
		}
		if n := storage.allLoads() + sameStorage.allLoads(); n != seconds {
			t.Errorf("unmanaged hosts: %d reads", n-seconds)
		}
	})
}

// With a catch-all the managed hosts are without number, and reads must not be,
// however slow they are.
func TestFloodOfHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newMemoryStorage("shared")
		storage.gate = make(chan struct{})
		s := NewStore()
		defer s.Manage(storage, everyHost)()
		var visitors sync.WaitGroup
		for i := range 3 * maxRemoteHosts {
			visitors.Go(func() {
				if _, err := s.remote.find(t.Context(), fmt.Sprintf("%d.example.com", i), PathPrefix+"a.txt"); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if n := storage.allLoads(); n != maxRemoteHosts {
			t.Errorf("%d reads at once, want %d", n, maxRemoteHosts)
		}
		close(storage.gate)
		visitors.Wait()
		if n := len(s.remote.hosts); n > maxRemoteHosts {
			t.Errorf("%d hosts are remembered", n)
		}
		time.Sleep(readInterval) // of the bubble
		fromCluster(t, s, "new.example.com", "a.txt")
		if n := storage.loaded("new.example.com"); n != 1 {
			t.Errorf("after the flood: %d reads", n)
		}
	})
}

func TestStorageFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("no connection to storage")
		storage := newMemoryStorage("shared")
		storage.setFail(broken)
		s := NewStore()
		ch := challenge(t, "a", "a.txt", "one", "example.com")
		if err := s.Present(t.Context(), storage, ch); !errors.Is(err, broken) {
			t.Errorf("Present: got %v", err)
		}
		wantFile(t, s, "example.com", "a.txt", "one")
		if err := s.CleanUp(t.Context(), storage, "a", ch.Hosts); !errors.Is(err, broken) {
			t.Errorf("CleanUp: got %v", err)
		}
		wantFile(t, s, "example.com", "a.txt", "")

		defer s.Manage(storage, everyHost)()
		if _, err := s.remote.find(t.Context(), "example.com", ch.Path); !errors.Is(err, broken) {
			t.Errorf("first visitor: got %v", err)
		}
		if _, err := s.remote.find(t.Context(), "example.com", ch.Path); err != nil {
			t.Errorf("second visitor in the same second: got %v", err)
		}
	})
}

func TestBrokenRecord(t *testing.T) {
	for _, data := range []string{"", "{", `{"files":1}`, "null", "[]"} {
		storage := newMemoryStorage("shared")
		storage.values[hostKey("example.com")] = []byte(data)
		s := NewStore()
		must(t, s.Present(t.Context(), storage, challenge(t, "a", "a.txt", "one", "example.com")))
		other := NewStore()
		release := other.Manage(storage, everyHost)
		if got := fromCluster(t, other, "example.com", "a.txt"); got != "one" {
			t.Errorf("over %q: got %q", data, got)
		}
		release()
	}
	storage := newMemoryStorage("shared")
	storage.values[hostKey("example.com")] = []byte(`{"host":"example.com","files":[
		{"id":"a","name":"example.com","path":"/etc/passwd","body":"x"},
		{"id":"a","name":"example.com","path":"/.well-known/pki-validation/../a","body":"x"},
		{"id":"a","name":"other.com","path":"/.well-known/pki-validation/a.txt","body":"x"},
		{"id":"a","name":"www.example.com","path":"/.well-known/pki-validation/b.txt","body":"x","new":"field"}]}`)
	files, err := readHost(t.Context(), storage, "example.com")
	if err != nil || len(files) != 1 || files[0].path != PathPrefix+"b.txt" {
		t.Errorf("got %v, %v", files, err)
	}
}

func TestCleanUpAfterCancellation(t *testing.T) {
	storage := newMemoryStorage("shared")
	s := NewStore()
	must(t, s.Present(t.Context(), storage, challenge(t, "a", "a.txt", "one", "example.com")))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, s.CleanUp(ctx, storage, "a", []string{"example.com"}))
	if n := storage.keys(); n != 0 {
		t.Errorf("%d keys are left in storage", n)
	}
}

// Two instances write at once, to the same hosts.
func TestConcurrentWriters(t *testing.T) {
	storage := newMemoryStorage("shared")
	const writers = 20
	var group sync.WaitGroup
	stores := []*Store{NewStore(), NewStore()}
	for i := range writers {
		group.Go(func() {
			id := fmt.Sprintf("order-%d", i)
			s := stores[i%2]
			if err := s.Present(t.Context(), storage, challenge(t, id, id+".txt", id, "example.com")); err != nil {
				t.Error(err)
			}
			if i%4 < 2 {
				if err := s.CleanUp(t.Context(), storage, id, []string{"example.com"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	for _, host := range []string{"example.com", "www.example.com"} {
		files, err := readHost(t.Context(), storage, host)
		if err != nil || len(files) != writers/2 {
			t.Errorf("%s has %d files, %v", host, len(files), err)
		}
	}
	for i := range writers {
		id := fmt.Sprintf("order-%d", i)
		want := id
		if i%4 < 2 {
			want = ""
		}
		wantFile(t, stores[i%2], "example.com", id+".txt", want)
	}
}

func TestFileStorage(t *testing.T) {
	storage := &certmagic.FileStorage{Path: t.TempDir()}
	s, other := NewStore(), NewStore()
	must(t, s.Present(t.Context(), storage, challenge(t, "a", "a.txt", "one\r\ntwo\n", "example.com", "2001:db8::1")))
	defer other.Manage(storage, everyHost)()
	for _, host := range []string{"www.example.com", "2001:db8::1"} {
		if got := fromCluster(t, other, host, "a.txt"); got != "one\r\ntwo\n" {
			t.Errorf("%s: got %q", host, got)
		}
	}
	must(t, s.CleanUp(t.Context(), storage, "a", nil))
	if keys, err := storage.List(t.Context(), storagePrefix, true); err != nil || len(keys) != 0 {
		t.Errorf("left in storage: %v, %v", keys, err)
	}
}

func TestLookupDoesNotAllocate(t *testing.T) {
	s := NewStore()
	must(t, s.Present(t.Context(), nil, challenge(t, "a", "A.txt", "one", "example.com")))
	if n := testing.AllocsPerRun(100, func() { s.Lookup("example.com:80", PathPrefix+"A.txt") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
