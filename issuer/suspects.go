package issuer

import (
	"context"
	"slices"
	"sync"
	"time"
)

// suspects are the orders about which the vendor has told something that must be told again to
// be believed. The zero value is ready for use.
type suspects struct {
	mu       sync.Mutex
	seen     map[string]suspect    // by the ID of an entry
	rushing  time.Time             // until when
	parts    [watchParts]time.Time // when this process looked at each last; monotonic
	cuts     map[int]string        // the last entry that was looked at, of parts that a configuration left
	misses   map[string]int        // how many looks at an entry have failed in a row
	began    time.Time             // the latest turn; monotonic
	short    bool                  // whether that turn was cut short, so that the next one goes on with it
	asked    time.Time             // when this process asked which orders have changed; monotonic
	next     time.Time             // the next turn; monotonic
	moved    chan struct{}         // tells that the next turn is now
	reported [2]time.Time          // by the kind of trouble
}

type suspect struct {
	what  string
	first time.Time // monotonic
	after time.Duration
}

// confirmed notes what was told of an entry, and reports whether the same was first told at least
// that long ago.
func (s *suspects) confirmed(id, what string, after time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if have, ok := s.seen[id]; ok && have.what == what {
		return time.Since(have.first) >= after
	}
	if s.seen == nil {
		s.seen = make(map[string]suspect)
	}
	s.seen[id] = suspect{what, time.Now(), after}
	return false
}

func (s *suspects) clear(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.seen, id)
}

// missed notes whether a look at an entry has failed. It is then repeated in the next turn, but not
// more often than there is time for before the entry's next round.
func (s *suspects) missed(id string, failed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !failed || s.misses[id] == watchSlack {
		delete(s.misses, id)
		return
	}
	if s.misses == nil {
		s.misses = make(map[string]int)
	}
	s.misses[id]++
}

// due returns the entries that are to be looked at again.
func (s *suspects) due() (ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, have := range s.seen {
		if time.Since(have.first) >= have.after {
			ids = append(ids, id)
		}
	}
	for id := range s.misses {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// begin returns how long a configuration waits for its first turn: no longer than the previous
// configuration would have waited.
func (s *suspects) begin(wait time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.moved == nil {
		s.moved = make(chan struct{}, 1)
	}
	if !s.next.IsZero() {
		return min(wait, max(time.Until(s.next), 0))
	}
	s.next = time.Now().Add(wait)
	return wait
}

// await waits for a turn. It reports whether ctx goes on.
func (s *suspects) await(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-s.moved:
	case <-timer.C:
	}
	return ctx.Err() == nil
}

// turn returns when the turn has begun that begins now, or that another configuration has begun.
func (s *suspects) turn() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.short {
		s.began = time.Now()
	}
	s.short = false
	return s.began
}

// plan notes when the next turn is.
func (s *suspects) plan(next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = next
}

// hurry lets another configuration have its turn at once, because this one was cut short.
func (s *suspects) hurry() {
	s.plan(time.Now())
	select {
	case s.moved <- struct{}{}:
	default:
	}
}

// looks notes that this process has looked at a part.
func (s *suspects) looks(part int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parts[part] = time.Now()
	delete(s.cuts, part)
}

// failed notes that the vendor has not answered about a part, which begins anew in its next turn.
func (s *suspects) failed(part int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.cuts, part)
}

// cut notes how far this process has come with a part, to go on from there.
func (s *suspects) cut(part int, last string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cuts == nil {
		s.cuts = make(map[int]string)
	}
	s.cuts[part], s.short = last, true
}

// reached returns how far this process has come with a part that was cut short.
func (s *suspects) reached(part int) (last string, begun bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last, begun = s.cuts[part]
	return last, begun
}

// lately reports whether this process has looked at a part within the given time.
func (s *suspects) lately(part int, within time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.parts[part]) < within
}

// asks notes that this process has asked which orders have changed.
func (s *suspects) asks() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = time.Now()
}

// askedLately reports whether it has done so within the given time.
func (s *suspects) askedLately(within time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.asked) < within
}

// rush has orders looked at faster for a while.
func (s *suspects) rush(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.parts[:])
	clear(s.cuts)
	s.rushing = time.Now().Add(d)
}

func (s *suspects) rushes() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Before(s.rushing)
}

// What is logged once an hour.
const (
	problems = iota
	panics
)

// report reports whether trouble of a kind is to be logged.
func (s *suspects) report(kind int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.reported[kind]) < time.Hour {
		return false
	}
	s.reported[kind] = time.Now()
	return true
}
