// Package fault makes the calls of a sandbox fail on purpose: answers that are lost,
// slow, broken or late, and requests that never arrive. It stands between the network and
// the CA, which knows nothing about it.
package fault

import (
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
)

// Dialect is what faults need of a dialect.
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
	// BeforeEffect is before the call is processed. Except for Delay, a fault here means
	// that it never is.
	BeforeEffect Phase = iota

	// AfterEffect is after the call has been processed and any charge made. A fault here
	// spoils the answer only.
	AfterEffect
)

// FaultKind is what goes wrong.
type FaultKind int

const (
	// HTTPStatus answers Status (default 500) with Body.
	HTTPStatus FaultKind = iota

	// HTML answers Status (default 502) with an error page like a proxy's.
	HTML

	// Empty answers Status (default 200) with no body.
	Empty

	// CutOff sends the first half of the answer, declares all of it, and closes
	// the connection.
	CutOff

	// BadJSON sends the first half of the answer as if it were complete.
	BadJSON

	// Hang sends nothing until the client has gone away or the CA is closed.
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

	// Delay waits, then goes on to the proper answer, even if the client has gone away
	// meanwhile: a charge may come late.
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
