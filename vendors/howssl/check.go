package howssl

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
)

// maxYears is the longest term: 12, 24, 36, 48 and 60 months are documented (page
// 2252015); products have lower limits of their own.
const maxYears = 5

// CheckConfig implements vendors.ConfigChecker. It names everything that is wrong at
// once, in the words of the Caddyfile.
func (o *Orders) CheckConfig(cfg vendors.OrderConfig) error {
	if o.fields["domains"] == "" {
		cfg.Product = "any" // orders that were created at HowSSL have theirs already
	}
	_, err := kit.Years(cfg.Term, maxYears)
	problems := []error{o.CheckOrder(cfg, "comodo-positivessl-dv"), err, kit.Country("contact", cfg.Contact.Country), kit.NoPapers(cfg)}
	if cfg.Contact != (vendors.Contact{}) || cfg.Organization != nil {
		problems = append(problems, kit.Missing("contact", cfg.Contact.Fields(), "first_name", "last_name", "email", "phone", "job_title"))
	}
	if cfg.Organization != nil {
		problems = append(problems, kit.Country("organization", cfg.Organization.Country),
			kit.Missing("organization", cfg.Organization.Fields(), "name", "phone", "address", "city", "state"))
	}
	return errors.Join(problems...)
}

// Products implements vendors.ProductLister, page by page until there is nothing new: no
// page of the documents tells the largest size (2252013).
func (o *Orders) Products(ctx context.Context) ([]vendors.Product, error) {
	const size, maxPages = 100, 50
	from := productList
	var products []vendors.Product
	seen := make(map[string]bool)
	for page := 1; page <= maxPages; page++ {
		var list []productData
		err := o.get(ctx, from, &list, field("page", strconv.Itoa(page)), field("size", strconv.Itoa(size)))
		switch {
		case kit.IsMissing(err) && from == productList:
			from, page = productListEN, page-1
			continue
		case err != nil:
			return nil, err
		}
		have := len(products)
		for _, p := range list {
			if !seen[p.Code] {
				seen[p.Code], products = true, append(products, p.product(o.Text))
			}
		}
		if len(products) == have {
			break
		}
	}
	return products, nil
}

// product is what the vendor sells. Text makes the vendor's own words fit for people.
func (p productData) product(text func(string) string) vendors.Product {
	product := vendors.Product{
		Code:       p.Code,
		Name:       text(p.Name),
		Validation: strings.ToLower(p.AuditType),
		Wildcard:   p.DomainType == "3" || p.DomainType == "4",
		Prices:     make(map[int]string),
	}
	if p.DomainType == "1" || p.DomainType == "3" {
		product.MaxNames = 1
	}
	for _, row := range p.Prices {
		if months, err := strconv.Atoi(row.Months); err == nil && row.Price != "" {
			product.Prices[months] = text(row.Price)
		}
	}
	return product
}
