// Package fault makes the calls of a sandbox fail on purpose: answers that are lost,
// slow, broken or late, and requests that never arrive. It stands between the network
// and the CA, which knows nothing of it.
package fault

import (
	"bytes"
	"context"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
)

// Dialect is a dialect as faults need it.
type Dialect interface {
	sandboxca.Dialect

	// CallName is the name of the call at a path below the prefix. Faults and
	// counters use it.
	CallName(method, path string) string

	// Failure is an answer in the seller's own form.
	Failure(code int, errs any) sandboxca.Answer
}

// Phase is a moment in the life of a call.
type Phase int

const (
	// BeforeEffect is before the call is processed. A fault here means that it
	// never is.
	BeforeEffect Phase = iota

	// AfterEffect is when the call has been processed and any charge made. A
	// fault here spoils the answer only.
	AfterEffect
)

// FaultKind is what goes wrong.
type FaultKind int

const (
	// HTTPStatus answers Status (default 500) with Body.
	HTTPStatus FaultKind = iota

	// HTML answers Status (default 502) with a page as proxies make them.
	HTML

	// Empty answers Status (default 200) with no body.
	Empty

	// CutOff sends the first half of the answer, declares all of it, and closes
	// the connection.
	CutOff

	// BadJSON sends the first half of the answer as if it were complete.
	BadJSON

	// Hang sends nothing until the client has gone or the CA is closed.
	Hang

	// Reset resets the TCP connection.
	Reset

	// Huge answers with ten megabytes of JSON.
	Huge

	// APICode answers in the seller's own form with Code and Errors.
	APICode

	// Redirect answers Status (default 302) with Body as the location, by
	// default another path of the sandbox.
	Redirect

	// ExtraFields adds unknown fields to the proper answer, whatever the Phase.
	ExtraFields

	// Shuffled sends the fields of the proper answer's objects in an order that
	// depends on Seed, whatever the Phase.
	Shuffled

	// Strange is ExtraFields and Shuffled together.
	Strange

	// Delay waits, then goes on with the proper answer, also when the client has
	// gone meanwhile: a charge may come late.
	Delay
)

// Fault is something that goes wrong on purpose.
type Fault struct {
	Endpoint string // empty means any
	Phase    Phase
	Kind     FaultKind

	Status     int             // HTTP status, zero means the kind's default
	Code       int             // for APICode
	Errors     any             // for APICode: "errors", in any form
	RetryAfter string          // the header's value
	Body       []byte          // for HTTPStatus and Redirect
	Seed       uint64          // for Shuffled and Strange
	Delay      time.Duration   // waited before anything else
	Until      <-chan struct{} // if not nil, waited for as well

	Skip  int // how many calls pass first
	Times int // how many calls are hit, zero means all
}

// injected is a fault with its counters.
type injected struct {
	Fault
	skip, hits int
}

// HugeBytes is more than any sensible bound of an answer.
const HugeBytes = 10 << 20

// Injector serves a CA and lets faults happen. Make it with New and Close it.
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

// New makes an injector without faults before the handler of a CA that serves the
// dialects.
func New(next http.Handler, dialects ...Dialect) *Injector {
	ctx, cancel := context.WithCancel(context.Background())
	return &Injector{next: next, dialects: dialects, ctx: ctx, cancel: cancel, calls: make(map[string]int), recent: make(map[string]*window)}
}

// Close ends all waiting and hanging answers.
func (in *Injector) Close() { in.cancel() }

// Inject adds a fault and returns a function that takes it away again. The
// oldest fault that fits a call applies.
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

// SetSource sets what happens to calls on which nothing was injected. Nil is nothing.
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

// ServeHTTP takes an API call through its phases. Everything else goes to the CA as
// it is.
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
	if hook != nil {
		hook(c.endpoint, BeforeEffect)
	}
	if ans := in.apply(c, BeforeEffect, nil); ans != nil {
		ans.send(c.w)
		return
	}
	ans := newAnswer()
	in.next.ServeHTTP(ans, c.r)
	if hook != nil {
		hook(c.endpoint, AfterEffect)
	}
	if spoilt := in.apply(c, AfterEffect, ans); spoilt != nil {
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

// apply lets the fault of this phase happen. It returns the answer to send
// instead of the proper one, nil if the call goes on as if nothing had been,
// and does not return at all if there is to be no answer.
func (in *Injector) apply(c *call, phase Phase, proper *answer) *answer {
	f, ok := in.pick(c, phase)
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

// wait waits as long as a fault says. It ends at once when the injector is closed,
// and then nothing more happens to the call.
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

func (in *Injector) spoil(c *call, f Fault, proper *answer) *answer {
	if proper == nil || proper.body.Len() == 0 {
		// Before the effect there is nothing to cut yet.
		proper = fromDialect(c.dialect.Failure(1, nil))
	}
	whole := proper.body.Bytes()
	half := whole[:len(whole)/2]
	switch f.Kind {
	case HTTPStatus:
		return f.answer(http.StatusInternalServerError, "text/plain; charset=utf-8", f.Body)
	case HTML:
		return f.answer(http.StatusBadGateway, "text/html", []byte("<html><head><title>502 Bad Gateway</title></head>"+
			"<body><center><h1>502 Bad Gateway</h1></center></body></html>\n"))
	case Empty:
		return f.answer(http.StatusOK, "", nil)
	case CutOff:
		ans := f.answer(http.StatusOK, proper.header.Get("Content-Type"), half)
		ans.declared = len(whole)
		return ans
	case BadJSON:
		return f.answer(http.StatusOK, proper.header.Get("Content-Type"), half)
	case Hang:
		select {
		case <-c.r.Context().Done():
		case <-in.ctx.Done():
		}
		panic(http.ErrAbortHandler)
	case Reset:
		reset(c.w)
		panic(http.ErrAbortHandler)
	case Huge:
		body := append([]byte(`{"code":1,"data":{"filler":"`), bytes.Repeat([]byte("x"), HugeBytes)...)
		return f.answer(http.StatusOK, "application/json", append(body, `"}}`...))
	case APICode:
		ans := fromDialect(c.dialect.Failure(f.Code, f.Errors))
		ans.status = f.Status
		return ans
	case Redirect:
		location := string(f.Body)
		if location == "" {
			location = c.dialect.Prefix() + "moved"
		}
		ans := f.answer(http.StatusFound, "", nil)
		ans.header.Set("Location", location)
		return ans
	case ExtraFields:
		return proper.with(AddFields(whole))
	case Shuffled:
		return proper.with(Shuffle(whole, f.Seed))
	case Strange:
		return proper.with(Shuffle(AddFields(whole), f.Seed))
	case Delay:
	}
	return nil
}

// answer is an answer of the fault's own status, or of the kind's.
func (f Fault) answer(status int, kind string, body []byte) *answer {
	ans := newAnswer()
	ans.status = status
	if f.Status != 0 {
		ans.status = f.Status
	}
	if kind != "" {
		ans.header.Set("Content-Type", kind)
	}
	ans.body.Write(body)
	return ans
}

// answer is an HTTP response before it is sent. It implements http.ResponseWriter for
// the CA.
type answer struct {
	status   int // zero means 200
	header   http.Header
	body     bytes.Buffer
	declared int // Content-Length if it is not the body's
}

func newAnswer() *answer { return &answer{header: make(http.Header)} }

func fromDialect(a sandboxca.Answer) *answer {
	ans := newAnswer()
	ans.status = a.Status
	maps.Copy(ans.header, a.Header)
	ans.body.Write(a.Body)
	return ans
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }

func (a *answer) with(body []byte) *answer {
	ans := newAnswer()
	ans.status = a.status
	maps.Copy(ans.header, a.header)
	ans.body.Write(body)
	return ans
}

func (a *answer) send(w http.ResponseWriter) {
	maps.Copy(w.Header(), a.header)
	length := a.body.Len()
	if a.declared > 0 {
		length = a.declared
	}
	w.Header().Set("Content-Length", strconv.Itoa(length))
	if a.status != 0 {
		w.WriteHeader(a.status)
	}
	_, _ = w.Write(a.body.Bytes()) // a client that has gone is no matter
}

// reset closes the connection so that the peer sees a reset, where the server
// allows it; otherwise the aborted handler closes it.
func reset(w http.ResponseWriter) {
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		return
	}
	conn, _, err := hijacker.Hijack()
	if err != nil {
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
