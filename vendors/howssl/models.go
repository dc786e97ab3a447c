package howssl

import (
	"encoding/json"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/internal/lax"
)

// The service does not keep to the kinds of values in its documents.
type (
	text         = lax.Text
	loose[T any] = lax.Value[T]
)

// envelope is the answer of every call. Documented: status is true for success and
// false for failure, code is 200 for success.
//
// The documents' own examples have the text "false" as status (page 2252134), and no
// code in several successful answers (2252016, 2395665 and others).
type envelope struct {
	Status text            `json:"status"`
	Msg    text            `json:"msg"`
	Data   json.RawMessage `json:"data"`
	Code   text            `json:"code"`
}

// The codes that the readable pages have.
const (
	codeOK    = "200"
	codeToken = "501" // token missing or wrong (2252134)
)

// verdict is what an envelope says of its call.
type verdict int

const (
	neither verdict = iota // not the service's, or contradicting itself
	succeeded
	failed
)

func (e envelope) verdict() verdict {
	switch e.Status.Word() {
	case "true":
		if code := e.Code.Word(); code == "" || code == codeOK {
			return succeeded
		}
	case "false":
		return failed
	}
	return neither
}

// maxMessage bounds a vendor's message in an error, in bytes.
const maxMessage = 400

// message is the vendor's sentence in one line. It is in Chinese or English, and
// nothing is decided by it.
func (e envelope) message() string {
	msg := strings.Join(strings.Fields(string(e.Msg)), " ")
	if len(msg) > maxMessage {
		msg = strings.ToValidUTF8(msg[:maxMessage], "") + "…"
	}
	return msg
}

// orderInfo is the data of getOrderInfo.
type orderInfo struct {
	Status text `json:"order_status"`

	// One entry per name. What it is about is told in display text only.
	Validity lax.Nested[[]struct {
		Status text `json:"status"` // 1 passed, 2 not passed
	}] `json:"validity_status"`

	// The currency labels of the documented example look swapped, so that nothing
	// is decided by these.
	Amounts loose[[]struct {
		Value text `json:"value"`
	}] `json:"total_amount"`
}

// placed is the data of commitOrder.
type placed struct {
	OrderID   text                  `json:"order_id"`
	ValidInfo lax.Nested[validInfo] `json:"valid_info"` // as text: assumed, other fields come so
}

// validInfo are the proofs of control for all names of an order. All of them come
// together, whatever method was ordered (documented example), except for validation by
// e-mail: then there is a sentence in place of the object.
type validInfo struct {
	DNSHost     text `json:"DCVdnsHost"`
	DNSValue    text `json:"DCVdnsValue"`
	DNSType     text `json:"DCVdnsType"`
	FileName    text `json:"DCVfileName"`
	FileContent text `json:"DCVfileContent"`
}

// certificateData is the data of getCertificate. It also has a private_key, if HowSSL
// made the CSR, which is left where it is; and dates without a zone, which the
// certificate tells better.
type certificateData struct {
	CAOrderID   text `json:"ca_order_id"`
	Certificate loose[struct {
		Cert   text `json:"cert"`
		CACert text `json:"ca_cert"`
	}] `json:"certificate"`
}

// reissue is an element of the data of Reissue/orderReissue. The visible part of the
// page ends within csr_content.
type reissue struct {
	ID      text `json:"reissue_id"` // not in the visible part
	Code    text `json:"status_code"`
	Message text `json:"status_message"`
	CSR     text `json:"csr_content"`

	// Documented to be null at times. Its fields are those that page 3025058 has
	// for renewals.
	Validity loose[[]validityRecord] `json:"validity_record"`
}

// validityRecord is the proof for one name: host record or file name, and its value.
type validityRecord struct {
	Domain text `json:"domain"`
	Name   text `json:"name"`
	Label  text `json:"label"` // in place of name, in the page's example
	Value  text `json:"value"`
	Type   text `json:"type"`
}

// productData is an element of the data of the product list.
type productData struct {
	Name       text `json:"product_name"`
	Code       text `json:"product_code"`
	DomainType text `json:"domain_type"` // 1 single, 2 multi, 3 wildcard, 4 multi with wildcards
	AuditType  text `json:"audit_type"`  // DV, OV or EV
	Prices     lax.Nested[[]struct {
		Months text `json:"label"`
		Price  text `json:"price"`
	}] `json:"prices_info"`
}
