package ledger

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"
)

// replica is a handle whose changes another handle shows later, and whose locks may or may not
// exclude that one.
type replica struct {
	*memStorage
	other       *memStorage
	writes, del time.Duration // how late they are shown; negative: never
	locks       *sync.Mutex   // nil: they do nothing
}

func (r *replica) Store(ctx context.Context, key string, value []byte) error {
	r.after(r.writes, func() { _ = r.other.Store(ctx, key, value) })
	return r.memStorage.Store(ctx, key, value)
}

func (r *replica) Delete(ctx context.Context, key string) error {
	r.after(r.del, func() { _ = r.other.Delete(ctx, key) })
	return r.memStorage.Delete(ctx, key)
}

func (r *replica) after(late time.Duration, do func()) {
	switch {
	case late == 0:
		do()
	case late > 0:
		time.AfterFunc(late, do)
	}
}

func (r *replica) Lock(ctx context.Context, _ string) error {
	for r.locks != nil && !r.locks.TryLock() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

func (r *replica) Unlock(context.Context, string) error {
	if r.locks != nil {
		r.locks.Unlock()
	}
	return nil
}

func TestLateness(t *testing.T) {
	const never = -1
	for name, c := range map[string]struct {
		writes, del time.Duration
		least, most time.Duration // of what is found
		fails       bool
	}{
		"at once":              {},
		"writes late":          {writes: 480 * time.Millisecond, least: 200 * time.Millisecond, most: 480 * time.Millisecond},
		"deletions late":       {del: 5 * time.Second, least: 2 * time.Second, most: 5 * time.Second},
		"late by many seconds": {writes: 70 * time.Second, least: 40 * time.Second, most: 70 * time.Second},
		"writes never shown":   {writes: never, least: trialPatience, most: 2 * trialPatience, fails: true},
		"deletions not shown":  {del: never, least: trialPatience, most: 2 * trialPatience, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				one, two := newMemStorage(), newMemStorage()
				begin := time.Now()
				seen := time.Duration(0)
				got, err := Lateness(t.Context(), &replica{one, two, c.writes, c.del, nil}, &replica{two, one, 0, 0, nil}, func(late time.Duration) {
					if early := time.Since(begin); late > early {
						t.Errorf("%s was seen after %s", late, early)
					}
					seen = late
				})
				if (err != nil) != c.fails || got < c.least || got > c.most || got != seen {
					t.Errorf("%s, %s was reported, error %v", got, seen, err)
				}
				if len(one.data) > 0 {
					t.Errorf("left behind: %v", one.data)
				}
			})
		})
	}
}

func TestExcludes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, locks := range []*sync.Mutex{nil, new(sync.Mutex)} {
			one, two := newMemStorage(), newMemStorage()
			got, err := Excludes(t.Context(), &replica{one, two, 0, 0, locks}, &replica{two, one, 0, 0, locks})
			if err != nil || got != (locks != nil) {
				t.Errorf("%v, %v", got, err)
			}
			if locks != nil && !locks.TryLock() {
				t.Error("the lock is still held")
			}
		}
	})
}

// TestLatenessOfStorageThatFails: a storage that fails does not show how late it is.
func TestLatenessOfStorageThatFails(t *testing.T) {
	broken := errors.New("broken")
	for _, call := range []string{"store", "list", "load", "delete"} {
		synctest.Test(t, func(t *testing.T) {
			s := newMemStorage()
			s.hook = func(what, _ string) error {
				if what == call {
					return broken
				}
				return nil
			}
			got, err := Lateness(t.Context(), s, s, nil)
			if !errors.Is(err, broken) || got != 0 {
				t.Errorf("%s: %s, %v", call, got, err)
			}
		})
	}
}

var _ certmagic.Storage = (*replica)(nil)
