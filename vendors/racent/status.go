package racent

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
)

// The codes of an answer. The vendor's own list cannot be read; these meanings
// are those that published clients agree on.
const (
	codeOK        = "1"
	codeIssuing   = "2"   // being issued, come back
	codeInput     = "-1"  // a parameter is wrong; errors says which
	codeUnknown   = "-2"  // unexpected error
	codeOrder     = "-5"  // order status
	codeCA        = "-6"  // refused by the CA; for DCV calls: busy issuing
	codeCert      = "-7"  // certificate status
	codeCancelled = "-8"  // cancelled already
	codeDenied    = "400" // token or client address
)

// refusals are the codes that say that a request was turned down before it had any effect,
// whatever the request. Other codes leave that open; meanings are what some of them say.
var (
	refusals = map[string]error{
		codeInput: errors.New("a parameter was refused"), "-3": errors.New("product or its price is wrong"),
		"-4": vendors.ErrBalance, codeDenied: vendors.ErrCredential,
	}
	meanings = map[string]error{
		codeIssuing: vendors.ErrStillIssuing, "0": errors.New("unspecified failure"), codeUnknown: errors.New("unexpected error at the vendor"),
		codeCA: errors.New("refused by the CA or busy"), codeCancelled: errors.New("order is cancelled"),
	}
)

// errPoor explains an unexpected error on an order. Observed: an account without money
// may get just that code; the documented one for it was seen as well.
var errPoor = errors.New("unexpected error at the vendor, most likely for lack of funds: check the account's balance and top it up; " +
	"whether there is an order is looked up before another one is placed")

// failure turns an answer without success into an error.
func (o *Orders) failure(call kit.Call, a answer) *vendors.Error {
	e := o.Fail(call, a.Code, kit.Flatten(a.Errors), meanings[a.Code])
	switch busy := a.Code == codeIssuing || a.Code == codeCA; {
	case refusals[a.Code] != nil:
		e.Verdict, e.Err = vendors.Permanent, refusals[a.Code]
		if call == collect && a.Code == codeInput {
			e.Err = vendors.ErrNotFound // the ID is the only parameter
		}
	case a.Code == codeUnknown && (call == place || call == renew):
		e.Err = errPoor
	case busy && call == updateDCV:
		e.Verdict, e.Err = vendors.Retryable, vendors.ErrStillIssuing
	case call != place && (a.Code == codeOrder || a.Code == codeCert || a.Code == codeCancelled):
		// Placing an order has no state that could be wrong: there, these
		// codes are as good as unknown.
		e.Verdict, e.Err = vendors.Permanent, vendors.ErrWrongState
	}
	return e
}

// statuses translates the words of collect. PENDING, COMPLETE and CANCELLED are
// documented, the others observed, in upper and lower case.
var statuses = map[string]vendors.Status{
	"pending": vendors.StatusPending, "processing": vendors.StatusPending, "approving": vendors.StatusPending,
	"complete": vendors.StatusIssued, "active": vendors.StatusIssued, "issued": vendors.StatusIssued,
	"cancelled": vendors.StatusCancelled, "canceled": vendors.StatusCancelled,
	"failed": vendors.StatusRejected, "rejected": vendors.StatusRejected,
	"reissued": vendors.StatusReplaced, "renewed": vendors.StatusReplaced,
	"revoked": vendors.StatusRevoked, "expired": vendors.StatusExpired,
}

// collected translates an answer of collect with code 1 or 2.
func (o *Orders) collected(id string, a answer) vendors.Order {
	d, word := a.order(), cmp.Or(a.Status, a.CertStatus)
	order := vendors.Order{
		ID: id, Status: statuses[strings.ToLower(word)], RawStatus: o.Text(word), CAOrderID: d.VendorID,
		Challenges: d.challenges(""), Names: d.names(), TermEnds: parseDate(d.DueDate), Detail: o.Text(d.progress()),
	}
	if a.Code == codeIssuing {
		order.Status = vendors.StatusPending
	}
	if order.Status == vendors.StatusIssued {
		// Observed: certStatus repeats the status. Assumed: it does not for a certificate
		// that was revoked while its order lives on.
		order.CertificateRevoked = statuses[strings.ToLower(a.CertStatus)] == vendors.StatusRevoked
		kit.Deliver(&order, d.Certificate, d.CACertificate)
		if order.CertificateRevoked {
			order.Status = vendors.StatusIssued // it may not be shown any more
		}
	}
	return order
}

// order returns the data of an answer about an order, none if it is not an object.
func (a answer) order() (d orderData) {
	_ = kit.Unmarshal(a.Data, &d)
	return d
}

// names tells about each name what dcvList says, or else the echo of the order.
func (d orderData) names() (names []vendors.NameStatus) {
	list := d.DCVList
	if len(list) == 0 {
		list = d.ApplyParams.DomainInfo
	}
	for _, s := range list {
		if name := strings.ToLower(s.DomainName); name != "" {
			names = append(names, vendors.NameStatus{Name: name, Verified: strings.EqualFold(s.IsVerify, "verified")})
		}
	}
	return names
}

// progress is a note such as "application done, dcv processing".
func (d orderData) progress() string {
	var parts []string
	for i, status := range []string{d.Application.Status, d.Control.Status, d.OV.Status, d.Issued.Status} {
		if status != "" {
			parts = append(parts, []string{"application", "dcv", "ov", "issued"}[i]+" "+status)
		}
	}
	return strings.Join(parts, ", ")
}

// challenges returns the proofs that the vendor asks for, exactly as it wrote
// them. Ordered is the method that was ordered, for names of which the answer
// tells none; empty if that is not known.
func (d orderData) challenges(ordered vendors.Method) []vendors.Challenge {
	perName := d.DCVInfo
	if len(perName) == 0 {
		perName = map[string]kit.DCV{"": cmp.Or(d.DCV, d.Data)}
	}
	var all []vendors.Challenge
	for _, name := range slices.Sorted(maps.Keys(perName)) {
		if ch, ok := perName[name].For(d.methodOf(name, ordered)); ok {
			ch.Name = strings.ToLower(name)
			all = append(all, ch)
		}
	}
	alike := func(a, b vendors.Challenge) bool { a.Name = b.Name; return a == b }
	if one := slices.CompactFunc(slices.Clone(all), alike); len(one) == 1 {
		one[0].Name = ""
		return one
	}
	return all
}

// methodOf returns the method of a name, or of all names if empty: what dcvList
// or the echo of the order says, or else the given one.
func (d orderData) methodOf(name string, ordered vendors.Method) vendors.Method {
	for _, s := range slices.Concat(d.DCVList, d.ApplyParams.DomainInfo) {
		for m, word := range methodWords {
			if strings.EqualFold(word, s.DCVMethod) && (name == "" || strings.EqualFold(name, s.DomainName)) {
				return m
			}
		}
	}
	return ordered
}

// methodWords are the names of the methods in the API, which mean plain "file"
// and "DNS" for products whose proofs are not hashes of the CSR.
var methodWords = map[vendors.Method]string{
	vendors.MethodHTTP: "HTTP_CSR_HASH", vendors.MethodHTTPS: "HTTPS_CSR_HASH", vendors.MethodDNS: "CNAME_CSR_HASH",
}
