package issuer

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/caddy-commercial/caddy-commercial/app"
)

// replacements are the entries whose revoked certificates this process is replacing. When a CA
// revokes all at once, they must not stand in the way of anything else. The zero value is ready
// for use.
type replacements struct {
	mu       sync.Mutex
	underway map[string]time.Time // by the ID of an entry, since when
	called   map[string]time.Time // names whose turn has come, and when
	queued   map[string]struct{}  // names that wait
	waiting  []string             // the same, in turn, and some that have begun meanwhile
	most     int                  // how many may be under way
	sending  places
}

const (
	// As many replacements may be under way as the vendor allows looks in replaceShare, but
	// minReplacements at least and maxReplacements at most: each makes some 20 calls in two or
	// three minutes, and other work needs calls, too. Those that take longer than replaceLater
	// do not count, nor names that were called longer than calledLately ago and have not begun.
	// maxReplacing are sent at a time.
	replaceShare    = 32 * time.Second
	minReplacements = 8
	maxReplacements = 64
	maxReplacing    = 2
	replaceLater    = time.Hour
	calledLately    = time.Minute
)

// mostReplacements is how many replacements the vendor's limits allow to be under way.
func (f *flow) mostReplacements() int {
	pace := f.about.Pace.Watch
	if pace <= 0 {
		pace = watchPace
	}
	return min(max(int(replaceShare/pace), minReplacements), maxReplacements)
}

// enter lets a replacement begin or go on, or queues the name, to be woken when it is its turn.
func (r *replacements) enter(id, name string, most int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.most = most
	if r.underway == nil {
		r.underway, r.called, r.queued = make(map[string]time.Time), make(map[string]time.Time), make(map[string]struct{})
	}
	delete(r.called, name)
	if _, goesOn := r.underway[id]; !goesOn {
		if r.room() <= 0 {
			if _, waits := r.queued[name]; !waits {
				r.queued[name] = struct{}{}
				r.waiting = append(r.waiting, name)
			}
			return false
		}
		r.underway[id] = time.Now()
	}
	delete(r.queued, name)
	return true
}

// room is how many more may begin. Entries that take long, and names that were called and do not
// come, are not waited for.
func (r *replacements) room() int {
	maps.DeleteFunc(r.underway, func(_ string, since time.Time) bool { return time.Since(since) > replaceLater })
	maps.DeleteFunc(r.called, func(_ string, at time.Time) bool { return time.Since(at) > calledLately })
	return r.most - len(r.underway) - len(r.called)
}

// leave ends the replacement of an entry, if there is one.
func (r *replacements) leave(id string, wake func(string)) {
	r.mu.Lock()
	delete(r.underway, id)
	names := r.call()
	r.mu.Unlock()
	for _, name := range names {
		wake(name)
	}
}

// pass lets others go on if the name was called and has nothing to replace.
func (r *replacements) pass(name string, wake func(string)) {
	r.mu.Lock()
	var names []string
	if _, called := r.called[name]; called {
		delete(r.called, name)
		names = r.call()
	}
	r.mu.Unlock()
	for _, name := range names {
		wake(name)
	}
}

// call calls as many of the names that wait as there is room for.
func (r *replacements) call() (names []string) {
	if len(r.waiting) == 0 {
		return nil
	}
	for room := r.room(); room > 0 && len(r.waiting) > 0; {
		name := r.waiting[0]
		r.waiting = r.waiting[1:]
		if _, waits := r.queued[name]; !waits {
			continue
		}
		delete(r.queued, name)
		r.called[name] = time.Now()
		names = append(names, name)
		room--
	}
	return names
}

// send waits for one of the places for requests that are sent.
func (r *replacements) send(ctx context.Context) (leave func(), err error) {
	defer app.Pause(ctx)()
	return r.sending.enter(ctx, &r.mu, func() int { return maxReplacing })
}
