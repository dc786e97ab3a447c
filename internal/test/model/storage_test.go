package model

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// scenario is a System that runs a function once in each process, at its first Load.
type scenario struct {
	p  *Process
	do func(p *Process)
}

func (s *scenario) Load(context.Context, Config) error {
	if do := s.do; do != nil {
		s.do = nil
		do(s.p)
	}
	return nil
}
func (*scenario) Issue(context.Context, string) error { return nil }
func (*scenario) Served(string) *tls.Certificate      { return nil }
func (*scenario) Crash()                              {}

// play runs a scenario without chaos, on the given choices.
func play(t *testing.T, tape *Tape, change func(*Params), do func(*Process)) Result {
	t.Helper()
	p := Quick()
	p.Chaos, p.Bound, p.Calm, p.FixedConfig, p.Crash = day, 0, 0, true, 0
	if change != nil {
		change(&p)
	}
	return History(t, tape, p, func(p *Process) System { return &scenario{p, do} }, nil)
}

func TestStorage(t *testing.T) {
	r := play(t, DataTape(nil), nil, func(p *Process) {
		if p.Server != 0 {
			return
		}
		ctx, s := p.Context(), p.Storage
		if _, err := s.Load(ctx, "x/a"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("loading what is not there: %v", err)
		}
		for _, key := range []string{"x/b", "x/a", "x/y/c", "xx/d"} {
			if err := s.Store(ctx, key, []byte(key)); err != nil {
				t.Error(err)
			}
		}
		for recursive, want := range map[bool][]string{false: {"x/a", "x/b", "x/y"}, true: {"x/a", "x/b", "x/y/c"}} {
			if got, err := s.List(ctx, "x", recursive); err != nil || !slices.Equal(got, want) {
				t.Errorf("list: %v %v, want %v", got, err, want)
			}
		}
		if b, err := s.Load(ctx, "x/y/c"); err != nil || string(b) != "x/y/c" {
			t.Errorf("load: %q %v", b, err)
		}
		if info, err := s.Stat(ctx, "x/y"); err != nil || info.IsTerminal {
			t.Errorf("stat of a folder: %+v %v", info, err)
		}
		if err := s.Delete(ctx, "x/a"); err != nil {
			t.Error(err)
		}
		if s.Exists(ctx, "x/a") || !s.Exists(ctx, "x/b") {
			t.Error("Delete took something else")
		}
	})
	if r.Operations < 10 {
		t.Errorf("%d operations: the scenario was not run", r.Operations)
	}
}

// TestLateVisibility expects that another server sees a write late, but not too late, and
// the writer at once.
func TestLateVisibility(t *testing.T) {
	const visible = 30 * time.Second
	var late atomic.Int64
	for seed := range uint64(40) {
		var stored atomic.Pointer[time.Time]
		play(t, SeedTape(seed), func(p *Params) { p.Visible = visible }, func(p *Process) {
			ctx := p.Context()
			if p.Server == 0 {
				if stored.Load() == nil && p.Storage.Store(ctx, "k", []byte("v")) == nil {
					now := time.Now()
					stored.Store(&now)
					if _, err := p.Storage.Load(ctx, "k"); errors.Is(err, fs.ErrNotExist) {
						t.Error("the writer does not see its own write")
					}
				}
				return
			}
			for range 1000 {
				begun := time.Now()
				since := stored.Load()
				known := since != nil && begun.After(*since)
				_, err := p.Storage.Load(ctx, "k")
				if err == nil {
					return
				}
				if known && errors.Is(err, fs.ErrNotExist) {
					late.Add(1)
					if d := begun.Sub(*since); d > visible {
						t.Errorf("a write is not visible after %s", d)
					}
				}
				wait(ctx, time.Second)
			}
		})
	}
	if late.Load() == 0 {
		t.Error("no write was ever late")
	}
}

// TestLocks expects that locks exclude, that a caller may stop waiting, and that the lock
// of a dead process is free after its lease.
func TestLocks(t *testing.T) {
	holders, most := 0, 0
	gaveUp := false
	var freed time.Duration
	start := time.Time{}
	play(t, DataTape(nil), nil, func(p *Process) {
		ctx := p.Context()
		for range 5 {
			if err := p.Storage.Lock(ctx, "l"); err != nil {
				t.Error(err)
			}
			holders++
			most = max(most, holders)
			wait(ctx, time.Minute)
			holders--
			if err := p.Storage.Unlock(ctx, "l"); err != nil {
				t.Error(err)
			}
		}
		if p.Server == 0 && p.Life == 1 {
			if err := p.Storage.Lock(ctx, "m"); err != nil {
				t.Error(err)
			}
			start = time.Now()
			w := p.w
			p.event("crash", func() { w.crash(p.server, time.Hour) })
			return
		}
		if p.Server == 1 {
			short, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			for p.Storage.Lock(short, "m") == nil { // server 0 may be late
				if err := p.Storage.Unlock(ctx, "m"); err != nil {
					t.Error(err)
				}
			}
			gaveUp = true
			for start.IsZero() {
				wait(ctx, time.Second)
			}
			if err := p.Storage.Lock(ctx, "m"); err != nil {
				t.Error(err)
			}
			freed = time.Since(start)
		}
	})
	if most != 1 {
		t.Errorf("%d held the lock at once", most)
	}
	if !gaveUp || freed < leaseTime || freed > 2*leaseTime {
		t.Errorf("gave up: %t; free after %s, want about %s", gaveUp, freed, leaseTime)
	}
}

// TestLockless expects that bad locks do not exclude.
func TestLockless(t *testing.T) {
	for _, kind := range []Locks{LocksNone, LocksLossy} {
		var holders, most atomic.Int64
		play(t, SeedTape(1), func(p *Params) { p.Locks = kind }, func(p *Process) {
			if p.Storage.Lock(p.Context(), "l") == nil {
				if n := holders.Add(1); n > 1 {
					most.Store(n)
				}
				wait(p.Context(), time.Hour)
				holders.Add(-1)
			}
		})
		if most.Load() < 2 {
			t.Errorf("locks of kind %d exclude", kind)
		}
	}
}

// TestDead expects that a dead process changes nothing, and that its goroutines are told.
func TestDead(t *testing.T) {
	var crashed, stored atomic.Int64
	for seed := range uint64(20) {
		play(t, SeedTape(seed), func(p *Params) { p.Crash = 10 }, func(p *Process) {
			for range 50 {
				alive := p.Context().Err() == nil
				err := p.Storage.Store(context.Background(), "k", []byte("v"))
				if err == nil && !alive {
					stored.Add(1)
				}
				if !alive {
					if !errors.Is(err, ErrCrashed) || !errors.Is(context.Cause(p.Context()), ErrCrashed) {
						t.Errorf("a dead process is told %v, and the cause is %v", err, context.Cause(p.Context()))
					}
					crashed.Add(1)
					return
				}
			}
		})
	}
	if stored.Load() > 0 || crashed.Load() == 0 {
		t.Errorf("%d dead processes stored, %d died", stored.Load(), crashed.Load())
	}
}

// TestUndead expects that a goroutine which never stops is found.
func TestUndead(t *testing.T) {
	r := play(t, DataTape(nil), nil, func(p *Process) {
		if p.Server == 0 && p.Life == 1 {
			go func() {
				for {
					_ = p.Storage.Store(context.Background(), "k", nil)
				}
			}()
			wait(p.Context(), time.Minute)
			p.event("crash", func() { p.w.crash(p.server, time.Hour) })
		}
	})
	if r.Violation == nil || r.Violation.Kind != Undead {
		t.Errorf("%v, want a violation of the kind %q", r.Violation, Undead)
	}
}
