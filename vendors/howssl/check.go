package howssl

import (
	"errors"
	"fmt"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// maxYears is the longest term: 12, 24, 36, 48 and 60 months are documented (page
// 2252015); products have lower limits of their own.
const maxYears = 5

// CheckConfig implements vendors.ConfigChecker. It names everything that is wrong at
// once, in the words of the Caddyfile.
func (o *Orders) CheckConfig(cfg vendors.OrderConfig) error {
	var problems []error
	// Orders that were created at HowSSL have their product already.
	if cfg.Product == "" && o.fields["domains"] != "" {
		problems = append(problems, errors.New("product: missing, for example comodo-positivessl-dv"))
	}
	if t := cfg.Term; t.Years != 0 && t.Days != 0 || t.Days%365 != 0 || months(t) < 12 || months(t) > 12*maxYears {
		problems = append(problems, fmt.Errorf("term: must be whole years, 1y to %dy, got %dy %dd", maxYears, t.Years, t.Days))
	}
	if cfg.Method != "" && !o.about.Supports(cfg.Method) {
		problems = append(problems, fmt.Errorf("dcv: %s does not know the method %q", o.about.Name, cfg.Method))
	}
	c, org := cfg.Contact, cfg.Organization
	if c != (vendors.Contact{}) || org != nil {
		problems = append(problems, missing("contact", []field{
			{"first_name", c.FirstName}, {"last_name", c.LastName}, {"email", c.Email}, {"phone", c.Phone}, {"job_title", c.JobTitle},
		}))
	}
	if org != nil {
		problems = append(problems, missing("organization", []field{
			{"name", org.Name}, {"phone", org.Phone}, {"address", org.Address}, {"city", org.City}, {"state", org.State},
		}))
	}
	return errors.Join(problems...)
}

// missing names the blank ones of fields that createOrder requires.
func missing(block string, fields []field) error {
	var names []string
	for _, f := range fields {
		if strings.TrimSpace(f.value) == "" {
			names = append(names, f.name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("%s: missing %s", block, strings.Join(names, ", "))
}

// months is a term as the API takes it; 365 days count as a year.
func months(t vendors.Term) int { return 12 * (t.Years + t.Days/365) }
