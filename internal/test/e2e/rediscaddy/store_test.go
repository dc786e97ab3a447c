package main

import (
	"errors"
	"io/fs"
	"net"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/internal/test/redistest"
)

// startRedis runs Redis on a port that was free a moment ago.
func startRedis(t *testing.T) *redistest.Server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	return redistest.Start(t, ln.Addr().String(), t.TempDir())
}

func open(t *testing.T, addr string, late time.Duration) *store {
	s := newStore(addr, late, zap.NewNop())
	t.Cleanup(func() { s.close() })
	return s
}

func TestValues(t *testing.T) {
	ctx := t.Context()
	s := open(t, startRedis(t).Addr, 0)
	want := func(title string, err error) {
		t.Helper()
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", title, err)
		}
	}
	_, err := s.Load(ctx, "a/b")
	want("loading nothing", err)
	_, err = s.Stat(ctx, "a")
	want("looking at nothing", err)
	_, err = s.List(ctx, "", true)
	want("listing nothing", err)
	if err := s.Delete(ctx, "a/b"); err != nil {
		t.Error(err)
	}

	binary := "line\nwith \x00 and \xff and 1 2 3 "
	for _, key := range []string{"a/b/one", "a/b/two", "a/c", "ab/d", "a/b/one"} {
		if err := s.Store(ctx, key, []byte(binary+key)); err != nil {
			t.Fatal(err)
		}
	}
	if value, err := s.Load(ctx, "a/b/one"); err != nil || string(value) != binary+"a/b/one" {
		t.Errorf("%q %v", value, err)
	}
	if err := s.Store(ctx, "empty", nil); err != nil {
		t.Fatal(err)
	}
	if value, err := s.Load(ctx, "empty"); err != nil || len(value) != 0 {
		t.Errorf("%q %v", value, err)
	}
	_, err = s.Load(ctx, "a/b")
	want("loading a folder", err)
	for _, tt := range []struct {
		prefix    string
		recursive bool
		keys      []string
	}{
		{"a", true, []string{"a/b/one", "a/b/two", "a/c"}},
		{"a", false, []string{"a/b", "a/c"}},
		{"a/b", false, []string{"a/b/one", "a/b/two"}},
		{"", false, []string{"a", "ab", "empty"}},
		{"", true, []string{"a/b/one", "a/b/two", "a/c", "ab/d", "empty"}},
	} {
		if keys, err := s.List(ctx, tt.prefix, tt.recursive); err != nil || !slices.Equal(keys, tt.keys) {
			t.Errorf("listing %q, recursive %v: %q %v", tt.prefix, tt.recursive, keys, err)
		}
	}
	info, err := s.Stat(ctx, "a/c")
	if err != nil || !info.IsTerminal || info.Key != "a/c" || info.Size != int64(len(binary)+3) || time.Since(info.Modified).Abs() > time.Hour {
		t.Errorf("%+v %v", info, err)
	}
	if info, err := s.Stat(ctx, "a/b"); err != nil || info.IsTerminal {
		t.Errorf("%+v %v", info, err)
	}
	if !s.Exists(ctx, "a/b") || !s.Exists(ctx, "a/b/one") || s.Exists(ctx, "a/b/o") {
		t.Error("Exists is wrong")
	}
	if err := s.Delete(ctx, "a/b"); err != nil {
		t.Fatal(err)
	}
	if keys, err := s.List(ctx, "", true); err != nil || !slices.Equal(keys, []string{"a/c", "ab/d", "empty"}) {
		t.Errorf("%q %v", keys, err)
	}
}

// TestLate: what is written and deleted is seen late through another connection.
func TestLate(t *testing.T) {
	ctx := t.Context()
	addr := startRedis(t).Addr
	// Never, as far as this test is concerned; and at once.
	a, b, soon := open(t, addr, time.Hour), open(t, addr, time.Hour), open(t, addr, 0)
	want := func(s *store, want string) {
		t.Helper()
		value, err := s.Load(ctx, "k")
		_, listErr := s.List(ctx, "", true)
		if want == "" {
			if !errors.Is(err, fs.ErrNotExist) || !errors.Is(listErr, fs.ErrNotExist) {
				t.Errorf("%q %v, listing: %v", value, err, listErr)
			}
			return
		}
		if string(value) != want || err != nil || listErr != nil {
			t.Errorf("%q %v, listing: %v; want %q", value, err, listErr, want)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(a.Store(ctx, "k", []byte("old")))
	want(a, "old")
	want(b, "")
	want(soon, "old")
	must(b.Store(ctx, "k", []byte("new")))
	want(a, "old")
	want(b, "new")
	want(soon, "new")
	must(b.Delete(ctx, "k"))
	want(a, "old")
	want(b, "")
	want(soon, "")
	for range 2 {
		must(a.Lock(ctx, "name")) // does nothing
	}
}

func TestLocks(t *testing.T) {
	ctx := t.Context()
	redis := startRedis(t)
	a, b := open(t, redis.Addr, 0), open(t, redis.Addr, 0)
	if err := a.Lock(ctx, "name"); err != nil {
		t.Fatal(err)
	}
	if locked, err := b.TryLock(ctx, "name"); locked || err != nil {
		t.Fatalf("locked twice: %v %v", locked, err)
	}
	if err := b.Unlock(ctx, "name"); err == nil {
		t.Error("b unlocked what a holds")
	}

	// The lease is renewed for as long as a is alive.
	leases := func() string {
		t.Helper()
		held, err := redis.Eval("return tostring(redis.call('PTTL', 'l/name'))")
		if err != nil {
			t.Fatal(err)
		}
		return held
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for before, renewed := leases(), false; !renewed; <-tick.C {
		now := leases()
		renewed, before = len(now) > len(before) || len(now) == len(before) && now > before, now
		if before == "-2" {
			t.Fatal("the lock was lost")
		}
	}

	// a stalls: its lease ends, as far as Redis is concerned.
	if _, err := redis.Eval("redis.call('DEL', 'l/name') return ''"); err != nil {
		t.Fatal(err)
	}
	if err := b.Lock(ctx, "name"); err != nil {
		t.Fatal(err)
	}
	if err := a.Unlock(ctx, "name"); err == nil {
		t.Error("a released what it had lost")
	}
	if locked, err := a.TryLock(ctx, "name"); locked || err != nil {
		t.Errorf("b's lock is gone: %v %v", locked, err)
	}

	// One waits for the other.
	waiting := make(chan error)
	go func() { waiting <- a.Lock(ctx, "name") }()
	if err := b.Unlock(ctx, "name"); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; err != nil {
		t.Fatal(err)
	}
	if err := a.Unlock(ctx, "name"); err != nil {
		t.Error(err)
	}
}
