package racent

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
)

// Find implements vendors.Finder. The look-up by reference is the first witness: an order that
// it returns is the one, and success without an order says that there is none. But what it
// answers for an unknown reference is in no document, and a code such as -1 could as well mean
// that the look-up itself is refused. So a refusal has to be confirmed by the list of orders, the
// second witness. If the list has orders that could be the one, their CSRs decide.
func (o *Orders) Find(ctx context.Context, req vendors.Lookup) ([]string, error) {
	a, err := o.call(ctx, certIDByRefID, field("refId", req.Reference))
	switch {
	case err == nil:
		ids := foundIDs(a)
		if len(ids) == 0 && !kit.IsEmpty(a.Data) {
			return nil, o.Fail(certIDByRefID, "", "", errors.New("answer has data, but no certId"))
		}
		return ids, nil
	case a.Code != codeInput && a.Code != codeOrder && a.Code != codeCert:
		return nil, err
	}
	ids, doubt, err := o.findInList(ctx, req)
	if err == nil && len(ids) == 0 && doubt != "" && req.OrderID != "" {
		doubt, err = o.reissued(ctx, req.OrderID)
	}
	if err != nil || len(ids) > 0 || doubt == "" {
		return ids, err
	}
	return nil, o.Fail(list, "", fmt.Sprintf("the reference %s is answered with code %s, which proves nothing, and %s",
		req.Reference, a.Code, doubt), vendors.ErrUndecidable)
}

// foundIDs reads an object with certId or a list of such objects.
func foundIDs(a answer) (ids []string) {
	var rows []orderData
	_ = kit.Unmarshal(a.Data, &rows)
	for _, row := range append(rows, a.order()) {
		if row.CertID != "" {
			ids = append(ids, row.CertID)
		}
	}
	return ids
}

const (
	clockSkew     = 26 * time.Hour // of the dates of a list, which have no zone; China's is assumed
	maxCandidates = 10             // orders that are looked at one by one
	pageSize      = 10             // divides the usual sizes of pages
)

// findInList is the second witness: paid orders are listed within seconds, unpaid ones
// never (observed). The list has no references, so an order for the request's names that
// may have been made since is recognized by its CSR. Doubt is why it is not known whether
// there is an order; if it is empty, there are the returned ones and no others.
func (o *Orders) findInList(ctx context.Context, req vendors.Lookup) (ids []string, doubt string, err error) {
	a, err := o.listAll(ctx)
	switch {
	case err == nil:
	case kit.IsMissing(err):
		return nil, "there is no list of orders", nil
	case kit.IsTooLarge(err):
		return nil, "the list of orders is longer than is read of it", nil
	case a.Code == "" || a.Code == codeDenied:
		return nil, "", err
	default:
		return nil, "the list of orders is refused with code " + a.Code, nil
	}
	var rows []listedOrder
	_ = kit.Unmarshal(a.Data, &rows)
	// A list within a text does not count: nobody has seen one, and an empty list is a proof.
	if !bytes.HasPrefix(bytes.TrimSpace(a.Data), []byte("[")) {
		return nil, "the list of orders is not understood", nil
	}
	if isCut(rows) {
		doubt = "the list of orders may end before the newest"
	}
	var unclear []string
	for i, row := range slices.DeleteFunc(rows, func(r listedOrder) bool { return !r.couldBe(req) }) {
		var csr []byte
		if row.CertID != "" && len(req.CSR) > 0 && i < maxCandidates {
			a, err := o.call(ctx, collect, field("certId", row.CertID))
			switch {
			case err == nil || a.Code == codeIssuing:
				csr = kit.ReadCSR(a.order().ApplyParams.CSR)
			case a.Code == "":
				return nil, "", err
			}
		}
		switch {
		case csr == nil:
			unclear = append(unclear, row.CertID)
		case bytes.Equal(csr, req.CSR):
			ids = append(ids, row.CertID)
		}
	}
	if len(unclear) > 0 {
		doubt = fmt.Sprintf("order %.200s could be the one", strings.Join(unclear, ", "))
	}
	return ids, doubt, nil
}

// listAll lists the orders of the account, for one caller at a time: the list may be large.
func (o *Orders) listAll(ctx context.Context) (answer, error) {
	select {
	case o.listing <- struct{}{}:
		defer func() { <-o.listing }()
	case <-ctx.Done():
		return answer{}, context.Cause(ctx)
	}
	return o.call(ctx, list)
}

// OrdersFor implements vendors.OrderLister, from the list of orders, which may be cut.
func (o *Orders) OrdersFor(ctx context.Context, name string) ([]string, error) {
	a, err := o.listAll(ctx)
	if err != nil {
		return nil, err
	}
	var rows []listedOrder
	if err := kit.Unmarshal(a.Data, &rows); err != nil {
		return nil, o.Fail(list, "", "", fmt.Errorf("the list of orders is not understood: %w", err))
	}
	rows = slices.DeleteFunc(rows, func(r listedOrder) bool {
		return r.CertID == "" || !r.couldBe(vendors.Lookup{Names: []string{name}})
	})
	slices.SortStableFunc(rows, func(a, b listedOrder) int { return b.since().Compare(a.since()) })
	ids := make([]string, 0, len(rows))
	for _, row := range rows {
		ids = append(ids, row.CertID)
	}
	return ids, nil
}

// ListOrders implements vendors.Auditor, from the list of orders, which may be cut.
func (o *Orders) ListOrders(ctx context.Context, yield func(vendors.ListedOrder) error) error {
	a, err := o.listAll(ctx)
	if err != nil {
		return err
	}
	var rows []listedOrder
	if err := kit.Unmarshal(a.Data, &rows); err != nil || !bytes.HasPrefix(bytes.TrimSpace(a.Data), []byte("[")) {
		return o.Fail(list, "", "", errors.New("the list of orders is not understood"))
	}
	for _, row := range rows {
		if row.CertID == "" {
			continue // nobody has paid for it
		}
		if err := yield(row.listed(o.Text(row.Status))); err != nil {
			return err
		}
	}
	if isCut(rows) {
		return o.Fail(list, "", fmt.Sprintf("%d orders are listed, and the list may end before the newest", len(rows)), vendors.ErrUndecidable)
	}
	return nil
}

// listed is the row of a list, with the vendor's word for its status.
func (r listedOrder) listed(word string) vendors.ListedOrder {
	order := vendors.ListedOrder{
		ID: r.CertID, Status: statuses[strings.ToLower(r.Status)], RawStatus: word, Created: r.since(), TermEnds: parseDate(r.EndDate),
	}
	for _, name := range append([]string{r.CommonName}, r.Domains...) {
		if name = strings.ToLower(name); name != "" && !slices.Contains(order.Names, name) {
			order.Names = append(order.Names, name)
		}
	}
	return order
}

// isCut reports whether a list may be a page without the newest orders, beginning with the
// oldest. Whether there are pages is in no document; clients ask for none.
func isCut(rows []listedOrder) bool {
	if len(rows) == 0 || len(rows)%pageSize != 0 {
		return false
	}
	first, last := rows[0].since(), rows[len(rows)-1].since()
	return first.IsZero() || last.IsZero() || !first.After(last)
}

// couldBe reports whether a listed order may be what the request has made. Whatever the
// list does not tell of it speaks in favour of that.
func (r listedOrder) couldBe(req vendors.Lookup) bool {
	if since := r.since(); !since.IsZero() && since.Before(req.Sent.Add(-clockSkew)) || r.CertID == req.OrderID && req.OrderID != "" {
		return false
	}
	names := r.Domains
	if r.CommonName != "" {
		names = append(names, r.CommonName)
	}
	return len(names) == 0 || len(req.Names) == 0 || slices.ContainsFunc(names, func(name string) bool {
		return name == "" || slices.Contains(req.Names, strings.ToLower(name))
	})
}

// since is when the order was made, zero if that cannot be told.
func (r listedOrder) since() time.Time {
	return cmp.Or(parseDate(r.Created), parseDate(r.BeginDate))
}

// reissued returns why it is not known whether an order was replaced, or nothing if it was
// not. Only an issued order can be replaced, and its status is "reissued" then (observed).
func (o *Orders) reissued(ctx context.Context, orderID string) (doubt string, err error) {
	old, err := o.Status(ctx, orderID)
	if err != nil || old.Status == vendors.StatusIssued {
		return "", err
	}
	return fmt.Sprintf("order %s is %s, but its successor is not to be found", orderID, old.Describe()), nil
}
