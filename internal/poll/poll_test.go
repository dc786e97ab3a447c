package poll

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

func TestSchedule(t *testing.T) {
	middle := func() float64 { return 0.5 } // no jitter
	s := Schedule{Min: 4 * time.Second, Max: 10 * time.Second}
	for i, want := range []time.Duration{4 * time.Second, 6 * time.Second, 9 * time.Second, 10 * time.Second, 10 * time.Second} {
		if got := s.Next(middle); got != want {
			t.Errorf("wait %d: %s, want %s", i, got, want)
		}
	}
	s = Schedule{Min: 4 * time.Second, Max: 10 * time.Second}
	seen := make(map[time.Duration]bool)
	for range 100 {
		d := s.Next(rand.Float64)
		if d < s.Min || d > s.Max {
			t.Errorf("a wait of %s", d)
		}
		seen[d] = true
	}
	if len(seen) < 10 {
		t.Errorf("only %d different waits of 100", len(seen))
	}
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		if err := Wait(t.Context(), time.Minute); err != nil || time.Since(begin) != time.Minute {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(gone) })
		begin = time.Now()
		if err := Wait(ctx, time.Minute); !errors.Is(err, gone) || time.Since(begin) != time.Second {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
	})
}

func TestWithGrace(t *testing.T) {
	for title, c := range map[string]struct {
		gone, want time.Duration
		err        error
	}{
		"nobody goes":              {gone: time.Hour, want: time.Minute, err: context.DeadlineExceeded},
		"gone already":             {gone: 0, want: 10 * time.Second, err: context.Canceled},
		"gone meanwhile":           {gone: 20 * time.Second, want: 30 * time.Second, err: context.Canceled},
		"gone just before the end": {gone: 55 * time.Second, want: time.Minute, err: context.DeadlineExceeded},
	} {
		t.Run(title, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				type key struct{}
				parent, leave := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
				if c.gone == 0 {
					leave()
				}
				defer time.AfterFunc(c.gone, leave).Stop()
				begin := time.Now()
				ctx, cancel := WithGrace(parent, time.Minute, 10*time.Second)
				defer cancel()
				if ctx.Value(key{}) != "value" {
					t.Error("the values are lost")
				}
				<-ctx.Done()
				if took := time.Since(begin); took != c.want || !errors.Is(ctx.Err(), c.err) {
					t.Errorf("%v after %s, want %v after %s", ctx.Err(), took, c.err, c.want)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := WithGrace(t.Context(), time.Minute, time.Second)
		cancel()
		if !errors.Is(ctx.Err(), context.Canceled) {
			t.Error("cancel does nothing")
		}
	})
}
