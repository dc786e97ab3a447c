package dcv

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
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
	wantNothing(t, s)

	if err := s.Present(ctx, nil, Challenge{ID: "x", Hosts: []string{"example.com"}, Path: "/index.html", Body: []byte("x")}); err == nil {
		t.Error("presented a file of another directory")
	}
}

// TestSameFileOfSeveralOrders: DigiCert's file is always called fileauth.txt, so several orders do
// have a file of that name.
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

// wantNothing checks that the store remembers nothing about what it has presented.
func wantNothing(t *testing.T, s *Store) {
	t.Helper()
	for i := range s.live.shards {
		for host := range s.live.shards[i].hosts {
			t.Errorf("%s is left", host)
		}
	}
	for id := range s.owners {
		t.Errorf("%s is left", id)
	}
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStore()
		ch := challenge(t, "a", "a.txt", "one", "example.com")
		ch.Expires = time.Now().Add(time.Hour)
		must(t, s.Present(t.Context(), nil, ch))
		wantFile(t, s, "example.com", "a.txt", "one")
		time.Sleep(time.Hour) // of the bubble
		wantFile(t, s, "example.com", "a.txt", "")
	})
}

// TestSeveralFilesOfOneID: a vendor may ask for several files at once, and for others later.
func TestSeveralFilesOfOneID(t *testing.T) {
	ctx := t.Context()
	s := NewStore()
	must(t, s.Present(ctx, nil,
		challenge(t, "order", "A.txt", "one", "example.com", "example.org"),
		challenge(t, "order", "B.txt", "two", "example.com"),
		challenge(t, "order", "A.txt", "shadowed", "example.com"),
		challenge(t, "other", "C.txt", "three", "example.com")))
	wantFile(t, s, "example.com", "A.txt", "one")
	wantFile(t, s, "www.example.com", "B.txt", "two")
	wantFile(t, s, "example.com", "C.txt", "three")
	wantFile(t, s, "example.org", "A.txt", "one")
	wantFile(t, s, "example.org", "B.txt", "")

	must(t, s.Present(ctx, nil, challenge(t, "order", "D.txt", "four", "example.com")))
	wantFile(t, s, "example.com", "A.txt", "")
	wantFile(t, s, "example.com", "B.txt", "")
	wantFile(t, s, "example.com", "C.txt", "three")
	wantFile(t, s, "example.com", "D.txt", "four")
	wantFile(t, s, "example.org", "A.txt", "one")
	must(t, s.CleanUp(ctx, nil, "order", nil))
	must(t, s.CleanUp(ctx, nil, "other", []string{"example.com"}))
	wantNothing(t, s)

	bad := Challenge{ID: "order", Hosts: []string{"example.org"}, Path: "/index.html", Body: []byte("x")}
	if err := s.Present(ctx, nil, challenge(t, "order", "A.txt", "one", "example.com"), bad); err == nil {
		t.Error("presented a file of another directory")
	}
	wantNothing(t, s)
}

// allocatedBytes returns what one call allocates, on average.
func allocatedBytes(calls int, call func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range calls {
		call()
	}
	runtime.ReadMemStats(&after)
	return (after.TotalAlloc - before.TotalAlloc) / uint64(calls)
}

// TestPresentCostsTheSameBesideThousands: what one order does must not depend on thousands of others
// that wait.
func TestPresentCostsTheSameBesideThousands(t *testing.T) {
	s := NewStore()
	once := func(id, host string) {
		must(t, s.Present(t.Context(), nil, challenge(t, id, id+".txt", "one", host)))
	}
	for i := range 10_000 {
		once(fmt.Sprintf("order-%d", i), fmt.Sprintf("%d.example.com", i))
	}
	if each := allocatedBytes(1000, func() {
		once("mine", "shop.example.org")
		must(t, s.CleanUp(t.Context(), nil, "mine", nil))
	}); each > 16<<10 {
		t.Errorf("%d bytes were allocated each time", each)
	}
	wantFile(t, s, "9999.example.com", "order-9999.txt", "one")
}

func TestConcurrentOrders(t *testing.T) {
	storage := newMemoryStorage("shared")
	stores := []*Store{NewStore(), NewStore()}
	const orders = 40
	var group sync.WaitGroup
	for i := range orders {
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
			s.Lookup("example.com", PathPrefix+id+".txt")
			s.Visits(id)
		})
	}
	group.Wait()
	files, err := readHost(t.Context(), storage, "www.example.com", nil)
	if err != nil || len(files) != orders/2 {
		t.Errorf("storage has %d files, %v", len(files), err)
	}
	for i := range orders {
		id := fmt.Sprintf("order-%d", i)
		want := id
		if i%4 < 2 {
			want = ""
		}
		wantFile(t, stores[i%2], "example.com", id+".txt", want)
	}
}

func TestCleanUpAfterCancellation(t *testing.T) {
	storage := newMemoryStorage("shared")
	s := NewStore()
	must(t, s.Present(t.Context(), storage, challenge(t, "a", "a.txt", "one", "example.com")))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, s.CleanUp(ctx, storage, "a", []string{"example.com"}))
	if keys := storage.keys(); len(keys) != 0 {
		t.Errorf("left in storage: %v", keys)
	}
}

// TestStorageRefuses: a storage that refuses is tried for each name, the error names all of them,
// and this process serves the file nevertheless.
func TestStorageRefuses(t *testing.T) {
	broken := errors.New("no connection to storage")
	storage := newMemoryStorage("shared")
	storage.fail = broken
	s := NewStore()
	ch := challenge(t, "a", "a.txt", "one", "example.com", "example.org")
	err := s.Present(t.Context(), storage, ch)
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "example.com") || !strings.Contains(err.Error(), "example.org") {
		t.Errorf("Present: got %v", err)
	}
	wantFile(t, s, "example.com", "a.txt", "one")
	if err := s.CleanUp(t.Context(), storage, "a", ch.Hosts); !errors.Is(err, broken) {
		t.Errorf("CleanUp: got %v", err)
	}
	wantFile(t, s, "example.com", "a.txt", "")
	if n := storage.count("delete"); n != 2 {
		t.Errorf("%d deletes were tried", n)
	}
}

func TestLookupDoesNotAllocate(t *testing.T) {
	s := NewStore()
	must(t, s.Present(t.Context(), nil, challenge(t, "a", "A.txt", "one", "example.com")))
	if n := testing.AllocsPerRun(100, func() { s.Lookup("example.com:80", PathPrefix+"A.txt") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestPresentAmongManyOthers: what one order does costs the same beside ten thousand others.
func TestPresentAmongManyOthers(t *testing.T) {
	var allocs [2]float64
	for i, others := range []int{1, 10_000} {
		s := NewStore()
		for n := range others {
			must(t, s.Present(t.Context(), nil, challenge(t, fmt.Sprint("order", n), "F.txt", "body", fmt.Sprintf("shop%d.example.net", n))))
		}
		ch := challenge(t, "order", "A.txt", "body", "example.com")
		allocs[i] = testing.AllocsPerRun(100, func() {
			must(t, s.Present(t.Context(), nil, ch))
			must(t, s.CleanUp(t.Context(), nil, ch.ID, ch.Hosts))
		})
		if n := testing.AllocsPerRun(100, func() { s.Lookup("shop0.example.net:80", PathPrefix+"F.txt") }); n != 0 {
			t.Errorf("looking a file up among %d allocates %v times", others, n)
		}
	}
	if allocs[1] > allocs[0]+1 {
		t.Errorf("presenting a file allocates %v times among 10,000 others, and %v times among one", allocs[1], allocs[0])
	}
}

// BenchmarkPresent measures what an order costs beside one other, and beside ten thousand.
func BenchmarkPresent(b *testing.B) {
	for _, others := range []int{1, 10_000} {
		b.Run(fmt.Sprint(others), func(b *testing.B) {
			s := NewStore()
			for n := range others {
				must(b, s.Present(b.Context(), nil, challenge(b, fmt.Sprint("order", n), "F.txt", "body", fmt.Sprintf("shop%d.example.net", n))))
			}
			ch := challenge(b, "order", "A.txt", "body", "example.com")
			b.ReportAllocs()
			for b.Loop() {
				must(b, s.Present(b.Context(), nil, ch))
				must(b, s.CleanUp(b.Context(), nil, ch.ID, ch.Hosts))
			}
		})
	}
}
