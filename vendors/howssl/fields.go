package howssl

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
)

// orderFields lists the fields of createOrder by our names, in the order in which they are
// sent, with the names that page 2252015 documents. What can be read of that page ends within
// the company's address. Assumed: dcv_method has the name that updateDCV has for it (page
// 2253237). For the domains, sibling calls have domain, domainName and add_domain, and a wrong
// guess would at best be refused. That there is a field for the country is known from page 2252025.
var orderFields = []struct{ our, their string }{
	{"product", "product_code"}, {"term", "validity_period"}, {"csr", "csr"}, {"domains", ""}, {"dcv_method", "check_way"},
	{"auto_info", "auto_info"}, {"first_name", "first_name"}, {"last_name", "last_name"}, {"job_title", "contacter_job"},
	{"phone", "contacter_phone"}, {"email", "contacter_email"}, {"country", ""}, {"postal_code", ""},
	{"organization_name", "company_name"}, {"organization_phone", "company_phone"},
	{"organization_address", "company_address"}, {"organization_city", "company_city"},
	{"organization_state", "company_province"}, {"organization_country", ""}, {"organization_postal_code", ""},
}

// howToAsk ends errors about the names of fields.
const howToAsk = `read the page kancloud.cn/howssl/api_certificate/2252015 on from company_address, where all known copies end, ` +
	`or ask HowSSL's support: "What does /Home/Order/createOrder call the field that takes the domain, ` +
	`and is one name written into it as it is?" See docs/howssl.md`

var errNoDomainField = errors.New("create_order_field: the field domains has no name, and a guess may cost money; " + howToAsk +
	". Give the answer as: create_order_field domains <their field>; or list orders that were created at HowSSL as: check_id <id> <name...>")

// fieldMap holds their name of each field by ours; empty where it is not known.
type fieldMap map[string]string

// newFieldMap completes the configured names with the documented ones, and refuses
// names that cannot be meant.
func newFieldMap(configured map[string]string) (fieldMap, error) {
	m, taken := make(fieldMap), make(map[string]string)
	var ours []string
	for _, f := range orderFields {
		their, given := configured[f.our]
		if their = strings.TrimSpace(their); !given {
			their = f.their
		}
		switch other := taken[their]; {
		case given && (their == "" || strings.EqualFold(their, tokenField)):
			return nil, fmt.Errorf("create_order_field: %s cannot be called %q; if the name is not known, %s", f.our, their, howToAsk)
		case their != "" && other != "":
			return nil, fmt.Errorf("create_order_field: %s and %s are both called %q; if a name is not known, %s", other, f.our, their, howToAsk)
		}
		m[f.our], taken[their], ours = their, f.our, append(ours, f.our)
	}
	for _, our := range slices.Sorted(maps.Keys(configured)) {
		if !slices.Contains(ours, our) {
			return nil, fmt.Errorf("create_order_field: there is no field %q; known fields are: %s", our, strings.Join(ours, ", "))
		}
	}
	return m, nil
}

// methodWords are HowSSL's words for the methods: those of check_way (page 2253237), and the
// numbers that reissues have instead (2395665). There is none for files over HTTPS.
var methodWords = map[vendors.Method]struct{ order, reissue string }{
	vendors.MethodHTTP: {"FILE", "2"},
	vendors.MethodDNS:  {"DNS", "1"},
}

// form is the form of createOrder for one name.
//
// Documented: with auto_info 1, which is for DV products only, contact and company
// are left out.
func (m fieldMap) form(req vendors.OrderRequest) []kit.Field {
	values := map[string]string{
		"product":    req.Product,
		"term":       strconv.Itoa(req.Term.Months()),
		"csr":        kit.CSR(req.CSR),
		"domains":    req.Names[0],
		"dcv_method": methodWords[req.Method].order,
		"auto_info":  "1",
	}
	if req.Contact != (vendors.Contact{}) {
		values["auto_info"] = "0"
		for _, f := range req.Contact.Fields() {
			values[f.Name] = *f.Value
		}
	}
	if req.Organization != nil {
		for _, f := range req.Organization.Fields() {
			values["organization_"+f.Name] = *f.Value
		}
	}
	var form []kit.Field
	for _, f := range orderFields {
		value := values[f.our]
		if strings.HasSuffix(f.our, "country") {
			value = strings.ToUpper(value)
		}
		if m[f.our] != "" {
			form = append(form, field(m[f.our], value))
		}
	}
	return form
}
