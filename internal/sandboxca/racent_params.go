package sandboxca

import (
	"crypto/x509"
	"encoding/json"
	"net"
	"net/mail"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// racentParams is the content of the params field, checked.
type racentParams struct {
	raw    json.RawMessage
	csr    *x509.CertificateRequest
	unique string
	names  []*orderName
	bonus  bool
}

// racentServers are the documented values of "server"
// (http://www.camerontech.cn/help/details/62).
var racentServers = strings.Fields(`apachessl citrix domino ensim hsphere iis4 iis6 iis7 iplanet javawebserv
	netscape ibmhttp novel oracle plesk tomcat webstar whmcpane other apache2 c2net cisco cobaltseries nginx
	apacheraven redhatsap website zeusv3`)

var (
	contactFields = strings.Fields("job firstName lastName email mobile country state city address postCode organation")

	organizationFields = strings.Fields(`organizationName organizationAddress organizationCity
		organizationCountry organizationPostCode organizationMobile`)

	organizationExtras = strings.Fields("organizationState organizationDuns organizationDivision organizationRegNumber idType")

	// Kinds of papers that CFCA identifies people and organizations by.
	personPapers, organizationPapers = []string{"SFZ", "HZ"}, []string{"TYDMZ", "OTHERS"}

	mailboxes = strings.Fields("admin administrator postmaster webmaster hostmaster")

	uniqueValue = regexp.MustCompile(`^[a-zA-Z0-9]{1,20}$`)
	countryCode = regexp.MustCompile(`^[A-Z]{2}$`)
	dnsLabel    = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
)

var racentMethods = map[string]method{
	"EMAIL":          methodEmail,
	"HTTP_CSR_HASH":  methodHTTP,
	"HTTPS_CSR_HASH": methodHTTPS,
	"CNAME_CSR_HASH": methodCNAME,
}

func racentMethod(m method) string {
	for word, have := range racentMethods {
		if have == m {
			return word
		}
	}
	return ""
}

// orderParams reads the params of a new order.
func orderParams(text string, p Product, errs fieldErrors) racentParams {
	fields := readObject("params", []byte(text), errs)
	refuseUnknown("", fields, errs, "csr", "privateKey", "server", "uniqueValue", "domainInfo", "dcvMethod",
		"Administrator", "finance", "tech", "organizationInfo", "originalfromOthers")

	if _, sent := fields["privateKey"]; sent {
		errs.add("privateKey", "privateKey must never be sent")
	}
	server := readString("server", fields, errs)
	switch {
	case server == "":
		errs.add("server", "server is required")
	case !slices.Contains(racentServers, server):
		errs.add("server", "server is not one of the known kinds")
	}
	checkContact("Administrator", fields["Administrator"], true, errs)
	checkContact("finance", fields["finance"], p.ValidationType != DV, errs)
	checkContact("tech", fields["tech"], p.ValidationType != DV, errs)
	checkOrganization(fields["organizationInfo"], p.ValidationType != DV, errs)

	params := certParams(fields, p, errs)
	switch string(fields["originalfromOthers"]) {
	case "", "0", `"0"`:
	case "1", `"1"`:
		params.bonus = true
	default:
		errs.add("originalfromOthers", "originalfromOthers must be 0 or 1")
	}
	params.raw = json.RawMessage(text)
	return params
}

// replaceParams reads the params of a replacement, which keeps the contacts.
func replaceParams(text string, p Product, errs fieldErrors) racentParams {
	fields := readObject("params", []byte(text), errs)
	refuseUnknown("", fields, errs, "csr", "uniqueValue", "domainInfo", "organizationInfo")
	checkOrganization(fields["organizationInfo"], false, errs)
	params := certParams(fields, p, errs)
	params.raw = json.RawMessage(text)
	return params
}

// certParams reads what shapes the certificate: names and CSR.
func certParams(fields map[string]json.RawMessage, p Product, errs fieldErrors) racentParams {
	var params racentParams
	params.unique = readString("uniqueValue", fields, errs)
	if _, sent := fields["uniqueValue"]; sent && !uniqueValue.MatchString(params.unique) {
		errs.add("uniqueValue", "uniqueValue must be 1 to 20 letters and digits")
	}
	// The outer method wins over those of the names.
	outer := readString("dcvMethod", fields, errs)
	if _, sent := fields["dcvMethod"]; sent && racentMethods[outer] == "" {
		errs.add("dcvMethod", "dcvMethod is not a known method")
	}
	params.names = readDomains(fields["domainInfo"], outer, p, errs)

	// The seller would make the key pair itself if there were no CSR. The
	// sandbox does not: a client that forgets its CSR should hear of it.
	text := readString("csr", fields, errs)
	if text == "" {
		errs.add("csr", "csr is required")
		return params
	}
	csr, err := parseCSR(text)
	if err != nil {
		errs.add("csr", err.Error())
		return params
	}
	params.csr = csr
	if len(params.names) > 0 {
		names := (&order{Names: params.names}).names()
		if err := checkCSRNames(csr, names); err != nil {
			errs.add("csr", err.Error())
		}
	}
	return params
}

// readDomains reads a domainInfo array and holds it against the product.
func readDomains(raw json.RawMessage, outer string, p Product, errs fieldErrors) []*orderName {
	if len(raw) == 0 {
		errs.add("domainInfo", "domainInfo is required")
		return nil
	}
	var list []map[string]json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		errs.add("domainInfo", "domainInfo must be an array of objects")
		return nil
	}
	var names []*orderName
	seen := make(map[string]bool)
	for i, item := range list {
		path := "domainInfo." + strconv.Itoa(i) + "."
		refuseUnknown(path, item, errs, "domainName", "dcvMethod", "dcvEmail")
		n := &orderName{Name: strings.ToLower(readString("domainName", item, errs))}
		word := readString("dcvMethod", item, errs)
		if outer != "" {
			word = outer
		}
		n.Email = readString("dcvEmail", item, errs)
		n.Method = racentMethods[word]
		switch {
		case n.Name == "":
			errs.add(path+"domainName", "domainName is required")
			continue
		case seen[n.Name]:
			errs.add(path+"domainName", "domainName is there twice ("+n.Name+")")
		case word == "":
			errs.add(path+"dcvMethod", "dcvMethod is required")
		case n.Method == "":
			errs.add(path+"dcvMethod", "dcvMethod is not a known method")
		}
		seen[n.Name] = true
		checkName(path, n, p, errs)
		names = append(names, n)
	}
	if n := len(list); n < 1 || n > p.maxDomains() {
		errs.add("domainInfo", "the product takes 1 to "+strconv.Itoa(p.maxDomains())+" domains, not "+strconv.Itoa(n))
	}
	return names
}

// checkName checks one name against its method and the product.
func checkName(path string, n *orderName, p Product, errs fieldErrors) {
	field := path + ".domainName"
	base, wildcard := strings.CutPrefix(n.Name, "*.")
	switch isIP := net.ParseIP(n.Name) != nil; {
	case isIP && !p.IP:
		errs.add(field, "The product does not support ip type("+n.Name+")")
	case isIP:
	case wildcard && !p.Wildcard:
		errs.add(field, "The product does not support wildcard type("+n.Name+")")
	case !wildcard && !p.Standard:
		errs.add(field, "The product does not support normal type("+n.Name+")")
	case !validDomain(base):
		errs.add(field, "domainName is not a valid name ("+n.Name+")")
	}
	checkMethod(path, n, errs)
}

// checkMethod applies the CA's rules on which name can be proven how.
func checkMethod(path string, n *orderName, errs fieldErrors) {
	_, ipErr := netip.ParseAddr(n.Name)
	base, wildcard := strings.CutPrefix(n.Name, "*.")
	byFile := n.Method == methodHTTP || n.Method == methodHTTPS
	switch {
	case wildcard && byFile:
		errs.add(path+"dcvMethod", "a wildcard name cannot be validated by file ("+n.Name+")")
	case ipErr == nil && !byFile:
		errs.add(path+"dcvMethod", "an IP address can only be validated by file ("+n.Name+")")
	case n.Method == methodEmail:
		box, domain, _ := strings.Cut(n.Email, "@")
		if !slices.Contains(mailboxes, box) || (domain != base && !strings.HasSuffix(base, "."+domain)) {
			errs.add(path+"dcvEmail", "dcvEmail is required and must be an approved mailbox of the domain")
		}
	}
}

func validDomain(name string) bool {
	labels := strings.Split(name, ".")
	return len(name) <= 253 && len(labels) >= 2 &&
		!slices.ContainsFunc(labels, func(l string) bool { return !dnsLabel.MatchString(l) })
}

func checkContact(role string, raw json.RawMessage, required bool, errs fieldErrors) {
	if len(raw) == 0 {
		if required {
			errs.add(role, role+" is required")
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
			errs.add(path, "The "+strings.ToLower(role)+"'s "+field+" is required")
		case field == "country" && !countryCode.MatchString(value):
			errs.add(path, "The "+strings.ToLower(role)+"'s country must be a two-letter code")
		case field == "email":
			if addr, err := mail.ParseAddress(value); err != nil || addr.Address != value {
				errs.add(path, "The "+strings.ToLower(role)+"'s email is not an address")
			}
		}
	}
}

func checkOrganization(raw json.RawMessage, required bool, errs fieldErrors) {
	fields := make(map[string]json.RawMessage)
	if len(raw) > 0 {
		fields = readObject("organizationInfo", raw, errs)
	}
	if len(fields) == 0 { // an empty object counts as absent
		if required {
			errs.add("organizationInfo", "organizationInfo is required")
		}
		return
	}
	refuseUnknown("organizationInfo.", fields, errs, append(organizationExtras, organizationFields...)...)
	checkPaper("organizationInfo", fields, "organizationRegNumber", organizationPapers, errs)
	for _, field := range organizationFields {
		if readString(field, fields, errs) == "" {
			errs.add("organizationInfo."+field, field+" is required")
		}
	}
	for _, field := range organizationExtras {
		if _, sent := fields[field]; sent && readString(field, fields, errs) == "" {
			errs.add("organizationInfo."+field, field+" must not be empty")
		}
	}
	if country := readString("organizationCountry", fields, errs); country != "" && !countryCode.MatchString(country) {
		errs.add("organizationInfo.organizationCountry", "organizationCountry must be a two-letter code")
	}
}

// checkPaper checks the kind of a paper and that its number is there, if there is a kind.
func checkPaper(path string, fields map[string]json.RawMessage, number string, kinds []string, errs fieldErrors) {
	kind := readString("idType", fields, errs)
	switch {
	case kind == "":
	case !slices.Contains(kinds, kind):
		errs.add(path+".idType", "idType is not one of the known kinds")
	case readString(number, fields, errs) == "":
		errs.add(path+"."+number, number+" is required")
	}
}

func readObject(path string, raw []byte, errs fieldErrors) map[string]json.RawMessage {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil || fields == nil {
		errs.add(path, path+" must be a JSON object")
		return nil
	}
	return fields
}

// readString reads a string field, "" if it is absent. Other types are errors.
func readString(field string, fields map[string]json.RawMessage, errs fieldErrors) string {
	raw, sent := fields[field]
	if !sent {
		return ""
	}
	var s *string
	if err := json.Unmarshal(raw, &s); err != nil || s == nil {
		errs.add(field, field+" must be a string")
		return ""
	}
	return strings.TrimSpace(*s)
}

func refuseUnknown(prefix string, fields map[string]json.RawMessage, errs fieldErrors, known ...string) {
	for field := range fields {
		if !slices.Contains(known, field) {
			errs.add(prefix+field, prefix+field+" is not a known field")
		}
	}
}
