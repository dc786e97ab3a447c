package racent

import (
	"errors"
	"fmt"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// maxYears is the longest term of the documentation ("1–6"); products have lower
// limits of their own.
const maxYears = 6

// CheckConfig implements vendors.ConfigChecker. It names everything that is
// wrong at once, in the words of the Caddyfile.
func (o *Orders) CheckConfig(cfg vendors.OrderConfig) error {
	var problems []error
	if cfg.Product == "" {
		problems = append(problems, errors.New("product: missing, for example comodo-positivessl"))
	}
	problems = append(problems, checkTerm(cfg.Term))
	if cfg.Method != "" && !o.about.Supports(cfg.Method) {
		problems = append(problems, fmt.Errorf("dcv: %s does not know the method %q", o.about.Name, cfg.Method))
	}
	problems = append(problems, checkContact("contact", cfg.Contact))
	if cfg.Tech != nil {
		problems = append(problems, checkContact("tech_contact", *cfg.Tech))
	}
	if cfg.Billing != nil {
		problems = append(problems, checkContact("billing_contact", *cfg.Billing))
	}
	if cfg.Organization != nil {
		problems = append(problems, checkOrganization(*cfg.Organization))
	}
	return errors.Join(problems...)
}

// checkTerm accepts whole years; 365 days count as one.
func checkTerm(t vendors.Term) error {
	if t.Years != 0 && t.Days != 0 || t.Days%365 != 0 {
		return fmt.Errorf("term: must be whole years, 1y to %dy, got %dy %dd", maxYears, t.Years, t.Days)
	}
	if n := years(t); n < 1 || n > maxYears {
		return fmt.Errorf("term: must be 1y to %dy, got %dy", maxYears, n)
	}
	return nil
}

// checkContact insists on all fields: the service does, even for products that
// do not use them.
func checkContact(block string, c vendors.Contact) error {
	return checkFields(block, c.Country, []named{
		{"first_name", c.FirstName}, {"last_name", c.LastName}, {"email", c.Email}, {"phone", c.Phone},
		{"organization", c.Organization}, {"job_title", c.JobTitle}, {"address", c.Address}, {"city", c.City},
		{"state", c.State}, {"postal_code", c.PostalCode}, {"country", c.Country},
	})
}

// checkOrganization insists on the six fields that the service does.
func checkOrganization(org vendors.Organization) error {
	return checkFields("organization", org.Country, []named{
		{"name", org.Name}, {"phone", org.Phone}, {"address", org.Address}, {"city", org.City},
		{"postal_code", org.PostalCode}, {"country", org.Country},
	})
}

type named struct{ name, value string }

func checkFields(block, country string, fields []named) error {
	var missing []string
	for _, f := range fields {
		if strings.TrimSpace(f.value) == "" {
			missing = append(missing, f.name)
		}
	}
	var problems []error
	if len(missing) > 0 {
		problems = append(problems, fmt.Errorf("%s: missing %s", block, strings.Join(missing, ", ")))
	}
	if country != "" && !isCountry(country) {
		problems = append(problems, fmt.Errorf("%s: country must be a two-letter code such as DE", block))
	}
	return errors.Join(problems...)
}

func isCountry(s string) bool {
	return len(s) == 2 && strings.Trim(strings.ToUpper(s), "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}
