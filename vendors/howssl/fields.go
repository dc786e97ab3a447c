package howssl

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// field is one form field. They are sent in order, blanks left out.
type field struct{ name, value string }

// orderFields lists the fields of createOrder by our names, in the order in which
// they are sent, with the names that page 2252015 documents. The visible part of the
// page ends within the company's address, so:
//
//   - domains has no name: siblings use domain, domainName and add_domain, and a
//     wrong guess would at best be refused;
//   - dcv_method is assumed to be what updateDCV (page 2253237) calls it;
//   - a field for the country exists, as page 2252025 lists its values, but neither
//     its name nor that of a postal code is visible.
var orderFields = []field{
	{"product", "product_code"},
	{"term", "validity_period"}, // in months
	{"csr", "csr"},
	{"domains", ""},
	{"dcv_method", "check_way"},
	{"auto_info", "auto_info"},
	{"first_name", "first_name"},
	{"last_name", "last_name"},
	{"job_title", "contacter_job"}, // sic
	{"phone", "contacter_phone"},
	{"email", "contacter_email"},
	{"country", ""},
	{"postal_code", ""},
	{"organization_name", "company_name"},
	{"organization_phone", "company_phone"},
	{"organization_address", "company_address"},
	{"organization_city", "company_city"},
	{"organization_state", "company_province"},
	{"organization_country", ""},
	{"organization_postal_code", ""},
}

// fieldMap holds their name of each field by ours; empty where it is not known.
type fieldMap map[string]string

// newFieldMap completes the configured names with the documented ones, and refuses
// names that cannot be meant.
func newFieldMap(configured map[string]string) (fieldMap, error) {
	m, ours := make(fieldMap), make([]string, 0, len(orderFields))
	for _, f := range orderFields {
		m[f.name] = f.value
		ours = append(ours, f.name)
	}
	for _, our := range slices.Sorted(maps.Keys(configured)) {
		if _, known := m[our]; !known {
			return nil, fmt.Errorf("create_order_field: there is no field %q; known fields are: %s", our, strings.Join(ours, ", "))
		}
		their := strings.TrimSpace(configured[our])
		if their == "" || strings.EqualFold(their, tokenField) {
			return nil, fmt.Errorf("create_order_field: %s cannot be called %q", our, their)
		}
		m[our] = their
	}
	taken := make(map[string]string)
	for _, our := range ours {
		if other := taken[m[our]]; m[our] != "" && other != "" {
			return nil, fmt.Errorf("create_order_field: %s and %s are both called %q", other, our, m[our])
		}
		taken[m[our]] = our
	}
	return m, nil
}

var errNoDomainField = errors.New("create_order_field: the field domains has no name; HowSSL's public documents do not tell it, so ask HowSSL " +
	"and give it as: create_order_field domains <their field>; or list orders that were created at HowSSL as: check_id <id> <name...>")

// checkWays are the words for the methods (page 2253237). There is no word for
// files over HTTPS.
var checkWays = map[vendors.Method]string{
	vendors.MethodHTTP: "FILE",
	vendors.MethodDNS:  "DNS",
}

// form is the form of createOrder.
//
// Documented: with auto_info 1, which is for DV products only, contact and company
// are left out.
func (m fieldMap) form(req vendors.OrderRequest) []field {
	values := map[string]string{
		"product":    req.Product,
		"term":       strconv.Itoa(months(req.Term)),
		"csr":        csrPEM(req.CSR),
		"domains":    strings.Join(req.Names, ","), // of one name, see Prepare
		"dcv_method": checkWays[req.Method],
		"auto_info":  "1",
	}
	if c := req.Contact; c != (vendors.Contact{}) {
		maps.Copy(values, map[string]string{
			"auto_info":  "0",
			"first_name": c.FirstName, "last_name": c.LastName, "job_title": c.JobTitle,
			"phone": c.Phone, "email": c.Email,
			"country": strings.ToUpper(c.Country), "postal_code": c.PostalCode,
		})
	}
	if org := req.Organization; org != nil {
		maps.Copy(values, map[string]string{
			"organization_name": org.Name, "organization_phone": org.Phone, "organization_address": org.Address,
			"organization_city": org.City, "organization_state": org.State,
			"organization_country": strings.ToUpper(org.Country), "organization_postal_code": org.PostalCode,
		})
	}
	var form []field
	for _, f := range orderFields {
		if m[f.name] != "" {
			form = append(form, field{m[f.name], values[f.name]})
		}
	}
	return form
}
