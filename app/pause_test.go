package app

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestPause: rounds that pause leave their workers to others, and detaching still waits for all of them.
func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewScheduler()
		line := s.Line("a", nil)
		defer line.Release()
		var paused, working, most, ended atomic.Int64
		detach := line.Attach(t.Context(), workerFunc(func(ctx context.Context, name string) (time.Duration, bool) {
			defer ended.Add(1)
			work := Pause(ctx)
			paused.Add(1)
			select {
			case <-ctx.Done():
			case <-time.After(time.Minute):
			}
			work()
			work() // a second call does nothing
			n := working.Add(1)
			most.Store(max(most.Load(), n))
			if name == "name7" {
				panic("after a pause")
			}
			working.Add(-1)
			return 0, name == "name8" && ctx.Err() != nil
		}))
		for i := range 3 * maxWorkers {
			line.Wake(fmt.Sprintf("name%d", i))
		}
		synctest.Wait()
		if n := paused.Load(); n != 3*maxWorkers {
			t.Errorf("%d rounds at a time, want all", n)
		}
		if s.running != 0 || line.running != 0 {
			t.Errorf("%d and %d workers are taken", s.running, line.running)
		}
		detach()
		if n := ended.Load(); n != 3*maxWorkers {
			t.Errorf("%d rounds have ended, want all", n)
		}
		synctest.Wait()
		if s.running != 0 || line.running != 0 {
			t.Errorf("%d and %d workers are taken in the end", s.running, line.running)
		}
	})
	// Outside a round, it does nothing.
	Pause(t.Context())()
}
