package issuer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// AdoptedOrder is an order bought elsewhere that is to be used for some names.
type AdoptedOrder struct {
	// The vendor's ID of the order. REQUIRED.
	ID string `json:"id"`

	// The names it is used for. The order must cover all of them. REQUIRED.
	Names []string `json:"names"`
}

// adopt takes an order over that was bought elsewhere. Its certificate, when it has
// one, belongs to a key that is not here; a reissue follows.
func (f *flow) adopt(ctx context.Context, j job, rec *Record, a AdoptedOrder) error {
	order, err := f.vendor.Status(ctx, a.ID)
	if errors.Is(err, vendors.ErrNotFound) {
		return noRetry(fmt.Errorf("%s does not know order %s, which the option order gives for %s; "+
			"is the ID right, and does the order belong to this account? nothing is ordered: %w",
			f.about.Name, a.ID, strings.Join(a.Names, ", "), err))
	}
	if err != nil {
		return forCertmagic(fmt.Errorf("reading order %s to adopt it for %s: %w", a.ID, rec.primary(), err))
	}
	if order.Status.Ended() {
		return noRetry(fmt.Errorf("order %s at %s cannot be adopted for %s: it is %s", a.ID, f.about.Name, rec.primary(), order.Describe()))
	}
	names := f.namesOf(order)
	for _, name := range a.Names {
		if len(names) > 0 && !slices.Contains(names, name) {
			return noRetry(fmt.Errorf("order %s at %s is for %s, not for %s; nothing is ordered",
				a.ID, f.about.Name, strings.Join(names, ", "), name))
		}
	}
	ordered := a.Names
	if len(order.Names) > 0 {
		ordered = nil
		for _, n := range order.Names {
			ordered = append(ordered, strings.ToLower(n.Name))
		}
	}
	rec.Names = slices.Clone(a.Names)
	rec.State, rec.Problem = StatePending, ""
	now := time.Now().UTC()
	rec.Order = &PaidOrder{
		ID: a.ID, Names: ordered, CAOrderID: order.CAOrderID, Product: f.order.Product,
		PaidAt: now, TermEnds: order.TermEnds.UTC(), Adopted: true,
	}
	if order.TermEnds.IsZero() {
		rec.Order.TermEnds = termEnd(now, f.order.Term)
	}
	rec.Attempt = &Attempt{
		Kind: KindAdoption, Reference: newReference(), Started: now,
		Names: ordered, Method: f.order.Method, Challenges: order.Challenges,
	}
	j.logger.Info("adopting an order that was bought elsewhere",
		zap.String("order_id", a.ID), zap.Strings("names", ordered), zap.String("status", order.RawStatus))
	return f.ledger.write(ctx, rec)
}

// namesOf returns what is known of the names of an order, from the vendor's list and
// from its certificate.
func (f *flow) namesOf(order vendors.Order) []string {
	var names []string
	for _, n := range order.Names {
		names = append(names, strings.ToLower(n.Name))
	}
	if got, err := buildChain(order.Certificates, nil); err == nil {
		names = append(names, got.leaf().DNSNames...)
	}
	return names
}
