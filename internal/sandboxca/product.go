package sandboxca

import (
	"fmt"
	"maps"
)

// Validation types of a product.
const (
	DV = "dv" // control of the names only
	OV = "ov" // the organisation as well
	EV = "ev" // the organisation, thoroughly
)

// Product is one article of the catalogue.
type Product struct {
	Code           string // what is ordered, for example "comodo-positivessl"
	Name           string
	Vendor         string // the brand, as productList wants it
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

// DefaultProducts is a small catalogue with the codes Racent uses. The prices
// are invented.
func DefaultProducts() []Product {
	price := func(cents int64) map[int]int64 {
		return map[int]int64{12: cents, 24: cents * 19 / 10, 36: cents * 27 / 10}
	}
	product := func(code, name, kind string, cents int64) Product {
		return Product{
			Code: code, Name: name, Vendor: "Sectigo", ValidationType: kind,
			Standard: true, MaxDomains: 1, MaxYears: 5, PriceCents: price(cents),
		}
	}
	wildcard := func(p Product) Product { p.Wildcard, p.Standard = true, false; return p }
	multi := func(p Product) Product { p.SAN, p.MaxDomains = true, 250; return p }
	withIP := func(p Product) Product { p.IP = true; return p }
	both := func(p Product) Product { p.Wildcard = true; return p }
	trial := func(p Product) Product {
		p.MaxYears, p.PriceCents = 1, map[int]int64{12: 0}
		return p
	}
	return []Product{
		withIP(product("comodo-positivessl", "PositiveSSL", DV, 550)),
		wildcard(product("comodo-positivessl-wildcard", "PositiveSSL Wildcard", DV, 5800)),
		multi(product("comodo-positive-multi-domain", "PositiveSSL Multi-Domain", DV, 2400)),
		both(multi(product("comodo-positive-multi-domain-wildcard", "PositiveSSL Multi-Domain Wildcard", DV, 15000))),
		product("comodo-ssl", "Sectigo SSL", DV, 4500),
		wildcard(product("comodo-wildcard-ssl-certificate", "Sectigo SSL Wildcard", DV, 16000)),
		multi(product("sectigo-multi-domain", "Sectigo Multi-Domain SSL", DV, 9000)),
		withIP(product("sectigo-ov", "Sectigo OV SSL", OV, 6000)),
		wildcard(product("sectigo-ov-wildcard", "Sectigo OV SSL Wildcard", OV, 18000)),
		multi(product("sectigo-ov-multi-san", "Sectigo OV Multi-Domain SSL", OV, 14000)),
		product("comodo-ev-ssl-certificate", "Sectigo EV SSL", EV, 12000),
		trial(product("sectigo-free-trial", "Sectigo Free Trial", DV, 0)),
	}
}

func checkProducts(products []Product) error {
	seen := make(map[string]bool)
	for i := range products {
		p := &products[i]
		switch {
		case p.Code == "":
			return fmt.Errorf("product %d has no code", i)
		case seen[p.Code]:
			return fmt.Errorf("product %q is there twice", p.Code)
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

func (p Product) maxDomains() int { return max(p.MaxDomains, 1) }

func (p Product) maxYears() int { return max(p.MaxYears, 1) }

func (c *CA) product(code string) (Product, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.cfg.Products {
		if p.Code == code {
			p.PriceCents = maps.Clone(p.PriceCents)
			return p, true
		}
	}
	return Product{}, false
}
