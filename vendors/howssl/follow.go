package howssl

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Status implements vendors.Vendor. An order that is being reissued is pending: its
// ID stays, and the old certificate is of no use.
func (o *Orders) Status(ctx context.Context, orderID string) (vendors.Order, error) {
	info, err := o.known(ctx, orderID)
	if err != nil {
		return vendors.Order{}, err
	}
	if info.order(orderID).Status == vendors.StatusPending {
		o.refresh(ctx, orderID)
		if info, err = o.known(ctx, orderID); err != nil {
			return vendors.Order{}, err
		}
	}
	order := info.order(orderID)
	switch order.Status {
	case vendors.StatusPending:
		order.Challenges = o.asked(ctx, orderID)
		return order, nil
	case vendors.StatusIssued:
		return o.completed(ctx, order)
	default:
		return order, nil
	}
}

// refresh has the order's state brought up to date. Whether getOrderInfo does that by
// itself is not documented. Failing costs freshness only.
func (o *Orders) refresh(ctx context.Context, orderID string) {
	if _, err := o.client.call(ctx, refreshOrder, field{"order_id", orderID}); err != nil {
		o.logger.Debug("refreshing an order failed", zap.String("order_id", orderID), zap.Error(err))
	}
}

// asked returns the proofs that the vendor asks for. Documented: only orders under
// review have them.
func (o *Orders) asked(ctx context.Context, orderID string) []vendors.Challenge {
	var data placed
	if err := o.client.into(ctx, getValidInfo, &data, field{"order_id", orderID}); err != nil {
		o.logger.Debug("asking for the proofs of an order failed", zap.String("order_id", orderID), zap.Error(err))
		return nil
	}
	return data.ValidInfo.V.challenges()
}

// completed adds the certificate to an order, unless a reissue is under way.
func (o *Orders) completed(ctx context.Context, order vendors.Order) (vendors.Order, error) {
	open := o.openReissue(ctx, order.ID)
	if open != nil {
		o.refresh(ctx, order.ID)
		open = o.openReissue(ctx, order.ID)
	}
	if open != nil {
		order.Status = vendors.StatusPending
		order.Detail = "reissue in progress, status " + open.describe(o.client.http.Scrub)
		order.Challenges = open.challenges()
		return order, nil
	}
	var data certificateData
	if err := o.client.into(ctx, getCertificate, &data, field{"order_id", order.ID}); err != nil {
		return vendors.Order{}, err
	}
	order.CAOrderID = data.CAOrderID.Word()
	certs, err := data.certificates()
	if err != nil {
		// The vendor may still be assembling it. Asking again is free.
		order.Status, order.Detail = vendors.StatusPending, err.Error()
	}
	order.Certificates = certs
	return order, nil
}

func (o *Orders) openReissue(ctx context.Context, orderID string) *reissue {
	list, err := o.reissues(ctx, orderID)
	if err != nil {
		// Without the list, the certificate itself tells whether it is the new one.
		o.logger.Debug("asking for the reissues of an order failed", zap.String("order_id", orderID), zap.Error(err))
	}
	if i := slices.IndexFunc(list, reissue.open); i >= 0 {
		return &list[i]
	}
	return nil
}

// reissues lists the reissues of an order. A refusal reads as none: assumed, as the
// page does not tell what an order without any is answered.
func (o *Orders) reissues(ctx context.Context, orderID string) ([]reissue, error) {
	data, err := o.client.call(ctx, reissueList, field{"order_id", orderID})
	if err != nil && !isRefused(err) {
		return nil, err
	}
	var list loose[[]reissue]
	_ = json.Unmarshal(data, &list)
	return list.V, nil
}

// open reports whether a reissue is in progress: 0 "to be reviewed" is documented, 1
// for "to be validated" is that of renewals (page 3025058). Anything else counts as
// over; then the certificate shows what came of it.
func (r reissue) open() bool { return r.Code.Word() == "0" || r.Code.Word() == "1" }

func (r reissue) describe(scrub func(string) string) string {
	return fmt.Sprintf("%s (%.100s)", r.Code.Word(), scrub(r.Message.Word()))
}

// csr returns the DER of the reissue's CSR. Its line ends are escaped once on one page
// and twice on another.
func (r reissue) csr() []byte {
	pemText := strings.ReplaceAll(string(r.CSR), `\n`, "\n")
	block, _ := pem.Decode([]byte(strings.ReplaceAll(pemText, "\r", "")))
	if block == nil {
		return nil
	}
	return block.Bytes
}

// challenges returns the proofs of a reissue: those that its record tells, or else, as
// getValidity_info is for orders under review only, those that Sectigo derives from
// the CSR.
func (r reissue) challenges() []vendors.Challenge {
	var list []vendors.Challenge
	for _, v := range r.Validity.V {
		if ch, ok := v.challenge(); ok {
			list = append(list, ch)
		}
	}
	if csr := r.csr(); len(list) == 0 && csr != nil {
		return csrChallenges(csr)
	}
	return list
}

// challenge reads a record leniently: table and example of page 3025058 disagree.
// A type other than those of DNS records is taken for a file.
func (v validityRecord) challenge() (vendors.Challenge, bool) {
	name, value := v.Name, string(v.Value)
	if name == "" {
		name = v.Label
	}
	if name == "" || value == "" {
		return vendors.Challenge{}, false
	}
	ch := vendors.Challenge{Name: strings.ToLower(v.Domain.Word())}
	if kind, ok := recordType(v.Type); ok && (v.Type.Word() != "" || strings.HasPrefix(string(name), "_")) {
		ch.Method, ch.RecordName, ch.RecordType, ch.RecordValue = vendors.MethodDNS, string(name), kind, value
		return ch, true
	}
	content, ok := fileContent(value)
	ch.Method, ch.FileName, ch.FileContent = vendors.MethodHTTP, string(name), content
	return ch, ok
}

// The values of Reissue/submit (page 2395665).
const (
	reissuePlain = "1" // with the names that the order has
	reissueOwn   = "2" // with a CSR of ours
)

// checkTypes are the methods of a reissue: numbers, where an order has words.
var checkTypes = map[vendors.Method]string{vendors.MethodDNS: "1", vendors.MethodHTTP: "2"}

// Reissue implements vendors.Reissuer. The order keeps its ID. Documented: the order
// must be completed, and have no reissue in progress. Assumed: it is free.
func (o *Orders) Reissue(ctx context.Context, oldOrderID string, req vendors.OrderRequest) (vendors.Order, error) {
	info, err := o.known(ctx, oldOrderID)
	if err != nil {
		return vendors.Order{}, err
	}
	if info.order(oldOrderID).Status != vendors.StatusIssued {
		return vendors.Order{}, o.wrongState(reissueSubmit, info)
	}
	if order, err := o.submitted(ctx, oldOrderID, req.CSR); order.ID != "" || err != nil {
		return order, err
	}
	data, err := o.client.call(ctx, reissueSubmit,
		field{"order_id", oldOrderID},
		field{"reissue_type", reissuePlain},
		field{"csr_type", reissueOwn},
		field{"csr_content", csrPEM(req.CSR)},
		field{"check_type", checkTypes[req.Method]},
	)
	if err != nil && !isRefused(err) {
		return vendors.Order{}, err
	}
	// The page's own example of a success has the status of a failure, so that the
	// list decides whether a refusal is one.
	order, listErr := o.submitted(ctx, oldOrderID, req.CSR)
	switch {
	case order.ID != "":
		return order, nil
	case err == nil:
		return o.reissued(oldOrderID, reissue{CSR: text(csrPEM(req.CSR))}), nil
	}
	var answered reissue
	_ = json.Unmarshal(data, &answered)
	if listErr == nil && answered.ID.Word() == "" {
		err.(*vendors.Error).Verdict = vendors.Permanent //nolint:errorlint // isRefused has seen it
	}
	return vendors.Order{}, err
}

// submitted looks for the reissue with the request's CSR. Another one in progress is
// an error: it has to end first.
func (o *Orders) submitted(ctx context.Context, orderID string, csr []byte) (vendors.Order, error) {
	list, err := o.reissues(ctx, orderID)
	if err != nil {
		return vendors.Order{}, err
	}
	for _, r := range list {
		if bytes.Equal(r.csr(), csr) {
			return o.reissued(orderID, r), nil
		}
	}
	if slices.ContainsFunc(list, reissue.open) {
		e := o.client.unclear(reissueSubmit, errors.New("not sent: another reissue of the order is in progress"))
		e.Verdict = vendors.Retryable
		return vendors.Order{}, e
	}
	return vendors.Order{}, nil
}

func (o *Orders) reissued(orderID string, r reissue) vendors.Order {
	return vendors.Order{ID: orderID, Status: vendors.StatusPending, Challenges: r.challenges()}
}
