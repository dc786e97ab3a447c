package howssl

import (
	"encoding/json"

	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
)

// envelope is the answer of every call. Documented: status is true for success and false
// for failure, code is 200 for success. The documents' own examples have the text "false"
// (page 2252134), and no code in several successful answers (2252016, 2395665 and others);
// elsewhere numbers come as text, and objects and lists as JSON inside a text.
type envelope struct {
	Status string          `json:"status"`
	Msg    string          `json:"msg"` // in Chinese or English; nothing is decided by it
	Data   json.RawMessage `json:"data"`
	Code   string          `json:"code"`
}

const (
	codeOK    = "200"
	codeToken = "501" // token missing or wrong (2252134); no other is known
)

// orderInfo is the data of getOrderInfo.
type orderInfo struct {
	ID     string `json:"-"` // the one that was asked for
	Status string `json:"order_status"`
	// One entry per name. What it is about is told in display text only.
	Validity []struct {
		Text   string `json:"value"`  // see toldName
		Status string `json:"status"` // 1 passed, 2 not passed
	} `json:"validity_status"`
	// In currencies whose labels in the documented example look swapped.
	Amounts []struct {
		Value *float64 `json:"value"`
	} `json:"total_amount"`
	// Not documented here. Assumed: if they are there, they are as createOrder takes them.
	Product string `json:"product_code"`
	Months  string `json:"validity_period"`
}

// placed is the data of commitOrder, and in part of all calls that answer with an ID or with
// proofs.
type placed struct {
	CheckID   string `json:"check_id"` // of createOrder; assumed
	OrderID   string `json:"order_id"`
	ReissueID string `json:"reissue_id"`
	// The proofs of control for all names of an order. All of them come together, whatever
	// method was ordered (documented example), except for validation by e-mail: then there
	// is a sentence in place of the object.
	ValidInfo kit.DCV `json:"valid_info"`
}

// certificateData is the data of getCertificate. Not read are a private_key, which is there
// if HowSSL made the CSR, and dates, which have no zone.
type certificateData struct {
	CAOrderID   string `json:"ca_order_id"`
	Certificate struct {
		Cert   string `json:"cert"`
		CACert string `json:"ca_cert"`
	} `json:"certificate"`
}

// reissue is an element of the data of Reissue/orderReissue. What can be read of the page
// ends within csr_content; the fields of validity_record are those of renewals (3025058).
type reissue struct {
	Code    string `json:"status_code"`
	Message string `json:"status_message"`
	CSR     string `json:"csr_content"`
	Records []struct {
		Domain string `json:"domain"`
		Name   string `json:"name" kit:"exact"`  // host record or file name
		Label  string `json:"label" kit:"exact"` // in place of name, in the page's example
		Value  string `json:"value" kit:"exact"`
		Type   string `json:"type"`
	} `json:"validity_record"`
}

// productData is an element of the data of the product list.
type productData struct {
	Name       string `json:"product_name"`
	Code       string `json:"product_code"`
	DomainType string `json:"domain_type"` // 1 single, 2 multi, 3 wildcard, 4 multi with wildcards
	AuditType  string `json:"audit_type"`  // DV, OV or EV
	Prices     []struct {
		Months string `json:"label"`
		Price  string `json:"price"`
	} `json:"prices_info"`
}
