package sandboxca

import (
	"fmt"
	"maps"
)

// Validation types of a product.
const (
	DV = "dv" // control of the names only
	OV = "ov" // the organization as well
	EV = "ev" // the organization, thoroughly
)

// Product is one item of the catalogue.
type Product struct {
	Code           string // what is ordered, for example "positivessl"
	Name           string
	Vendor         string // the brand, as productList expects it
	ValidationType string // DV, OV or EV

	Wildcard bool // takes wildcard names
	Standard bool // takes ordinary names
	IP       bool // takes IP addresses
	SAN      bool // takes more than one name

	MaxDomains int // zero means 1
	MaxYears   int // zero means 1

	// PriceCents maps a term in months to its price in cents. A term without a
	// price is not sold.
	PriceCents map[int]int64
}

func checkProducts(products []Product) error {
	seen := make(map[string]bool)
	for i := range products {
		p := &products[i]
		switch {
		case p.Code == "":
			return fmt.Errorf("product %d has no code", i)
		case seen[p.Code]:
			return fmt.Errorf("product %q is listed twice", p.Code)
		case p.ValidationType != DV && p.ValidationType != OV && p.ValidationType != EV:
			return fmt.Errorf("product %q has the unknown validation type %q", p.Code, p.ValidationType)
		case !p.Standard && !p.Wildcard && !p.IP:
			return fmt.Errorf("product %q takes no kind of name", p.Code)
		}
		seen[p.Code] = true
		for months, cents := range p.PriceCents {
			if months <= 0 || cents < 0 {
				return fmt.Errorf("product %q has a price of %d cents for %d months", p.Code, cents, months)
			}
		}
	}
	return nil
}

// Domains is how many names the product takes.
func (p Product) Domains() int { return max(p.MaxDomains, 1) }

// Term is how many years may be bought at once.
func (p Product) Term() int { return max(p.MaxYears, 1) }

// Product finds a product by its code.
func (c *CA) Product(code string) (Product, bool) {
	books := c.Open()
	defer books.Close()
	p, ok := books.Product(code)
	p.PriceCents = maps.Clone(p.PriceCents)
	return p, ok
}
