package model

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing/synctest"
	"time"
)

// ErrCrashed is the cause of a dead process's context, and what it gets from every
// operation that it still attempts.
var ErrCrashed = errors.New("this process has crashed")

// World is one history under way. All that happens in it happens one event at a time, in
// an order that the tape decides: between two events every goroutine of the systems has
// come to rest.
type World struct {
	p      Params
	tape   *Tape
	make   Factory
	start  time.Time // true time
	traits traits

	events eventHeap
	order  int  // of events at the same time
	freed  bool // whether the last event let a goroutine run
	quiet  bool // no faults any more

	servers []*server
	sellers []*seller
	market  Market    // nil: the sellers are the model's own
	foreign [2]string // orders that were bought elsewhere: for a, and for b and c
	stored  map[string][]version
	locks   map[string]*lease

	mu     sync.Mutex // guards what goroutines of systems touch
	inbox  []*op
	wake   chan struct{}
	ended  bool
	result Result
	wg     sync.WaitGroup
	trace  func(string)
	open   map[*op]struct{} // the world's own operations under way
}

// now is the true time since the history began.
func (w *World) now() time.Duration { return time.Since(w.start) }

// event is something that happens at a moment.
type event struct {
	at    time.Duration
	order int
	do    func()
}

type eventHeap []event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].order < h[j].order
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(event)) }
func (h *eventHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// after lets something happen later. It belongs to the loop.
func (w *World) after(d time.Duration, do func()) {
	w.order++
	heap.Push(&w.events, event{w.now() + d, w.order, do})
}

// oneIn is a fault that comes once in n, and never in the calm.
func (w *World) oneIn(n int) bool { return !w.quiet && w.tape.OneIn(n) }

// one returns the value that the tape picks; in the calm, the first.
func one[T any](w *World, values ...T) T {
	if w.quiet {
		return values[0]
	}
	return values[w.tape.Pick(len(values))]
}

// op is an operation of a process under way.
type op struct {
	process   *Process // nil for the world's own
	kind, key string
	arrival   int
	token     int       // of the lock that it was given
	begin     func(*op) // in the loop: plans the effect and the answer
	err       error
	over      bool
	done      chan struct{}
}

// finish ends the operation and lets its caller go on.
func (w *World) finish(o *op, err error) {
	if o.over {
		return
	}
	o.over, o.err = true, err
	if o.process != nil {
		delete(o.process.open, o)
	} else {
		delete(w.open, o)
	}
	w.freed = true
	close(o.done)
}

// do submits an operation and waits for its end, or that of ctx. What is under way when
// ctx ends may take effect all the same.
func (w *World) do(ctx context.Context, p *Process, kind, key string, begin func(*op)) error {
	o := &op{process: p, kind: kind, key: key, begin: begin, done: make(chan struct{})}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	w.mu.Lock()
	if w.ended || p != nil && p.dead {
		if p != nil {
			p.zombie(kind)
		}
		w.mu.Unlock()
		return ErrCrashed
	}
	o.arrival = len(w.inbox)
	w.inbox = append(w.inbox, o)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
	select {
	case <-o.done:
		return o.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// sleep waits in an order that the loop decides. It is for the world's own goroutines.
func (w *World) sleep(d time.Duration) {
	_ = w.do(context.Background(), nil, "sleep", "", func(o *op) { w.after(d, func() { w.finish(o, nil) }) })
}

// compareOps orders operations that were submitted at the same moment, so that it does not
// matter which goroutine ran first.
func compareOps(a, b *op) int {
	server := func(o *op) int {
		if o.process == nil {
			return -1
		}
		return o.process.Server
	}
	return cmp.Or(cmp.Compare(server(a), server(b)), cmp.Compare(a.kind, b.kind), cmp.Compare(a.key, b.key), cmp.Compare(a.arrival, b.arrival))
}

// loop lets one event happen after the other until the world has ended.
func (w *World) loop() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	w.freed = true
	for {
		if w.freed {
			synctest.Wait() // every goroutine has come to rest
			w.freed = false
		}
		w.mu.Lock()
		arrived := w.inbox
		w.inbox = nil
		over := w.ended
		w.mu.Unlock()
		if over {
			for _, o := range arrived {
				w.finish(o, ErrCrashed)
			}
			return
		}
		slices.SortStableFunc(arrived, compareOps)
		for _, o := range arrived {
			w.submit(o)
		}
		if w.freed {
			continue
		}
		if len(w.events) > 0 && w.events[0].at <= w.now() {
			e := heap.Pop(&w.events).(event)
			w.result.Events++
			e.do()
			continue
		}
		wait := time.Hour
		if len(w.events) > 0 {
			wait = w.events[0].at - w.now()
		}
		timer.Reset(wait)
		select {
		case <-w.wake:
			w.freed = true
		case <-timer.C:
			w.freed = true // timers of systems may have fired at the same moment
		}
	}
}

// submit begins an operation, or kills its process before or after its effect.
func (w *World) submit(o *op) {
	p := o.process
	if p == nil {
		w.open[o] = struct{}{}
		o.begin(o)
		return
	}
	w.result.Operations++
	if p.dead {
		w.finish(o, ErrCrashed)
		return
	}
	p.open[o] = struct{}{}
	if o.kind != "work" && w.oneIn(w.p.Crash) {
		if w.tape.Pick(2) == 1 {
			w.say("server %d dies before %s %s", p.Server, o.kind, o.key)
			w.crash(p.server, 0)
			return
		}
		w.say("server %d will die after %s %s", p.Server, o.kind, o.key)
		p.dieAfter = o
	}
	o.begin(o)
}

// effect lets the operation take effect after a time, if its process is still alive. do
// returns how long the answer takes, and its error.
func (w *World) effect(o *op, before time.Duration, do func() (time.Duration, error)) {
	p := o.process
	if p.dieAfter == o {
		before = 100 * time.Millisecond
	}
	w.after(before, func() {
		if p.dead || o.over {
			return
		}
		wait, err := do()
		if p.dieAfter == o {
			w.crash(p.server, 0)
			return
		}
		w.after(wait+w.apart(), func() { w.finish(o, err) })
	})
}

// apart is a little time that differs from one answer to the next, so that goroutines
// which then sleep equally long do not wake at the same moment, in an order that no tape
// decides.
func (w *World) apart() time.Duration { return time.Duration(w.order%1009) * time.Microsecond }

// delay is how long an operation of a process takes to reach the storage, or its answer
// to come back.
func (w *World) delay() time.Duration {
	const usual = 50 * time.Millisecond
	if w.quiet {
		return usual
	}
	r := w.tape.Pick(200)
	switch {
	case w.p.Slow && r > 170:
		return []time.Duration{45 * time.Second, 100 * time.Second, 400 * time.Second, 400 * time.Second, 3 * time.Hour}[w.tape.Pick(5)]
	case r < 150:
		return usual
	case r < 185:
		return 500 * time.Millisecond
	case r < 196:
		return 5 * time.Second
	case r < 199:
		return 45 * time.Second
	case w.tape.Pick(4) == 3:
		return 3 * time.Hour
	}
	return 400 * time.Second
}

// end ends the history: what comes after it is not judged.
func (w *World) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// violate ends the history because of a broken rule.
func (w *World) violate(kind, format string, args ...any) {
	w.mu.Lock()
	if w.result.Violation == nil && !w.ended {
		w.result.Violation = &Violation{Kind: kind, Text: fmt.Sprintf(format, args...), At: w.now()}
	}
	w.mu.Unlock()
	w.say("%s: %s", kind, fmt.Sprintf(format, args...))
	w.end()
}

// say writes a line of the history, if somebody reads it.
func (w *World) say(format string, args ...any) {
	if w.trace != nil {
		w.trace(fmt.Sprintf("%9.3fh ", w.now().Hours()) + fmt.Sprintf(format, args...))
	}
}

// run starts a goroutine whose end the history waits for.
func (w *World) run(do func()) {
	w.freed = true
	w.wg.Go(do)
}
