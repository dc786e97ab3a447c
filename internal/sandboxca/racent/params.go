package racent

import (
	"crypto/x509"
	"encoding/json"

	"net/mail"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/reseller"
)

// parameters is the content of the params field, checked.
type parameters struct {
	raw    json.RawMessage
	csr    *x509.CertificateRequest
	unique string
	names  []*sandboxca.Name
	bonus  bool
}

// servers are the documented values of "server"
// (http://www.camerontech.cn/help/details/62).
var servers = strings.Fields(`apachessl citrix domino ensim hsphere iis4 iis6 iis7 iplanet javawebserv
	netscape ibmhttp novel oracle plesk tomcat webstar whmcpane other apache2 c2net cisco cobaltseries nginx
	apacheraven redhatsap website zeusv3`)

var (
	contactFields = strings.Fields("job firstName lastName email mobile country state city address postCode organation")

	organizationFields = strings.Fields(`organizationName organizationAddress organizationCity
		organizationCountry organizationPostCode organizationMobile`)

	organizationExtras = strings.Fields("organizationState organizationDuns organizationDivision organizationRegNumber idType")

	// Kinds of papers by which CFCA identifies people and organizations.
	personPapers, organizationPapers = []string{"SFZ", "HZ"}, []string{"TYDMZ", "OTHERS"}

	uniqueValue = regexp.MustCompile(`^[a-zA-Z0-9]{1,20}$`)
	countryCode = regexp.MustCompile(`^[A-Z]{2}$`)
)

var methods = map[string]sandboxca.Method{
	"EMAIL":          sandboxca.MethodEmail,
	"HTTP_CSR_HASH":  sandboxca.MethodHTTP,
	"HTTPS_CSR_HASH": sandboxca.MethodHTTPS,
	"CNAME_CSR_HASH": sandboxca.MethodCNAME,
}

func methodWord(m sandboxca.Method) string {
	for word, have := range methods {
		if have == m {
			return word
		}
	}
	return ""
}

// orderParams reads the params of a new order.
func orderParams(text string, p sandboxca.Product, errs reseller.FieldErrors) parameters {
	fields := readObject("params", []byte(text), errs)
	refuseUnknown("", fields, errs, "csr", "privateKey", "server", "uniqueValue", "domainInfo", "dcvMethod",
		"Administrator", "finance", "tech", "organizationInfo", "originalfromOthers")

	if _, sent := fields["privateKey"]; sent {
		errs.Add("privateKey", "privateKey must never be sent")
	}
	server := readString("server", fields, errs)
	switch {
	case server == "":
		errs.Add("server", "server is required")
	case !slices.Contains(servers, server):
		errs.Add("server", "server is not one of the known kinds")
	}
	checkContact("Administrator", fields["Administrator"], true, errs)
	checkContact("finance", fields["finance"], p.ValidationType != sandboxca.DV, errs)
	checkContact("tech", fields["tech"], p.ValidationType != sandboxca.DV, errs)
	checkOrganization(fields["organizationInfo"], p.ValidationType != sandboxca.DV, errs)

	params := certParams(fields, p, errs)
	switch string(fields["originalfromOthers"]) {
	case "", "0", `"0"`:
	case "1", `"1"`:
		params.bonus = true
	default:
		errs.Add("originalfromOthers", "originalfromOthers must be 0 or 1")
	}
	params.raw = json.RawMessage(text)
	return params
}

// replaceParams reads the params of a replacement, which keeps the contacts.
func replaceParams(text string, p sandboxca.Product, errs reseller.FieldErrors) parameters {
	fields := readObject("params", []byte(text), errs)
	refuseUnknown("", fields, errs, "csr", "uniqueValue", "domainInfo", "organizationInfo")
	checkOrganization(fields["organizationInfo"], false, errs)
	params := certParams(fields, p, errs)
	params.raw = json.RawMessage(text)
	return params
}

// certParams reads what shapes the certificate: names and CSR.
func certParams(fields map[string]json.RawMessage, p sandboxca.Product, errs reseller.FieldErrors) parameters {
	var params parameters
	params.unique = readString("uniqueValue", fields, errs)
	if _, sent := fields["uniqueValue"]; sent && !uniqueValue.MatchString(params.unique) {
		errs.Add("uniqueValue", "uniqueValue must be 1 to 20 letters and digits")
	}
	// The outer method takes precedence over those of the names.
	outer := readString("dcvMethod", fields, errs)
	if _, sent := fields["dcvMethod"]; sent && methods[outer] == "" {
		errs.Add("dcvMethod", "dcvMethod is not a known method")
	}
	params.names = readDomains(fields["domainInfo"], outer, p, errs)

	// The seller would make the key pair itself if there were no CSR. The sandbox does
	// not: a client that forgets its CSR should find out.
	text := readString("csr", fields, errs)
	if text == "" {
		errs.Add("csr", "csr is required")
		return params
	}
	csr, err := sandboxca.ParseCSR(text)
	if err != nil {
		errs.Add("csr", err.Error())
		return params
	}
	params.csr = csr
	if len(params.names) > 0 {
		if err := sandboxca.CheckCSRNames(csr, nameList(params.names)); err != nil {
			errs.Add("csr", err.Error())
		}
	}
	return params
}

func nameList(names []*sandboxca.Name) []string {
	return (&sandboxca.Order{Progress: sandboxca.Progress{Names: names}}).NameList()
}

// readDomains reads a domainInfo array and checks it against the product.
func readDomains(raw json.RawMessage, outer string, p sandboxca.Product, errs reseller.FieldErrors) []*sandboxca.Name {
	if len(raw) == 0 {
		errs.Add("domainInfo", "domainInfo is required")
		return nil
	}
	var list []map[string]json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		errs.Add("domainInfo", "domainInfo must be an array of objects")
		return nil
	}
	var names []*sandboxca.Name
	seen := make(map[string]bool)
	for i, item := range list {
		path := "domainInfo." + strconv.Itoa(i) + "."
		refuseUnknown(path, item, errs, "domainName", "dcvMethod", "dcvEmail")
		n := &sandboxca.Name{Name: strings.ToLower(readString("domainName", item, errs))}
		word := readString("dcvMethod", item, errs)
		if outer != "" {
			word = outer
		}
		n.Email = readString("dcvEmail", item, errs)
		n.Method = methods[word]
		switch {
		case n.Name == "":
			errs.Add(path+"domainName", "domainName is required")
			continue
		case seen[n.Name]:
			errs.Add(path+"domainName", "domainName is there twice ("+n.Name+")")
		case word == "":
			errs.Add(path+"dcvMethod", "dcvMethod is required")
		case n.Method == "":
			errs.Add(path+"dcvMethod", "dcvMethod is not a known method")
		}
		seen[n.Name] = true
		reseller.CheckName(path, n, p, errs)
		names = append(names, n)
	}
	if n := len(list); n < 1 || n > p.Domains() {
		errs.Add("domainInfo", "the product takes 1 to "+strconv.Itoa(p.Domains())+" domains, not "+strconv.Itoa(n))
	}
	return names
}

func checkContact(role string, raw json.RawMessage, required bool, errs reseller.FieldErrors) {
	if len(raw) == 0 {
		if required {
			errs.Add(role, role+" is required")
		}
		return
	}
	fields := readObject(role, raw, errs)
	refuseUnknown(role+".", fields, errs, append([]string{"organization", "idType", "idNumber"}, contactFields...)...)
	checkPaper(role, fields, "idNumber", personPapers, errs)
	for _, field := range contactFields {
		path := role + "." + field
		value := readString(field, fields, errs)
		switch {
		case value == "":
			errs.Add(path, "The "+strings.ToLower(role)+"'s "+field+" is required")
		case field == "country" && !countryCode.MatchString(value):
			errs.Add(path, "The "+strings.ToLower(role)+"'s country must be a two-letter code")
		case field == "email":
			if addr, err := mail.ParseAddress(value); err != nil || addr.Address != value {
				errs.Add(path, "The "+strings.ToLower(role)+"'s email is not an address")
			}
		}
	}
}

func checkOrganization(raw json.RawMessage, required bool, errs reseller.FieldErrors) {
	fields := make(map[string]json.RawMessage)
	if len(raw) > 0 {
		fields = readObject("organizationInfo", raw, errs)
	}
	if len(fields) == 0 { // an empty object counts as absent
		if required {
			errs.Add("organizationInfo", "organizationInfo is required")
		}
		return
	}
	refuseUnknown("organizationInfo.", fields, errs, append(organizationExtras, organizationFields...)...)
	checkPaper("organizationInfo", fields, "organizationRegNumber", organizationPapers, errs)
	for _, field := range organizationFields {
		if readString(field, fields, errs) == "" {
			errs.Add("organizationInfo."+field, field+" is required")
		}
	}
	for _, field := range organizationExtras {
		if _, sent := fields[field]; sent && readString(field, fields, errs) == "" {
			errs.Add("organizationInfo."+field, field+" must not be empty")
		}
	}
	if country := readString("organizationCountry", fields, errs); country != "" && !countryCode.MatchString(country) {
		errs.Add("organizationInfo.organizationCountry", "organizationCountry must be a two-letter code")
	}
}

// checkPaper checks that the kind of a paper, if given, is known, and that its number is
// there.
func checkPaper(path string, fields map[string]json.RawMessage, number string, kinds []string, errs reseller.FieldErrors) {
	kind := readString("idType", fields, errs)
	switch {
	case kind == "":
	case !slices.Contains(kinds, kind):
		errs.Add(path+".idType", "idType is not one of the known kinds")
	case readString(number, fields, errs) == "":
		errs.Add(path+"."+number, number+" is required")
	}
}

func readObject(path string, raw []byte, errs reseller.FieldErrors) map[string]json.RawMessage {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil || fields == nil {
		errs.Add(path, path+" must be a JSON object")
		return nil
	}
	return fields
}

// readString reads a string field, "" if it is absent. Other types are errors.
func readString(field string, fields map[string]json.RawMessage, errs reseller.FieldErrors) string {
	raw, sent := fields[field]
	if !sent {
		return ""
	}
	var s *string
	if err := json.Unmarshal(raw, &s); err != nil || s == nil {
		errs.Add(field, field+" must be a string")
		return ""
	}
	return strings.TrimSpace(*s)
}

func refuseUnknown(prefix string, fields map[string]json.RawMessage, errs reseller.FieldErrors, known ...string) {
	for field := range fields {
		if !slices.Contains(known, field) {
			errs.Add(prefix+field, prefix+field+" is not a known field")
		}
	}
}
