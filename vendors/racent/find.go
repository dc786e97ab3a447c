package racent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/vendorhttp"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Find implements vendors.Finder.
//
// The look-up by reference is the first witness. An order that it tells is the one, and a
// success that tells none says that there is none. But what it answers for a reference
// that it does not know is in no document, and a code such as -1 could as well mean that
// the look-up itself is refused. So a refusal has to be confirmed by the list of orders,
// the second witness; and where that shows an order that could be the one, by its CSR.
func (o *Orders) Find(ctx context.Context, req vendors.Lookup) ([]string, error) {
	a, err := o.client.CertIDByRefID(ctx, req.Reference)
	if err != nil {
		return nil, err
	}
	switch a.Code {
	case codeOK:
		ids := foundIDs(a.Data)
		if len(ids) == 0 && !isEmpty(a.Data) {
			return nil, &vendors.Error{
				Vendor: o.about.Name, Endpoint: "certIdByrefId", Verdict: vendors.Retryable,
				Err: errors.New("answer has data, but no certId"),
			}
		}
		return ids, nil
	case codeInput, codeOrder, codeCert:
	default:
		return nil, o.client.failure("certIdByrefId", vendorhttp.Read, a)
	}
	ids, doubt, err := o.findInList(ctx, req)
	if err == nil && len(ids) == 0 && doubt != "" && req.OrderID != "" {
		doubt, err = o.reissued(ctx, req.OrderID)
	}
	if err != nil || len(ids) > 0 || doubt == "" {
		return ids, err
	}
	return nil, &vendors.Error{
		Vendor: o.about.Name, Endpoint: "list", Verdict: vendors.Retryable,
		Message: o.client.http.Scrub(fmt.Sprintf("the reference %s is answered with code %s, which proves nothing, and %s",
			req.Reference, a.Code.Word(), doubt)),
		Err: vendors.ErrUndecidable,
	}
}

// foundIDs reads an object with certId or a list of such objects.
func foundIDs(raw json.RawMessage) []string {
	var list loose[[]orderData]
	_ = json.Unmarshal(raw, &list)
	if len(list.V) == 0 {
		list.V = []orderData{answer{Data: raw}.order()}
	}
	var ids []string
	for _, d := range list.V {
		if id := d.CertID.Word(); id != "" {
			ids = append(ids, id)
		}
	}
	return ids
}

const (
	// clockSkew is how far the dates of a list may be off. They have no zone, and that
	// they are China's is assumed.
	clockSkew = 26 * time.Hour

	// maxCandidates bounds how many orders are looked at one by one.
	maxCandidates = 10

	// pageSize divides the usual sizes of pages.
	pageSize = 10
)

// findInList is the second witness: paid orders are listed within seconds, unpaid ones
// never (observed). The list has no references, so an order for the request's names that
// may have been made since is told by its CSR. Doubt is why it is not known whether there
// is an order; without any there is none, or else the returned ones.
func (o *Orders) findInList(ctx context.Context, req vendors.Lookup) (ids []string, doubt string, err error) {
	a, err := o.client.List(ctx)
	switch {
	case isMissing(err):
		return nil, "there is no list of orders", nil
	case err != nil:
		return nil, "", err
	case a.Code == codeDenied:
		return nil, "", o.client.failure("list", vendorhttp.Read, a)
	case a.Code != codeOK:
		return nil, "the list of orders is refused with code " + a.Code.Word(), nil
	}
	var rows []listedOrder
	if json.Unmarshal(a.Data, &rows) != nil || rows == nil {
		return nil, "the list of orders is not understood", nil //nolint:nilerr // it is the doubt that counts
	}
	if isCut(rows) {
		doubt = "the list of orders may end before the newest"
	}
	var unclear []string
	asked := 0
	for _, row := range rows {
		if !row.couldBe(req) {
			continue
		}
		id := row.CertID.Word()
		if id == "" || len(req.CSR) == 0 || asked == maxCandidates {
			unclear = append(unclear, id)
			continue
		}
		asked++
		csr, err := o.csr(ctx, id)
		switch {
		case err != nil:
			return nil, "", err
		case bytes.Equal(csr, req.CSR):
			ids = append(ids, id)
		case csr == nil:
			unclear = append(unclear, id)
		}
	}
	if len(unclear) > 0 {
		doubt = fmt.Sprintf("order %.200s could be the one", strings.Join(unclear, ", "))
	}
	return ids, doubt, nil
}

// isCut reports whether a list may be a page without the newest orders: it begins with
// the oldest and has as many rows as a page might. No page of documents tells whether
// there are pages; clients ask for none.
func isCut(rows []listedOrder) bool {
	if len(rows) == 0 || len(rows)%pageSize != 0 {
		return false
	}
	first, last := rows[0].since(), rows[len(rows)-1].since()
	return first.IsZero() || last.IsZero() || !first.After(last)
}

// couldBe reports whether a listed order may be what the request has made. Whatever is
// not told speaks for it.
func (r listedOrder) couldBe(req vendors.Lookup) bool {
	if since := r.since(); !since.IsZero() && since.Before(req.Sent.Add(-clockSkew)) || r.CertID.Word() == req.OrderID && req.OrderID != "" {
		return false
	}
	names := r.Domains.V
	if r.CommonName.Word() != "" {
		names = append(names, r.CommonName)
	}
	return len(names) == 0 || len(req.Names) == 0 || slices.ContainsFunc(names, func(n text) bool {
		return slices.Contains(req.Names, strings.ToLower(n.Word()))
	})
}

// since is when the order was made, zero if that cannot be told.
func (r listedOrder) since() time.Time {
	if at := parseDate(r.Created); !at.IsZero() {
		return at
	}
	return parseDate(r.BeginDate)
}

// csr returns the CSR of an order, nil if it is not told.
func (o *Orders) csr(ctx context.Context, id string) ([]byte, error) {
	a, err := o.client.Collect(ctx, id)
	if err != nil {
		return nil, err
	}
	if a.Code != codeOK && a.Code != codeIssuing {
		return nil, nil
	}
	return a.order().csr(), nil
}

// reissued returns why it is not known whether an order was replaced. Only an issued one
// can be, and the old one is "reissued" then (observed).
func (o *Orders) reissued(ctx context.Context, orderID string) (doubt string, err error) {
	old, err := o.Status(ctx, orderID)
	if err != nil || old.Status == vendors.StatusIssued {
		return "", err
	}
	return fmt.Sprintf("order %s is %s, but its successor is not to be found", orderID, old.Describe()), nil
}
