package digicert

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/certpem"
	"github.com/caddy-commercial/caddy-commercial/internal/lax"
)

// The service writes the same ID as a number in one answer and as a string in another
// (documented examples), numbers may exceed 32 bits, and an absent object comes as an
// empty array, for example "organization": [] (observed).
type (
	text         = lax.Text
	loose[T any] = lax.Value[T]
)

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
	ID             text                 `json:"id"`
	CertificateID  text                 `json:"certificate_id"` // missing while approval is pending (observed)
	RandomValue    text                 `json:"dcv_random_value"`
	Chain          loose[[]chainMember] `json:"certificate_chain"` // on immediate issuance only
	Requests       loose[[]request]     `json:"requests"`
	OrderValidTill text                 `json:"order_valid_till"`
}

type chainMember struct {
	PEM text `json:"pem"`
}

// request is what a person in the account approves: an order, a reissue, a
// revocation.
type request struct {
	ID       text `json:"id"`
	Type     text `json:"type"`
	Status   text `json:"status"` // submitted, pending, approved, rejected
	Comments text `json:"comments"`
}

// orderInfo is an order as Info and, in part, List tell it.
type orderInfo struct {
	ID          text `json:"id"`
	Status      text `json:"status"`
	Certificate loose[struct {
		ID         text          `json:"id"`
		CommonName text          `json:"common_name"`
		CSR        text          `json:"csr"`
		DNSNames   loose[[]text] `json:"dns_names"`
		Status     text          `json:"status"` // revoked after a revocation (observed)
	}] `json:"certificate"`
	DateCreated    text             `json:"date_created"`
	OrderValidTill text             `json:"order_valid_till"`
	DCVMethod      text             `json:"dcv_method"`
	Requests       loose[[]request] `json:"requests"`

	// AlternativeID is our reference, if the order has it (observed).
	AlternativeID text `json:"alternative_order_id"`
}

// csr is the DER of the request of the order's certificate, nil if it is not told.
// Documented; while a reissue is pending it is that of the certificate before.
func (i orderInfo) csr() []byte { return certpem.Request(string(i.Certificate.V.CSR)) }

// names lists the order's names in lower case, the common name first.
func (i orderInfo) names() []string {
	var names []string
	seen := make(map[string]bool)
	for _, name := range append([]text{i.Certificate.V.CommonName}, i.Certificate.V.DNSNames.V...) {
		n := strings.ToLower(name.Word())
		if n != "" && !seen[n] {
			seen[n] = true
			names = append(names, n)
		}
	}
	return names
}

// orderList is the answer of List and of Alternate, whose orders have an order_id
// instead of an id.
type orderList struct {
	Orders []orderRow
}

// orderRow is an order in a list.
type orderRow struct {
	orderInfo
	OrderID text `json:"order_id"`
}

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
	switch compact(orders) {
	case "", "null", "[]", "{}":
	default:
		return json.Unmarshal(orders, &l.Orders)
	}
	var page struct {
		Total text `json:"total"`
	}
	_, paged := fields["page"]
	_ = json.Unmarshal(fields["page"], &page)
	total := page.Total.Word()
	if total != "" && total != "0" || !listed && (!paged || len(fields) > 1) {
		return errNoList
	}
	return nil
}

var errNoList = errors.New("answer has no list of orders")

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
	Method text `json:"order_dcv_method"`
	Names  loose[[]struct {
		NameScope text          `json:"name_scope"`
		Status    text          `json:"status"` // approved when done; others not documented
		DNSNames  loose[[]text] `json:"dns_names"`
	}] `json:"dns_name_validations"`
	Organization loose[[]struct {
		Name   text `json:"name"`
		Status text `json:"status"`
	}] `json:"organization_validations"`
}

// randomValue is valid for 30 days (documented). Older revisions tell no date.
type randomValue struct {
	Value   text `json:"dcv_random_value"`
	Expires text `json:"expiration_date"`
}

type productData struct {
	NameID         text `json:"name_id"`
	Name           text `json:"name"`
	Type           text `json:"type"` // dv_ssl_certificate or ssl_certificate for public TLS
	ValidationType text `json:"validation_type"`
}

type organizationData struct {
	Name     text        `json:"name"`
	IsActive loose[bool] `json:"is_active"`
	Status   text        `json:"status"`
}

// balance has money as text or number, and no total where credit is unlimited.
type balance struct {
	Available text `json:"total_available_funds"`
	Currency  text `json:"currency"`
}

type price struct {
	Total    text `json:"total_price"`
	Currency text `json:"currency"`
}

// parseTime returns the zero time for anything that is neither a date nor a point
// in time. A date is its first moment, so that no term is thought longer than it is.
func parseTime(t text) time.Time {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05-0700", time.DateOnly} {
		if at, err := time.Parse(layout, t.Word()); err == nil {
			return at.UTC()
		}
	}
	return time.Time{}
}
