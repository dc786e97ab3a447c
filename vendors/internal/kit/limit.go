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

// Limiter keeps the requests of one credential to what its vendor allows: one at a time,
// in the order in which they come, and within limits. HTTP 429 pauses all of them. Its
// clients share it; the nil Limiter lets everything pass.
//
// A request counts from its end. The vendor counts it at some moment before, so that no
// delay on the way can bring two of them closer together than they are here.
type Limiter struct {
	turn chan struct{} // whoever has put something in is under way, or next

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
	return &Limiter{turn: make(chan struct{}, 1), limits: limits}
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
func (l *Limiter) begin(ctx context.Context) (end func(status int, wish time.Duration), failed *failure) {
	if l == nil {
		return func(int, time.Duration) {}, nil
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < l.wait() {
		return nil, l.refuse(ctx) // nobody queues for what cannot be in time
	}
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, l.refuse(ctx)
	}
	for ctx.Err() == nil {
		left := l.wait()
		if left <= 0 {
			return l.end, nil
		}
		if !wait(ctx, left) {
			break
		}
	}
	<-l.turn
	return nil, l.refuse(ctx)
}

func (l *Limiter) refuse(ctx context.Context) *failure {
	err := errRateLimit
	if ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", errRateLimit, context.Cause(ctx))
	}
	return &failure{noEffect: true, retryAfter: min(l.wait(), MaxRetryAfter), err: err}
}

// wait returns how long it is until there is room for a request.
func (l *Limiter) wait() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.until
	for _, limit := range l.limits {
		if oldest := len(l.ends) - limit.Requests; oldest >= 0 {
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
	<-l.turn
}
