package fault

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
)

// injected is a fault with its counters.
type injected struct {
	Fault
	skip, hits int
}

// Injector serves a CA and makes faults happen. Make it with New and Close it.
type Injector struct {
	next     http.Handler
	dialects []Dialect
	ctx      context.Context
	cancel   context.CancelFunc

	mu     sync.Mutex
	faults []*injected
	onCall func(endpoint string, phase Phase)
	calls  map[string]int
	number uint64 // of calls so far
	source Source
	limit  Limit
	recent map[string]*window // by dialect
}

// New makes an injector, without faults, in front of the handler of a CA that serves the
// dialects.
func New(next http.Handler, dialects ...Dialect) *Injector {
	ctx, cancel := context.WithCancel(context.Background())
	return &Injector{next: next, dialects: dialects, ctx: ctx, cancel: cancel, calls: make(map[string]int), recent: make(map[string]*window)}
}

// Close ends all waiting and hanging answers.
func (in *Injector) Close() { in.cancel() }

// Inject adds a fault and returns a function that removes it. The oldest fault that
// matches a call applies.
func (in *Injector) Inject(f Fault) (remove func()) {
	if f.Kind == ExtraFields || f.Kind == Shuffled || f.Kind == Strange {
		f.Phase = AfterEffect
	}
	added := &injected{Fault: f, skip: f.Skip}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.faults = append(in.faults, added)
	return func() {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.faults = slices.DeleteFunc(in.faults, func(have *injected) bool { return have == added })
	}
}

// SetSource sets what happens to calls that no injected fault matches. Nil means nothing.
func (in *Injector) SetSource(source Source) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.source = source
}

// SetLimit bounds the number of calls. Calls over it are answered with HTTP 429.
func (in *Injector) SetLimit(l Limit) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.limit = l
	clear(in.recent)
}

// OnCall sets a hook that is called before and after the effect of each call,
// ahead of any fault of that phase. Nil removes it.
func (in *Injector) OnCall(hook func(endpoint string, phase Phase)) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.onCall = hook
}

// Calls is how many requests an endpoint has seen, refused ones included. The
// empty endpoint means all of them.
func (in *Injector) Calls(endpoint string) int {
	in.mu.Lock()
	defer in.mu.Unlock()
	if endpoint != "" {
		return in.calls[endpoint]
	}
	sum := 0
	for _, n := range in.calls {
		sum += n
	}
	return sum
}

// AllCalls is how many requests each endpoint has seen.
func (in *Injector) AllCalls() map[string]int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return maps.Clone(in.calls)
}

// call is one API call on its way.
type call struct {
	number   uint64
	w        http.ResponseWriter
	r        *http.Request
	dialect  Dialect
	endpoint string
}

// ServeHTTP takes an API call through its phases. Everything else goes to the CA
// unchanged.
func (in *Injector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for _, d := range in.dialects {
		if path, ok := strings.CutPrefix(r.URL.Path, d.Prefix()); ok {
			in.serve(&call{w: w, r: r, dialect: d, endpoint: d.CallName(r.Method, path)})
			return
		}
	}
	in.next.ServeHTTP(w, r)
}

func (in *Injector) serve(c *call) {
	if err := sandboxca.BufferBody(c.w, c.r); err != nil {
		http.Error(c.w, "the request cannot be read", http.StatusRequestEntityTooLarge)
		return
	}
	hook, tooMany := in.count(c)
	if tooMany {
		ans := fromDialect(c.dialect.Failure(http.StatusTooManyRequests, "request_limit_exceeded"))
		ans.status = http.StatusTooManyRequests
		ans.send(c.w)
		return
	}
	if ans := in.apply(c, hook, BeforeEffect, nil); ans != nil {
		ans.send(c.w)
		return
	}
	ans := newAnswer()
	in.next.ServeHTTP(ans, c.r)
	if spoilt := in.apply(c, hook, AfterEffect, ans); spoilt != nil {
		ans = spoilt
	}
	ans.send(c.w)
}

// count counts a call and reports whether it is one too many.
func (in *Injector) count(c *call) (hook func(string, Phase), tooMany bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.calls[c.endpoint]++
	in.number++
	c.number = in.number
	if in.limit.Calls > 0 {
		name := c.dialect.Name()
		if in.recent[name] == nil {
			in.recent[name] = new(window)
		}
		tooMany = in.recent[name].over(in.limit, time.Now())
	}
	return in.onCall, tooMany
}

// pick picks the fault of a call, if there is one.
func (in *Injector) pick(c *call, phase Phase) (Fault, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, f := range in.faults {
		switch {
		case f.Endpoint != "" && f.Endpoint != c.endpoint, f.Phase != phase:
			continue
		case f.skip > 0:
			f.skip--
			continue
		case f.Times > 0 && f.hits >= f.Times:
			continue
		}
		f.hits++
		return f.Fault, true
	}
	if in.source == nil {
		return Fault{}, false
	}
	return in.source(c.number, phase)
}

// apply calls the hook and makes the fault of this phase happen. It returns the answer to send
// instead of the proper one, or nil if the call goes on as if nothing had happened. It does not
// return if there is to be no answer. The fault is picked first, so that whoever hears of the call
// by the hook may remove it.
func (in *Injector) apply(c *call, hook func(string, Phase), phase Phase, proper *answer) *answer {
	f, ok := in.pick(c, phase)
	if hook != nil {
		hook(c.endpoint, phase)
	}
	if !ok {
		return nil
	}
	in.wait(f)
	spoilt := in.spoil(c, f, proper)
	if spoilt != nil && f.RetryAfter != "" {
		spoilt.header.Set("Retry-After", f.RetryAfter)
	}
	return spoilt
}

// wait waits as long as a fault says. When the injector is closed, it aborts the call at
// once.
func (in *Injector) wait(f Fault) {
	if f.Delay > 0 {
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-in.ctx.Done():
			panic(http.ErrAbortHandler)
		}
	}
	if f.Until != nil {
		select {
		case <-f.Until:
		case <-in.ctx.Done():
			panic(http.ErrAbortHandler)
		}
	}
}
