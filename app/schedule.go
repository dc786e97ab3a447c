package app

import (
	"container/heap"
	"context"
	"runtime/debug"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

const (
	// maxWorkers bounds the rounds that run at a time in the process. A round waits for a
	// vendor or a storage most of its time.
	maxWorkers = 64

	// reserve keeps workers for other lines: a line may have this many running rounds for
	// each worker that is free. One line alone gets 48 of 64, two get 28 and 27.
	reserve = 3

	// slack is how much earlier than asked for a round may begin, so that tasks that are due
	// at about the same time share a wake-up.
	slack = 250 * time.Millisecond

	// minAgain bounds how soon a round follows another one of the same name.
	minAgain = 10 * time.Millisecond

	// afterPanic is how long a name whose round panicked waits for the next one.
	afterPanic = time.Minute
)

// Process is the scheduler of the process. It outlives configs: after a reload that
// failed, certmagic still asks the issuers of the failed config.
var Process = NewScheduler()

// Scheduler runs rounds for names when they are due. Waiting names cost a heap entry
// each, and neither a goroutine nor a timer. A Scheduler has no goroutine while no round
// runs. Make one with NewScheduler; it is safe for concurrent use and needs no closing.
type Scheduler struct {
	mu      sync.Mutex
	lines   map[string]*Line
	waiting dueHeap
	alarm   *time.Timer // for the first of waiting
	alarmAt time.Time

	// ready are the lines that have a ready task and an attachment, in the order in which
	// they get the next free worker.
	ready   []*Line
	running int

	logger func() *zap.Logger // of the running config
}

// NewScheduler returns a scheduler without lines.
func NewScheduler() *Scheduler {
	return &Scheduler{
		lines:  make(map[string]*Line),
		logger: func() *zap.Logger { return caddy.Log().Named("commercial") },
	}
}

// Line returns the line of that key and holds a reference to it until Release. If there
// is none, it is made, with what memory returns; memory may be nil.
func (s *Scheduler) Line(key string, memory func() any) *Line {
	s.mu.Lock()
	l := s.lines[key]
	if l == nil {
		l = &Line{s: s, key: key, tasks: make(map[string]*task), attached: make(chan struct{})}
		s.lines[key] = l
	}
	l.references++
	s.mu.Unlock()
	l.made.Do(func() { // outside the lock: it may read a storage
		if memory != nil {
			l.memory = memory()
		}
	})
	return l
}

// task is a name for which there is something to do. It is in one of three places: in the
// scheduler's heap, in its line's queue of ready tasks, or with a worker.
type task struct {
	line *Line
	name string
	due  time.Time // while it runs: when a round must follow, or zero
	next *task     // in the line's queue
	pos  int32     // in the heap, or one of the two below
}

const (
	posReady   = -1
	posRunning = -2
)

// wait puts a task that is nowhere into the heap.
func (s *Scheduler) wait(t *task) {
	heap.Push(&s.waiting, t)
	s.setAlarm()
}

// setAlarm makes the timer fire when the first waiting task is due.
func (s *Scheduler) setAlarm() {
	if len(s.waiting) == 0 {
		if s.alarm != nil {
			s.alarm.Stop()
			s.alarm = nil
		}
		return
	}
	first := s.waiting[0].due
	if s.alarm != nil && s.alarmAt.Equal(first) {
		return
	}
	s.alarmAt = first
	if s.alarm == nil {
		s.alarm = time.AfterFunc(time.Until(first), s.ring)
		return
	}
	s.alarm.Reset(time.Until(first))
}

// ring takes what is due, or will be in a moment, out of the heap.
func (s *Scheduler) ring() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	// The timer was set anew while this call waited for the lock: nothing is due yet.
	if len(s.waiting) > 0 && s.waiting[0].due.After(now) {
		s.alarmAt = time.Time{}
		s.setAlarm()
		return
	}
	for until := now.Add(slack); len(s.waiting) > 0 && !s.waiting[0].due.After(until); {
		t := heap.Pop(&s.waiting).(*task)
		t.line.push(t)
	}
	s.alarmAt = time.Time{}
	s.setAlarm()
	s.dispatch()
}

// dispatch gives ready tasks to workers until there are no more of either.
func (s *Scheduler) dispatch() {
	for {
		t, a := s.pick()
		if t == nil {
			return
		}
		t.pos, t.due = posRunning, time.Time{}
		s.running++
		t.line.running++
		a.rounds.Add(1)
		go s.work(t, a)
	}
}

// pick takes the next ready task, round-robin over the lines.
func (s *Scheduler) pick() (*task, *attachment) {
	free := maxWorkers - s.running
	if free <= 0 {
		return nil, nil
	}
	for range len(s.ready) {
		l := s.ready[0]
		s.ready = s.ready[1:]
		a := l.newest()
		if a == nil || l.first == nil {
			l.queued = false
			continue
		}
		if l.running >= reserve*free {
			s.ready = append(s.ready, l)
			continue
		}
		t := l.pop()
		if l.queued = l.first != nil; l.queued {
			s.ready = append(s.ready, l)
		}
		return t, a
	}
	return nil, nil
}

// work runs one round.
func (s *Scheduler) work(t *task, a *attachment) {
	again, more := afterPanic, true
	defer func() {
		if v := recover(); v != nil {
			s.logger().Error("panic in a round; trying again later",
				zap.String("identifier", t.name), zap.Any("panic", v),
				zap.Duration("wait", again), zap.ByteString("stack", debug.Stack()))
		}
		s.finish(t, a, again, more)
	}()
	again, more = a.worker.Round(context.WithValue(a.ctx, lineKey{}, t.line), t.name)
}

// lineKey is the key under which the context of a round has its line.
type lineKey struct{}

// Pause gives back the worker of a round that is about to wait for long. Callers bound the
// number of such rounds in another way. When work is called, the round has a worker again at
// once, even if all are busy.
func Pause(ctx context.Context) (work func()) {
	l, ok := ctx.Value(lineKey{}).(*Line)
	if !ok {
		return func() {}
	}
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.s.running--
	l.running--
	l.s.dispatch()
	return sync.OnceFunc(func() {
		l.s.mu.Lock()
		defer l.s.mu.Unlock()
		l.s.running++
		l.running++
	})
}

// finish puts a task back after its round, or drops it.
func (s *Scheduler) finish(t *task, a *attachment, again time.Duration, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := t.line
	s.running--
	l.running--
	a.rounds.Done()

	now := time.Now()
	due := now.Add(max(again, minAgain))
	switch {
	case more && a.left:
		due = now // its context ended; the next attachment does what it could not
	case more:
		if !t.due.IsZero() && t.due.Before(due) {
			due = t.due
		}
	case !t.due.IsZero():
		due = t.due // somebody asked for another round meanwhile
	default:
		delete(l.tasks, t.name)
		l.finished(t.name)
		l.forgetIfUnused()
		s.dispatch()
		return
	}
	t.due = due
	if due.After(now) {
		s.wait(t)
	} else {
		l.push(t)
	}
	s.dispatch()
}

// dueHeap is a container/heap of tasks, the earliest first.
type dueHeap []*task

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }

func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = int32(i), int32(j) //nolint:gosec // the heap has fewer than 2^31 names
}

func (h *dueHeap) Push(x any) {
	t := x.(*task)
	t.pos = int32(len(*h)) //nolint:gosec // as above
	*h = append(*h, t)
}

func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	t := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return t
}
