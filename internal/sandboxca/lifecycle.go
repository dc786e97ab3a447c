package sandboxca

import (
	"crypto/rand"
	"errors"
	"math/big"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
)

// Reason classifies a refusal; a dialect translates it into the seller's code.
type Reason int

// The reasons.
const (
	BadInput Reason = iota
	BadProduct
	NoMoney
	RefusedByCA
	WrongStatus
	AlreadyCancelled
	Busy
	Internal
)

// What a refusal of the core is about. A dialect has its own names for them.
const (
	AboutOrder     = "order" // the order that a call names
	AboutReference = "reference"
	AboutCSR       = "csr"
	AboutBalance   = "balance"
)

// Refusal is why the core does not do what it was asked to do.
type Refusal struct {
	Reason Reason
	Field  string // what it is about, or the field of a dialect
	Text   string
}

// Err is the refusal as an error, nil if there is none.
func (r *Refusal) Err() error {
	if r == nil {
		return nil
	}
	return errors.New(r.Text)
}

// Refuse makes a refusal.
func Refuse(reason Reason, field, text string) *Refusal { return &Refusal{reason, field, text} }

// Unknown refuses the ID of an order that does not exist.
func Unknown() *Refusal { return &Refusal{BadInput, AboutOrder, "there is no such order"} }

func insufficient() *Refusal { return &Refusal{NoMoney, AboutBalance, "insufficient balance"} }

// Time windows of the seller, in days of a 365-day year.
const (
	renewWindowDays  = 90
	refundWindowDays = 30
)

// Repeat is what becomes of an order with a reference that was used before.
type Repeat int

// The ways to take a reference that was used before.
const (
	RepeatIsNew   Repeat = iota // the reference is only a note: another order, another charge
	RepeatIsFirst               // the first order is returned, nothing is charged
	RepeatRefused
)

// Rules are how a seller takes an order.
type Rules struct {
	// NewID makes the ID of the order with this number in the CA's books.
	NewID func(sequence int64, now time.Time) string

	// Repeat is what happens to a reference that was used before.
	Repeat Repeat

	// FreshCSR refuses a CSR that was ordered before with the same unique value.
	FreshCSR bool

	// Supersedes sets the status of an order to REISSUED when its reissue is taken.
	Supersedes bool

	// Record, if not nil, makes a record that is stored atomically with the order.
	Record func(*Order) Record
}

// Create takes a new order: it returns the order's ID, or why there is none. In one step
// it checks the reference, the CSR's freshness and the balance, charges the account, and
// stores the order. There is never an order without its charge or a charge without its
// order, not even on disk.
func (c *CA) Create(o *Order, rules Rules) (string, *Refusal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.cfg.Now()

	if prior, ref := c.sameReference(o, rules.Repeat); ref != nil {
		return "", ref
	} else if prior != nil {
		return prior.ID, nil
	}
	parent := c.st.byID[o.Parent]
	if ref := c.mayCreate(o, parent, rules, now); ref != nil {
		return "", ref
	}
	c.identify(o, rules, now)
	ch := change{Sequence: c.st.sequence + 1, Orders: []*Order{o}}
	switch o.Kind {
	case KindPlace, KindRenew:
		o.Paid = o.ID
		ch.Charges = []Charge{o.charge(o.ID, now)}
		ch.Balances = map[string]int64{o.Account: c.st.balances[o.Account] - o.Cents}
	case KindReissue, KindReplace:
		o.Paid, o.Bonus, o.TermEnd = parent.Paid, parent.Bonus, parent.TermEnd
		if rules.Supersedes {
			next := parent.Progress
			next.Status, next.ReplacedBy = StatusReissued, o.ID
			ch.Progress = map[string]*Progress{parent.ID: &next}
		}
	}
	if rules.Record != nil {
		ch.Records = []Record{rules.Record(o)}
	}
	if ref := c.saved(ch); ref != nil {
		return "", ref
	}
	c.st.apply(ch)
	c.logger.Info("order taken",
		zap.String("kind", o.Kind), zap.String("order_id", o.ID), zap.String("reference", o.RefID),
		zap.String("product", o.Product), zap.Strings("names", o.NameList()), zap.Int64("cents", o.Cents))
	return o.ID, nil
}

// mayCreate returns why an order may not be taken, nil if it may. The parent is nil for a
// first order.
func (c *CA) mayCreate(o, parent *Order, rules Rules, now time.Time) *Refusal {
	if parent != nil {
		c.advance(parent)
		if ref := c.mayFollow(parent, o.Kind, now); ref != nil {
			return ref
		}
	}
	if rules.FreshCSR && c.st.used(o) {
		return &Refusal{RefusedByCA, AboutCSR, "the CA has seen this CSR with the same unique value before"}
	}
	if c.cfg.Hooks.Refuse != nil {
		if ref := c.cfg.Hooks.Refuse(o); ref != nil {
			return ref
		}
	}
	if c.st.balances[o.Account] < o.Cents {
		return insufficient()
	}
	return nil
}

func (o *Order) charge(orderID string, now time.Time) Charge {
	return Charge{
		Time: now, OrderID: orderID, Reference: o.RefID, Product: o.Product,
		Names: o.NameList(), Cents: o.Cents, Kind: o.Kind,
	}
}

// sameReference finds the order that was made by an earlier call of the same
// kind with the same reference.
func (c *CA) sameReference(o *Order, repeat Repeat) (*Order, *Refusal) {
	if c.cfg.Hooks.Repeat != nil {
		repeat = c.cfg.Hooks.Repeat(repeat)
	}
	prior := c.st.byRef[refKey{o.Dialect, o.Account, o.RefID}]
	switch {
	case prior == nil, repeat == RepeatIsNew:
		return nil, nil
	case repeat == RepeatRefused:
		return nil, &Refusal{BadInput, AboutReference, "the reference has been used before"}
	case o.Kind != KindReissue && o.Kind != KindReplace:
	case prior.Kind != o.Kind || prior.Parent != o.Parent:
		// A reissue may carry the reference of the order it continues.
		return nil, nil
	}
	return prior, nil
}

// mayFollow returns why an order may not be renewed, reissued or replaced, nil if it may.
func (c *CA) mayFollow(parent *Order, kind string, now time.Time) *Refusal {
	switch {
	case parent.Status == StatusCancelled:
		return &Refusal{AlreadyCancelled, AboutOrder, "the order is cancelled"}
	case parent.Status != StatusComplete:
		return &Refusal{WrongStatus, AboutOrder, "the certificate is not issued"}
	case !now.Before(parent.TermEnd):
		return &Refusal{WrongStatus, AboutOrder, "the subscription has ended"}
	case kind == KindRenew && now.Before(parent.TermEnd.Add(-c.cfg.days(renewWindowDays))):
		return &Refusal{WrongStatus, AboutOrder, "the subscription does not end within 90 days"}
	}
	return nil
}

// identify gives a new order its identifiers.
func (c *CA) identify(o *Order, rules Rules, now time.Time) {
	n := c.st.sequence + 1
	o.ID = rules.NewID(n, now)
	o.Number = "RC" + strconv.FormatInt(100_000_000+n, 10)
	o.CAOrder = strconv.FormatInt(2_771_000_000+n, 10)
	o.CACert = strconv.FormatInt(39_831_000_000+n, 10)
	o.Status, o.Created = StatusPending, now
	if c.cfg.Hooks.Order != nil {
		c.cfg.Hooks.Order(o)
	}
}

// RandomText returns n random characters of an alphabet.
func RandomText(alphabet string, n int) string {
	var b strings.Builder
	for range n {
		i, err := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet))))
		if err != nil {
			return "" // never happens, see crypto/rand.Reader
		}
		b.WriteByte(alphabet[i.Int64()])
	}
	return b.String()
}

// Cancel ends an order and refunds it. An issued certificate is revoked.
func (c *CA) Cancel(dialect, account, id string) *Refusal {
	books := c.Open()
	defer books.Close()
	o := books.Find(dialect, account, id)
	if o == nil {
		return Unknown()
	}
	paid := c.st.byID[o.Paid]
	switch {
	case o.Status == StatusCancelled:
		return &Refusal{AlreadyCancelled, AboutOrder, "the order is cancelled already"}
	case o.Pending() && paid != o:
		return &Refusal{WrongStatus, AboutOrder, "a reissue in progress cannot be cancelled"}
	case o.Pending():
	case o.Status != StatusComplete:
		return &Refusal{WrongStatus, AboutOrder, "the status of the certificate does not allow this"}
	case c.cfg.Now().After(paid.Issued.Add(c.cfg.days(refundWindowDays))):
		return &Refusal{WrongStatus, AboutOrder, "the certificate was issued more than 30 days ago"}
	}
	o.Status = StatusCancelled
	o.Revoke(c.cfg.Now())
	ch := change{Progress: progressOf([]*Order{o, paid})}
	if !paid.Refunded {
		paid.Refunded = true
		c.st.balances[account] += paid.Cents
		ch.Balances = map[string]int64{account: c.st.balances[account]}
	}
	return c.saved(ch)
}

// Revoke revokes the certificate of an order, without refund.
func (c *CA) Revoke(dialect, account, id string) *Refusal {
	books := c.Open()
	defer books.Close()
	o := books.Find(dialect, account, id)
	if o == nil {
		return Unknown()
	}
	if o.Cert == nil || o.Revoked || (o.Status != StatusComplete && o.Status != StatusReissued) {
		return &Refusal{WrongStatus, AboutOrder, "there is no certificate to revoke"}
	}
	o.Status = StatusRevoked
	o.Revoke(c.cfg.Now())
	return books.Save(o)
}

// advanceAll brings all pending orders up to date.
func (c *CA) advanceAll() {
	for o := range c.st.open {
		c.advance(o)
	}
}

// advance issues the certificate of an order whose checks are done, once it is due. It
// runs when somebody asks, not on a timer, so it works with any clock. The lock is held.
func (c *CA) advance(o *Order) {
	now := c.cfg.Now()
	if !o.Pending() || o.Held || o.Validated.IsZero() {
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
		c.keep(o)
		return
	}
	o.Status, o.Issued = StatusComplete, now
	o.Cert, o.Serial = leaf.Raw, leaf.SerialNumber.Text(16)
	o.NotBefore, o.NotAfter = leaf.NotBefore, leaf.NotAfter
	o.TermEnd = c.termEnd(o, now)
	c.keep(o)
	c.logger.Info("certificate issued", zap.String("order_id", o.ID),
		zap.Strings("names", leaf.DNSNames), zap.Time("not_after", leaf.NotAfter))
}

// termEnd is the end of the paid term, which starts with the first certificate.
// A renewal starts a term of its own.
func (c *CA) termEnd(o *Order, now time.Time) time.Time {
	if !o.TermEnd.IsZero() {
		return o.TermEnd
	}
	return now.Add(time.Duration(o.Years)*c.cfg.Year + o.Bonus).Truncate(time.Second)
}
