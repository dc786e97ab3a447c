package digicert

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/internal/certpem"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// statuses translates the status of an order. Documented, under "Order info", "List
// orders" and "Update order status": needs_approval, pending, reissue_pending,
// issued, waiting_pickup, rejected, canceled, revoked and expired. The others were
// observed.
var statuses = map[string]vendors.Status{
	"needs_approval":  vendors.StatusPending,
	"approved":        vendors.StatusPending,
	"pending":         vendors.StatusPending,
	"needs_csr":       vendors.StatusPending,
	"processing":      vendors.StatusPending,
	"waiting_pickup":  vendors.StatusPending,
	"reissue_pending": vendors.StatusPending, // with the old certificate still active
	"issued":          vendors.StatusIssued,
	"rejected":        vendors.StatusRejected,
	"denied":          vendors.StatusRejected,
	"canceled":        vendors.StatusCancelled,
	"cancelled":       vendors.StatusCancelled,
	"revoked":         vendors.StatusRevoked,
	"expired":         vendors.StatusExpired,
}

const (
	statusReissuing = "reissue_pending"
	statusApproval  = "needs_approval"
	statusRevoked   = "revoked"
)

// Status implements vendors.Vendor.
func (o *Orders) Status(ctx context.Context, orderID string) (vendors.Order, error) {
	info, err := o.client.Info(ctx, orderID)
	if err != nil {
		return vendors.Order{}, err
	}
	raw := strings.ToLower(info.Status.Word())
	order := vendors.Order{
		ID:        orderID,
		Status:    statuses[raw],
		RawStatus: o.client.http.Scrub(short(raw)),
		TermEnds:  parseTime(info.OrderValidTill),
	}
	cert := info.Certificate.V
	if order.Status == vendors.StatusIssued && strings.EqualFold(cert.Status.Word(), statusRevoked) {
		// The order lives on when its only certificate is revoked (documented).
		order.Status = vendors.StatusRevoked
	}
	switch order.Status {
	case vendors.StatusIssued:
		return o.collect(ctx, order, cert.ID.Word())
	case vendors.StatusPending, vendors.StatusUnknown:
		o.progress(ctx, &order, raw, info)
	case vendors.StatusReplaced, vendors.StatusRejected, vendors.StatusCancelled, vendors.StatusRevoked, vendors.StatusExpired:
	}
	return order, nil
}

// formats are those of Download to try: leaf, intermediate and root in one PEM text
// (documented), or the same without the root (observed).
var formats = []string{"pem_all", "pem_noroot"}

// collect downloads the certificate of an issued order. Where the service has
// none yet, the order is as good as pending.
func (o *Orders) collect(ctx context.Context, order vendors.Order, certificateID string) (vendors.Order, error) {
	why := errors.New("issued, but without a certificate so far")
	if certificateID != "" {
		for _, format := range formats {
			text, err := o.client.Download(ctx, certificateID, format)
			if e, ok := errors.AsType[*vendors.Error](err); ok && (e.Code == "" || errors.Is(err, vendors.ErrCredential)) {
				return vendors.Order{}, err
			}
			if err == nil {
				if order.Certificates, err = certpem.Parse(text); err == nil && len(order.Certificates) > 0 {
					return order, nil
				}
			}
			if err != nil {
				why = fmt.Errorf("issued, but the certificate cannot be downloaded so far: %w", err)
			}
		}
	}
	order.Status, order.Certificates, order.Detail = vendors.StatusPending, nil, o.client.http.Scrub(short(why.Error()))
	return order, nil
}

// progress tells what a pending order waits for. The order is what counts: what
// cannot be found out is left out.
func (o *Orders) progress(ctx context.Context, order *vendors.Order, raw string, info orderInfo) {
	if waiting := approvals(info.Requests.V); raw == statusApproval || len(waiting) > 0 {
		order.Detail = o.client.http.Scrub(approvalNote(waiting))
	}
	if raw == statusApproval {
		return
	}
	v, err := o.client.Validation(ctx, order.ID)
	order.Challenges = o.challenges(ctx, order.ID, cmp.Or(info.DCVMethod.Word(), v.Method.Word()))
	if err != nil {
		o.logger.Debug("asking what an order waits for failed", zap.String("order_id", order.ID), zap.Error(err))
		return
	}
	order.Names = v.names()
	if raw == statusReissuing && !slices.ContainsFunc(order.Names, func(n vendors.NameStatus) bool { return !n.Verified }) {
		// Every reissue of a DV order is validated anew, so these are the
		// validations of the certificate before.
		order.Names = nil
	}
	if open := v.openOrganization(); open != "" {
		order.Detail = strings.TrimPrefix(order.Detail+"; "+o.client.http.Scrub(short(open)), "; ")
	}
}

// approvals returns the requests that a person has to approve. An order with the
// status "pending" waits for DigiCert, a request with that status for the account's
// administrator (documented).
func approvals(list []request) []request {
	var waiting []request
	for _, r := range list {
		switch strings.ToLower(r.Status.Word()) {
		case "pending", "submitted":
			waiting = append(waiting, r)
		}
	}
	return waiting
}

// approvalNote tells what to do about requests that wait.
func approvalNote(waiting []request) string {
	note := "waits for the approval of an administrator of the account"
	for _, r := range waiting {
		note += ", request " + short(r.ID.Word()+" "+r.Type.Word())
	}
	return note + "; an API key with the administrator role needs none"
}

// names tells about each name whether it is validated.
func (v validation) names() []vendors.NameStatus {
	var names []vendors.NameStatus
	for _, entry := range v.Names.V {
		covered := entry.DNSNames.V
		if len(covered) == 0 {
			covered = []text{entry.NameScope}
		}
		for _, name := range covered {
			if n := strings.ToLower(name.Word()); n != "" {
				names = append(names, vendors.NameStatus{Name: n, Verified: strings.EqualFold(entry.Status.Word(), "approved")})
			}
		}
	}
	return names
}

// openOrganization names the checks of the organization that are not done.
func (v validation) openOrganization() string {
	var open []string
	for _, check := range v.Organization.V {
		switch strings.ToLower(check.Status.Word()) {
		case "approved", "active", "valid", "":
		default:
			open = append(open, check.Name.Word()+" "+check.Status.Word())
		}
	}
	if len(open) == 0 {
		return ""
	}
	return "organization: " + strings.Join(open, ", ")
}
