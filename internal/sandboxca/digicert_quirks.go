package sandboxca

// DigiCertQuirks are the deviations of DigiCert's dialect, most of which the real
// service was seen to have at one time or another.
type DigiCertQuirks struct {
	// Immediate takes all names for validated, as those of a validated organization
	// may be: the answer to the order holds the chain.
	Immediate bool

	// NeedsApproval makes new orders wait for an administrator, whatever the
	// request says; RevokeNeedsApproval does the same for revocations.
	NeedsApproval, RevokeNeedsApproval bool

	// AlternateEmpty answers the look-up of an unknown reference with an empty list
	// instead of 404.
	AlternateEmpty bool

	// HideAlternate makes the look-up by reference find nothing, HideList the list
	// of orders.
	HideAlternate, HideList bool

	// Unreferenced leaves reference and comments out of what is told of orders,
	// Anonymous the CSR as well.
	Unreferenced, Anonymous bool

	// BareEmptyList answers with an empty object where a list of orders is empty.
	BareEmptyList bool

	// NoMethod leaves dcv_method out of what is told of orders, and order_dcv_method
	// out of what they wait for.
	NoMethod bool

	// StringIDs sends identifiers as strings.
	StringIDs bool

	// ErrorsObject sends a single error as an object instead of a list.
	ErrorsObject bool

	// OldDNSCheck refuses check-dcv with invalid_dns_txt or invalid_dns_cname where
	// a record is missing. Newer revisions answer 200.
	OldDNSCheck bool
}

// DigiCertProducts is a small catalogue with IDs that DigiCert's dialect sells. The
// prices are invented.
func DigiCertProducts() []Product {
	product := func(code, name, kind string, cents int64) Product {
		return Product{
			Code: code, Name: name, Vendor: digicertBrand, ValidationType: kind,
			Standard: true, SAN: true, MaxDomains: 250, MaxYears: 3,
			PriceCents: map[int]int64{12: cents, 24: cents * 19 / 10, 36: cents * 27 / 10},
		}
	}
	flex := func(p Product) Product { p.Wildcard = true; return p }
	wildcard := func(p Product) Product { p.Wildcard, p.Standard = true, false; return p }
	return []Product{
		product("ssl_dv_rapidssl", "RapidSSL Standard DV", DV, 2600),
		wildcard(product("wildcard_dv_rapidssl", "RapidSSL Wildcard DV", DV, 24900)),
		flex(product("ssl_dv_geotrust_flex", "GeoTrust DV SSL", DV, 14900)),
		flex(product("ssl_basic", "Basic OV", OV, 28900)),
		product("ssl_ev_basic", "Basic EV", EV, 43800),
	}
}
