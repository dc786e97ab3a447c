package racent

import (
	"encoding/json"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
)

// answer is the envelope of every call. Fields of answers are named as on the wire, except for
// the case of letters. Documented: code is an integer, status stands beside data (collect
// only), errors is a list, an object or a text. Observed: errors may be absent.
type answer struct {
	Code, Status, CertStatus string
	Data, Errors             json.RawMessage
}

// orderData is the data of place, renew, replace, collect, updateDCV and certIdByrefId:
// each fills a part of it.
type orderData struct {
	CertID, VendorID           string
	DueDate                    string // end of the subscription, not of the certificate
	Certificate, CACertificate string

	kit.DCV
	DCVInfo map[string]kit.DCV // by name, where they differ
	DCVList []dcvState

	// Progress: notdone, processing, done, or ongoing while people look at it.
	Application, OV, Issued struct{ Status string }
	Control                 struct{ Status string } `json:"dcv"`

	// The params of the order: an object, or a text that holds one (both observed).
	ApplyParams struct {
		CSR        string
		DomainInfo []dcvState
	}

	// Observed: updateDCV nests the values one level deeper at times.
	Data kit.DCV
}

// dcvState tells how a name is validated and whether that is done: is_verify is
// "verified" or empty.
type dcvState struct {
	DomainName, DCVMethod string
	IsVerify              string `json:"is_verify"`
}

// listedOrder is an order of list (observed). The common name is empty until the order has
// data, and its endDate is the end of the subscription, as collect's dueDate.
type listedOrder struct {
	CertID, CommonName, Created, BeginDate, EndDate, Status string
	Domains                                                 []string
}

// productData is one product of productList.
type productData struct {
	Code, ProductName, ValidationType string
	SupportWildcard                   string // Y or N
	MaxDomain                         int
	Price                             struct {
		BasePrice map[string]string // priceNNN is the price for NNN months
	}
}

// chinaTime is the zone of all dates, which come without one. Assumed from
// certificates whose dates read 08:00:00 to 07:59:59: midnights of UTC.
var chinaTime = time.FixedZone("UTC+8", 8*60*60)

// parseDate returns the zero time for anything that is not a date.
func parseDate(text string) time.Time {
	for _, layout := range []string{time.DateTime, time.DateOnly} {
		if at, err := time.ParseInLocation(layout, text, chinaTime); err == nil {
			return at.UTC()
		}
	}
	return time.Time{}
}
