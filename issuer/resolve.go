package issuer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Resolution is what a person found out about a record that is uncertain or dead.
// One of its fields is set.
type Resolution struct {
	// OrderID is the vendor's ID of the order that is there after all, or of
	// another one to use from now on.
	OrderID string

	// None means that there is no order, so that one may be placed.
	None bool
}

// ErrNothingToResolve says that a record is in no state that needs a person.
var ErrNothingToResolve = errors.New("there is nothing to resolve")

// Resolve settles the record of a name that is uncertain or dead. If several vendors
// or accounts have one, vendor must name the vendor. No vendor is asked: an order ID
// is verified when the issuer next uses it.
func Resolve(ctx context.Context, storage certmagic.Storage, vendor, name string, r Resolution) (*Record, error) {
	if r.None == (r.OrderID != "") {
		return nil, errors.New("give either an order ID or none")
	}
	l, rec, err := locate(ctx, storage, vendor, name)
	if err != nil {
		return nil, err
	}
	if rec.State != StateUncertain && rec.State != StateDead {
		return nil, fmt.Errorf("%w: the record of %s is %q", ErrNothingToResolve, name, rec.State)
	}
	if r.None {
		rec.resolveNone()
	} else {
		rec.resolveOrder(r.OrderID)
	}
	rec.Hold = nil
	rec.Problem = ""
	if err := l.write(ctx, rec); err != nil {
		return nil, err
	}
	return rec, nil
}

func (r *Record) resolveNone() {
	renewal := r.State == StateUncertain && r.Order != nil
	if renewal {
		// The order before this attempt is still what it was.
		r.State = StateIssued
		return
	}
	r.State = StateNone
	r.retire()
}

func (r *Record) resolveOrder(id string) {
	now := time.Now().UTC()
	a := r.Attempt
	reissue := r.State == StateUncertain && a != nil && a.Kind == KindReissue && r.Order != nil
	if reissue {
		r.Order.ID = id
		r.State = StatePending
		return
	}
	order := &PaidOrder{ID: id, Names: r.Names, PaidAt: now, TermEnds: termEnd(now, vendors.Term{Years: 1}), Adopted: true}
	if r.State == StateUncertain && a != nil {
		order.Reference, order.Names, order.Product, order.PaidAt = a.Reference, a.Names, a.Product, a.Started
		order.TermEnds, order.Adopted = termEnd(a.Started, vendors.Term{Years: 1}), false
	} else {
		// Nothing is known of the CSR that this order was placed with.
		r.Attempt = &Attempt{Kind: KindAdoption, Reference: newReference(), Started: now, Names: r.Names, Method: vendors.MethodHTTP}
	}
	r.retire()
	r.Order, r.State = order, StatePending
}

// locate finds the one ledger that has a record for the name.
func locate(ctx context.Context, storage certmagic.Storage, vendor, name string) (*ledger, *Record, error) {
	keys, err := storage.List(ctx, "commercial", true)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("listing the ledgers: %w", err)
	}
	file := certmagic.StorageKeys.Safe(name) + ".json"
	var found []*ledger
	for _, key := range keys {
		// commercial/<vendor>/<account>/orders/<name>.json
		parts := strings.Split(key, "/")
		if len(parts) != 5 || parts[3] != "orders" || parts[4] != file || vendor != "" && parts[1] != vendor {
			continue
		}
		found = append(found, &ledger{storage: storage, prefix: path.Join(parts[:3]...)})
	}
	if len(found) == 0 {
		return nil, nil, fmt.Errorf("the ledger has no record of %s; records are kept under the first name of an order", name)
	}
	if len(found) > 1 {
		var prefixes []string
		for _, l := range found {
			prefixes = append(prefixes, strings.TrimPrefix(l.prefix, "commercial/"))
		}
		slices.Sort(prefixes)
		return nil, nil, fmt.Errorf("several ledgers have a record of %s (%s); name the vendor", name, strings.Join(prefixes, ", "))
	}
	rec, err := found[0].load(ctx, name)
	return found[0], rec, err
}
