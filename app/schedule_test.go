package app

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// workerFunc is a Worker that is a function.
type workerFunc func(ctx context.Context, name string) (time.Duration, bool)

func (f workerFunc) Round(ctx context.Context, name string) (time.Duration, bool) {
	return f(ctx, name)
}

// diary is a worker that records what it did and when, and does what the test says.
type diary struct {
	start time.Time

	mu     sync.Mutex
	rounds []string
	do     func(ctx context.Context, name string, nth int) (time.Duration, bool)
}

func newDiary(do func(ctx context.Context, name string, nth int) (time.Duration, bool)) *diary {
	return &diary{start: time.Now(), do: do}
}

func (d *diary) Round(ctx context.Context, name string) (time.Duration, bool) {
	d.mu.Lock()
	nth := 1
	for _, round := range d.rounds {
		var before string
		if _, err := fmt.Sscanf(round, "%s at", &before); err == nil && before == name {
			nth++
		}
	}
	d.rounds = append(d.rounds, fmt.Sprintf("%s at %s", name, time.Since(d.start)))
	d.mu.Unlock()
	return d.do(ctx, name, nth)
}

func (d *diary) read() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.rounds)
}

func once(context.Context, string, int) (time.Duration, bool) { return 0, false }

func wantRounds(t *testing.T, d *diary, want ...string) {
	t.Helper()
	if got := d.read(); !slices.Equal(got, want) {
		t.Errorf("rounds:\n got %q\nwant %q", got, want)
	}
}

func TestRoundsComeWhenDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewScheduler().Line("l", nil)
		d := newDiary(func(_ context.Context, _ string, nth int) (time.Duration, bool) {
			return time.Duration(nth) * time.Minute, nth < 3
		})
		defer l.Attach(t.Context(), d)()
		l.WakeAt("b", time.Now().Add(time.Hour))
		l.Wake("a")
		time.Sleep(2 * time.Hour)
		wantRounds(t, d, "a at 0s", "a at 1m0s", "a at 3m0s", "b at 1h0m0s", "b at 1h1m0s", "b at 1h3m0s")
		if names := l.Names(); len(names) != 0 {
			t.Errorf("left over: %q", names)
		}
	})
}

func TestNotLaterThanAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewScheduler().Line("l", nil)
		d := newDiary(once)
		defer l.Attach(t.Context(), d)()
		start := time.Now()
		l.WakeAt("brought forward", start.Add(time.Hour))
		l.WakeAt("brought forward", start.Add(time.Minute))
		l.WakeAt("brought forward", start.Add(time.Hour)) // does not push it back
		l.WakeAt("first", start.Add(30*time.Second))
		l.WakeAt("first", start.Add(20*time.Second)) // moves the first of the heap
		if due, ok := l.Due("brought forward"); !ok || !due.Equal(start.Add(time.Minute)) {
			t.Errorf("due %s %v", due, ok)
		}
		if _, ok := l.Due("nobody"); ok {
			t.Error("a name without a task is due")
		}
		if got := l.Names(); !slices.Equal(got, []string{"brought forward", "first"}) {
			t.Errorf("names %q", got)
		}
		time.Sleep(2 * time.Hour)
		if got := d.read(); len(got) != 2 || got[0] != "first at 20s" || got[1] != "brought forward at 1m0s" {
			t.Errorf("rounds %q", got)
		}
	})
}

// TestSlack: tasks that are due within the slack of another one share its wake-up.
func TestSlack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewScheduler().Line("l", nil)
		d := newDiary(once)
		defer l.Attach(t.Context(), d)()
		for i, after := range []time.Duration{time.Second, time.Second + 200*time.Millisecond, time.Second + 300*time.Millisecond} {
			l.WakeAt(fmt.Sprint(i), time.Now().Add(after))
		}
		time.Sleep(time.Minute)
		got := d.read()
		slices.Sort(got)
		if !slices.Equal(got, []string{"0 at 1s", "1 at 1s", "2 at 1.3s"}) {
			t.Errorf("rounds %q", got)
		}
	})
}

func TestWakeDuringARound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewScheduler().Line("l", nil)
		d := newDiary(func(_ context.Context, name string, nth int) (time.Duration, bool) {
			if nth == 1 {
				time.Sleep(time.Second)
			}
			return time.Hour, name == "more" && nth == 1
		})
		defer l.Attach(t.Context(), d)()
		for _, name := range []string{"more", "done"} {
			l.Wake(name)
		}
		synctest.Wait()
		for _, name := range []string{"more", "done"} {
			l.WakeAt(name, time.Now().Add(time.Minute))
			l.Wake(name)
			l.Wake(name)
		}
		time.Sleep(2 * time.Hour)
		got := d.read()
		slices.Sort(got)
		if !slices.Equal(got, []string{"done at 0s", "done at 1s", "more at 0s", "more at 1s"}) {
			t.Errorf("rounds %q", got)
		}
	})
}

func TestRoundThatAsksForAnotherAtOnceDoesNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewScheduler().Line("l", nil)
		var rounds atomic.Int32
		defer l.Attach(t.Context(), workerFunc(func(context.Context, string) (time.Duration, bool) {
			rounds.Add(1)
			return -time.Hour, true
		}))()
		l.Wake("a")
		time.Sleep(time.Second)
		if got := rounds.Load(); got > 102 {
			t.Errorf("%d rounds in a second", got)
		}
	})
}

// TestNamesOutliveConfigs: names wait while nothing is attached, and are worked on when something is.
func TestNamesOutliveConfigs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewScheduler()
		l := s.Line("l", func() any { return new(int) })
		first := newDiary(func(context.Context, string, int) (time.Duration, bool) { return time.Minute, true })
		detach := l.Attach(t.Context(), first)
		l.Wake("a")
		time.Sleep(90 * time.Second)
		detach()
		detach()
		l.Release()
		l.WakeAt("b", time.Now().Add(time.Second))
		time.Sleep(time.Hour)
		wantRounds(t, first, "a at 0s", "a at 1m0s")

		again := s.Line("l", func() any { t.Error("memory was made twice"); return nil })
		if again != l {
			t.Fatal("there is another line, although the first has names")
		}
		second := newDiary(once)
		detach = again.Attach(t.Context(), second)
		synctest.Wait()
		if got := second.read(); len(got) != 2 {
			t.Errorf("rounds %q", got)
		}
		again.Release()
		detach()
		if made := s.Line("l", func() any { return "new" }); made == l || made.Memory() != "new" {
			t.Error("a line that nobody needs any more still exists")
		}
		if len(s.waiting) != 0 || s.alarm != nil {
			t.Error("the timer still runs")
		}
	})
}

// TestReloadHandsOver: in a reload, the new config attaches before the old one detaches.
func TestReloadHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewScheduler().Line("l", nil)
		ended := make(chan struct{})
		old := newDiary(func(ctx context.Context, _ string, _ int) (time.Duration, bool) {
			<-ctx.Done()
			time.Sleep(3 * time.Second) // what it is doing takes a moment to end
			close(ended)
			return 6 * time.Hour, true // as after any error
		})
		detachOld := l.Attach(t.Context(), old)
		l.Wake("a")
		time.Sleep(time.Minute)

		next := newDiary(once)
		defer l.Attach(t.Context(), next)()
		l.Wake("b")
		time.Sleep(time.Minute)
		wantRounds(t, next, "b at 0s") // never two rounds of one name, so not yet a
		detachOld()
		select {
		case <-ended:
		default:
			t.Error("detach did not wait for the round")
		}
		synctest.Wait()
		wantRounds(t, next, "b at 0s", "a at 1m3s")
		wantRounds(t, old, "a at 0s")
	})
}

// TestFailedReloadGoesBack: after a reload that failed, the running config continues, also with what
// the failed one did not want.
func TestFailedReloadGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewScheduler().Line("l", nil)
		running := newDiary(func(_ context.Context, _ string, nth int) (time.Duration, bool) { return time.Hour, nth < 2 })
		defer l.Attach(t.Context(), running)()
		l.Wake("a")
		time.Sleep(time.Minute)
		failed := newDiary(once)
		detach := l.Attach(t.Context(), failed)
		l.Wake("a")
		time.Sleep(time.Second)
		detach()
		synctest.Wait()
		wantRounds(t, failed, "a at 0s")
		wantRounds(t, running, "a at 0s", "a at 1m1s")
	})
}

// TestContextEndsAttachment: a config whose context ends does no further rounds, even if it forgets
// to detach.
func TestContextEndsAttachment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewScheduler().Line("l", nil)
		ctx, cancel := context.WithCancel(t.Context())
		d := newDiary(func(context.Context, string, int) (time.Duration, bool) { return time.Second, true })
		l.Attach(ctx, d)
		if err := l.Attached(t.Context()); err != nil {
			t.Error(err)
		}
		l.Wake("a")
		synctest.Wait()
		cancel()
		time.Sleep(time.Hour)
		wantRounds(t, d, "a at 0s")

		waiting, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		if err := l.Attached(waiting); err == nil {
			t.Error("nobody is attached")
		}
		go func() {
			time.Sleep(time.Minute)
			t.Cleanup(l.Attach(context.Background(), newDiary(once)))
		}()
		if err := l.Attached(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
	})
}

func TestPanicStopsOnlyItsName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewScheduler()
		core, logs := observer.New(zapcore.ErrorLevel)
		s.logger = func() *zap.Logger { return zap.New(core) }
		l := s.Line("l", nil)
		d := newDiary(func(_ context.Context, name string, nth int) (time.Duration, bool) {
			switch {
			case name == "bad" && nth == 1:
				panic("a bad name")
			case name == "gone" && nth == 1:
				runtime.Goexit()
			}
			return 0, false
		})
		detach := l.Attach(t.Context(), d)
		for _, name := range []string{"bad", "good", "gone"} {
			l.Wake(name)
		}
		time.Sleep(time.Hour)
		detach()
		got := d.read()
		slices.Sort(got)
		if !slices.Equal(got, []string{"bad at 0s", "bad at 1m0s", "gone at 0s", "gone at 1m0s", "good at 0s"}) {
			t.Errorf("rounds %q", got)
		}
		if all := logs.All(); len(all) != 1 || all[0].ContextMap()["identifier"] != "bad" {
			t.Errorf("log: %v", all)
		}
	})
}

// TestFairness: the number of workers is limited, and a line whose rounds all hang leaves some of
// them to the others.
func TestFairness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewScheduler()
		var now, most atomic.Int32
		hang := func(ctx context.Context, _ string) (time.Duration, bool) {
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer now.Add(-1)
			time.Sleep(time.Minute)
			return time.Hour, true
		}
		for _, key := range []string{"hangs", "hangs too"} {
			l := s.Line(key, nil)
			defer l.Attach(t.Context(), workerFunc(hang))()
			for i := range 10_000 {
				l.Wake(fmt.Sprint(i))
			}
		}
		synctest.Wait()
		d := newDiary(once)
		other := s.Line("other", nil)
		defer other.Attach(t.Context(), d)()
		other.Wake("a")
		synctest.Wait()
		wantRounds(t, d, "a at 0s")
		time.Sleep(10 * time.Minute)
		if got := most.Load(); got > maxWorkers || got < maxWorkers/2 {
			t.Errorf("%d rounds at once", got)
		}
	})
}

// TestLinesTakeTurns: with one worker left, lines take turns however many names are due.
func TestLinesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewScheduler()
		var mu sync.Mutex
		var order []string
		release := make(chan struct{})
		worker := func(key string) Worker {
			return workerFunc(func(context.Context, string) (time.Duration, bool) {
				mu.Lock()
				order = append(order, key)
				mu.Unlock()
				<-release
				return 0, false
			})
		}
		big, small := s.Line("big", nil), s.Line("small", nil)
		defer big.Attach(t.Context(), worker("big"))()
		defer small.Attach(t.Context(), worker("small"))()
		for i := range 10_000 {
			big.Wake(fmt.Sprint(i))
		}
		for i := range 5 {
			small.Wake(fmt.Sprint(i))
		}
		synctest.Wait()
		close(release)
		synctest.Wait()
		last := -1
		for i, key := range order {
			if key == "small" {
				last = i
			}
		}
		if len(order) != 10_005 || last > 2*maxWorkers {
			t.Errorf("%d rounds; the last of the small line was number %d", len(order), last)
		}
	})
}

// TestSchedulerUnderRace: everything happens at once, for the race detector, and nothing is left behind.
func TestSchedulerUnderRace(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	s := NewScheduler()
	var inRound sync.Map
	var rounds atomic.Int64
	worker := workerFunc(func(ctx context.Context, name string) (time.Duration, bool) {
		if _, twice := inRound.LoadOrStore(name, true); twice {
			t.Errorf("two rounds of %s at a time", name)
		}
		defer inRound.Delete(name)
		rounds.Add(1)
		runtime.Gosched()
		return time.Duration(rand.IntN(20)) * time.Millisecond, rand.IntN(3) > 0
	})
	var all sync.WaitGroup
	for i := range 4 {
		key := fmt.Sprint(i)
		all.Go(func() { // configs come and go
			l := s.Line(key, nil)
			defer l.Release()
			leave := l.Attach(t.Context(), worker)
			for range 30 {
				next := l.Attach(t.Context(), worker)
				for rounds.Load()%7 != 0 {
					l.Wake(key + "/" + fmt.Sprint(rand.IntN(50)))
					runtime.Gosched()
				}
				leave()
				leave = next
			}
			leave()
		})
		all.Go(func() {
			l := s.Line(key, nil)
			defer l.Release()
			for range 2000 {
				name := key + "/" + fmt.Sprint(rand.IntN(50))
				l.WakeAt(name, time.Now().Add(time.Duration(rand.IntN(30))*time.Millisecond))
				l.Due(name)
			}
			l.Names()
		})
	}
	all.Wait()
	// The rest is finished by configs that want nothing.
	for i := range 4 {
		l := s.Line(fmt.Sprint(i), nil)
		detach := l.Attach(t.Context(), workerFunc(func(context.Context, string) (time.Duration, bool) { return 0, false }))
		for _, name := range l.Names() {
			l.Wake(name)
		}
		for deadline := time.Now().Add(time.Minute); len(l.Names()) > 0; runtime.Gosched() {
			if time.Now().After(deadline) {
				t.Fatalf("left over: %q", l.Names())
			}
		}
		detach()
		l.Release()
	}
	if len(s.lines) != 0 || len(s.ready) != 0 || s.running != 0 {
		t.Errorf("lines %v, ready %d, running %d", s.lines, len(s.ready), s.running)
	}
}

// TestTenThousandNames: a waiting name costs no goroutine, and little memory.
func TestTenThousandNames(t *testing.T) {
	const n = 10_000
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("host-%05d.example.com", i)
	}
	s := NewScheduler()
	l := s.Line("l", nil)
	defer l.Attach(t.Context(), newDiary(once))()
	goroutines := runtime.NumGoroutine()
	before := heapInUse()
	far := time.Now().Add(time.Hour)
	for i, name := range names {
		l.WakeAt(name, far.Add(time.Duration(i)*time.Millisecond))
	}
	each := int64(heapInUse()-before) / n
	t.Logf("%d bytes for each name", each)
	if each > 200 {
		t.Errorf("%d bytes for each name, more than 200", each)
	}
	if more := runtime.NumGoroutine() - goroutines; more > 0 {
		t.Errorf("%d more goroutines", more)
	}
	s.mu.Lock()
	s.alarm.Stop()
	s.mu.Unlock()
	runtime.KeepAlive(names)
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
