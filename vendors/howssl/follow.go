package howssl

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
)

// Status implements vendors.Vendor. An order that is being reissued is pending: it keeps its
// ID, and its old certificate is of no use. An order under review is refreshed first, because
// it is not documented that getOrderInfo does that. Documented: only such an order has proofs.
func (o *Orders) Status(ctx context.Context, orderID string) (vendors.Order, error) {
	info, err := o.known(ctx, orderID)
	if err == nil && info.Status == statusReview {
		o.try(ctx, refreshOrder, nil, orderID)
		info, err = o.known(ctx, orderID)
	}
	if err != nil {
		return vendors.Order{}, err
	}
	order := info.order()
	if order.Status == vendors.StatusIssued {
		return o.completed(ctx, order)
	}
	if info.Status == statusReview {
		var asked placed
		o.try(ctx, getValidInfo, &asked, orderID)
		order.Challenges = asked.ValidInfo.Challenges()
	}
	return order, nil
}

// Look implements vendors.Watcher. It does without the list of reissues.
func (o *Orders) Look(ctx context.Context, orderID string) (vendors.Order, error) {
	info, err := o.known(ctx, orderID)
	if err != nil {
		return vendors.Order{}, err
	}
	order := info.order()
	if order.Status == vendors.StatusIssued {
		var data certificateData
		o.try(ctx, getCertificate, &data, orderID)
		if certs, err := kit.Certificates(data.Certificate.Cert); err == nil {
			order.Certificates = certs
		}
	}
	return order, nil
}

// try makes a call about an order. If it fails, what is known of the order is only less fresh.
func (o *Orders) try(ctx context.Context, call kit.Call, v any, orderID string) {
	if err := o.get(ctx, call, v, field("order_id", orderID)); err != nil {
		o.Logger.Debug("asking about an order failed; going on without", zap.String("order_id", orderID), zap.Error(err))
	}
}

// completed adds the certificate to an order, unless a reissue is under way.
func (o *Orders) completed(ctx context.Context, order vendors.Order) (vendors.Order, error) {
	open := o.openReissue(ctx, order.ID)
	if open != nil {
		o.try(ctx, refreshOrder, nil, order.ID)
		open = o.openReissue(ctx, order.ID)
	}
	if open != nil {
		order.Status = vendors.StatusPending
		order.Detail = fmt.Sprintf("reissue in progress, status %s (%.100s)", open.Code, o.Text(open.Message))
		order.Challenges = open.challenges()
		return order, nil
	}
	var data certificateData
	if err := o.get(ctx, getCertificate, &data, field("order_id", order.ID)); err != nil {
		return vendors.Order{}, err
	}
	order.CAOrderID = data.CAOrderID
	kit.Deliver(&order, data.Certificate.Cert, data.Certificate.CACert)
	return order, nil
}

// openReissue is the reissue in progress, nil if there is none. If they cannot be listed, the
// certificate itself tells whether it is the new one.
func (o *Orders) openReissue(ctx context.Context, orderID string) *reissue {
	var list []reissue
	o.try(ctx, reissueList, &list, orderID)
	if i := slices.IndexFunc(list, reissue.open); i >= 0 {
		return &list[i]
	}
	return nil
}

// open reports whether a reissue is in progress: 0 "to be reviewed" is documented, 1
// for "to be validated" is that of renewals (page 3025058). Anything else counts as
// over; then the certificate shows what came of it.
func (r reissue) open() bool { return r.Code == "0" || r.Code == "1" }

// challenges returns the proofs of a reissue: those in its records, which are read leniently,
// as table and example of page 3025058 disagree; what is no DNS record is taken for a file.
// Without any, the proofs are those that Sectigo derives from the CSR, because getValidity_info
// is for orders under review only.
func (r reissue) challenges() []vendors.Challenge {
	var list []vendors.Challenge
	for _, v := range r.Records {
		name := cmp.Or(v.Name, v.Label)
		ch, ok := kit.DCV{DNSHost: name, DNSType: v.Type, DNSValue: v.Value}.Record()
		if !ok || v.Type == "" && !strings.HasPrefix(name, "_") {
			ch, ok = kit.DCV{FileName: name, FileContent: v.Value}.File()
		}
		if ch.Name = strings.ToLower(v.Domain); ok {
			list = append(list, ch)
		}
	}
	if csr := kit.ReadCSR(r.CSR); len(list) == 0 && csr != nil {
		return kit.SectigoProofs(csr, "")
	}
	return list
}

// Reissue implements vendors.Reissuer. The order keeps its ID. Documented: the order
// must be completed, and have no reissue in progress. Assumed: it is free.
func (o *Orders) Reissue(ctx context.Context, oldOrderID string, req vendors.OrderRequest) (vendors.Order, error) {
	info, err := o.known(ctx, oldOrderID)
	if err != nil {
		return vendors.Order{}, err
	}
	// No page tells whether a revoked order lives on without its certificate. The service
	// decides, and there is nothing to lose.
	status := info.order().Status
	if status != vendors.StatusIssued && status != vendors.StatusRevoked {
		return vendors.Order{}, o.wrongState(reissueSubmit, info)
	}
	if order, err := o.submitted(ctx, oldOrderID, req.CSR); order.ID != "" || err != nil {
		return order, err
	}
	var answer placed
	refusal, err := o.ask(ctx, reissueSubmit, &answer,
		field("order_id", oldOrderID),
		field("reissue_type", "1"), // with the names that the order has
		field("csr_type", "2"),     // with a CSR of ours
		field("csr_content", kit.CSR(req.CSR)),
		field("check_type", methodWords[req.Method].reissue))
	if err != nil {
		return vendors.Order{}, err
	}
	// The page's own example of a success has the status of a failure, so the list
	// decides whether a refusal is really one.
	order, err := o.submitted(ctx, oldOrderID, req.CSR)
	switch {
	case order.ID != "":
		return order, nil
	case refusal == nil:
		return vendors.Order{ID: oldOrderID, Status: vendors.StatusPending, Challenges: kit.SectigoProofs(req.CSR, "")}, nil
	case err == nil && answer.ReissueID == "":
		refusal.Verdict = vendors.Permanent
		if status == vendors.StatusRevoked {
			refusal.Err = fmt.Errorf("%w, most likely as the order has ended: %w: it is %s", errRefused, vendors.ErrWrongState, info.describe())
		}
	}
	return vendors.Order{}, refusal
}

// submitted looks for the reissue with the request's CSR. Another one in progress is
// ErrWrongState: whoever submitted it, it has to be followed to its end first. A refusal is
// taken to mean that there are no reissues (assumed: the page does not tell the answer for an
// order without any).
func (o *Orders) submitted(ctx context.Context, orderID string, csr []byte) (vendors.Order, error) {
	var list []reissue
	if _, err := o.ask(ctx, reissueList, &list, field("order_id", orderID)); err != nil {
		return vendors.Order{}, err
	}
	for _, r := range list {
		if bytes.Equal(kit.ReadCSR(r.CSR), csr) {
			return vendors.Order{ID: orderID, Status: vendors.StatusPending, Challenges: r.challenges()}, nil
		}
	}
	if slices.ContainsFunc(list, reissue.open) {
		return vendors.Order{}, o.Refuse(reissueList, fmt.Errorf("%w: another reissue of it is in progress", vendors.ErrWrongState))
	}
	return vendors.Order{}, nil
}
