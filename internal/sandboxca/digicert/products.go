package digicert

import "github.com/caddy-commercial/caddy-commercial/internal/sandboxca"

// Products is a small catalogue with DigiCert's product IDs. The prices are invented.
func Products() []sandboxca.Product {
	product := func(code, name, kind string, cents int64) sandboxca.Product {
		return sandboxca.Product{
			Code: code, Name: name, Vendor: brand, ValidationType: kind,
			Standard: true, SAN: true, MaxDomains: 250, MaxYears: 3,
			PriceCents: map[int]int64{12: cents, 24: cents * 19 / 10, 36: cents * 27 / 10},
		}
	}
	flex := func(p sandboxca.Product) sandboxca.Product { p.Wildcard = true; return p }
	wildcard := func(p sandboxca.Product) sandboxca.Product { p.Wildcard, p.Standard = true, false; return p }
	return []sandboxca.Product{
		product("ssl_dv_rapidssl", "RapidSSL Standard DV", sandboxca.DV, 2600),
		wildcard(product("wildcard_dv_rapidssl", "RapidSSL Wildcard DV", sandboxca.DV, 24900)),
		flex(product("ssl_dv_geotrust_flex", "GeoTrust DV SSL", sandboxca.DV, 14900)),
		flex(product("ssl_basic", "Basic OV", sandboxca.OV, 28900)),
		product("ssl_ev_basic", "Basic EV", sandboxca.EV, 43800),
	}
}
