package model

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// client is a vendor as one account of one process sees it.
type client struct {
	s       *seller
	p       *Process
	account string
}

// Optional abilities, each a type of its own so that any of them can be missing.
type (
	finder    struct{ c *client }
	preparer  struct{ c *client }
	predictor struct{ c *client }
)

// client returns the vendor with the abilities that the traits give it.
func (s *seller) client(p *Process, account string) vendors.Vendor {
	c := &client{s, p, account}
	t := s.w.traits
	find, prepare, predict := !t.noFinder, t.prepares, t.predicts
	switch {
	case find && prepare && predict:
		return struct {
			*client
			finder
			preparer
			predictor
		}{c, finder{c}, preparer{c}, predictor{c}}
	case find && prepare:
		return struct {
			*client
			finder
			preparer
		}{c, finder{c}, preparer{c}}
	case find && predict:
		return struct {
			*client
			finder
			predictor
		}{c, finder{c}, predictor{c}}
	case prepare && predict:
		return struct {
			*client
			preparer
			predictor
		}{c, preparer{c}, predictor{c}}
	case find:
		return struct {
			*client
			finder
		}{c, finder{c}}
	case prepare:
		return struct {
			*client
			preparer
		}{c, preparer{c}}
	case predict:
		return struct {
			*client
			predictor
		}{c, predictor{c}}
	}
	return c
}

// Describe describes the vendor.
func (c *client) Describe() vendors.Description {
	w := c.s.w
	d := vendors.Description{
		Name: c.s.name(), Account: accountName, Portal: "https://model.example",
		Methods:    []vendors.Method{vendors.MethodHTTP, vendors.MethodDNS},
		CoversTwin: w.traits.saysTwin, NeedsCommonName: true, AbsenceAge: w.p.AbsenceAge,
	}
	if c.account != "" {
		d.Account += "/" + c.account
	}
	if w.traits.renews {
		d.RenewWindow = slices.Max(w.p.Margins)
	}
	if w.p.Describe != nil {
		w.p.Describe(&d, w.traits.keepsProduct)
	}
	return d
}

func (c *client) fail(call string, v vendors.Verdict, cause error) error {
	return &vendors.Error{Vendor: c.s.name(), Endpoint: call, Verdict: v, Err: cause}
}

var (
	errBusy    = errors.New("the vendor is busy")
	errRefused = errors.New("the vendor refuses")
	errLost    = errors.New("no answer came back")
)

// call makes a call. The effect returns how long the answer takes, and its error.
func (c *client) call(ctx context.Context, kind, key string, longest time.Duration, effect func() (time.Duration, error)) error {
	w := c.s.w
	err := w.do(ctx, c.p, kind, key, func(o *op) {
		w.effect(o, min(w.delay(), longest), effect)
	})
	if _, ok := errors.AsType[*vendors.Error](err); ok || err == nil {
		return err
	}
	// The caller went away, or died: whatever the call was, its fate is not known.
	return c.fail(kind, vendors.Uncertain, err)
}

// quick is how long an answer takes.
func (c *client) quick() time.Duration {
	return one(c.s.w, 200*time.Millisecond, 2*time.Second, 20*time.Second, c.s.w.p.PaidTimeout)
}

// refusal is an answer that says that nothing happened.
func (c *client) refusal(call string) error {
	return c.fail(call, one(c.s.w, vendors.Retryable, vendors.Permanent), errRefused)
}

const always = 365 * day

// accountName is the account without a label.
const accountName = "model.example"

func (s *seller) name() string { return fmt.Sprintf("vendor%d", s.number) }

// Validate is the free dry run of Place.
func (c *client) Validate(ctx context.Context, req vendors.OrderRequest) error {
	return c.call(ctx, "validate", req.Reference, always, func() (time.Duration, error) {
		if c.s.w.oneIn(24) {
			return c.quick(), c.fail("validate", vendors.Retryable, errBusy)
		}
		return c.quick(), nil
	})
}

// Place buys an order.
func (c *client) Place(ctx context.Context, req vendors.OrderRequest) (vendors.Order, error) {
	return c.pay(ctx, "place", req, nil)
}

// Renew buys an order that follows another one.
func (c *client) Renew(ctx context.Context, oldID string, req vendors.OrderRequest) (vendors.Order, error) {
	return c.pay(ctx, "renew", req, &oldID)
}

func (c *client) pay(ctx context.Context, kind string, req vendors.OrderRequest, oldID *string) (vendors.Order, error) {
	w, s := c.s.w, c.s
	csr, err := x509.ParseCertificateRequest(req.CSR)
	if err != nil {
		return vendors.Order{}, c.fail(kind, vendors.Permanent, err)
	}
	var out vendors.Order
	err = c.call(ctx, kind, req.Reference, w.p.PauseBeforeSend, func() (time.Duration, error) {
		quick := c.quick()
		r := 0
		if !w.quiet {
			r = w.tape.Pick(14)
		}
		if r == 9 || r == 13 {
			return quick, c.refusal(kind)
		}
		if s.w.traits.prepares && !s.prepared[req.PreparedID] {
			return quick, c.fail(kind, vendors.Permanent, errors.New("the prepared order is not known, or was paid already"))
		}
		product, names, term := req.Product, slices.Clone(req.Names), time.Duration(req.Term.Days+365*req.Term.Years)*day
		if oldID != nil {
			old := s.orders[*oldID]
			if old == nil || old.account != c.account || old.ends < w.now() {
				return quick, c.fail(kind, vendors.Permanent, vendors.ErrWrongState)
			}
			if w.traits.keepsProduct {
				product, names, term = old.root.product, old.root.names, old.root.term
			}
		}
		buy := func() vendors.Order {
			delete(s.prepared, req.PreparedID)
			o := s.create(&order{account: c.account, ref: req.Reference, product: product, names: names, key: csr.PublicKey, term: term}, nil)
			s.charged(c.p, o)
			return vendors.Order{ID: o.id, Status: o.status, Challenges: challenges(req.CSR, req.Method)}
		}
		switch r {
		case 10:
			return w.p.PaidTimeout, c.fail(kind, vendors.Uncertain, errLost)
		case 11: // it arrives after the caller has given up
			w.after(w.p.Land, func() { buy() })
			return w.p.PaidTimeout, c.fail(kind, vendors.Uncertain, errLost)
		case 12:
			buy()
			return quick, c.fail(kind, vendors.Uncertain, errLost)
		}
		out = buy()
		return quick, nil
	})
	if err != nil {
		return vendors.Order{}, err
	}
	return out, nil
}

// Reissue replaces a certificate within the paid term.
func (c *client) Reissue(ctx context.Context, oldOrderID string, req vendors.OrderRequest) (vendors.Order, error) {
	w, s := c.s.w, c.s
	csr, err := x509.ParseCertificateRequest(req.CSR)
	if err != nil {
		return vendors.Order{}, c.fail("reissue", vendors.Permanent, err)
	}
	var out vendors.Order
	err = c.call(ctx, "reissue", oldOrderID, always, func() (time.Duration, error) {
		w.result.Reissues++
		quick := c.quick()
		r := 0
		if !w.quiet {
			r = w.tape.Pick(14)
		}
		switch r {
		case 13:
			return quick, c.refusal("reissue")
		case 10:
			return quick, c.fail("reissue", vendors.Uncertain, errLost)
		}
		o := s.orders[oldOrderID]
		if o == nil || o.account != c.account || o.status != vendors.StatusIssued || w.now() > o.ends {
			return quick, c.fail("reissue", vendors.Permanent, vendors.ErrWrongState)
		}
		n := o
		if w.traits.newID {
			n = s.create(&order{account: o.account, ref: req.Reference, product: o.product, names: o.names, key: csr.PublicKey}, o.root)
			o.status, o.next = vendors.StatusReplaced, n
		} else {
			n.status, n.key, n.cert, n.revoked = vendors.StatusPending, csr.PublicKey, nil, false
			n.ready = w.now() + one(w, w.p.Ready[:max(1, len(w.p.Ready)-1)]...)
			s.byRef[req.Reference] = append(s.byRef[req.Reference], n)
		}
		w.say("vendor %d reissues %s as %s for server %d", s.number, o.id, n.id, c.p.Server)
		if r == 11 || r == 12 {
			return quick, c.fail("reissue", vendors.Uncertain, errLost)
		}
		out = vendors.Order{ID: n.id, Status: n.status, Challenges: challenges(req.CSR, req.Method)}
		return quick, nil
	})
	if err != nil {
		return vendors.Order{}, err
	}
	return out, nil
}

// Cancel ends an order.
func (c *client) Cancel(ctx context.Context, id, _ string) error {
	return c.end(ctx, "cancel", id, func(o *order) { o.status = vendors.StatusCancelled })
}

// Revoke revokes the certificate of an order, which may end with it.
func (c *client) Revoke(ctx context.Context, id, _ string) error {
	return c.end(ctx, "revoke", id, func(o *order) {
		if o.revoked = true; c.s.w.tape.Pick(2) == 1 {
			o.status = vendors.StatusRevoked
		}
	})
}

func (c *client) end(ctx context.Context, kind, id string, end func(*order)) error {
	w, o := c.s.w, c.s.orders[id]
	carryOut := func() bool {
		active := o != nil && o.account == c.account && (o.status == vendors.StatusIssued || o.status == vendors.StatusPending && kind == "cancel")
		if active {
			end(o)
			w.say("vendor %d: %s %s: %s", c.s.number, kind, id, o.status)
		}
		return active
	}
	return c.call(ctx, kind, id, w.p.PauseBeforeSend, func() (time.Duration, error) {
		quick, r := c.quick(), w.tape.Pick(14)
		switch r {
		case 13:
			return quick, c.refusal(kind)
		case 10:
			return w.p.PaidTimeout, c.fail(kind, vendors.Uncertain, errLost)
		case 11: // it arrives after the caller has given up
			w.after(w.p.Land, func() { carryOut() })
			return w.p.PaidTimeout, c.fail(kind, vendors.Uncertain, errLost)
		}
		if !carryOut() {
			return quick, c.fail(kind, vendors.Permanent, vendors.ErrWrongState)
		}
		if r == 12 {
			return quick, c.fail(kind, vendors.Uncertain, errLost)
		}
		return quick, nil
	})
}

// Find looks an order up by its reference.
func (f finder) Find(ctx context.Context, req vendors.Lookup) ([]string, error) {
	c := f.c
	var ids []string
	err := c.call(ctx, "find", req.Reference, always, func() (time.Duration, error) {
		w := c.s.w
		if w.oneIn(8) {
			return c.quick(), c.fail("find", vendors.Retryable, errBusy)
		}
		if w.traits.blind {
			return c.quick(), c.fail("find", vendors.Uncertain, vendors.ErrUndecidable)
		}
		for _, o := range c.s.byRef[req.Reference] {
			if o.account == c.account && o.shown <= w.now() {
				ids = append(ids, o.id)
			}
		}
		return c.quick(), nil
	})
	if err != nil {
		return nil, err
	}
	return ids, nil
}

// Status reads an order.
func (c *client) Status(ctx context.Context, id string) (vendors.Order, error) {
	var out vendors.Order
	err := c.call(ctx, "status", id, always, func() (time.Duration, error) {
		w, s := c.s.w, c.s
		if w.oneIn(8) {
			return c.quick(), c.fail("status", vendors.Retryable, errBusy)
		}
		if w.oneIn(40) { // looks final and is not
			return c.quick(), c.fail("status", vendors.Permanent, errRefused)
		}
		o := s.orders[id]
		if o == nil || o.account != c.account || o.shown > w.now() {
			return c.quick(), c.fail("status", vendors.Permanent, vendors.ErrNotFound)
		}
		s.look(o)
		if o.root.asked == 0 {
			o.root.asked = w.now()
		}
		out = vendors.Order{ID: id, Status: o.status, RawStatus: string(o.status), CertificateRevoked: o.revoked}
		for _, n := range o.names {
			out.Names = append(out.Names, vendors.NameStatus{Name: n, Verified: o.status == vendors.StatusIssued})
		}
		if w.traits.tellsTerm {
			out.TermEnds = w.start.Add(o.ends)
		}
		if o.status == vendors.StatusIssued {
			out.Certificates = [][]byte{o.cert, modelCA().cert.Raw}
		}
		return c.quick(), nil
	})
	if err != nil {
		return vendors.Order{}, err
	}
	return out, nil
}

// Prepare is the free preparation of an order.
func (f preparer) Prepare(ctx context.Context, req vendors.OrderRequest) (vendors.Prepared, error) {
	c := f.c
	var id string
	err := c.call(ctx, "prepare", req.Reference, always, func() (time.Duration, error) {
		if c.s.w.oneIn(24) {
			return c.quick(), c.fail("prepare", vendors.Retryable, errBusy)
		}
		id = "prepared-" + req.Reference
		c.s.prepared[id] = true
		return c.quick(), nil
	})
	return vendors.Prepared{ID: id}, err
}

// Predict returns the challenges before the order.
func (f predictor) Predict(req vendors.OrderRequest) ([]vendors.Challenge, error) {
	return challenges(req.CSR, req.Method), nil
}

// challenges are a function of the CSR.
func challenges(csr []byte, method vendors.Method) []vendors.Challenge {
	sum := sha256.Sum256(csr)
	token := hex.EncodeToString(sum[:16])
	if method == vendors.MethodDNS {
		return []vendors.Challenge{{Method: method, RecordName: "_model", RecordType: "TXT", RecordValue: token}}
	}
	return []vendors.Challenge{{Method: method, FileName: token + ".txt", FileContent: crypto.SHA256.String() + " " + token}}
}

// Interface guards
var (
	_ vendors.Vendor    = (*client)(nil)
	_ vendors.Validator = (*client)(nil)
	_ vendors.Reissuer  = (*client)(nil)
	_ vendors.Renewer   = (*client)(nil)
	_ vendors.Canceler  = (*client)(nil)
	_ vendors.Revoker   = (*client)(nil)
	_ vendors.Finder    = finder{}
	_ vendors.Preparer  = preparer{}
	_ vendors.Predictor = predictor{}
)
