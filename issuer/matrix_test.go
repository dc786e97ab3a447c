package issuer

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/racent"
)

// matrix collects what each case cost and how it ended. TestMain prints it when the
// tests are run with -v, or to the file that MATRIX names.
var matrix struct {
	sync.Mutex
	rows []string
}

func note(title string, w *world, err error) {
	matrix.Lock()
	defer matrix.Unlock()
	matrix.rows = append(matrix.rows, fmt.Sprintf("%-95s | %d | %s", title, w.charges(), outcome(err)))
}

// outcome describes how a case ended.
func outcome(err error) string {
	switch {
	case err == nil:
		return "served"
	case is[*UncertainError](err):
		return "uncertain, says so"
	case is[*DeadOrderError](err):
		return "dead, says so"
	case strings.Contains(err.Error(), "no order is placed for "):
		return "held back, says so"
	case waits(err):
		return "pending, goes on"
	case isFinal(err):
		return "refused, says so"
	}
	return "failed, is retried"
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

func TestMain(m *testing.M) {
	code := m.Run()
	if path := os.Getenv("MATRIX"); path != "" {
		head := fmt.Sprintf("%-95s | charges | outcome\n", "case")
		text := head + strings.Join(matrix.rows, "\n") + fmt.Sprintf("\n%d cases\n", len(matrix.rows))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// badVendor is one way in which a vendor or the world around it goes wrong.
type badVendor struct {
	name    string
	config  func(*hostile.Config)
	faults  []hostile.Fault
	flow    func(*flow)
	world   func(w *world)
	during  func(w *world) // runs one minute after the first attempt began
	lasting time.Duration  // when the faults end; zero is never
	charges int
	want    string
}

// unreachable is a vendor whose TLS certificate does not verify for a while.
type unreachable struct {
	*racent.Orders
	until time.Time
}

func (u *unreachable) err() error {
	if time.Now().After(u.until) {
		return nil
	}
	return &vendors.Error{Vendor: "racent", Endpoint: "any", Verdict: vendors.Retryable, Err: x509.UnknownAuthorityError{}}
}

func (u *unreachable) Validate(ctx context.Context, req vendors.OrderRequest) error {
	if err := u.err(); err != nil {
		return err
	}
	return u.Orders.Validate(ctx, req)
}

func (u *unreachable) Place(ctx context.Context, req vendors.OrderRequest) (vendors.Order, error) {
	if err := u.err(); err != nil {
		return vendors.Order{}, err
	}
	return u.Orders.Place(ctx, req)
}

// asksFor makes the vendor ask for a certain file, in every answer. That file cannot be served, and
// the expected one still is.
func asksFor(name, content string) func(*flow) {
	return func(f *flow) {
		f.vendor = &demanding{f.vendor.(*racent.Orders), []vendors.Challenge{{Method: vendors.MethodHTTP, FileName: name, FileContent: content}}}
	}
}

type demanding struct {
	*racent.Orders
	challenges []vendors.Challenge
}

func (d *demanding) Place(ctx context.Context, req vendors.OrderRequest) (vendors.Order, error) {
	order, err := d.Orders.Place(ctx, req)
	order.Challenges = d.challenges
	return order, err
}

func (d *demanding) Status(ctx context.Context, id string) (vendors.Order, error) {
	order, err := d.Orders.Status(ctx, id)
	order.Challenges = d.challenges
	return order, err
}

func TestBadVendors(t *testing.T) {
	quirk := func(change func(*hostile.Quirks)) func(*hostile.Config) {
		return func(c *hostile.Config) { change(&c.Quirks) }
	}
	pending := func(c *hostile.Config) { c.IssueDelay = 10 * time.Minute }
	behindOurBack := func(status string) func(*world) {
		return func(w *world) { _ = w.ca.SetStatus(w.ca.Orders()[0].ID, status) }
	}
	api := func(endpoint string, code, times int) []hostile.Fault {
		return []hostile.Fault{{Endpoint: endpoint, Kind: hostile.APICode, Code: code, Times: times}}
	}
	cases := []badVendor{
		{name: "well-behaved", charges: 1, want: "served"},
		{name: "slow by seconds in every call", faults: []hostile.Fault{{Kind: hostile.Delay, Delay: 5 * time.Second}}, charges: 1, want: "served"},
		{name: "slow by 50 s in place", faults: []hostile.Fault{{Endpoint: "place", Kind: hostile.Delay, Delay: 50 * time.Second}}, charges: 1, want: "served"},
		{name: "429 on collect with absurd Retry-After", faults: []hostile.Fault{{Endpoint: "collect", Kind: hostile.HTTPStatus, Status: 429, RetryAfter: "31536000", Times: 5}}, charges: 1, want: "served"},
		{name: "429 on place", faults: []hostile.Fault{{Endpoint: "place", Kind: hostile.HTTPStatus, Status: 429, RetryAfter: "-1", Times: 2}}, charges: 1, want: "served"},
		{name: "5xx storm for an hour", faults: []hostile.Fault{{Kind: hostile.HTTPStatus, Status: 503}}, lasting: time.Hour, charges: 1, want: "served"},
		{name: "5xx storm for an hour after each charge", faults: []hostile.Fault{{Phase: hostile.AfterEffect, Kind: hostile.HTTPStatus, Status: 503}}, lasting: time.Hour, charges: 1, want: "served"},
		{name: "5xx storm after place", faults: []hostile.Fault{{Endpoint: "collect", Kind: hostile.HTTPStatus, Status: 500, Times: 60}}, charges: 1, want: "served"},
		{name: "HTML on collect", faults: []hostile.Fault{{Endpoint: "collect", Kind: hostile.HTML, Times: 5}}, charges: 1, want: "served"},
		{name: "redirects on collect", faults: []hostile.Fault{{Endpoint: "collect", Kind: hostile.Redirect, Times: 5}}, charges: 1, want: "served"},
		{name: "unknown fields", config: quirk(func(q *hostile.Quirks) { q.UnknownFields = true }), charges: 1, want: "served"},
		{name: "unknown status for a while", config: func(c *hostile.Config) { pending(c); c.Quirks.UnknownStatus = "PONDERING" }, charges: 1, want: "served"},
		{name: "code 2 while pending", config: func(c *hostile.Config) { pending(c); c.Quirks.Code2WhilePending = true }, charges: 1, want: "served"},
		{name: "code 2 without data", config: func(c *hostile.Config) { pending(c); c.Quirks.Code2WithoutData = true }, charges: 1, want: "served"},
		{name: "-6 on place", faults: api("place", -6, 1), charges: 1, want: "served"},
		{name: "-2 on place", faults: api("place", -2, 1), charges: 1, want: "served"},
		{name: "-2 on place for ever", faults: api("place", -2, 0), charges: 0, want: "held back, says so"},
		{name: "-7 on replace once", faults: api("replace", -7, 1), charges: 1, want: "served"},
		{name: "-8 on collect: cancelled", config: pending, faults: api("collect", -8, 0), charges: 1, want: "dead, says so"},
		{name: "-3 on place", faults: api("place", -3, 0), charges: 0, want: "failed, is retried"},
		{name: "-4 on place", faults: api("place", -4, 0), charges: 0, want: "failed, is retried"},
		{name: "-4 until the account is filled", faults: api("place", -4, 3), charges: 1, want: "served"},
		{name: "TLS error for an hour", flow: func(f *flow) {
			f.vendor = &unreachable{Orders: f.vendor.(*racent.Orders), until: time.Now().Add(time.Hour)}
		}, charges: 1, want: "served"},
		{name: "twin not provable", world: func(w *world) { w.web.noTwins = true }, charges: 1, want: "served"},
		{name: "400 on everything", faults: api("", 400, 0), charges: 0, want: "failed, is retried"},
		{name: "cancelled behind our back", config: pending, during: behindOurBack("CANCELLED"), charges: 1, want: "dead, says so"},
		{name: "rejected behind our back", config: pending, during: behindOurBack("FAILED"), charges: 1, want: "dead, says so"},
		{name: "revoked behind our back", config: pending, during: behindOurBack("REVOKED"), charges: 1, want: "dead, says so"},
		{name: "fetched again after passing", config: func(c *hostile.Config) { pending(c); c.Quirks.RefetchAfterPass = true }, charges: 1, want: "served"},
		{name: "reversed chain", config: quirk(func(q *hostile.Quirks) { q.ReverseChain = true }), charges: 1, want: "served"},
		{name: "root included", config: quirk(func(q *hostile.Quirks) { q.IncludeRoot = true }), charges: 1, want: "served"},
		{name: "CRLF", config: quirk(func(q *hostile.Quirks) { q.CRLF = true }), charges: 1, want: "served"},
		{name: "missing intermediate", config: quirk(func(q *hostile.Quirks) { q.OmitIntermediate = true }), charges: 1, want: "pending, goes on"},
		{name: "certificate for another key", config: quirk(func(q *hostile.Quirks) { q.WrongKey = true }), charges: 1, want: "pending, goes on"},
		{name: "expired certificate", config: quirk(func(q *hostile.Quirks) { q.ExpiredCert = true }), charges: 1, want: "pending, goes on"},
		{name: "CA's clock a day ahead", config: func(c *hostile.Config) { c.Now = func() time.Time { return time.Now().Add(24 * time.Hour) } }, charges: 1, want: "served"},
		{name: "CA's clock a year ahead", config: func(c *hostile.Config) { c.Now = func() time.Time { return time.Now().Add(365 * 24 * time.Hour) } }, charges: 1, want: "pending, goes on"},
		{name: "CA's clock a day behind", config: func(c *hostile.Config) { c.Now = func() time.Time { return time.Now().Add(-24 * time.Hour) } }, charges: 1, want: "served"},
		{name: "wrong common name", config: quirk(func(q *hostile.Quirks) { q.WrongCN = "elsewhere.example.org" }), charges: 1, want: "served"},
		{name: "twin put first", config: quirk(func(q *hostile.Quirks) { q.TwinFirst = true }), charges: 1, want: "served"},
		{name: "no twin", config: quirk(func(q *hostile.Quirks) { q.NoTwin = true }), charges: 1, want: "served"},
		{name: "twin listed for validation", config: quirk(func(q *hostile.Quirks) { q.TwinInDCVList = true }), charges: 1, want: "served"},
		{name: "no validation values", config: quirk(func(q *hostile.Quirks) { q.NoDCVValues = true }), charges: 1, want: "served"},
		{name: "old trailer in the file", config: func(c *hostile.Config) { c.CheckInterval = time.Minute; c.Quirks.Trailer = "comodoca.com" }, charges: 1, want: "served"},
		{name: "numeric IDs", config: quirk(func(q *hostile.Quirks) { q.NumericIDs = true }), charges: 1, want: "served"},
		{name: "reference is a mere remark", config: quirk(func(q *hostile.Quirks) { q.LooseRefID = true }), faults: []hostile.Fault{{Endpoint: "place", Phase: hostile.AfterEffect, Kind: hostile.Reset, Times: 1}}, charges: 1, want: "served"},
		{name: "look-up answers with empty success", config: quirk(func(q *hostile.Quirks) { q.EmptyUnknownRef = true }), faults: []hostile.Fault{{Endpoint: "place", Kind: hostile.Reset, Times: 1}}, charges: 1, want: "served"},
		{name: "place is processed 55 s after it was given up", faults: []hostile.Fault{{Endpoint: "place", Kind: hostile.Delay, Delay: 85 * time.Second, Times: 1}}, charges: 1, want: "served"},
		{name: "success without an ID, order placed", faults: []hostile.Fault{{Endpoint: "place", Phase: hostile.AfterEffect, Kind: hostile.APICode, Code: 1, Times: 1}}, charges: 1, want: "served"},
		{name: "success without an ID, nothing placed", faults: api("place", 1, 1), charges: 1, want: "served"},
		{name: "hostile file name ../x", flow: asksFor("../x", "y"), charges: 1, want: "served"},
		{name: "hostile file name, absolute", flow: asksFor("/etc/passwd", "y"), charges: 1, want: "served"},
		{name: "hostile file name with control characters", flow: asksFor("a\r\nb.txt", "y"), charges: 1, want: "served"},
		{name: "hostile file name of 5 kB", flow: asksFor(strings.Repeat("a", 5000), "y"), charges: 1, want: "served"},
		{name: "hostile content", flow: asksFor("a.txt", "x\x00y"), charges: 1, want: "served"},
		{name: "content of 1 MB", flow: asksFor("a.txt", strings.Repeat("a", 1<<20)), charges: 1, want: "served"},
		{name: "slow CA", config: func(c *hostile.Config) { c.IssueDelay = 20 * time.Hour }, charges: 1, want: "served"},
	}
	for i, c := range cases {
		if i%raceStride != 0 {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, c.config)
				if c.world != nil {
					c.world(w)
				}
				for _, fault := range c.faults {
					remove := w.ca.Inject(fault)
					if c.lasting > 0 {
						time.AfterFunc(c.lasting, remove)
					}
				}
				if c.during != nil {
					time.AfterFunc(time.Minute, func() { c.during(w) })
				}
				got, p, err := w.drive(w.start(nil, c.flow), "example.com", nil)
				if err == nil {
					w.verify(got, "example.com")
					// certmagic renews what it takes for the first name.
					for _, name := range []string{"example.com", got.leaf().DNSNames[0]} {
						if _, _, err := w.drive(p, name, nil); err != nil {
							t.Errorf("renewing %s: %v", name, err)
						}
					}
				}
				note(c.name, w, err)
				if outcome(err) != c.want {
					t.Errorf("outcome %q, want %q: %v", outcome(err), c.want, err)
				}
				if w.charges() != c.charges {
					t.Errorf("charges = %d, want %d", w.charges(), c.charges)
				}
				if w.ca.Calls("cancel") > 0 {
					t.Error("an order was cancelled")
				}
				w.noForgottenOrders()
				w.noSecrets()
			})
		})
	}
}
