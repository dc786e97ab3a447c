package howssl

import (
	"fmt"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// The values of order_status that are not only translated: something else depends on them, too.
const (
	statusDraft     = "0" // created, and not committed
	statusCancelled = "5"
	statusReview    = "11"
)

// statuses translates order_status (page 2252024, appendix 1). Codes that are not in
// it are unknown, and never the end of an order. No vendors.Status says that an order is
// a draft.
var statuses = map[string]struct {
	status vendors.Status
	words  string
}{
	statusDraft:     {vendors.StatusUnknown, "not submitted, unpaid"},
	"3":             {vendors.StatusIssued, "completed"},
	"4":             {vendors.StatusRejected, "invalid"},
	statusCancelled: {vendors.StatusCancelled, "cancelled"},
	"7":             {vendors.StatusRevoked, "being revoked"},
	"8":             {vendors.StatusRevoked, "revoked"},
	"9":             {vendors.StatusExpired, "expired"},
	statusReview:    {vendors.StatusPending, "under review"},
	"13":            {vendors.StatusRejected, "failed"},
}

// known reports whether the status is one of the documented ones.
func (i orderInfo) known() bool { return statuses[i.Status].words != "" }

// describe is the status with its meaning, for people.
func (i orderInfo) describe() string {
	switch words := statuses[i.Status].words; {
	case words != "":
		return i.Status + " (" + words + ")"
	case len(i.Status) > 16:
		return "no code (unknown)" // whatever it is: it could be a secret, which is longer than a code
	}
	return fmt.Sprintf("%q (unknown)", i.Status)
}

// order is what getOrderInfo alone tells of an order. No readable page has the end of the
// paid term in an answer: cert_end_time of getCertificate is the certificate's, which is
// shorter. So it follows from the term that was bought.
func (i orderInfo) order() vendors.Order {
	o := vendors.Order{ID: i.ID, Status: statuses[i.Status].status, RawStatus: i.describe()}
	if o.Status == vendors.StatusPending && len(i.Validity) > 0 {
		passed := 0
		for _, v := range i.Validity {
			if v.Status == "1" {
				passed++
			}
		}
		o.Detail = fmt.Sprintf("%d of %d names validated", passed, len(i.Validity))
	}
	return o
}
