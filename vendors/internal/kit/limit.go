package kit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// Limit is how many requests a vendor takes within any span of time of that length.
type Limit struct {
	Requests int
	Per      time.Duration
}

// Limiter keeps the requests of one credential to what its vendor allows: one at a time and
// within limits. HTTP 429 pauses all of them. Its clients share it; the nil Limiter lets
// everything pass.
//
// What only reads has a queue of its own, and may not use the last tenth of a limit, so that
// what is paid for does not stand behind a crowd that only wants to know something.
//
// A request counts from its end. The vendor counts it at some moment before, so that no
// delay on the way can bring two of them closer together than they are here.
type Limiter struct {
	turn  chan struct{}    // of the request that is under way
	first [2]chan struct{} // of each queue, of the request that is next

	mu     sync.Mutex
	limits []Limit
	ends   []time.Time   // of the latest requests, oldest first
	until  time.Time     // when the pause is over
	pause  time.Duration // the latest; zero after any answer but HTTP 429
}

// The bounds of the pause after HTTP 429. It doubles while there is nothing else.
const (
	minPause = 5 * time.Second
	maxPause = 5 * time.Minute
)

// NewLimiter returns a limiter of its own. Without limits it still lets one request pass
// at a time.
func NewLimiter(limits ...Limit) *Limiter {
	l := &Limiter{turn: make(chan struct{}, 1), limits: limits}
	for i := range l.first {
		l.first[i] = make(chan struct{}, 1)
	}
	return l
}

// limiters holds those of this process, by endpoint and credential.
var limiters = caddy.NewUsagePool()

// Destruct implements caddy.Destructor. There is nothing to do.
func (*Limiter) Destruct() error { return nil }

// SharedLimiter returns the limiter of the account's credential in this process, with these
// limits from now on. Whoever has it releases it in the end.
func SharedLimiter(cfg Config, limits ...Limit) (l *Limiter, release func()) {
	type credential struct{ endpoint, secret string }
	key := credential{cfg.Endpoint, cfg.Secret}
	shared, _, _ := limiters.LoadOrNew(key, func() (caddy.Destructor, error) { return NewLimiter(), nil })
	l = shared.(*Limiter)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limits = limits
	return l, func() { _, _ = limiters.Delete(key) }
}

// errRateLimit is the cause of a request that was not sent.
var errRateLimit = errors.New("not sent: the limits of requests leave no room in time")

// begin waits for the turn of a request, and for room. The request is over when end is
// called, with the status of its answer and the vendor's wish for a pause.
func (l *Limiter) begin(ctx context.Context, class Class) (end func(status int, wish time.Duration), failed *failure) {
	if l == nil {
		return func(int, time.Duration) {}, nil
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < l.wait(class) {
		return nil, l.refuse(ctx, class) // nobody queues for what cannot be in time
	}
	first := l.first[0]
	if class == Read {
		first = l.first[1]
	}
	if !enter(ctx, first) {
		return nil, l.refuse(ctx, class)
	}
	for wait(ctx, l.wait(class)) && enter(ctx, l.turn) {
		if l.wait(class) == 0 {
			return func(status int, wish time.Duration) {
				l.end(status, wish)
				<-l.turn
				<-first
			}, nil
		}
		<-l.turn // the other queue took the room
	}
	<-first
	return nil, l.refuse(ctx, class)
}

// enter waits for a place that one request has at a time, and reports whether it has it.
func enter(ctx context.Context, place chan<- struct{}) bool {
	if ctx.Err() != nil {
		return false
	}
	select {
	case place <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (l *Limiter) refuse(ctx context.Context, class Class) *failure {
	err := errRateLimit
	if ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", errRateLimit, context.Cause(ctx))
	}
	return &failure{noEffect: true, retryAfter: min(l.wait(class), MaxRetryAfter), err: err}
}

// wait returns how long it is until there is room for a request.
func (l *Limiter) wait(class Class) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.until
	for _, limit := range l.limits {
		room := limit.Requests
		if class == Read {
			room -= room / 10
		}
		if oldest := len(l.ends) - room; oldest >= 0 {
			if free := l.ends[oldest].Add(limit.Per); free.After(at) {
				at = free
			}
		}
	}
	return max(0, time.Until(at))
}

func (l *Limiter) end(status int, wish time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, most := time.Now(), 0
	for _, limit := range l.limits {
		most = max(most, limit.Requests)
	}
	l.ends = append(l.ends, now)
	l.ends = l.ends[max(0, len(l.ends)-most):]
	switch status {
	case 0: // no answer
	case http.StatusTooManyRequests:
		l.pause = min(max(2*l.pause, minPause), maxPause)
		l.until = now.Add(max(l.pause, wish))
	default:
		l.pause = 0
	}
}
