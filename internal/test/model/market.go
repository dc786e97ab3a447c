package model

import (
	"context"
	"crypto/x509"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Market replaces the model's own vendors: for example with the real clients, and a
// sandbox that keeps the books. Its methods are called in the loop, except for NewVendor,
// Roots and Close.
type Market interface {
	// NewVendor returns a vendor's client for one account in one process. Its calls go
	// through Process.Call.
	NewVendor(p *Process, number int, account string) vendors.Vendor

	// BuyElsewhere makes a purchase of which no server knows, before the history. The
	// order is issued. It returns the order's ID.
	BuyElsewhere(number int, names []string) (id string)

	// Groups reports whether orders of a vendor may be for several names.
	Groups(number int) bool

	// Books are all orders of an account, oldest first.
	Books(number int, account string) []Sold

	// Roots are the root certificates of all vendors.
	Roots() *x509.CertPool

	// Kill makes a pending order fail, if there is one.
	Kill()

	// Revoke revokes the certificate of an active order, if there is one.
	Revoke()

	// Calm ends all faults.
	Calm()

	// Close ends whatever the market has started.
	Close()
}

// Sold is what a market's books say about an order, or about a reissue under another ID.
type Sold struct {
	ID        string
	Reference string   // of the request: what a person who looks for it knows
	PaidBy    string   // the ID of the paid order; its own unless it is a reissue
	Next      string   // the ID of the reissue that replaced it
	Product   string   // in the words of the Config
	Names     []string // that were ordered
	Covered   []string // that are in the certificate; nil before it is issued
	Status    vendors.Status
	Term      time.Duration
	Created   time.Time
	Issued    time.Time // zero: not yet
	Ends      time.Time // of the term; zero: its length after Created
	Asked     time.Time // when a server that knew its ID first asked for it; zero: never
}

// accounts are the labels that configs use.
func accounts() []string { return []string{"", "second"} }

// Call is a call of a vendor that a market makes over its own network. It takes time to
// arrive and to be answered, it may be lost on the way there or back, and the process may
// die before or after it. paid is whether it costs money: no process sends such a call
// later than it may. serve carries out the call; with pick it chooses which of n things
// goes wrong, 0 being nothing.
func (p *Process) Call(ctx context.Context, kind string, paid bool, serve func(pick func(n int) int)) error {
	w, longest := p.w, always
	if paid {
		longest = w.p.PauseBeforeSend
	}
	carryOut := func() {
		serve(func(n int) int {
			if w.quiet || w.tape.Pick(8) > 0 {
				return 0
			}
			return w.tape.Pick(n)
		})
		w.readBooks(p)
	}
	return w.do(ctx, p, kind, "", func(o *op) {
		w.effect(o, min(w.delay(), longest), func() (time.Duration, error) {
			answer := one(w, 200*time.Millisecond, 2*time.Second, 20*time.Second, w.p.PaidTimeout)
			switch {
			case w.oneIn(40):
				return w.p.PaidTimeout, errLost
			case w.oneIn(40):
				w.after(w.p.Land, carryOut)
				return w.p.PaidTimeout, errLost
			case w.oneIn(40):
				carryOut()
				return answer, errLost
			}
			carryOut()
			return answer, nil
		})
	})
}

// readBooks brings what is known of orders up to date. What is new was bought by the process,
// or elsewhere if that is nil.
func (w *World) readBooks(p *Process) {
	if w.market == nil {
		return
	}
	for _, s := range w.sellers {
		for _, account := range accounts() {
			s.readBooks(p, account, w.market.Books(s.number, account))
		}
	}
}

func (s *seller) readBooks(p *Process, account string, books []Sold) {
	w := s.w
	var bought []*order
	for _, b := range books {
		o := s.orders[s.key(account, b.ID)]
		if o == nil {
			o = &order{
				id: b.ID, account: account, ref: b.Reference, product: b.Product, names: b.Names, term: b.Term, ours: p != nil,
				paid: b.Created.Sub(w.start),
			}
			s.add(o)
			if b.PaidBy == b.ID {
				o.root = o
				bought = append(bought, o)
			} else {
				o.root = s.orders[s.key(account, b.PaidBy)]
				o.term, o.ours = o.root.term, o.root.ours
				w.result.Reissues++
				w.say("vendor %d reissues %s as %s", s.number, b.PaidBy, b.ID)
			}
		}
		if o.status == vendors.StatusPending && b.Status == vendors.StatusIssued {
			w.result.Signed++
			w.say("vendor %d issues %s for %v", s.number, b.ID, b.Covered)
		}
		o.status, o.next, o.inCertificate = b.Status, s.orders[s.key(account, b.Next)], b.Covered
		if o.ends = b.Ends.Sub(w.start); b.Ends.IsZero() {
			o.ends = o.root.paid + o.term
		}
		if !b.Issued.IsZero() {
			o.issued = b.Issued.Sub(w.start)
		}
		if !b.Asked.IsZero() && (o.root.asked == 0 || b.Asked.Sub(w.start) < o.root.asked) {
			o.root.asked = b.Asked.Sub(w.start)
		}
	}
	for _, o := range bought {
		if p != nil {
			s.charged(p, o)
		}
	}
}
