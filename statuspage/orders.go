package statuspage

import (
	"context"
	"slices"
	"time"

	"github.com/caddy-commercial/caddy-commercial/operator"
)

// reader reads orders for one request at a time, because all of them may have to be read.
type reader struct {
	busy  chan struct{}
	last  *overview
	until time.Time // when last is too old
}

func newReader() *reader { return &reader{busy: make(chan struct{}, 1)} }

// turn waits until nobody else reads.
func (r *reader) turn(ctx context.Context) (release func(), err error) {
	select {
	case r.busy <- struct{}{}:
		return func() { <-r.busy }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// overview is what the page says of all orders that are not over.
type overview struct {
	Read time.Time

	Issued    int
	Pending   int // asked or open, and nobody is asked
	Asks      int // that ask a person
	Unordered int // names that have no order yet

	// Asking are the stories of the first of those that ask a person.
	Asking []operator.Story

	// Sellers are the vendors that there are orders of, and their accounts if there are several.
	Sellers []string

	NextRenewal, NextCharge time.Time

	Plan plan
}

const (
	// maxAsking is how many of the orders that ask a person are shown on the first page.
	maxAsking = 20

	// restFactor is how many times as long as it took to read all orders they are not read
	// again.
	restFactor = 20
)

// overview reads all orders, unless it just has. It must be the caller's turn.
func (r *reader) overview(ctx context.Context, desk *operator.Desk) (*overview, error) {
	began := time.Now()
	if r.last != nil && began.Before(r.until) {
		return r.last, nil
	}
	o := &overview{Read: began.UTC(), Plan: newPlan(began)}
	accounts := make(map[string][]string)
	err := desk.Stories(ctx, operator.Query{}, func(s operator.Story) error {
		o.add(s)
		if !slices.Contains(accounts[s.Vendor], s.Account) {
			accounts[s.Vendor] = append(accounts[s.Vendor], s.Account)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for vendor, list := range accounts {
		o.Sellers = append(o.Sellers, vendor)
		if len(list) > 1 {
			for _, account := range list {
				o.Sellers = append(o.Sellers, vendor+"/"+account)
			}
		}
	}
	slices.Sort(o.Sellers)
	r.last, r.until = o, time.Now().Add(restFactor*time.Since(began))
	return o, nil
}

func (o *overview) add(s operator.Story) {
	switch {
	case asks(s.Row):
		o.Asks++
		if len(o.Asking) < maxAsking {
			o.Asking = append(o.Asking, s)
		}
	case s.State == "asked" || s.State == "open":
		o.Pending++
	case s.State == "issued":
		o.Issued++
	case s.State == operator.StateNone:
		o.Unordered++
	}
	earliest(&o.NextRenewal, s.NextRenewal)
	earliest(&o.NextCharge, s.NextCharge)
	o.Plan.add(s.Row)
}

// asks reports whether a person has to look at an order: it is flagged, or cannot be read.
func asks(row operator.Row) bool { return row.Flag != "" || row.State == "" }

func earliest(t *time.Time, other time.Time) {
	if t.IsZero() || !other.IsZero() && other.Before(*t) {
		*t = other
	}
}
