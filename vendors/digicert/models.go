package digicert

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
)

// The service writes the same ID as a number in one answer and as a string in another
// (documented examples), numbers may exceed 32 bits, and an absent object comes as an
// empty array, for example "organization": [] (observed). [kit.Unmarshal] copes.

// orderBody is the body of an order and of a reissue, which leaves out what is
// about money.
//
// Fields that make DigiCert act by itself (auto_renew, auto_reissue) are not among
// them: it would buy or replace keys behind our back.
type orderBody struct {
	Certificate  certificateBody `json:"certificate"`
	Validity     *validity       `json:"order_validity,omitempty"`
	DCVMethod    string          `json:"dcv_method"`
	SkipApproval bool            `json:"skip_approval"`
	Comments     string          `json:"comments,omitempty"`

	Organization     *idBody      `json:"organization,omitempty"`
	TechnicalContact *contactBody `json:"technical_contact,omitempty"`
	Container        *idBody      `json:"container,omitempty"`
	PaymentMethod    string       `json:"payment_method,omitempty"`
	AlternativeID    string       `json:"alternative_order_id,omitempty"`
	RenewalOf        json.Number  `json:"renewal_of_order_id,omitempty"`
}

// certificateBody names the certificate's names: the API does not read them from
// the CSR (documented).
type certificateBody struct {
	CommonName     string   `json:"common_name"`
	DNSNames       []string `json:"dns_names,omitempty"`
	CSR            string   `json:"csr"`
	SignatureHash  string   `json:"signature_hash"`
	ServerPlatform idBody   `json:"server_platform"`
}

type idBody struct {
	ID int `json:"id"`
}

// validity is the paid term. One of the fields is set.
type validity struct {
	Years int `json:"years,omitempty"`
	Days  int `json:"days,omitempty"`
}

type contactBody struct {
	FirstName string `json:"first_name"`
	LastName  string `json:"last_name"`
	Telephone string `json:"telephone"`
	JobTitle  string `json:"job_title,omitempty"`
	Email     string `json:"email"`
}

// placed is the answer of an order or a reissue. Only the ID is always there.
type placed struct {
	ID             string        `json:"id"`
	RandomValue    string        `json:"dcv_random_value"`
	Chain          []chainMember `json:"certificate_chain"` // on immediate issuance only
	Requests       []request     `json:"requests"`
	OrderValidTill string        `json:"order_valid_till"`
}

type chainMember struct {
	PEM string `json:"pem"`
}

// request is what a person in the account approves: an order, a reissue, a
// revocation.
type request struct {
	ID       string `json:"id"`
	Type     string `json:"type"`
	Status   string `json:"status"` // submitted, pending, approved, rejected
	Comments string `json:"comments"`
}

// orderInfo is an order as Info and, in part, List tell it.
type orderInfo struct {
	ID          string `json:"id"`
	Status      string `json:"status"`
	Certificate struct {
		ID         string   `json:"id"`
		CommonName string   `json:"common_name"`
		CSR        string   `json:"csr"`
		DNSNames   []string `json:"dns_names"`
		Status     string   `json:"status"` // revoked after a revocation (observed)
	} `json:"certificate"`
	DateCreated    string    `json:"date_created"`
	OrderValidTill string    `json:"order_valid_till"`
	DCVMethod      string    `json:"dcv_method"` // missing at times (observed)
	Requests       []request `json:"requests"`

	// AlternativeID is our reference, if the order has it (observed).
	AlternativeID string `json:"alternative_order_id"`
}

// word is the order's status as the service writes it, in lower case.
func (i orderInfo) word() string { return strings.ToLower(i.Status) }

// csr is the DER of the request of the order's certificate, nil if it is not told.
// Documented; while a reissue is pending it is that of the certificate before.
func (i orderInfo) csr() []byte { return kit.ReadCSR(i.Certificate.CSR) }

// names lists the order's names in lower case, the common name first.
func (i orderInfo) names() []string {
	var names []string
	for _, name := range append([]string{i.Certificate.CommonName}, i.Certificate.DNSNames...) {
		if n := strings.ToLower(name); n != "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

// orderRow is an order in a list: of List with an id, of others with an order_id.
type orderRow struct {
	orderInfo
	OrderID string `json:"order_id"`
}

func (r orderRow) id() string {
	if r.ID != "" {
		return r.ID
	}
	return r.OrderID
}

// orderList is the answer of List, Alternate and StatusChanges.
type orderList struct {
	Orders []orderRow
}

var errNoList = errors.New("answer has no list of orders")

// UnmarshalJSON implements json.Unmarshaler. A list without orders may be {"orders":[]},
// but also {}, [], or a page alone (all observed). Whatever else has no orders is an
// error, so that no answer that is not understood is taken for "there is none".
func (l *orderList) UnmarshalJSON(b []byte) error {
	l.Orders = nil
	if s := compact(b); s == "{}" || s == "[]" {
		return nil
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(b, &fields) != nil || fields == nil {
		return errNoList
	}
	orders, listed := fields["orders"]
	var page struct {
		Total string `json:"total"`
	}
	_, paged := fields["page"]
	_ = kit.Unmarshal(fields["page"], &page)
	switch compact(orders) {
	case "", "null", "[]", "{}":
		if page.Total != "" && page.Total != "0" || !listed && (!paged || len(fields) > 1) {
			return errNoList
		}
		return nil
	}
	if kit.Unmarshal(orders, &l.Orders) != nil || len(l.Orders) == 0 {
		return errNoList
	}
	return nil
}

// compact is JSON without white space, empty if it is none.
func compact(b []byte) string {
	var text bytes.Buffer
	if json.Compact(&text, b) != nil {
		return ""
	}
	return text.String()
}

// validation is what stands between an order and its certificate.
type validation struct {
	Method string `json:"order_dcv_method"`
	Names  []struct {
		NameScope string   `json:"name_scope"`
		Status    string   `json:"status"` // approved when done; others not documented
		DNSNames  []string `json:"dns_names"`
	} `json:"dns_name_validations"`
	Organization []struct {
		Name   string `json:"name"`
		Status string `json:"status"`
	} `json:"organization_validations"`
}

// randomValue is valid for 30 days (documented). Older revisions tell no date.
type randomValue struct {
	Value   string `json:"dcv_random_value"`
	Expires string `json:"expiration_date"`
}

type productData struct {
	NameID         string `json:"name_id"`
	Name           string `json:"name"`
	Type           string `json:"type"` // dv_ssl_certificate or ssl_certificate for public TLS
	ValidationType string `json:"validation_type"`
}

type organizationData struct {
	Status string `json:"status"`
}

// balance has money as text or number, and no total where credit is unlimited.
type balance struct {
	Available string `json:"total_available_funds"`
	Currency  string `json:"currency"`
}

type price struct {
	Total    string `json:"total_price"`
	Currency string `json:"currency"`
}

// parseTime returns the zero time for anything that is neither a date nor a point
// in time. A date is its first moment, so that no term is thought longer than it is.
func parseTime(text string) time.Time {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05-0700", time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at.UTC()
		}
	}
	return time.Time{}
}
