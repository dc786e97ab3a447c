package racent

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
)

const (
	maxYears    = 6       // documented as "1–6"; products have lower limits of their own
	maxDocument = 2 << 20 // documented on help.racent.com (2.1) as "2M"
)

var (
	documentKinds = strings.Fields("jpg jpeg png gif bmp rar zip pdf") // documented there, too

	// Documented on www.camerontech.cn/help/details/62, a mirror of page 10. Capitals are
	// refused (observed).
	servers = strings.Fields(`other apache2 apacheraven apachessl c2net cisco citrix cobaltseries domino ensim
		hsphere ibmhttp iis4 iis6 iis7 iplanet javawebserv netscape nginx novel oracle plesk redhatsap tomcat
		website webstar whmcpane zeusv3`)

	// What the service insists on, for all products (observed).
	contactFields      = strings.Fields("first_name last_name email phone organization job_title address city state postal_code country")
	organizationFields = strings.Fields("name phone address city postal_code country")

	// The identity documents by which CFCA knows people and organizations (documented).
	personPapers       = []string{"SFZ", "HZ"}
	organizationPapers = []string{"TYDMZ", "OTHERS"}
)

// check judges the options and reads the document, if there is one.
func (o Options) check() (document kit.Field, err error) {
	if o.Server != "" && !slices.Contains(servers, o.Server) {
		return document, fmt.Errorf("server: must be one of %s, got %q", strings.Join(servers, ", "), o.Server)
	}
	if o.VerificationDocument != "" {
		document, err = kit.FileField("verificationPic", o.VerificationDocument, maxDocument, documentKinds...)
		if err != nil {
			err = fmt.Errorf("verification_document: %w", err)
		}
	}
	return document, err
}

// CheckConfig implements vendors.ConfigChecker. It names everything that is
// wrong at once, in the words of the Caddyfile.
func (o *Orders) CheckConfig(cfg vendors.OrderConfig) error {
	_, err := kit.Years(cfg.Term, maxYears)
	problems := []error{o.CheckOrder(cfg, "comodo-positivessl"), err}
	if cfg.Organization == nil && o.document.Value != "" {
		problems = append(problems, errors.New("verification_document: is for an organization, and there is no block organization"))
	}
	return errors.Join(append(problems, checkContact("contact", &cfg.Contact, cfg.Product),
		checkContact("tech_contact", cfg.Tech, cfg.Product), checkContact("billing_contact", cfg.Billing, cfg.Product),
		checkOrganization(cfg.Organization, cfg.Product))...)
}

func checkContact(block string, c *vendors.Contact, product string) error {
	if c == nil {
		return nil
	}
	return errors.Join(kit.Missing(block, c.Fields(), contactFields...), kit.Country(block, c.Country),
		checkPaper(block, product, c.IDType, personPapers, "id_number", c.IDNumber))
}

func checkOrganization(org *vendors.Organization, product string) error {
	const block = "organization"
	if org == nil {
		return nil
	}
	return errors.Join(kit.Missing(block, org.Fields(), organizationFields...), kit.Country(block, org.Country),
		checkPaper(block, product, org.IDType, organizationPapers, "registration_number", org.RegistrationNumber))
}

// checkPaper judges the kind and the number of an identity document. They are for CFCA only,
// and nobody's number is to be told to another CA by mistake.
func checkPaper(block, product, kind string, kinds []string, numberField, number string) error {
	switch {
	case kind == "" && (number == "" || block == "organization"): // whose number is for any CA
	case kit.IsSectigo(product):
		return fmt.Errorf("%s: identity documents are for products of CFCA, and %s is not one", block, product)
	case !slices.Contains(kinds, kind):
		return fmt.Errorf("%s: id_type must be %s, got %q", block, strings.Join(kinds, " or "), kind)
	case number == "":
		return fmt.Errorf("%s: id_type %s needs %s beside it", block, kind, numberField)
	}
	return nil
}
