package sandboxca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
)

// reason classifies a refusal; a dialect translates it into the seller's code.
type reason int

const (
	badInput reason = iota
	badProduct
	noMoney
	refusedByCA
	wrongStatus
	alreadyCancelled
	busy
	internal
)

// refusal is why the core does not do what it was asked to.
type refusal struct {
	reason reason
	field  string
	text   string
}

func (r *refusal) Error() string { return r.field + ": " + r.text }

// Windows of the seller in days of a 365-day year.
const (
	renewWindowDays  = 90
	refundWindowDays = 30
	bonusDays        = 30
)

// days scales a number of days to the length of a paid year.
func (cfg *Config) days(n int) time.Duration {
	return cfg.Year * time.Duration(n) / 365
}

// create takes a new order: it returns the order's ID, or why there is none. In
// one step under the lock it checks the reference, the CSR's freshness and the
// balance, charges the account, and stores the order, so that there is no order
// without its charge and no charge without its order, not even on disk.
func (c *CA) create(o *order) (string, *refusal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.cfg.Now()

	if prior, ref := c.sameReference(o); ref != nil {
		return "", ref
	} else if prior != nil {
		return prior.ID, nil
	}
	var parent *order
	if o.Parent != "" {
		parent = c.st.byID(o.Parent)
		c.advance(parent)
		if ref := c.mayFollow(parent, o.Kind, now); ref != nil {
			return "", ref
		}
	}
	if o.DigiCert == nil && c.st.used(o.CSR, o.Unique) {
		return "", &refusal{refusedByCA, "csr", "the CA has seen this CSR with the same uniqueValue before"}
	}
	if c.st.Balances[o.Account] < o.Cents {
		return "", &refusal{noMoney, "balance", "insufficient balance"}
	}

	before := c.st
	before.Orders, before.Charges = slices.Clone(c.st.Orders), slices.Clone(c.st.Charges)
	if err := c.identify(o, now); err != nil {
		return "", &refusal{internal, "", "unexpected error"}
	}
	o.Status, o.Created = StatusPending, now
	c.st.Orders = append(c.st.Orders, o)
	switch o.Kind {
	case KindPlace, KindRenew:
		o.Paid = o.ID
		c.st.Balances[o.Account] -= o.Cents
		c.st.Charges = append(c.st.Charges, Charge{
			Time: now, OrderID: o.ID, Reference: o.RefID, Product: o.Product,
			Names: o.names(), Cents: o.Cents, Kind: o.Kind,
		})
	case KindReissue, KindReplace:
		o.Paid, o.Bonus, o.TermEnd = parent.Paid, parent.Bonus, parent.TermEnd
		if o.DigiCert == nil { // its orders stay what they are
			parent.Status, parent.ReplacedBy = StatusReissued, o.ID
		}
	}
	if err := c.save(); err != nil {
		c.st = before
		if parent != nil && o.Kind != KindRenew {
			parent.Status, parent.ReplacedBy = StatusComplete, ""
		} else {
			c.st.Balances[o.Account] += o.Cents
		}
		c.logger.Error("storing order failed", zap.Error(err))
		return "", &refusal{internal, "", "unexpected error"}
	}
	c.logger.Info("order taken",
		zap.String("kind", o.Kind), zap.String("order_id", o.ID), zap.String("reference", o.RefID),
		zap.String("product", o.Product), zap.Strings("names", o.names()), zap.Int64("cents", o.Cents))
	return o.ID, nil
}

// sameReference finds the order that was made by an earlier call of the same
// kind with the same reference.
func (c *CA) sameReference(o *order) (*order, *refusal) {
	if o.RefID == "" || c.cfg.Quirks.LooseRefID || o.DigiCert != nil {
		return nil, nil
	}
	prior := c.st.byRef(o.Account, o.RefID)
	if prior == nil {
		return nil, nil
	}
	if c.cfg.Quirks.StrictRefID {
		return nil, &refusal{badInput, "refId", "refId has been used before"}
	}
	switch o.Kind {
	case KindReissue, KindReplace:
		// A reissue may carry the reference of the order it continues.
		if prior.Kind != o.Kind || prior.Parent != o.Parent {
			return nil, nil
		}
	}
	return prior, nil
}

// mayFollow tells whether an order may be renewed, reissued or replaced.
func (c *CA) mayFollow(parent *order, kind string, now time.Time) *refusal {
	switch {
	case parent.Status == StatusCancelled:
		return &refusal{alreadyCancelled, "certId", "the order is cancelled"}
	case parent.Status != StatusComplete:
		return &refusal{wrongStatus, "certId", "the certificate is not issued"}
	case !now.Before(parent.TermEnd):
		return &refusal{wrongStatus, "certId", "the subscription has ended"}
	case kind == KindRenew && now.Before(parent.TermEnd.Add(-c.cfg.days(renewWindowDays))):
		return &refusal{wrongStatus, "renewId", "the subscription does not end within 90 days"}
	}
	return nil
}

// identify gives a new order its identifiers. A certId is a date and ten
// characters, as Racent's are.
func (c *CA) identify(o *order, now time.Time) error {
	prefix, alphabet := now.In(chinaTime).Format("060102"), "abcdefghijklmnopqrstuvwxyz"
	if c.cfg.Quirks.NumericIDs {
		// Few enough digits for a float64, and no leading zero.
		prefix, alphabet = "1", "0123456789"
	}
	var id strings.Builder
	id.WriteString(prefix)
	for range 10 {
		i, err := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet))))
		if err != nil {
			return err
		}
		id.WriteByte(alphabet[i.Int64()])
	}
	c.st.Sequence++
	o.ID = id.String()
	if o.DigiCert != nil {
		o.ID = strconv.FormatInt(digicertFirstID+c.st.Sequence, 10)
	}
	o.Number = "RC" + strconv.FormatInt(100_000_000+c.st.Sequence, 10)
	o.CAOrder = strconv.FormatInt(2_771_000_000+c.st.Sequence, 10)
	o.CACert = strconv.FormatInt(39_831_000_000+c.st.Sequence, 10)
	return nil
}

// cancelOrder ends an order and refunds it. An issued certificate is revoked.
func (c *CA) cancelOrder(account, id string) *refusal {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.find(account, id)
	if o == nil {
		return unknownOrder()
	}
	now := c.cfg.Now()
	switch {
	case o.Status == StatusCancelled:
		return &refusal{alreadyCancelled, "certId", "the order is cancelled already"}
	case o.pending() && o.Paid != o.ID:
		return &refusal{wrongStatus, "certId", "a reissue in progress cannot be cancelled"}
	case o.pending():
	case o.Status != StatusComplete:
		return &refusal{wrongStatus, "certId", "the status of the certificate does not allow this"}
	case now.After(c.st.byID(o.Paid).Issued.Add(c.cfg.days(refundWindowDays))):
		return &refusal{wrongStatus, "certId", "the certificate was issued more than 30 days ago"}
	}
	o.Status, o.Revoked = StatusCancelled, o.Cert != nil
	if paid := c.st.byID(o.Paid); !paid.Refunded {
		paid.Refunded = true
		c.st.Balances[account] += paid.Cents
	}
	return c.saved()
}

// revokeOrder revokes the certificate of an order, without refund.
func (c *CA) revokeOrder(account, id string) *refusal {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.find(account, id)
	if o == nil {
		return unknownOrder()
	}
	if o.Cert == nil || o.Revoked || (o.Status != StatusComplete && o.Status != StatusReissued) {
		return &refusal{wrongStatus, "certId", "there is no certificate to revoke"}
	}
	o.Status, o.Revoked = StatusRevoked, true
	return c.saved()
}

// find looks an order of an account up and brings it up to date. The lock is
// held.
func (c *CA) find(account, id string) *order {
	o := c.st.byID(id)
	if o == nil || o.Account != account {
		return nil
	}
	c.advance(o)
	return o
}

func unknownOrder() *refusal { return &refusal{badInput, "certId", "certId is invalid"} }

// saved stores a change that is free to be lost.
func (c *CA) saved() *refusal {
	if err := c.save(); err != nil {
		c.logger.Error("storing state failed", zap.Error(err))
		return &refusal{internal, "", "unexpected error"}
	}
	return nil
}

// keep is saved where nobody waits for an answer: the failure is logged.
func (c *CA) keep() { _ = c.saved() }

func (c *CA) advanceAll() {
	for _, o := range c.st.Orders {
		c.advance(o)
	}
}

// advance issues the certificate of an order whose checks are done and whose
// time has come. Time is looked at when somebody asks, not by a timer, so that
// it works under any clock. The lock is held.
func (c *CA) advance(o *order) {
	now := c.cfg.Now()
	if !o.pending() || o.Validated.IsZero() {
		return
	}
	ready := o.Validated
	if ov := o.organisationDone(&c.cfg); ov.After(ready) {
		ready = ov
	}
	if now.Before(ready.Add(c.cfg.IssueDelay)) {
		return
	}
	leaf, err := c.issue(o, now)
	if err != nil {
		c.logger.Error("issuing certificate failed", zap.String("order_id", o.ID), zap.Error(err))
		o.Status = StatusFailed
		return
	}
	o.Status, o.Issued = StatusComplete, now
	o.Cert, o.Serial = leaf.Raw, leaf.SerialNumber.Text(16)
	o.NotBefore, o.NotAfter = leaf.NotBefore, leaf.NotAfter
	o.TermEnd = c.termEnd(o, now)
	c.keep()
	c.logger.Info("certificate issued", zap.String("order_id", o.ID),
		zap.Strings("names", leaf.DNSNames), zap.Time("not_after", leaf.NotAfter))
}

// termEnd is the end of the paid term, which starts with the first certificate.
// A renewal starts a term of its own.
func (c *CA) termEnd(o *order, now time.Time) time.Time {
	if !o.TermEnd.IsZero() {
		return o.TermEnd
	}
	return now.Add(time.Duration(o.Years)*c.cfg.Year + o.Bonus).Truncate(time.Second)
}

// issue signs the certificate of an order.
func (c *CA) issue(o *order, now time.Time) (*x509.Certificate, error) {
	quirks := c.cfg.Quirks
	if quirks.SameCertAgain && (o.Kind == KindReissue || o.Kind == KindReplace) {
		if parent := c.st.byID(o.Parent); parent.Cert != nil {
			return x509.ParseCertificate(parent.Cert)
		}
	}
	csr, err := x509.ParseCertificateRequest(o.CSR)
	if err != nil {
		return nil, fmt.Errorf("parsing stored csr: %w", err)
	}
	req := leafRequest{
		names:     o.names(),
		key:       csr.PublicKey,
		notBefore: now.Add(-time.Minute).Truncate(time.Second),
		notAfter:  now.Add(c.cfg.Lifetime).Truncate(time.Second),
	}
	if o.Twin != nil && o.Twin.Verified {
		if quirks.TwinFirst {
			req.names = slices.Insert(req.names, 0, o.Twin.Name)
		} else {
			req.names = append(req.names, o.Twin.Name)
		}
	}
	if quirks.WrongCN != "" {
		req.names = slices.Insert(req.names, 0, quirks.WrongCN)
	}
	if quirks.WrongKey {
		other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		req.key = other.Public()
	}
	if end := c.termEnd(o, now); (quirks.ClipToTerm || o.DigiCert != nil) && req.notAfter.After(end) {
		req.notAfter = end
	}
	if quirks.ExpiredCert {
		req.notAfter = now.Add(-time.Hour).Truncate(time.Second)
		req.notBefore = req.notAfter.Add(-c.cfg.Lifetime)
	}
	return c.authority.sign(req)
}
