// Package quirk makes a sandbox deviate from what its sellers' documents promise: in what
// it signs, and in what its answers look like. The CA and the dialect of Racent know
// nothing about it; the other dialects have quirks of their own.
package quirk

import (
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/digicert"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/howssl"
)

// Quirks are deviations from the documented behaviour that a client has to survive. The
// zero value is a well-behaved seller.
type Quirks struct {
	// StrictRefID refuses a reference that was used before. Without it a second
	// place or renew with the same reference returns the first order, free of
	// charge. The seller's pages promise neither.
	StrictRefID bool

	// LooseRefID treats the reference as a mere note: using it twice means two orders and
	// two charges. It takes precedence over StrictRefID.
	LooseRefID bool

	// HideRefs makes the lookup by reference find nothing.
	HideRefs bool

	// EmptyUnknownRef answers the lookup of an unknown reference with success
	// and no data instead of an error.
	EmptyUnknownRef bool

	// BareNoMoney answers an order that the balance does not cover with the code for
	// unexpected errors and nothing else, as the real service did for one account.
	BareNoMoney bool

	// BareLists leaves the field that holds a list out of answers where the list is
	// empty, as DigiCert's API was seen to do. With KeylessLists it is always left out,
	// so a full list looks like an empty one.
	BareLists, KeylessLists bool

	// NoList refuses the list of orders as a call that does not exist.
	NoList bool

	// OmitIntermediate delivers the leaf alone.
	OmitIntermediate bool

	// IncludeRoot puts the root after the intermediate.
	IncludeRoot bool

	// ReverseChain delivers root, then intermediate. (A lone intermediate would look the
	// same in either order.)
	ReverseChain bool

	// CRLF ends the lines of all certificates in PEM with CR LF.
	CRLF bool

	// WrongCN is put into certificates as common name and first name.
	WrongCN string

	// NoTwin switches off the www/apex twin. Without it a single-name product
	// gets the twin added if it can be proven in the same way, and drops it
	// silently otherwise.
	NoTwin bool

	// TwinFirst makes a proven twin the common name.
	TwinFirst bool

	// TwinInDCVList shows the twin among the names to be proven.
	TwinInDCVList bool

	// WrongKey signs a key that is not the CSR's.
	WrongKey bool

	// ExpiredCert issues certificates that ended an hour ago.
	ExpiredCert bool

	// ClipToTerm ends certificates with the paid term at the latest.
	ClipToTerm bool

	// DemandCountry refuses CSRs whose subject has no country, as another CA once began
	// to do without notice.
	DemandCountry bool

	// ServerAuthOnlyAgain leaves clientAuth out of reissues and replacements of
	// certificates that have it.
	ServerAuthOnlyAgain bool

	// SameCertAgain makes a reissue or replacement deliver the old certificate.
	SameCertAgain bool

	// MissPerspectives is how many of the perspectives never see a proof.
	MissPerspectives int

	// BogusZones are zones whose DNSSEC signatures do not verify: no lookup in them
	// succeeds, and none of their hosts is found.
	BogusZones []string

	// RefetchAfterPass checks proven names again until the certificate is issued, and
	// marks them unproven when the file is gone.
	RefetchAfterPass bool

	// Code2WhilePending answers collect with code 2 instead of 1 while an order
	// is pending; Code2WithoutData sends the bare code only.
	Code2WhilePending, Code2WithoutData bool

	// UnknownStatus, if not empty, replaces the status of pending orders.
	UnknownStatus string

	// NoDCVValues leaves the validation values out of all answers.
	NoDCVValues bool

	// DCVInfo repeats the validation values per name.
	DCVInfo bool

	// NestedUpdate puts updateDCV's values one level deeper, in a second "data".
	NestedUpdate bool

	// Trailer is the second line of validation files, default "sectigo.com".
	Trailer string

	// ApplyParamsText sends applyParams as JSON text instead of an object.
	ApplyParamsText bool

	// UnknownFields adds fields nobody has heard of to every answer.
	UnknownFields bool

	// ErrorsShape is the form of "errors": "object" (field to list of messages,
	// the default), "object-string", "string", "array" or "null".
	ErrorsShape string

	// DigiCert are the deviations of that dialect.
	DigiCert digicert.Quirks

	// HowSSL are the deviations of that dialect, and the field names that its documents
	// leave open.
	HowSSL howssl.Quirks

	// NumericIDs makes the identifiers of new orders digits only, and sends them
	// as JSON numbers.
	NumericIDs bool
}
