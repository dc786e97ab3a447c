package sandboxca

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"time"
)

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

// hugeBytes is more than any sensible bound of an answer.
const hugeBytes = 10 << 20

// Inject adds a fault and returns a function that takes it away again. The
// oldest fault that fits a call applies.
func (c *CA) Inject(f Fault) (remove func()) {
	if f.Kind == ExtraFields {
		f.Phase = AfterEffect
	}
	in := &injected{Fault: f, skip: f.Skip}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, in)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.faults = slices.DeleteFunc(c.faults, func(have *injected) bool { return have == in })
	}
}

// OnCall sets a hook that is called before and after the effect of each call,
// ahead of any fault of that phase. Nil removes it.
func (c *CA) OnCall(hook func(endpoint string, phase Phase)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onCall = hook
}

// fault picks the fault of a call, if there is one.
func (c *CA) fault(endpoint string, phase Phase) (Fault, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, in := range c.faults {
		switch {
		case in.Endpoint != "" && in.Endpoint != endpoint, in.Phase != phase:
			continue
		case in.skip > 0:
			in.skip--
			continue
		case in.Times > 0 && in.hits >= in.Times:
			continue
		}
		in.hits++
		return in.Fault, true
	}
	return Fault{}, false
}

// apply lets the fault of this phase happen. It returns the answer to send
// instead of the proper one, nil if the call goes on as if nothing had been,
// and does not return at all if there is to be no answer.
func (c *CA) apply(w http.ResponseWriter, r *http.Request, d dialect, endpoint string, phase Phase, proper answer) *answer {
	f, ok := c.fault(endpoint, phase)
	if !ok {
		return nil
	}
	c.wait(f)
	spoilt := c.spoil(w, r, d, f, proper)
	if spoilt != nil && f.RetryAfter != "" {
		if spoilt.header == nil {
			spoilt.header = make(http.Header)
		}
		spoilt.header.Set("Retry-After", f.RetryAfter)
	}
	return spoilt
}

// wait waits as long as a fault says. It ends at once when the CA is closed,
// and then nothing more happens to the call.
func (c *CA) wait(f Fault) {
	if f.Delay > 0 {
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-c.ctx.Done():
			panic(http.ErrAbortHandler)
		}
	}
	if f.Until != nil {
		select {
		case <-f.Until:
		case <-c.ctx.Done():
			panic(http.ErrAbortHandler)
		}
	}
}

func (c *CA) spoil(w http.ResponseWriter, r *http.Request, d dialect, f Fault, proper answer) *answer {
	if proper.body == nil {
		// Before the effect there is nothing to cut yet.
		proper = d.failure(1, nil)
	}
	half := proper.body[:len(proper.body)/2]
	status := func(other int) int {
		if f.Status != 0 {
			return f.Status
		}
		return other
	}
	switch f.Kind {
	case HTTPStatus:
		ans := textAnswer(status(http.StatusInternalServerError), string(f.Body))
		return &ans
	case HTML:
		ans := textAnswer(status(http.StatusBadGateway), "<html><head><title>502 Bad Gateway</title></head>"+
			"<body><center><h1>502 Bad Gateway</h1></center></body></html>\n")
		ans.header.Set("Content-Type", "text/html")
		return &ans
	case Empty:
		return &answer{status: status(http.StatusOK)}
	case CutOff:
		return &answer{status: status(http.StatusOK), header: proper.header, body: half, declared: len(proper.body)}
	case BadJSON:
		return &answer{status: status(http.StatusOK), header: proper.header, body: half}
	case Hang:
		select {
		case <-r.Context().Done():
		case <-c.ctx.Done():
		}
		panic(http.ErrAbortHandler)
	case Reset:
		reset(w)
		panic(http.ErrAbortHandler)
	case Huge:
		body := append([]byte(`{"code":1,"data":{"filler":"`), bytes.Repeat([]byte("x"), hugeBytes)...)
		return &answer{status: status(http.StatusOK), header: proper.header, body: append(body, `"}}`...)}
	case APICode:
		ans := d.failure(f.Code, f.Errors)
		ans.status = f.Status
		return &ans
	case Redirect:
		location := string(f.Body)
		if location == "" {
			location = d.prefix() + "moved"
		}
		return &answer{status: status(http.StatusFound), header: http.Header{"Location": {location}}}
	case ExtraFields:
		proper.body = addFields(proper.body)
		return &proper
	case Delay:
	}
	return nil
}

// addFields adds fields that nobody has heard of to a JSON object and to its
// "data".
func addFields(body []byte) []byte {
	var m map[string]json.RawMessage
	if json.Unmarshal(body, &m) != nil || m == nil {
		return body
	}
	m["sandboxExtra"] = json.RawMessage(`{"nested":[1,null,{"deeper":true}]}`)
	m["Code2"] = json.RawMessage(`"not a code"`)
	var data map[string]json.RawMessage
	if json.Unmarshal(m["data"], &data) == nil && data != nil {
		data["sandboxExtra"] = json.RawMessage(`[[],{}]`)
		data["certificateNext"] = json.RawMessage(`null`)
		m["data"], _ = json.Marshal(data) // raw messages that were just decoded
	}
	out, err := json.Marshal(m)
	if err != nil {
		return body
	}
	return out
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
