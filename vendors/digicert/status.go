package digicert

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
)

// statuses translates the status of an order. Documented, under "Order info", "List orders" and
// "Update order status": needs_approval, pending, reissue_pending, issued, waiting_pickup,
// rejected, canceled, revoked and expired. The others were observed.
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

func (o *Orders) info(ctx context.Context, id string) (orderInfo, error) {
	info, err := do[orderInfo](ctx, o, callInfo, nil, id)
	switch {
	case err != nil:
	case info.ID == "" && info.Status == "":
		err = o.Fail(callInfo, "", "", errors.New("answer has no order"))
	case info.ID != "" && info.ID != id:
		err = o.Fail(callInfo, "", "", errors.New("answer is about another order"))
	}
	return info, err
}

// look asks where an order stands.
func (o *Orders) look(ctx context.Context, orderID string) (vendors.Order, error) {
	info, err := o.info(ctx, orderID)
	if err != nil {
		return vendors.Order{}, err
	}
	order := vendors.Order{
		ID: orderID, Status: statuses[info.word()], RawStatus: o.Text(info.word()), TermEnds: kit.Time(info.OrderValidTill),
	}
	if order.Status == vendors.StatusPending || order.Status == vendors.StatusUnknown {
		o.progress(ctx, &order, info)
		return order, nil
	}
	if order.Status == vendors.StatusIssued {
		order.CertificateRevoked = info.revoked()
		return o.collect(ctx, order, info.Certificate.ID)
	}
	return order, nil
}

// revoked reports whether the latest certificate was revoked. The order lives on even if that
// was its only certificate (documented).
func (i orderInfo) revoked() bool { return strings.EqualFold(i.Certificate.Status, statusRevoked) }

// Look implements vendors.Watcher. It downloads nothing and does not ask what a pending order
// waits for.
func (o *Orders) Look(ctx context.Context, orderID string) (vendors.Order, error) {
	info, err := o.info(ctx, orderID)
	if err != nil {
		return vendors.Order{}, err
	}
	order := vendors.Order{
		ID: orderID, Status: statuses[info.word()], RawStatus: o.Text(info.word()), TermEnds: kit.Time(info.OrderValidTill),
	}
	if order.Status == vendors.StatusIssued {
		order.CertificateRevoked, order.Serial = info.revoked(), kit.Serial(info.Certificate.Serial)
	}
	return order, nil
}

// collect downloads the certificate of an issued order. If the order does not tell the ID of a
// certificate, or the download is refused, there is none yet.
func (o *Orders) collect(ctx context.Context, order vendors.Order, certificateID string) (vendors.Order, error) {
	var text string
	var err error
	if certificateID != "" {
		text, err = do[string](ctx, o, callDownload, nil, certificateID)
	}
	if err != nil && (vendors.VerdictOf(err) != vendors.Permanent || errors.Is(err, vendors.ErrCredential)) {
		return vendors.Order{}, err
	}
	kit.Deliver(&order, text, "")
	if err != nil {
		order.Detail = o.Text(fmt.Sprintf("issued, but the certificate cannot be downloaded so far: %v", err))
	}
	if order.CertificateRevoked {
		order.Status = vendors.StatusIssued
	}
	return order, nil
}

// progress tells what a pending order waits for. The order is what counts: what
// cannot be found out is left out.
func (o *Orders) progress(ctx context.Context, order *vendors.Order, info orderInfo) {
	unapproved := info.word() == statusApproval
	order.Detail = o.Text(approval(info.Requests, unapproved))
	if unapproved {
		order.Held = true
		return
	}
	v, err := do[validation](ctx, o, callValidation, nil, order.ID)
	if err != nil {
		o.Logger.Debug("asking what an order waits for failed", zap.String("order_id", order.ID), zap.Error(err))
	}
	order.Challenges = o.challenges(ctx, order.ID, cmp.Or(info.DCVMethod, v.Method))
	order.Names = v.names()
	if info.word() == statusReissuing && !slices.ContainsFunc(order.Names, func(n vendors.NameStatus) bool { return !n.Verified }) {
		// Every reissue of a DV order is validated anew, so these are the validations of
		// the previous certificate.
		order.Names = nil
	}
	order.Detail = o.Text(strings.Trim(order.Detail+"; "+v.organization(), "; "))
}

// approval tells what to do if a person has to approve a request, or must; empty if not. An
// order with the status "pending" waits for DigiCert, a request with that status for the
// account's administrator (documented).
func approval(list []request, must bool) string {
	which := ""
	for _, r := range list {
		switch strings.ToLower(r.Status) {
		case "pending", "submitted":
			which += strings.TrimRight(", request "+r.ID+" "+r.Type, " ")
		}
	}
	if which == "" && !must {
		return ""
	}
	return "waits for the approval of an administrator of the account" + which + "; an API key with the administrator role needs none"
}

// names tells about each name whether it is validated.
func (v validation) names() (names []vendors.NameStatus) {
	for _, entry := range v.Names {
		if len(entry.DNSNames) == 0 {
			entry.DNSNames = []string{entry.NameScope}
		}
		for _, name := range entry.DNSNames {
			if name != "" {
				names = append(names, vendors.NameStatus{Name: strings.ToLower(name), Verified: strings.EqualFold(entry.Status, "approved")})
			}
		}
	}
	return names
}

// organization names the checks of the organization that are not done.
func (v validation) organization() string {
	var open []string
	for _, check := range v.Organization {
		switch strings.ToLower(check.Status) {
		case "approved", "active", "valid", "":
		default:
			open = append(open, check.Name+" "+check.Status)
		}
	}
	if len(open) == 0 {
		return ""
	}
	return "organization: " + strings.Join(open, ", ")
}
