package digicert

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
)

// Find implements vendors.Finder.
//
// A reissue has its order's ID, so only that order is looked at. It has at most one reissue
// in progress. If that is not the request's, the key of its certificate will tell.
//
// For orders, the look-up by alternative order ID is the first witness. No page tells how soon
// it finds an order. So where it finds nothing, the newest orders for the name are looked at
// one by one. One that bears the reference or has the request's CSR is the one. One from about
// that time or later that shows neither a reference nor a CSR makes the outcome undecidable
// (vendors.ErrUndecidable).
func (o *Orders) Find(ctx context.Context, req vendors.Lookup) ([]string, error) {
	if req.OrderID != "" {
		info, err := o.info(ctx, req.OrderID)
		if err == nil && (info.madeBy(req) || info.word() == statusReissuing) {
			return []string{req.OrderID}, nil
		}
		return nil, err
	}
	list, err := do[orderList](ctx, o, callAlternate, nil, req.Reference)
	switch {
	case err != nil && !isAbsent(err):
		return nil, err
	case len(list) > 0:
		var ids []string
		for _, row := range list {
			ids = append(ids, row.id())
		}
		slices.Sort(ids)
		return slices.Compact(ids), nil
	case len(req.Names) == 0:
		return nil, nil
	}
	return o.findByName(ctx, req)
}

// isAbsent reports whether the look-up failed because there is no such order. Both 404 and an
// empty list were observed for that; not_found|route is a wrong endpoint (documented).
func isAbsent(err error) bool {
	e, ok := errors.AsType[*vendors.Error](err)
	return ok && e.HTTPStatus == http.StatusNotFound && strings.HasPrefix(e.Code, "not_found") && !hasCode(err, "not_found|route")
}

// leeway is how long before the request its order may seem to have been placed: a date alone
// may be 36 hours early, and clocks may be wrong.
const leeway = 48 * time.Hour

// findByName is the second witness.
func (o *Orders) findByName(ctx context.Context, req vendors.Lookup) ([]string, error) {
	list, err := do[orderList](ctx, o, callList, nil, req.Names[0])
	if err != nil {
		return nil, err
	}
	var found, unclear []string
	for _, row := range list {
		if created := kit.Time(row.DateCreated); !created.IsZero() && created.Before(req.Sent.Add(-leeway)) {
			continue
		}
		info, err := o.info(ctx, row.id())
		if err != nil {
			return nil, err
		}
		switch {
		case info.madeBy(req):
			found = append(found, row.id())
		case len(info.references()) == 0 && (len(req.CSR) == 0 || info.csr() == nil):
			unclear = append(unclear, row.id())
		}
	}
	if len(found) == 0 && len(unclear) > 0 {
		return nil, o.Fail(callList, "", fmt.Sprintf(
			"no order has this reference, but %s for %s could be it: placed about then or later, and without a reference or CSR",
			strings.Join(unclear, ", "), req.Names[0]), vendors.ErrUndecidable)
	}
	return found, nil
}

// OrdersFor implements vendors.OrderLister. Orders that are known not to be issued are left out:
// they have no certificate that is in force, or are being reissued.
func (o *Orders) OrdersFor(ctx context.Context, name string) ([]string, error) {
	list, err := do[orderList](ctx, o, callList, nil, name)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, row := range list {
		if status, known := statuses[row.word()]; !known || status == vendors.StatusIssued {
			ids = append(ids, row.id())
		}
	}
	return ids, nil
}

// auditPage is how many orders a page of the list has, at most (documented).
const auditPage = 1000

// ListOrders implements vendors.Auditor. As far as is documented, the list tells neither the end
// of the paid term nor the serial number; where it does, they are used.
func (o *Orders) ListOrders(ctx context.Context, yield func(vendors.ListedOrder) error) error {
	seen := make(map[string]bool)
	for {
		page, err := do[orderPage](ctx, o, callAudit, nil, auditPage, len(seen))
		if err != nil {
			return err
		}
		before := len(seen)
		for _, row := range page.orders {
			if seen[row.id()] {
				continue // others were placed since the page before
			}
			seen[row.id()] = true
			if err := yield(vendors.ListedOrder{
				ID: row.id(), Names: row.names(), Status: statuses[row.word()], RawStatus: o.Text(row.word()), Serial: kit.Serial(row.Certificate.Serial),
				Created: kit.Time(row.DateCreated), TermEnds: kit.Time(row.OrderValidTill), Reference: row.AlternativeID,
			}); err != nil {
				return err
			}
		}
		last := len(page.orders) < auditPage
		if page.total > 0 {
			last = len(seen) >= page.total
		}
		if last || len(seen) == before {
			return nil
		}
	}
}

// madeBy reports whether the request made the order or its certificate.
func (i orderInfo) madeBy(req vendors.Lookup) bool {
	return slices.Contains(i.references(), req.Reference) || len(req.CSR) > 0 && bytes.Equal(i.csr(), req.CSR)
}

// references are the references of ours that the order and its requests bear.
func (i orderInfo) references() []string {
	borne := make([]string, 0, len(i.Requests)+1)
	for _, r := range i.Requests {
		_, reference, _ := strings.Cut(r.Comments, commentPrefix)
		borne = append(borne, strings.TrimSpace(reference))
	}
	return slices.DeleteFunc(append(borne, i.AlternativeID), func(reference string) bool { return reference == "" })
}
