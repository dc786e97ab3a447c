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

// Limit is how many requests a vendor takes within any span of the length Per.
type Limit struct {
	Requests int
	Per      time.Duration
}

// Limits are what a vendor takes of one credential. The zero value is a vendor without any.
type Limits struct {
	// AtOnce is how many requests may be under way.
	AtOnce int

	Rates []Limit
}

// Limiter keeps the requests of one credential to what its vendor allows: so many at a time and
// within limits. HTTP 429 pauses all of them. Its clients share it; the nil Limiter lets
// everything pass.
//
// What only reads has a queue of its own, and may not use the last tenth of a limit, so that
// what is paid for does not stand behind a crowd that only wants to know something.
//
// A request counts from its end. The vendor counts it at some moment before, so that no
// delay on the way can bring two of them closer together than they are here.
type Limiter struct {
	turn  chan struct{}    // of the requests that are under way
	first [2]chan struct{} // of each queue, of the request that is next

	mu     sync.Mutex
	limits []Limit
	under  int           // way
	ends   []time.Time   // of the latest requests, oldest first
	until  time.Time     // when the pause is over
	pause  time.Duration // the latest; zero after any answer but HTTP 429
}

// The bounds of the pause after HTTP 429. It doubles until there is another answer.
const (
	minPause = 5 * time.Second
	maxPause = 5 * time.Minute
)

// NewLimiter returns a limiter of its own.
func NewLimiter(limits Limits) *Limiter {
	l := &Limiter{turn: make(chan struct{}, max(limits.AtOnce, 1)), limits: limits.Rates}
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
// rates from now on. The caller must release it in the end.
func SharedLimiter(cfg Config, limits Limits) (l *Limiter, release func()) {
	type credential struct{ endpoint, secret string }
	key := credential{cfg.Endpoint, cfg.Secret}
	shared, _, _ := limiters.LoadOrNew(key, func() (caddy.Destructor, error) { return NewLimiter(limits), nil })
	l = shared.(*Limiter)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limits = limits.Rates
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
		if l.take(class) {
			<-first
			return func(status int, wish time.Duration) {
				l.end(status, wish)
				<-l.turn
			}, nil
		}
		<-l.turn // another one took the room
	}
	<-first
	return nil, l.refuse(ctx, class)
}

// enter waits for a free place, and reports whether the request has it.
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
	return l.untilRoom(class)
}

// take counts a request as under way if there is room for it.
func (l *Limiter) take(class Class) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.untilRoom(class) > 0 {
		return false
	}
	l.under++
	return true
}

func (l *Limiter) untilRoom(class Class) time.Duration {
	at := l.until
	for _, limit := range l.limits {
		room := limit.Requests - l.under // which end later than now
		if class == Read {
			room -= limit.Requests / 10
		}
		oldest := len(l.ends) - room
		if oldest < 0 {
			continue
		}
		free := time.Now() // when one of those that are under way ends, at the earliest
		if oldest < len(l.ends) {
			free = l.ends[oldest]
		}
		if free = free.Add(limit.Per); free.After(at) {
			at = free
		}
	}
	return max(0, time.Until(at))
}

func (l *Limiter) end(status int, wish time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, most := time.Now(), 0
	l.under--
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
