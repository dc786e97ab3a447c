package model

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"
)

// leaseTime is how long the lock of a dead process stays held.
const leaseTime = time.Minute

// lease is a lock that is held or waited for.
type lease struct {
	by    *Process // nil: free
	token int      // counts how often it was granted
	queue []*op
}

// Lock waits for the lock, at most until ctx ends.
func (s *storage) Lock(ctx context.Context, name string) error {
	w := s.w
	var mine *op
	err := w.do(ctx, s.p, "lock", name, func(o *op) {
		mine = o
		if w.p.Locks == LocksNone {
			w.effect(o, 50*time.Millisecond, func() (time.Duration, error) { return 0, nil })
			return
		}
		l := w.locks[name]
		if l == nil {
			l = &lease{}
			w.locks[name] = l
		}
		l.queue = append(l.queue, o)
		if l.by == nil {
			w.grant(name, l)
		}
	})
	if err != nil && ctx.Err() != nil {
		// The caller has gone away: it no longer waits, and a lock that it was granted
		// meanwhile is free.
		_ = w.do(context.Background(), s.p, "unlock", name, func(o *op) {
			if mine != nil {
				mine.over = true
				delete(s.p.open, mine)
				if l := w.locks[name]; l != nil && l.by == s.p && l.token == mine.token {
					l.by = nil
					w.grant(name, l)
				}
			}
			w.effect(o, 0, func() (time.Duration, error) { return 0, nil })
		})
	}
	return err
}

var errNotLocked = errors.New("it is not locked by this process")

// Unlock gives the lock to the next one.
func (s *storage) Unlock(ctx context.Context, name string) error {
	w := s.w
	return w.do(ctx, s.p, "unlock", name, func(o *op) {
		w.effect(o, 0, func() (time.Duration, error) {
			l := w.locks[name]
			if w.p.Locks == LocksNone {
				return 50 * time.Millisecond, nil
			}
			if l == nil || l.by != s.p {
				return 50 * time.Millisecond, errNotLocked
			}
			l.by = nil
			w.grant(name, l)
			return 50 * time.Millisecond, nil
		})
	})
}

// grant gives a free lock to the first live process that waits for it.
func (w *World) grant(name string, l *lease) {
	for len(l.queue) > 0 {
		o := l.queue[0]
		l.queue = l.queue[1:]
		p := o.process
		if p.dead || o.over {
			continue
		}
		l.by = p
		l.token++
		token := l.token
		o.token = token
		if w.p.Locks == LocksLossy && !w.quiet {
			w.after(leaseTime, func() { w.expire(name, l, token) })
		}
		w.after(50*time.Millisecond+w.apart(), func() {
			w.finish(o, nil)
			if p.dieAfter == o {
				w.crash(p.server, 0)
			}
		})
		return
	}
	if l.by == nil {
		delete(w.locks, name)
	}
}

func (w *World) expire(name string, l *lease, token int) {
	if l.by != nil && l.token == token {
		l.by = nil
		w.grant(name, l)
	}
}

// abandon lets the leases of a dead process run out.
func (w *World) abandon(p *Process) {
	for _, name := range slices.Sorted(maps.Keys(w.locks)) {
		if l := w.locks[name]; l.by == p {
			token := l.token
			w.after(leaseTime, func() { w.expire(name, l, token) })
		}
	}
}
