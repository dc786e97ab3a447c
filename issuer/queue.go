package issuer

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/poll"
)

// One account may have many purchases at a time, but only a few paid calls. Each purchase waits
// for much else: for proofs to be seen, for the vendor's free checks, and for the storage to show
// what other servers wrote. An order whose entry is in the ledger must be sent within sendBefore,
// so no more entries are let in than the paid calls can take on in time.
const (
	// maxPurchases bounds the purchases of one account that are under way at a time in this
	// process. They are in memory, and their names are claimed. Most of them wait for the
	// storage, so to buy 100 per second takes some hundreds of them.
	maxPurchases = 512

	// maxPaid bounds the paid calls at a time, and maxChecks the free calls before them.
	// Vendors advise few calls at once for a credential.
	maxPaid   = 8
	maxChecks = 8

	// largeOrder is the number of names from which on an order is a large one. Every
	// largeEvery-th purchase of a configuration is for a large order, if one waits, and the
	// others are for small ones, if any wait.
	largeOrder = 10
	largeEvery = 4
)

// purchases are those of one account. The zero value is ready for use.
type purchases struct {
	mu         sync.Mutex
	underway   int
	unrecorded int             // those that are not in the ledger yet
	waiters    []*siteQueue    // the site whose turn it is first
	queued     map[string]bool // the names that wait, and whether they were called

	checks  places
	written places // entries that are or will be in the ledger before their paid call ends
	paid    places
	calls   callTimes
}

// crowded reports whether as many purchases are under way as may be, and queues the name if so.
func (p *purchases) crowded(site any, name string, size int) bool {
	p.mu.Lock()
	full := p.underway >= maxPurchases
	p.mu.Unlock()
	return full && !p.admit(site, name, size, func() int { return 0 })
}

// siteQueue are the names of one configuration that wait for purchases to end.
type siteQueue struct {
	site         any
	small, large []string // names of small and of large orders
	turns        int      // calls since the last large order
}

// next removes and returns the name that has waited longest: usually for a small order, which a
// person more often waits for, but not always, so that no large order waits for ever.
func (q *siteQueue) next() string {
	list := &q.small
	q.turns++
	if len(q.large) > 0 && (len(q.small) == 0 || q.turns >= largeEvery) {
		list, q.turns = &q.large, 0
	}
	name := (*list)[0]
	*list = (*list)[1:]
	return name
}

func (q *siteQueue) empty() bool { return len(q.small)+len(q.large) == 0 }

// admit lets a purchase of so many names begin, or queues the name. room is how many orders
// the spending limit allows on top of those in the ledger. It is called with the mutex held, so
// that no purchase goes uncounted on its way into the ledger.
func (p *purchases) admit(site any, name string, size int, room func() int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.underway < maxPurchases && p.unrecorded < room() {
		p.underway++
		p.unrecorded++
		delete(p.queued, name)
		return true
	}
	called, ok := p.queued[name]
	if ok && !called {
		return false
	}
	if p.queued == nil {
		p.queued = make(map[string]bool)
	}
	p.queued[name] = false
	i := slices.IndexFunc(p.waiters, func(q *siteQueue) bool { return q.site == site })
	if i < 0 {
		i = len(p.waiters)
		p.waiters = append(p.waiters, &siteQueue{site: site})
	}
	list := &p.waiters[i].small
	if size >= largeOrder {
		list = &p.waiters[i].large
	}
	if called {
		*list = slices.Insert(*list, 0, name) // somebody else was faster
	} else {
		*list = append(*list, name)
	}
	return false
}

// underWay is how many purchases there are.
func (p *purchases) underWay() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.underway
}

// recorded notes that the order of a purchase is in the ledger, and counts there.
func (p *purchases) recorded() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unrecorded--
}

// leave ends a purchase and wakes the name whose turn it is.
func (p *purchases) leave(recorded bool, wake func(name string)) {
	p.mu.Lock()
	p.underway--
	if !recorded {
		p.unrecorded--
	}
	next := p.next()
	p.mu.Unlock()
	if next != "" {
		wake(next)
	}
}

// pass lets another name go on if this one was called, and has not begun a purchase.
func (p *purchases) pass(name string, wake func(name string)) {
	p.mu.Lock()
	next := ""
	if p.queued[name] {
		delete(p.queued, name)
		next = p.next()
	}
	p.mu.Unlock()
	if next != "" {
		wake(next)
	}
}

// next calls a name of the configuration whose turn it is. A configuration with a few names does
// not wait for one that has thousands.
func (p *purchases) next() string {
	for len(p.waiters) > 0 {
		q := p.waiters[0]
		name := q.next()
		p.waiters = p.waiters[1:]
		if !q.empty() {
			p.waiters = append(p.waiters, q)
		}
		if called, waits := p.queued[name]; waits && !called {
			p.queued[name] = true
			return name
		} // else it has begun meanwhile
	}
	return ""
}

// check waits for one of the places for free calls.
func (p *purchases) check(ctx context.Context) (leave func(), err error) {
	return p.checks.enter(ctx, &p.mu, func() int { return maxChecks })
}

// write waits until the entry of a purchase may be stored: until so few are ahead of it that its
// turn to be sent comes soon. ahead is for how long an entry may wait for the paid calls of
// others.
func (p *purchases) write(ctx context.Context, ahead time.Duration) (leave func(), err error) {
	return p.written.enter(ctx, &p.mu, func() int { return maxPaid + p.calls.ahead(ahead) })
}

// pay waits for one of the places for paid calls.
func (p *purchases) pay(ctx context.Context) (leave func(), err error) {
	free, err := p.paid.enter(ctx, &p.mu, func() int { return maxPaid })
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	call := p.calls.begin()
	return sync.OnceFunc(func() {
		p.mu.Lock()
		p.calls.end(call)
		p.mu.Unlock()
		free()
	}), nil
}

// places are taken in turn, by at most as many at a time as limit says. They are guarded by the
// mutex of their owner.
type places struct {
	taken int
	line  []chan struct{} // each is closed when it is its turn
	limit func() int
}

// enter waits for a place.
func (s *places) enter(ctx context.Context, mu *sync.Mutex, limit func() int) (leave func(), err error) {
	turn := make(chan struct{})
	mu.Lock()
	s.limit = limit
	s.line = append(s.line, turn)
	s.admit()
	mu.Unlock()
	leave = sync.OnceFunc(func() {
		mu.Lock()
		defer mu.Unlock()
		s.taken--
		s.admit()
	})
	select {
	case <-turn:
		return leave, nil
	case <-ctx.Done():
	}
	mu.Lock()
	defer mu.Unlock()
	for i, other := range s.line {
		if other == turn {
			s.line = append(s.line[:i:i], s.line[i+1:]...)
			return nil, context.Cause(ctx)
		}
	}
	s.taken-- // its turn came at that very moment
	s.admit()
	return nil, context.Cause(ctx)
}

// admit gives the places that are free to those that wait longest.
func (s *places) admit() {
	for len(s.line) > 0 && s.taken < s.limit() {
		s.taken++
		close(s.line[0])
		s.line = s.line[1:]
	}
}

// callTimes tells how many calls can be counted on within a time. It is guarded by the mutex of
// purchases.
type callTimes struct {
	known   time.Duration // how long a slow one of the latest took
	earned  int           // how many orders may wait for calls: two more after each that has ended
	running []*time.Time  // when those under way began, the oldest first
}

func (c *callTimes) begin() *time.Time {
	began := time.Now()
	c.running = append(c.running, &began)
	return &began
}

// end notes how long a call took. One that took longer than was known counts in full, a shorter
// one by an eighth: too many orders that wait are worse than too few. The calls that end first
// are the fast ones, so few of them earn little.
func (c *callTimes) end(call *time.Time) {
	c.running = slices.DeleteFunc(c.running, func(other *time.Time) bool { return other == call })
	took := max(time.Since(*call), time.Microsecond)
	if c.known < took {
		c.known = took
	} else {
		c.known -= (c.known - took) / 8
	}
	c.earned = min(c.earned+2, maxPurchases)
}

// ahead is how many orders may wait for calls, so that all of them begin within the time.
func (c *callTimes) ahead(within time.Duration) int {
	longest := max(c.known, time.Microsecond)
	if len(c.running) > 0 {
		longest = max(longest, time.Since(*c.running[0]))
	}
	c.earned = min(c.earned, maxPaid*int(min(within/longest, maxPurchases)))
	return c.earned
}

// listings paces the listings of the ledger. Each costs the more, the more entries there are, and
// serves all that wait for it, so there is no use in one right after the other.
type listings struct {
	mu    sync.Mutex
	began time.Time     // when the latest began
	pause time.Duration // from then until the next
	well  time.Time     // when the latest that went well began
	next  *listing      // the one that has not begun yet; nil if nobody waits
}

// listing is shared by all who come before it begins.
type listing struct {
	done chan struct{}
	left bool // whoever was to make it has left
	err  error
}

const (
	// listingPause is the pause between the beginnings of two listings, as a multiple of how
	// long one takes. The pause is no longer than listingShare for each purchase that is under
	// way, so that a few do not wait for others to come; nor may it make orders late.
	listingPause = 10
	listingShare = 20 * time.Millisecond

	// listedLately is how old the listing may be that a purchase begins with. What is decided
	// by it costs nothing: what came meanwhile shows in the listing before the paid call.
	listedLately = 5 * time.Second
)

// look waits for a listing that begins after the call. longest bounds the pause before it.
func (l *listings) look(ctx context.Context, longest time.Duration, refresh func(context.Context) error) error {
	for {
		l.mu.Lock()
		it, wait := l.next, time.Until(l.began.Add(min(l.pause, longest)))
		if it == nil {
			it = &listing{done: make(chan struct{})}
			l.next = it
			l.mu.Unlock()
			return l.make(ctx, it, wait, refresh)
		}
		l.mu.Unlock()
		select {
		case <-it.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if !it.left {
			return it.err
		}
	}
}

// make makes the next listing after a wait.
func (l *listings) make(ctx context.Context, it *listing, wait time.Duration, refresh func(context.Context) error) error {
	defer close(it.done)
	it.left, it.err = true, poll.Wait(ctx, wait)
	began := time.Now()
	l.mu.Lock()
	l.next = nil
	if it.err == nil {
		l.began = began
	}
	l.mu.Unlock()
	if it.err != nil {
		return it.err
	}
	it.err = refresh(ctx)
	it.left = it.err != nil && ctx.Err() != nil
	if it.err == nil {
		l.mu.Lock()
		l.well, l.pause = began, listingPause*time.Since(began)
		l.mu.Unlock()
	}
	return it.err
}

// list lists the ledger, and shares the listing with the other purchases of the account.
func (f *flow) list(ctx context.Context) error {
	longest := min(time.Duration(f.account.purchases.underWay())*listingShare, sendWithin(f.about)/4)
	return f.account.listings.look(ctx, longest, f.ledger.Refresh)
}

// lately reports whether there was a listing not long ago.
func (l *listings) lately() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.well) < listedLately
}
