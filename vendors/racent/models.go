package racent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/certpem"
	"github.com/caddy-commercial/caddy-commercial/internal/lax"
)

// The service does not keep to the kinds of values in its documents.
type (
	text         = lax.Text
	loose[T any] = lax.Value[T]
)

// answer is the envelope of every call.
//
// Documented: code is an integer, status stands beside data (collect only),
// errors is "Array or String" or "Object or String" depending on the page.
type answer struct {
	Code       text            `json:"code"`
	Status     text            `json:"status"`
	CertStatus text            `json:"certStatus"`
	Data       json.RawMessage `json:"data"`
	Errors     json.RawMessage `json:"errors"`
}

// orderData is the data of place, renew, replace, reissue, collect, updateDCV
// and certIdByrefId: each fills a part of it.
type orderData struct {
	CertID   text `json:"certId"`
	VendorID text `json:"vendorId"`

	dcvValues
	DCVInfo loose[map[string]dcvValues] `json:"dcvInfo"`
	DCVList loose[[]dcvState]           `json:"dcvList"`

	// End of the subscription, not of the certificate.
	DueDate text `json:"dueDate"`

	Certificate   text `json:"certificate"`
	CACertificate text `json:"caCertificate"`

	Application loose[step] `json:"application"`
	DCV         loose[step] `json:"dcv"`
	OV          loose[step] `json:"ov"`
	Issued      loose[step] `json:"issued"`

	// An object, or a text that holds one. Both were observed.
	ApplyParams lax.Nested[applyParams] `json:"applyParams"`

	// Observed: updateDCV nests the values one level deeper at times.
	Data loose[struct{ dcvValues }] `json:"data"`
}

// dcvValues are the six values of a proof of control. They are the same for all
// names of an order unless dcvInfo gives them per name.
type dcvValues struct {
	FileName    text `json:"DCVfileName"`
	FileContent text `json:"DCVfileContent"`
	DNSHost     text `json:"DCVdnsHost"`
	DNSValue    text `json:"DCVdnsValue"`
	DNSType     text `json:"DCVdnsType"`
}

// dcvState tells how a name is validated and whether that is done: is_verify is
// "verified" or empty.
type dcvState struct {
	DomainName text `json:"domainName"`
	Method     text `json:"dcvMethod"`
	IsVerify   text `json:"is_verify"`
}

// step is a part of an order's progress: notdone, processing, done, or ongoing
// while people look at it.
type step struct {
	Status text `json:"status"`
}

// applyParams is the echo of an order's params.
type applyParams struct {
	CSR        text              `json:"csr"`
	DomainInfo loose[[]dcvState] `json:"domainInfo"`
}

// csr is the DER of the order's CSR, nil if it is not told.
func (d orderData) csr() []byte { return certpem.Request(string(d.ApplyParams.V.CSR)) }

// listedOrder is an order of list (observed). Its endDate is the end of the
// subscription, as collect's dueDate.
type listedOrder struct {
	CertID     text          `json:"certId"`
	CommonName text          `json:"commonName"` // empty until the order has data
	Domains    loose[[]text] `json:"domains"`
	Created    text          `json:"created"`
	BeginDate  text          `json:"beginDate"`
}

// productData is one product of productList.
type productData struct {
	Code            text `json:"code"`
	Name            text `json:"productName"`
	SupportWildcard text `json:"supportWildcard"` // Y or N
	ValidationType  text `json:"validationType"`
	MaxDomain       text `json:"maxDomain"`
	Price           loose[struct {
		// priceNNN is the price for NNN months.
		BasePrice loose[map[string]text] `json:"basePrice"`
	}] `json:"price"`
}

// orderParams is the params field of place, validate, renew and replace: one
// form field that holds JSON.
type orderParams struct {
	CSR           string        `json:"csr"`
	Server        string        `json:"server,omitempty"`
	UniqueValue   string        `json:"uniqueValue,omitempty"`
	DomainInfo    []domainInfo  `json:"domainInfo"`
	Administrator *contact      `json:"Administrator,omitempty"` // documented with a capital A, unlike the next two
	Finance       *contact      `json:"finance,omitempty"`
	Tech          *contact      `json:"tech,omitempty"`
	Organization  *organization `json:"organizationInfo,omitempty"`
}

type domainInfo struct {
	DomainName string `json:"domainName"`
	Method     string `json:"dcvMethod"`
}

// contact is sent with the company's name under both spellings: the service
// insists on the misspelt one, and one documentation page has the other.
type contact struct {
	Job          string `json:"job"`
	FirstName    string `json:"firstName"`
	LastName     string `json:"lastName"`
	Email        string `json:"email"`
	Mobile       string `json:"mobile"`
	Country      string `json:"country"`
	State        string `json:"state"`
	City         string `json:"city"`
	Address      string `json:"address"`
	PostCode     string `json:"postCode"`
	Organation   string `json:"organation"`
	Organization string `json:"organization"`
}

// organization omits blanks, which the service takes for errors (observed).
type organization struct {
	Name     string `json:"organizationName,omitempty"`
	Address  string `json:"organizationAddress,omitempty"`
	City     string `json:"organizationCity,omitempty"`
	State    string `json:"organizationState,omitempty"`
	Country  string `json:"organizationCountry,omitempty"`
	PostCode string `json:"organizationPostCode,omitempty"`
	Mobile   string `json:"organizationMobile,omitempty"`
}

// isEmpty reports whether JSON says nothing: absent, null, or an empty text,
// array or object.
func isEmpty(raw json.RawMessage) bool {
	switch string(bytes.TrimSpace(raw)) {
	case "", "null", `""`, "false", "[]", "{}":
		return true
	}
	return false
}

// maxMessage bounds a vendor's message in an error, in bytes.
const maxMessage = 400

// message puts the errors of an answer into one line. They were observed as an
// object of lists or texts, a list, a text, null, and absent.
func message(raw json.RawMessage) string {
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return ""
	}
	msg := strings.Join(strings.Fields(flatten(v)), " ")
	if len(msg) > maxMessage {
		msg = strings.ToValidUTF8(msg[:maxMessage], "") + "…"
	}
	return msg
}

func flatten(v any) string {
	var parts []string
	switch v := v.(type) {
	case nil:
	case []any:
		for _, item := range v {
			parts = append(parts, flatten(item))
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			parts = append(parts, key+": "+flatten(v[key]))
		}
	default:
		return fmt.Sprint(v)
	}
	return strings.Join(parts, "; ")
}

// chinaTime is the zone of all dates, which come without one. Assumed from
// certificates whose dates read 08:00:00 to 07:59:59: midnights of UTC.
var chinaTime = time.FixedZone("UTC+8", 8*60*60)

// parseDate returns the zero time for anything that is not a date.
func parseDate(t text) time.Time {
	for _, layout := range []string{time.DateTime, time.DateOnly} {
		if at, err := time.ParseInLocation(layout, t.Word(), chinaTime); err == nil {
			return at.UTC()
		}
	}
	return time.Time{}
}
