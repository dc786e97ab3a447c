package racent

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/internal/certpem"
	"github.com/caddy-commercial/caddy-commercial/internal/vendorhttp"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// The codes of an answer. The vendor's own list cannot be read; these meanings
// are those that published clients agree on.
const (
	codeOK        text = "1"
	codeIssuing   text = "2"   // being issued, come back
	codeFailure   text = "0"   // generic
	codeInput     text = "-1"  // a parameter is wrong; errors says which
	codeUnknown   text = "-2"  // unexpected error
	codeProduct   text = "-3"  // product or its price
	codeBalance   text = "-4"  // not enough money
	codeOrder     text = "-5"  // order status
	codeCA        text = "-6"  // refused by the CA; for DCV calls: busy issuing
	codeCert      text = "-7"  // certificate status
	codeCancelled text = "-8"  // cancelled already
	codeDenied    text = "400" // token or client address
)

var meanings = map[text]string{
	codeIssuing:   "certificate is being issued",
	codeFailure:   "unspecified failure",
	codeInput:     "a parameter was refused",
	codeUnknown:   "unexpected error at the vendor",
	codeProduct:   "product or its price is wrong",
	codeBalance:   "",
	codeOrder:     "",
	codeCA:        "refused by the CA or busy",
	codeCert:      "",
	codeCancelled: "order is cancelled",
	codeDenied:    "",
}

// refused reports whether a code says that a request was turned down before it
// had any effect, whatever the request.
func refused(code text) bool {
	switch code {
	case codeInput, codeProduct, codeBalance, codeDenied:
		return true
	}
	return false
}

// errPoor explains an unexpected error on an order. Observed: an account without money
// gets that, and nothing else; the documented code for it was seen as well.
var errPoor = errors.New("unexpected error at the vendor, most likely for want of money: check the account's balance and top it up; " +
	"whether there is an order is looked up before another one is placed")

// failure turns an answer without success into an error. Codes that do not
// clearly say "refused" leave it open whether a request with effects took effect.
func (c *client) failure(endpoint string, class vendorhttp.Class, a answer) *vendors.Error {
	e := &vendors.Error{
		Vendor:   c.vendor,
		Endpoint: endpoint,
		Verdict:  vendors.Uncertain,
		Code:     c.http.Scrub(string(a.Code)),
		Message:  c.http.Scrub(message(a.Errors)),
	}
	if class == vendorhttp.Read {
		e.Verdict = vendors.Retryable
	}
	if refused(a.Code) {
		e.Verdict = vendors.Permanent
	}
	switch a.Code {
	case codeBalance:
		e.Err = vendors.ErrBalance
	case codeDenied:
		e.Err = vendors.ErrCredential
	case codeIssuing:
		e.Err = vendors.ErrStillIssuing
	case codeUnknown:
		if endpoint == "place" || endpoint == "renew" {
			e.Err = errPoor
		}
	case codeOrder, codeCert, codeCancelled:
		// Placing an order has no state that could be wrong: there, these
		// codes are as good as unknown.
		if endpoint != "place" {
			e.Verdict, e.Err = vendors.Permanent, vendors.ErrWrongState
		}
	}
	if e.Err == nil && meanings[a.Code] != "" {
		e.Err = errors.New(meanings[a.Code])
	}
	return e
}

// statuses translates the words of collect. PENDING, COMPLETE and CANCELLED are
// documented, the others observed, in either case.
var statuses = map[string]vendors.Status{
	"pending":    vendors.StatusPending,
	"processing": vendors.StatusPending,
	"approving":  vendors.StatusPending,
	"complete":   vendors.StatusIssued,
	"active":     vendors.StatusIssued,
	"issued":     vendors.StatusIssued,
	"cancelled":  vendors.StatusCancelled,
	"canceled":   vendors.StatusCancelled,
	"failed":     vendors.StatusRejected,
	"rejected":   vendors.StatusRejected,
	"reissued":   vendors.StatusReplaced,
	"renewed":    vendors.StatusReplaced,
	"revoked":    vendors.StatusRevoked,
	"expired":    vendors.StatusExpired,
}

// collected translates an answer of collect with code 1 or 2.
func (c *client) collected(id string, a answer) vendors.Order {
	d := a.order()
	raw := a.Status.Word()
	if raw == "" {
		raw = a.CertStatus.Word()
	}
	order := vendors.Order{
		ID:         id,
		Status:     statuses[strings.ToLower(raw)],
		RawStatus:  c.http.Scrub(raw),
		CAOrderID:  d.VendorID.Word(),
		Challenges: d.challenges(""),
		Names:      d.names(),
		TermEnds:   parseDate(d.DueDate),
		Detail:     c.http.Scrub(d.progress()),
	}
	if a.Code == codeIssuing {
		order.Status = vendors.StatusPending
	}
	if order.Status == vendors.StatusIssued {
		certs, err := parseCertificates(string(d.Certificate), string(d.CACertificate))
		if err != nil {
			// The vendor may still be assembling it. Asking again is free.
			order.Status, order.Detail = vendors.StatusPending, err.Error()
		}
		order.Certificates = certs
	}
	return order
}

// parseCertificates reads the leaf and the certificates above it, PEM each.
func parseCertificates(leaf, above string) ([][]byte, error) {
	if leaf == "" {
		return nil, errors.New("issued, but without a certificate so far")
	}
	certs, err := certpem.Parse(leaf)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	more, err := certpem.Parse(above)
	if err != nil {
		return nil, fmt.Errorf("caCertificate: %w", err)
	}
	return append(certs, more...), nil
}

// order returns the data of an answer about an order. Whatever is not an object
// reads as no data.
func (a answer) order() orderData {
	var data loose[orderData]
	_ = json.Unmarshal(a.Data, &data)
	return data.V
}

// names tells about each name what dcvList does, or else what was ordered.
func (d orderData) names() []vendors.NameStatus {
	list := d.DCVList.V
	if len(list) == 0 {
		list = d.ApplyParams.V.DomainInfo.V
	}
	var names []vendors.NameStatus
	for _, s := range list {
		if s.DomainName.Word() != "" {
			names = append(names, vendors.NameStatus{
				Name:     strings.ToLower(s.DomainName.Word()),
				Verified: strings.EqualFold(s.IsVerify.Word(), "verified"),
			})
		}
	}
	return names
}

// progress is a note such as "application done, dcv processing".
func (d orderData) progress() string {
	var parts []string
	for _, s := range []struct {
		name string
		step step
	}{
		{"application", d.Application.V}, {"dcv", d.DCV.V}, {"ov", d.OV.V}, {"issued", d.Issued.V},
	} {
		if status := s.step.Status.Word(); status != "" {
			parts = append(parts, s.name+" "+status)
		}
	}
	return strings.Join(parts, ", ")
}

// challenges returns the proofs that the vendor asks for, exactly as it wrote
// them. The method is the one that was ordered; empty means what the answer
// says of it.
func (d orderData) challenges(method vendors.Method) []vendors.Challenge {
	shared := d.dcvValues
	if shared == (dcvValues{}) {
		shared = d.Data.V.dcvValues
	}
	perName := d.DCVInfo.V
	if len(perName) == 0 {
		if ch, ok := shared.challenge("", d.methodOf("", method)); ok {
			return []vendors.Challenge{ch}
		}
		return nil
	}
	var all []vendors.Challenge
	alike := true
	for _, name := range slices.Sorted(maps.Keys(perName)) {
		ch, ok := perName[name].challenge(strings.ToLower(name), d.methodOf(name, method))
		if !ok {
			continue
		}
		all = append(all, ch)
		first, this := all[0], ch
		first.Name, this.Name = "", ""
		alike = alike && first == this
	}
	if len(all) > 0 && alike {
		all[0].Name = ""
		return all[:1]
	}
	return all
}

// methodOf returns the method of a name, or of all names if empty: what dcvList
// or the echo of the order says, or else the given one.
func (d orderData) methodOf(name string, ordered vendors.Method) vendors.Method {
	for _, list := range [][]dcvState{d.DCVList.V, d.ApplyParams.V.DomainInfo.V} {
		for _, s := range list {
			if name != "" && !strings.EqualFold(name, s.DomainName.Word()) {
				continue
			}
			for m, word := range methodWords {
				if strings.EqualFold(word, s.Method.Word()) {
					return m
				}
			}
		}
	}
	return ordered
}

// challenge picks the values that a method needs. Without a method, a record is
// only taken where there is no file.
func (v dcvValues) challenge(name string, method vendors.Method) (vendors.Challenge, bool) {
	hasFile, hasRecord := v.FileName != "" && v.FileContent != "", v.DNSHost != "" && v.DNSValue != ""
	if method == "" {
		method = vendors.MethodHTTP
		if !hasFile {
			method = vendors.MethodDNS
		}
	}
	if method == vendors.MethodDNS {
		kind := v.DNSType.Word()
		if kind == "" {
			kind = "CNAME"
		}
		return vendors.Challenge{
			Name: name, Method: method,
			RecordName: string(v.DNSHost), RecordType: strings.ToUpper(kind), RecordValue: string(v.DNSValue),
		}, hasRecord
	}
	return vendors.Challenge{
		Name: name, Method: method,
		FileName: string(v.FileName), FileContent: string(v.FileContent),
	}, hasFile
}

// methodWords are the names of the methods in the API, which mean plain "file"
// and "DNS" for products whose proofs are not hashes of the CSR.
var methodWords = map[vendors.Method]string{
	vendors.MethodHTTP:  "HTTP_CSR_HASH",
	vendors.MethodHTTPS: "HTTPS_CSR_HASH",
	vendors.MethodDNS:   "CNAME_CSR_HASH",
}
