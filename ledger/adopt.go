package ledger

import (
	"encoding/hex"
	"fmt"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// AdoptedID is the ID of the entry of an order that was bought elsewhere. An order has one entry,
// however it was taken up, and another one each time that it is taken up again after it was given up.
func AdoptedID(orderID string, nth int) string {
	id := "adopted-" + Escape(orderID)
	if nth > 1 {
		id += fmt.Sprintf("__%d", nth) // not part of any escaped ID
	}
	return id
}

// NewReference makes an ID that no other request ever has, in letters and digits only, because
// nothing is known of what vendors' reference fields accept.
func (l *Ledger) NewReference() string {
	b := make([]byte, 12)
	l.Fill(b)
	return "cc" + hex.EncodeToString(b)
}

// Adopt is the entry of an order that was bought elsewhere for the given names, as the vendor shows
// it, before it is stored. It may be for the wanted names, too. Its certificate, when it has one,
// belongs to a key that is not here. The product, the term and the method are those of today's
// configuration.
func (l *Ledger) Adopt(order vendors.Order, names, wanted []string, cfg vendors.OrderConfig) *Entry {
	now := l.Time()
	e := &Entry{
		ID: AdoptedID(order.ID, 1), Names: names, State: Open, Adopted: true,
		Product: cfg.Product, Term: cfg.Term, Method: cfg.Method, Paid: now, Ends: order.TermEnds.UTC(),
		OrderID: order.ID, RootID: order.ID, CAOrderID: order.CAOrderID,
		Attempt: Attempt{Kind: KindAdoption, Reference: l.NewReference(), Started: now, AnyKey: true, Challenges: order.Challenges},
	}
	for _, name := range wanted {
		if !e.Speaks(name) {
			e.Maybe = append(e.Maybe, name)
		}
	}
	if order.TermEnds.IsZero() {
		e.Ends = EndOfTerm(now, e.Term)
	}
	return e
}
