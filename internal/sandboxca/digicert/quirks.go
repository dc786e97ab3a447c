package digicert

// Quirks are the deviations of DigiCert's dialect, most of which the real service has
// shown at one time or another.
type Quirks struct {
	// Immediate treats all names as validated, as those of a validated organization may
	// be: the answer to the order contains the chain.
	Immediate bool

	// NeedsApproval makes new orders wait for an administrator, whatever the
	// request says; RevokeNeedsApproval does the same for revocations.
	NeedsApproval, RevokeNeedsApproval bool

	// AlternateEmpty answers the lookup of an unknown reference with an empty list
	// instead of 404.
	AlternateEmpty bool

	// HideAlternate makes the lookup by reference find nothing, and HideList makes the
	// list of orders empty.
	HideAlternate, HideList bool

	// Unreferenced leaves reference and comments out of what is reported about orders,
	// and Anonymous the CSR as well.
	Unreferenced, Anonymous bool

	// BareEmptyList answers with an empty object if a list of orders is empty.
	BareEmptyList bool

	// NoMethod leaves dcv_method out of what is reported about orders, and
	// order_dcv_method out of what they wait for.
	NoMethod bool

	// StringIDs sends identifiers as strings.
	StringIDs bool

	// ErrorsObject sends a single error as an object instead of a list.
	ErrorsObject bool

	// UnlistedRevocations leaves active orders out of the list of changes when their
	// certificate is revoked.
	UnlistedRevocations bool

	// OldDNSCheck refuses check-dcv with invalid_dns_txt or invalid_dns_cname if a record
	// is missing. Newer revisions of the API answer 200.
	OldDNSCheck bool
}
