package app

import (
	"container/heap"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Worker does the work of a line.
type Worker interface {
	// Round does for the name what can be done now, and returns how long to wait until the
	// next round. more is false if nothing is left to do; then the name is forgotten, unless
	// Wake was called for it meanwhile. A round should be short: it must not wait for what
	// takes minutes. ctx ends with this worker's config; the round should then return with
	// more true, and the next config goes on at once.
	//
	// A worker also gets names that an earlier config asked for; for those that it does not
	// know, it returns false. There is never more than one round of a name at a time.
	Round(ctx context.Context, name string) (again time.Duration, more bool)
}

// Line is the work for one account of one vendor on one storage. It outlives configs:
// they attach to it, and the newest attachment does the work. While nobody is attached,
// the names wait. A line exists while it is attached to, has names, or is referred to.
type Line struct {
	s   *Scheduler
	key string

	made   sync.Once
	memory any

	// What follows is protected by s.mu.
	references  int
	attachments []*attachment // the newest last
	attached    chan struct{} // closed while there is an attachment
	tasks       map[string]*task
	first, last *task // the queue of ready tasks
	queued      bool  // in s.ready
	running     int

	// dropped are the names that were finished while several configs were attached. If
	// the newest fails to load, the one before it gets them again: it may still want what
	// the failed one did not.
	dropped []string
}

// attachment is one config's hold on a line.
type attachment struct {
	worker Worker
	ctx    context.Context
	cancel context.CancelFunc
	rounds sync.WaitGroup
	left   bool
}

// Memory returns what the line's memory function made.
func (l *Line) Memory() any { return l.memory }

// Release ends a reference that Scheduler.Line gave. Without a reference and without being
// attached, the line must not be used any more.
func (l *Line) Release() {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.references--
	l.forgetIfUnused()
}

// Attach lets the worker do the rounds from now on, in contexts derived from ctx. detach
// ends that: it cancels the running rounds, waits for them, and leaves the names to
// the newest attachment that remains or to the next one that comes. It may be called
// more than once, and must not be called from within a round. When ctx ends, no further
// rounds are begun with it.
func (l *Line) Attach(ctx context.Context, w Worker) (detach func()) {
	a := &attachment{worker: w}
	a.ctx, a.cancel = context.WithCancel(ctx)
	s := l.s
	s.mu.Lock()
	if len(l.attachments) == 0 {
		close(l.attached)
	}
	l.attachments = append(l.attachments, a)
	l.enqueue()
	s.dispatch()
	s.mu.Unlock()
	stop := context.AfterFunc(a.ctx, func() { l.leave(a) })
	return func() {
		stop()
		l.leave(a)
		a.rounds.Wait()
	}
}

// leave takes an attachment away; its rounds may still run.
func (l *Line) leave(a *attachment) {
	a.cancel()
	s := l.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.left {
		return
	}
	a.left = true
	wasNewest := l.newest() == a
	l.attachments = slices.DeleteFunc(l.attachments, func(other *attachment) bool { return other == a })
	if len(l.attachments) == 0 {
		l.attached = make(chan struct{})
	}
	if len(l.attachments) < 2 {
		dropped := l.dropped
		l.dropped = nil
		if wasNewest && len(l.attachments) == 1 {
			for _, name := range dropped {
				l.wakeAt(name, time.Now())
			}
		}
	}
	l.enqueue()
	s.dispatch()
	l.forgetIfUnused()
}

// Attached waits until a config is attached. It fails when ctx ends first.
func (l *Line) Attached(ctx context.Context) error {
	l.s.mu.Lock()
	attached := l.attached
	l.s.mu.Unlock()
	select {
	case <-attached:
		return nil
	default:
	}
	select {
	case <-attached:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the config to start: %w", context.Cause(ctx))
	}
}

// Wake asks for a round of the name as soon as there is a worker for it. If one is
// running, another one follows it.
func (l *Line) Wake(name string) { l.WakeAt(name, time.Now()) }

// WakeAt asks for a round of the name at t, or at any time before.
func (l *Line) WakeAt(name string, t time.Time) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.wakeAt(name, t)
	l.s.dispatch()
}

func (l *Line) wakeAt(name string, due time.Time) {
	t := l.tasks[name]
	switch {
	case t == nil:
		t = &task{line: l, name: name, due: due}
		l.tasks[name] = t
	case t.pos == posReady:
		return
	case t.pos == posRunning:
		if t.due.IsZero() || due.Before(t.due) {
			t.due = due
		}
		return
	case !due.Before(t.due):
		return
	default:
		heap.Remove(&l.s.waiting, int(t.pos))
		t.due = due
	}
	if due.After(time.Now()) {
		l.s.wait(t)
		return
	}
	l.push(t)
	l.s.setAlarm() // it may have been the first
}

// Names returns the names that have a task, in order.
func (l *Line) Names() []string {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	names := make([]string, 0, len(l.tasks))
	for name := range l.tasks {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Due returns when the next round of the name is due, which may be past, and whether it
// has a task at all. For a name whose round is running, that is now.
func (l *Line) Due(name string) (time.Time, bool) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	t := l.tasks[name]
	switch {
	case t == nil:
		return time.Time{}, false
	case t.pos == posRunning:
		return time.Now(), true
	default:
		return t.due, true
	}
}

// newest returns the attachment that does the work, or nil.
func (l *Line) newest() *attachment {
	if len(l.attachments) == 0 {
		return nil
	}
	return l.attachments[len(l.attachments)-1]
}

// push puts a task at the end of the queue of ready ones.
func (l *Line) push(t *task) {
	t.pos = posReady
	if l.first == nil {
		l.first = t
	} else {
		l.last.next = t
	}
	l.last = t
	l.enqueue()
}

// pop takes the first ready task.
func (l *Line) pop() *task {
	t := l.first
	l.first, t.next = t.next, nil
	if l.first == nil {
		l.last = nil
	}
	return t
}

// enqueue lets the line take part in the distribution of workers.
func (l *Line) enqueue() {
	if l.queued || l.first == nil || l.newest() == nil {
		return
	}
	l.queued = true
	l.s.ready = append(l.s.ready, l)
}

// finished notes that nothing is left to do for a name.
func (l *Line) finished(name string) {
	if len(l.attachments) > 1 {
		l.dropped = append(l.dropped, name)
	}
}

// forgetIfUnused removes the line from the scheduler when nothing holds it any more.
func (l *Line) forgetIfUnused() {
	if l.references <= 0 && len(l.attachments) == 0 && len(l.tasks) == 0 && l.s.lines[l.key] == l {
		delete(l.s.lines, l.key)
	}
}
