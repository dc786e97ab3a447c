// Package poll paces repeated looks at something that takes its time: how long to
// wait between two of them, and how long a call may outlast its caller. It uses the
// time package directly: tests run it under testing/synctest.
package poll

import (
	"context"
	"time"
)

// Schedule yields growing waits between Min and Max. The first is about Min.
// The zero value is not useful: both bounds must be positive.
type Schedule struct {
	// Min and Max bound every wait, jitter included.
	Min, Max time.Duration

	next time.Duration
}

// growth is the factor by which each wait is longer than the one before. At 1.5,
// going from 5 s to 10 min takes 13 looks and about half an hour.
const growth = 1.5

// Next returns the next wait: up to a tenth shorter or longer than planned, so
// that many orders do not ask in step. Random returns a number in [0, 1). A schedule
// does not keep it, because there may be as many schedules as orders.
func (s *Schedule) Next(random func() float64) time.Duration {
	planned := max(s.next, s.Min)
	s.next = min(time.Duration(float64(planned)*growth), s.Max)
	jittered := planned + time.Duration((random()-0.5)*0.2*float64(planned))
	return min(max(jittered, s.Min), s.Max)
}

// Wait blocks for d or until ctx is done, and then returns the context's cause.
func Wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// WithGrace returns a context for a call that should not break off the moment its caller
// goes away. It is done after the timeout or, once ctx is done, after the grace, whichever
// comes first. Cancel must be called.
func WithGrace(ctx context.Context, timeout, grace time.Duration) (lasting context.Context, cancel context.CancelFunc) {
	lasting, end := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(grace, end)
		context.AfterFunc(lasting, func() { timer.Stop() })
	})
	return lasting, func() {
		stop()
		end()
	}
}
