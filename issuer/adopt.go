package issuer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// AdoptedOrder is an order bought elsewhere that is to be used for some names.
type AdoptedOrder struct {
	// The vendor's ID of the order. REQUIRED.
	ID string `json:"id"`

	// The names it is used for. The order must cover all of them. REQUIRED.
	Names []string `json:"names"`
}

// adopt makes an entry for an order that was bought elsewhere, if one is configured for the
// name and has no entry yet. If the order has a certificate, it is for a key that is not here; a
// reissue follows.
func (f *flow) adopt(ctx context.Context, name string, speak []*ledger.Entry) (*ledger.Entry, error) {
	a, ok := f.adoptedFor(name)
	if !ok || slices.ContainsFunc(speak, func(e *ledger.Entry) bool { return e.RootID == a.ID || e.OrderID == a.ID }) {
		return nil, nil
	}
	// Two servers that adopt it at the same time write the same entry.
	id := ledger.AdoptedID(a.ID, 1)
	have, err := f.ledger.Load(ctx, id)
	if err == nil {
		return nil, f.cannotAdopt(have, a, name)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	order, err := f.vendor.Status(ctx, a.ID)
	if errors.Is(err, vendors.ErrNotFound) {
		return nil, noRetry(fmt.Errorf("%s does not know order %s, which the option order gives for %s; "+
			"is the ID right, and does the order belong to this account? nothing is ordered: %w",
			f.about.Name, a.ID, strings.Join(a.Names, ", "), err))
	}
	if err != nil {
		return nil, fmt.Errorf("reading order %s to adopt it for %s: %w", a.ID, name, err)
	}
	if order.Status.Ended() {
		return nil, noRetry(fmt.Errorf("order %s at %s cannot be adopted for %s: it is %s", a.ID, f.about.Name, name, order.Describe()))
	}
	for _, n := range a.Names {
		if names := namesOf(order); len(names) > 0 && !slices.Contains(names, n) {
			return nil, noRetry(fmt.Errorf("order %s at %s is for %s, not for %s; nothing is ordered",
				a.ID, f.about.Name, strings.Join(names, ", "), n))
		}
	}
	names := a.Names
	if got, err := buildChain(order.Certificates, nil); err == nil && len(got.leaf().DNSNames) > 0 {
		names = f.namesToReissue(order, got.leaf())
	} else if len(order.Names) > 0 {
		names = namesOf(order)
	}
	order.ID = a.ID
	e := f.ledger.Adopt(order, names, slices.Concat(a.Names, f.maybeNames(names)), f.order)
	f.logger.Info("adopting an order that was bought elsewhere", zap.String("identifier", name), zap.String("vendor", f.about.Name),
		zap.String("order_id", a.ID), zap.Strings("names", names), zap.String("status", order.RawStatus))
	return e, f.ledger.Create(ctx, e)
}

// cannotAdopt says why an order that was adopted before does not serve the name.
func (f *flow) cannotAdopt(e *ledger.Entry, a AdoptedOrder, name string) error {
	switch {
	case e.State == ledger.Gone:
		return noRetry(fmt.Errorf("order %s, which the option order gives for %s, was given up; give the ID of a new order, or remove the option", a.ID, name))
	case e.Over(f.ledger.Time()):
		return noRetry(fmt.Errorf("order %s, which was bought elsewhere for %s, is used up: its term ended on %s, and the option order forbids placing another one; "+
			"give the ID of a new order, or remove the option", a.ID, name, e.Ends.Format("2006-01-02")))
	}
	return noRetry(fmt.Errorf("order %s at %s is for %s, not for %s, and the option order forbids placing another one",
		a.ID, f.about.Name, strings.Join(e.Names, ", "), name))
}

// without returns those of the first names that are not among the second.
func without(names, drop []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return slices.Contains(drop, n) })
}

// namesOf returns what is known of the names of an order, from the vendor's list and
// from its certificate.
func namesOf(order vendors.Order) []string {
	var names []string
	for _, n := range order.Names {
		names = append(names, strings.ToLower(n.Name))
	}
	if got, err := buildChain(order.Certificates, nil); err == nil {
		names = append(names, got.leaf().DNSNames...)
	}
	return names
}
