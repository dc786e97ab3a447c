package howssl

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/internal/certpem"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// statusDraft is the order_status of an order that was created and not committed.
const statusDraft = "0"

// statuses translates order_status (page 2252024, appendix 1). Codes that are not in
// it are unknown, and never an end. A draft is none of the neutral states.
var statuses = map[string]struct {
	status vendors.Status
	words  string
}{
	statusDraft: {vendors.StatusUnknown, "not submitted, unpaid"},
	"3":         {vendors.StatusIssued, "completed"},
	"4":         {vendors.StatusRejected, "invalid"},
	"5":         {vendors.StatusCancelled, "cancelled"},
	"7":         {vendors.StatusRevoked, "being revoked"},
	"8":         {vendors.StatusRevoked, "revoked"},
	"9":         {vendors.StatusExpired, "expired"},
	"11":        {vendors.StatusPending, "under review"},
	"13":        {vendors.StatusRejected, "failed"},
}

func (i orderInfo) status() string { return i.Status.Word() }

// known reports whether the status is one of the documented ones.
func (i orderInfo) known() bool { return statuses[i.status()].words != "" }

// describe is the status with its meaning, for people.
func (i orderInfo) describe() string {
	code := i.status()
	if words := statuses[code].words; words != "" {
		return code + " (" + words + ")"
	}
	// Nothing bounds what is no code.
	return fmt.Sprintf("%.20q (unknown)", code)
}

// order is what getOrderInfo alone tells of an order. No readable page has the end of the
// paid term in an answer: cert_end_time of getCertificate is the certificate's, which is
// shorter. So it follows from the term that was bought.
func (i orderInfo) order(id string) vendors.Order {
	o := vendors.Order{ID: id, Status: statuses[i.status()].status, RawStatus: i.describe()}
	if o.Status == vendors.StatusPending && len(i.Validity.V) > 0 {
		passed := 0
		for _, v := range i.Validity.V {
			if v.Status.Word() == "1" {
				passed++
			}
		}
		o.Detail = fmt.Sprintf("%d of %d names validated", passed, len(i.Validity.V))
	}
	return o
}

// challenges returns the file and the record that the vendor asks for, whichever of
// them there is: either is proof, and it does not say which one was ordered.
func (v validInfo) challenges() []vendors.Challenge {
	var list []vendors.Challenge
	if content, ok := fileContent(string(v.FileContent)); ok && v.FileName != "" {
		list = append(list, vendors.Challenge{
			Method: vendors.MethodHTTP, FileName: string(v.FileName), FileContent: content,
		})
	}
	if kind, ok := recordType(v.DNSType); ok && v.DNSHost != "" && v.DNSValue != "" {
		list = append(list, vendors.Challenge{
			Method: vendors.MethodDNS, RecordName: string(v.DNSHost), RecordType: kind, RecordValue: string(v.DNSValue),
		})
	}
	return list
}

// escapedLines is the content of a file whose line ends were escaped twice, as in the
// examples of some pages: hash, CA and perhaps a unique value.
var escapedLines = regexp.MustCompile(`^[0-9a-fA-F]{64}\\n[a-z0-9.-]+(\\n[0-9a-zA-Z]{1,20})?$`)

// fileContent returns the content of a validation file exactly as it was told, except
// for line ends that were escaped twice. Other content with escapes in it cannot be
// right, and is refused.
func fileContent(s string) (content string, ok bool) {
	switch {
	case s == "":
		return "", false
	case strings.Contains(s, "\n") || !strings.Contains(s, `\n`):
		return s, true
	case escapedLines.MatchString(s):
		return strings.ReplaceAll(s, `\n`, "\n"), true
	}
	return "", false
}

// recordType accepts the types that a proof can have. The documented example has
// CNAME, which is also what is meant if there is none.
func recordType(t text) (string, bool) {
	switch kind := strings.ToUpper(t.Word()); kind {
	case "":
		return "CNAME", true
	case "CNAME", "TXT":
		return kind, true
	}
	return "", false
}

// certificates reads the leaf and the bundle above it.
func (d certificateData) certificates() ([][]byte, error) {
	leaf, bundle := string(d.Certificate.V.Cert), string(d.Certificate.V.CACert)
	if strings.TrimSpace(leaf) == "" {
		return nil, errors.New("completed, but without a certificate so far")
	}
	certs, err := certpem.Parse(leaf)
	if err != nil {
		return nil, fmt.Errorf("cert: %w", err)
	}
	above, err := certpem.Parse(bundle)
	if err != nil {
		return nil, fmt.Errorf("ca_cert: %w", err)
	}
	return append(certs, above...), nil
}
