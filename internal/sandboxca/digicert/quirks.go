package digicert

// Quirks are the deviations of DigiCert's dialect, most of which the real
// service was seen to have at one time or another.
type Quirks struct {
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

	// UnlistedRevocations leaves orders that live out of the list of changes when their
	// certificate is revoked.
	UnlistedRevocations bool

	// OldDNSCheck refuses check-dcv with invalid_dns_txt or invalid_dns_cname where
	// a record is missing. Newer revisions answer 200.
	OldDNSCheck bool
}
