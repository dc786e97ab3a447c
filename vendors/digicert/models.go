package digicert

import (
	"cmp"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
)

// orderBody is the body of an order and of a reissue, which leaves out what is about money.
//
// Fields that make DigiCert act by itself (auto_renew, auto_reissue) are not among
// them: DigiCert would buy, or replace keys, behind our back.
type orderBody struct {
	Certificate      certificateBody   `json:"certificate"`
	Validity         validity          `json:"order_validity,omitzero"`
	DCVMethod        string            `json:"dcv_method"`
	SkipApproval     bool              `json:"skip_approval"`
	Comments         string            `json:"comments,omitempty"`
	Organization     idBody            `json:"organization,omitzero"`
	TechnicalContact map[string]string `json:"technical_contact,omitempty"`
	Container        idBody            `json:"container,omitzero"`
	PaymentMethod    string            `json:"payment_method,omitempty"`
	AlternativeID    string            `json:"alternative_order_id,omitempty"`
	RenewalOf        json.Number       `json:"renewal_of_order_id,omitempty"`
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

// Answers. The service writes the same ID as a number in one answer and as a string in
// another (documented examples), numbers may exceed 32 bits, and an absent object comes as
// an empty array, for example "organization": [] (observed); the kit reads them all.

// placed is the answer of an order or a reissue. Only the ID is always there.
type placed struct {
	ID             string `json:"id"`
	RandomValue    string `json:"dcv_random_value"`
	OrderValidTill string `json:"order_valid_till"`
}

// request is what a person in the account approves: an order, a reissue, a revocation.
type request struct {
	ID       string `json:"id"`
	Type     string `json:"type"`
	Status   string `json:"status"` // submitted, pending, approved, rejected
	Comments string `json:"comments"`
}

// orderInfo is an order by itself and, in part, in a list.
type orderInfo struct {
	ID          string `json:"id"`
	OrderID     string `json:"order_id"` // in some lists
	Status      string `json:"status"`
	Certificate struct {
		ID         string   `json:"id"`
		CommonName string   `json:"common_name"`
		CSR        string   `json:"csr"`
		DNSNames   []string `json:"dns_names"`
		Status     string   `json:"status"` // revoked after a revocation (observed)
		Serial     string   `json:"serial_number"`
	} `json:"certificate"`
	DateCreated    string    `json:"date_created"`
	OrderValidTill string    `json:"order_valid_till"`
	DCVMethod      string    `json:"dcv_method"` // missing at times (observed)
	Requests       []request `json:"requests"`
	AlternativeID  string    `json:"alternative_order_id"` // our reference (observed)
}

func (i orderInfo) id() string   { return cmp.Or(i.ID, i.OrderID) }
func (i orderInfo) word() string { return strings.ToLower(i.Status) }

// csr is the DER of the request of the order's certificate, nil if it is not told.
// Documented; while a reissue is pending, it is the request of the previous certificate.
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

// orderList is a list of orders.
type orderList []orderInfo

var errNoList = errors.New("answer has no list of orders")

// UnmarshalJSON implements json.Unmarshaler. A list without orders may be {"orders":[]},
// but also {}, [], or a page alone (all observed). Any other answer without orders is an
// error, so that an answer that is not understood is never taken for "there is none". An
// order without an ID is an error, too: it could be any order.
func (l *orderList) UnmarshalJSON(b []byte) error {
	*l = nil
	var fields map[string]json.RawMessage
	if compact(b) != "[]" && (json.Unmarshal(b, &fields) != nil || fields == nil) {
		return errNoList
	}
	orders, listed := fields["orders"]
	var page struct{ Total string }
	_ = kit.Unmarshal(fields["page"], &page)
	delete(fields, "page")
	switch compact(orders) {
	case "", "null", "[]", "{}":
		if page.Total != "" && page.Total != "0" || !listed && len(fields) > 0 {
			return errNoList
		}
		return nil
	}
	var rows []orderInfo
	if kit.Unmarshal(orders, &rows) != nil || len(rows) == 0 {
		return errNoList
	}
	if slices.ContainsFunc(rows, func(row orderInfo) bool { return row.id() == "" }) {
		return errors.New("answer has an order without an ID")
	}
	*l = rows
	return nil
}

// orderPage is a page of a list of orders, and how many orders all pages have; zero if not told.
type orderPage struct {
	orders orderList
	total  int
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *orderPage) UnmarshalJSON(b []byte) error {
	var answer struct{ Page struct{ Total int } }
	_ = kit.Unmarshal(b, &answer)
	p.total = answer.Page.Total
	return p.orders.UnmarshalJSON(b)
}

// compact is JSON without white space.
func compact(b []byte) string { return strings.Join(strings.Fields(string(b)), "") }

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

type randomValue struct {
	Value string `json:"dcv_random_value"`
}

type productData struct {
	NameID         string `json:"name_id"`
	Name           string `json:"name"`
	Type           string `json:"type"` // dv_ssl_certificate or ssl_certificate for public TLS
	ValidationType string `json:"validation_type"`
}

// money is what the account has, or what something costs. It comes as text or number.
type money struct {
	Available string `json:"total_available_funds"` // missing where credit is unlimited
	Total     string `json:"total_price"`           // 0 means that it is not known
	Currency  string `json:"currency"`
}
