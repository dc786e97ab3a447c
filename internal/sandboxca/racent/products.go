package racent

import "github.com/caddy-commercial/caddy-commercial/internal/sandboxca"

// Products is a small catalogue with the codes that Racent uses. The prices
// are invented.
func Products() []sandboxca.Product {
	price := func(cents int64) map[int]int64 {
		return map[int]int64{12: cents, 24: cents * 19 / 10, 36: cents * 27 / 10}
	}
	product := func(code, name, kind string, cents int64) sandboxca.Product {
		return sandboxca.Product{
			Code: code, Name: name, Vendor: "Sectigo", ValidationType: kind,
			Standard: true, MaxDomains: 1, MaxYears: 5, PriceCents: price(cents),
		}
	}
	wildcard := func(p sandboxca.Product) sandboxca.Product { p.Wildcard, p.Standard = true, false; return p }
	multi := func(p sandboxca.Product) sandboxca.Product { p.SAN, p.MaxDomains = true, 250; return p }
	withIP := func(p sandboxca.Product) sandboxca.Product { p.IP = true; return p }
	both := func(p sandboxca.Product) sandboxca.Product { p.Wildcard = true; return p }
	trial := func(p sandboxca.Product) sandboxca.Product {
		p.MaxYears, p.PriceCents = 1, map[int]int64{12: 0}
		return p
	}
	return []sandboxca.Product{
		withIP(product("comodo-positivessl", "PositiveSSL", sandboxca.DV, 550)),
		wildcard(product("comodo-positivessl-wildcard", "PositiveSSL Wildcard", sandboxca.DV, 5800)),
		multi(product("comodo-positive-multi-domain", "PositiveSSL Multi-Domain", sandboxca.DV, 2400)),
		both(multi(product("comodo-positive-multi-domain-wildcard", "PositiveSSL Multi-Domain Wildcard", sandboxca.DV, 15000))),
		product("comodo-ssl", "Sectigo SSL", sandboxca.DV, 4500),
		wildcard(product("comodo-wildcard-ssl-certificate", "Sectigo SSL Wildcard", sandboxca.DV, 16000)),
		multi(product("sectigo-multi-domain", "Sectigo Multi-Domain SSL", sandboxca.DV, 9000)),
		withIP(product("sectigo-ov", "Sectigo OV SSL", sandboxca.OV, 6000)),
		wildcard(product("sectigo-ov-wildcard", "Sectigo OV SSL Wildcard", sandboxca.OV, 18000)),
		multi(product("sectigo-ov-multi-san", "Sectigo OV Multi-Domain SSL", sandboxca.OV, 14000)),
		product("comodo-ev-ssl-certificate", "Sectigo EV SSL", sandboxca.EV, 12000),
		trial(product("sectigo-free-trial", "Sectigo Free Trial", sandboxca.DV, 0)),
	}
}
