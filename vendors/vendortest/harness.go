// Package vendortest is the conformance suite for vendors: what the issuer relies on, whatever the
// seller's dialect. Every vendor runs it against its sandbox.
package vendortest

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-commercial/caddy-commercial/internal/csrtest"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Role is the purpose of a call.
type Role int

// The roles that faults can hit.
const (
	RolePlace Role = iota
	RoleRenew
	RoleReissue
	RoleStatus
	RoleFind
)

func (r Role) String() string {
	return [...]string{"place", "renew", "reissue", "status", "find"}[r]
}

// Kind is what goes wrong with a call.
type Kind string

// The kinds of faults. Every service must be able to cause all of them.
const (
	HTML200   Kind = "HTML with HTTP 200"
	HTML502   Kind = "HTML with HTTP 502"
	HTTP500   Kind = "HTTP 500"
	Empty     Kind = "empty answer"
	CutOff    Kind = "answer cut off"
	BadJSON   Kind = "broken JSON"
	Text      Kind = "text that is not JSON"
	Huge      Kind = "10 MB"
	Redirect  Kind = "redirect"
	Reset     Kind = "connection reset"
	Hang      Kind = "no answer"
	EchoToken Kind = "error page that repeats the credential"

	// ExtraFields is a good answer with unknown fields.
	ExtraFields Kind = "unknown fields"
)

// broken lists the faults that leave no usable answer, except for Hang.
var broken = []Kind{HTML200, HTML502, HTTP500, Empty, CutOff, BadJSON, Text, Huge, Redirect, Reset, EchoToken}

// Fault hits all calls of a role until it is removed.
type Fault struct {
	Role Role
	Kind Kind

	// AfterEffect spoils the answer to a call that was carried out. Otherwise, the call is not
	// carried out.
	AfterEffect bool
}

// Service is the seller's sandbox behind a vendor.
type Service interface {
	// Charges returns how many times money was taken.
	Charges() int

	// Inject makes calls fail.
	Inject(f Fault) (remove func())

	// Sent returns how many requests of a role have arrived.
	Sent(role Role) int

	// Arrived returns a channel that is closed when the next request of a role
	// has arrived or, with afterEffect, when it was carried out.
	Arrived(role Role, afterEffect bool) <-chan struct{}

	// Prove publishes an order's challenges and lets time pass, so that the order is issued at the
	// next status call.
	Prove(order vendors.Order)

	// Age lets time pass until the order can be renewed.
	Age(orderID string)

	// Spend takes all money from the account.
	Spend()
}

// Harness is a fresh service and vendors that talk to it.
type Harness struct {
	Vendor  vendors.Vendor
	Service Service

	// Stranger is the same vendor with a credential that the service refuses;
	// Unreachable is one whose service does not listen.
	Stranger, Unreachable vendors.Vendor

	// Order is the configured part of a good order for one name.
	Order vendors.OrderConfig

	// Secrets must not appear in any error or log line. Logs has all log lines.
	Secrets []string
	Logs    *observer.ObservedLogs
}

// suite is a harness within one test.
type suite struct {
	*Harness
	t *testing.T
}

func (s suite) ctx() context.Context { return s.t.Context() }

var counter atomic.Int64

// request returns a good order with a fresh name, reference and CSR.
func (s suite) request() vendors.OrderRequest {
	s.t.Helper()
	n := counter.Add(1)
	req := vendors.OrderRequest{
		OrderConfig: s.Order,
		Reference:   fmt.Sprintf("suite-%d", n),
		Names:       []string{fmt.Sprintf("host%d.example.com", n)},
	}
	req.CSR = csrtest.DER(s.t, req.Names...)
	if s.Vendor.Describe().NeedsUnique {
		req.Unique = fmt.Sprintf("u%d", n)
	}
	return req
}

// prepared completes a request for a vendor that places orders in two steps. Other vendors' requests
// are complete.
func (s suite) prepared(req vendors.OrderRequest) vendors.OrderRequest {
	s.t.Helper()
	p, ok := s.Vendor.(vendors.Preparer)
	if !ok || req.PreparedID != "" {
		return req
	}
	prepared, err := p.Prepare(s.ctx(), req)
	if err != nil || prepared.ID == "" || prepared.Foreign {
		s.t.Fatalf("preparing order: %+v, %v", prepared, err)
	}
	req.PreparedID = prepared.ID
	return req
}

// buy makes both steps of an order, as the issuer does.
func (s suite) buy(v vendors.Vendor, req vendors.OrderRequest) error {
	if p, ok := v.(vendors.Preparer); ok {
		prepared, err := p.Prepare(s.ctx(), req)
		if err != nil {
			return err
		}
		req.PreparedID = prepared.ID
	}
	_, err := v.Place(s.ctx(), req)
	return err
}

// lookup returns the look-up of a request that was sent just now, as the issuer makes it.
func lookup(req vendors.OrderRequest) vendors.Lookup {
	return vendors.Lookup{
		Reference: req.Reference, PreparedID: req.PreparedID, Names: req.Names, CSR: req.CSR, Sent: time.Now(),
	}
}

// place buys and fails the test if that fails.
func (s suite) place(req vendors.OrderRequest) vendors.Order {
	s.t.Helper()
	order, err := s.Vendor.Place(s.ctx(), s.prepared(req))
	if err != nil {
		s.t.Fatalf("placing order: %v", err)
	}
	if order.ID == "" {
		s.t.Fatal("placed order has no ID")
	}
	return order
}

// issue drives the order of a request until it has its certificate, which must fit the CSR. As the
// issuer does, it presents what the vendor reports, or else what it has predicted.
func (s suite) issue(order vendors.Order, req vendors.OrderRequest) vendors.Order {
	s.t.Helper()
	if len(order.Challenges) == 0 {
		order.Challenges = s.challenges(order.ID)
	}
	if len(order.Challenges) == 0 {
		order.Challenges = s.predicted(req)
	}
	s.Service.Prove(order)
	got, err := s.Vendor.Status(s.ctx(), order.ID)
	if err != nil {
		s.t.Fatalf("status after validation: %v", err)
	}
	if got.Status != vendors.StatusIssued || len(got.Certificates) == 0 || got.ID != order.ID {
		s.t.Fatalf("order is %q (%s) with %d certificates and ID %q", got.Status, got.Describe(), len(got.Certificates), got.ID)
	}
	leaf, err := x509.ParseCertificate(got.Certificates[0])
	if err != nil {
		s.t.Fatalf("leaf: %v", err)
	}
	request, err := x509.ParseCertificateRequest(req.CSR)
	if err != nil {
		s.t.Fatal(err)
	}
	if !leaf.PublicKey.(*ecdsa.PublicKey).Equal(request.PublicKey) {
		s.t.Error("the certificate is not for the key of the CSR")
	}
	for _, name := range req.Names {
		if err := leaf.VerifyHostname(name); err != nil {
			s.t.Error(err)
		}
	}
	return got
}

// predicted returns what the vendor knows about the challenges before the order, if anything.
func (s suite) predicted(req vendors.OrderRequest) []vendors.Challenge {
	s.t.Helper()
	p, ok := s.Vendor.(vendors.Predictor)
	if !ok {
		return nil
	}
	challenges, err := p.Predict(req)
	if err != nil {
		s.t.Fatal(err)
	}
	return challenges
}

// charged checks the number of charges.
func (s suite) charged(want int) {
	s.t.Helper()
	if got := s.Service.Charges(); got != want {
		s.t.Errorf("charged %d times, want %d", got, want)
	}
}

// failed checks that err is a vendors.Error with this verdict and no secret.
func (s suite) failed(err error, want vendors.Verdict) {
	s.t.Helper()
	s.anyFailure(err)
	if got := vendors.VerdictOf(err); got != want {
		s.t.Errorf("verdict is %v, want %v: %v", got, want, err)
	}
}

func (s suite) anyFailure(err error) {
	s.t.Helper()
	e, ok := err.(*vendors.Error) //nolint:errorlint // the contract asks for the type itself
	if !ok {
		s.t.Fatalf("error is a %T, want *vendors.Error: %v", err, err)
	}
	s.clean("error", fmt.Sprintf("%v %+v %#v", err, err, e.Err))
	if e.Vendor != s.Vendor.Describe().Name || e.Endpoint == "" {
		s.t.Errorf("error does not name vendor and endpoint: %#v", e)
	}
}

func (s suite) clean(what, text string) {
	s.t.Helper()
	for _, secret := range s.Secrets {
		if strings.Contains(text, url.QueryEscape(secret)) {
			s.t.Errorf("%s leaks an escaped secret: %s", what, text)
		}
		// Quoting is repeated: an answer is quoted in an error, and that in a log.
		for range 3 {
			if strings.Contains(text, secret) {
				s.t.Errorf("%s leaks a secret: %s", what, text)
			}
			quoted := strconv.Quote(secret)
			secret = quoted[1 : len(quoted)-1]
		}
	}
}

func (s suite) cleanLogs() {
	for _, entry := range s.Logs.All() {
		s.clean("log", fmt.Sprint(entry.Message, entry.ContextMap()))
	}
}
