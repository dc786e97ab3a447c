// Package vendors defines what a seller of certificates must be able to do and
// the vendor-neutral words in which the issuer speaks with it.
//
// A vendor is a Caddy module in the namespace "tls.vendors". It knows HTTP and
// JSON and its seller's dialect; it knows nothing of Caddy's TLS app, of the
// ledger, or of how validation files are served. The required interface is
// small. Everything else is an optional interface that the issuer discovers by
// type assertion, so a seller that cannot do a thing simply does not have the
// method.
//
// # Money
//
// Place and Renew are the only methods that may cost money. They must send
// their request at most once, and they must answer with an [*Error] whose
// [Verdict] tells apart "nothing was bought" from "something may have been
// bought". All other methods must be free and safe to repeat.
//
// # Concurrency
//
// All methods may be called concurrently. All honour their context.
package vendors

import (
	"cmp"
	"context"
	"strings"
	"time"
)

// Namespace is where vendor modules live in Caddy's module registry.
const Namespace = "tls.vendors"

// Vendor is a seller of certificates: the part that every one of them has.
type Vendor interface {
	// Describe tells what this vendor is and can do. It is constant for the
	// life of the module and makes no network call.
	Describe() Description

	// Place buys a certificate. It sends one request at most, whatever happens.
	// The returned order has at least its ID. An error that is not an *Error
	// counts as Uncertain.
	Place(ctx context.Context, req OrderRequest) (Order, error)

	// Status reads an order, with its certificate if there is one.
	// An unknown order is an error matching ErrNotFound.
	Status(ctx context.Context, orderID string) (Order, error)
}

// Validator is a vendor with a free dry run of Place.
type Validator interface {
	Validate(ctx context.Context, req OrderRequest) error
}

// ConfigChecker is a vendor that can judge the static part of its orders
// (product, term, contacts) without a network call, while a config is loaded.
type ConfigChecker interface {
	CheckConfig(cfg OrderConfig) error
}

// Finder is a vendor that can tell what became of a request whose answer was lost.
type Finder interface {
	// Find returns the IDs of the orders that the request made, usually by its
	// reference. No IDs and no error means that the vendor knows none; whether
	// that proves absence also depends on Description.AbsenceAge.
	Find(ctx context.Context, req Lookup) ([]string, error)
}

// Lookup is what is known of a request whose answer was lost.
type Lookup struct {
	Reference  string
	PreparedID string
	Names      []string
	Sent       time.Time
}

// CAAIdentifier is a vendor that knows by which domain names its CAs recognize
// themselves in CAA records (RFC 8659). None means that it is not known.
type CAAIdentifier interface {
	CAAIdentities(product string) []string
}

// Predictor is a vendor whose validation challenges are a function of the
// request, so that they can be published and probed before money moves.
type Predictor interface {
	Predict(req OrderRequest) ([]Challenge, error)
}

// Preparer is a vendor that splits an order in two: a free preparation that
// yields an ID, and the payment. Place then carries the ID in
// OrderRequest.PreparedID.
type Preparer interface {
	Prepare(ctx context.Context, req OrderRequest) (preparedID string, err error)
}

// ForeignPreparer is a Preparer whose preparations may have been made elsewhere, with a
// CSR that is not the request's. Such an order is reissued once it is issued.
type ForeignPreparer interface {
	ForeignCSR(preparedID string) bool
}

// Reissuer is a vendor that replaces an issued certificate within the paid
// term, free of charge, with one for a new CSR.
type Reissuer interface {
	// Reissue returns the order as it is to be followed from now on. Its ID may
	// differ from the old one.
	Reissue(ctx context.Context, req ReissueRequest) (Order, error)
}

// Renewer is a vendor where a new order can name the one it follows. Renew
// costs money and obeys the same rules as Place. Outside
// Description.RenewWindow the issuer calls Place instead.
type Renewer interface {
	Renew(ctx context.Context, oldOrderID string, req OrderRequest) (Order, error)
}

// Rechecker is a vendor that can be asked to look at the challenges again now.
type Rechecker interface {
	// Recheck nudges the domain-control check of the given names, keeping the
	// method they have.
	Recheck(ctx context.Context, orderID string, names []string, method Method) error
}

// Canceler is a vendor where an order can be cancelled. The issuer never calls
// it by itself.
type Canceler interface {
	Cancel(ctx context.Context, orderID, reason string) error
}

// Revoker is a vendor where an order's certificate can be revoked.
type Revoker interface {
	Revoke(ctx context.Context, orderID, reason string) error
}

// ProductLister is a vendor that tells what it sells.
type ProductLister interface {
	Products(ctx context.Context) ([]Product, error)
}

// Description is what a vendor says about itself.
type Description struct {
	// Name is the vendor's module name, for example "racent".
	Name string

	// Account tells accounts of one vendor apart in the ledger, without being a
	// secret and without changing when a credential is rotated. It is made of
	// the endpoint's host and, if configured, the account's label.
	Account string

	// Portal is where a person can look at orders, for error messages.
	Portal string

	// Methods lists the supported proofs of control, the default first.
	Methods []Method

	// CoversTwin is whether an order for a name usually covers its www or apex
	// twin as well, so that an order for the twin waits until that is known.
	CoversTwin bool

	// NeedsCommonName is whether a CSR must carry a CommonName.
	NeedsCommonName bool

	// NeedsUnique is whether each order and reissue takes a fresh unique value.
	NeedsUnique bool

	// AbsenceAge is how long after a paid request was sent an empty answer of
	// Find proves that no order was placed. Until then the request may still be
	// on its way through the vendor. Zero means at once.
	AbsenceAge time.Duration

	// AnyName allows names that no public CA certifies, such as demo.localhost.
	// Only test services set it.
	AnyName bool

	// HTTPPort and HTTPSPort are where the CA fetches validation files, if not
	// from the standard ports. Only test services set them.
	HTTPPort, HTTPSPort int

	// RecordType is the type of the DNS records that will be asked for, CNAME or TXT,
	// where they are known only once an order is paid. Empty means TXT.
	RecordType string

	// RenewWindow is how long before the end of the paid term Renew is allowed.
	RenewWindow time.Duration

	// RenewKeepsProduct is whether Renew buys again what the old order bought, whatever
	// the request's product, names and term say.
	RenewKeepsProduct bool
}

// Supports reports whether the method is one of the vendor's.
func (d Description) Supports(m Method) bool {
	for _, have := range d.Methods {
		if have == m {
			return true
		}
	}
	return false
}

// Method is a way to prove control of a name.
type Method string

// The methods a vendor may support.
const (
	MethodHTTP  Method = "http"  // file fetched over plain HTTP
	MethodHTTPS Method = "https" // file fetched over HTTPS
	MethodDNS   Method = "dns"   // CNAME or TXT record
)

// OrderConfig is the part of an order that comes from the configuration.
type OrderConfig struct {
	Product      string
	Term         Term
	Method       Method
	Contact      Contact
	Tech         *Contact // nil means Contact
	Billing      *Contact // nil means Contact
	Organization *Organization
}

// TechContact returns the technical contact, which defaults to the main one.
func (c OrderConfig) TechContact() Contact {
	if c.Tech != nil {
		return *c.Tech
	}
	return c.Contact
}

// BillingContact returns the billing contact, which defaults to the main one.
func (c OrderConfig) BillingContact() Contact {
	if c.Billing != nil {
		return *c.Billing
	}
	return c.Contact
}

// OrderRequest asks for a certificate.
type OrderRequest struct {
	OrderConfig

	// Reference is our own unique ID of this request. A vendor that can carry it
	// must; it is how a lost order is found again.
	Reference string

	// Names to certify, lower-case ASCII, at least one; the first is the common
	// name.
	Names []string

	// CSR is the DER of the request, the very bytes that the challenges are made of.
	CSR []byte

	// Unique is a fresh value of 1 to 20 letters and digits, empty unless the
	// vendor's description asks for one.
	Unique string

	// PreparedID is the answer of Prepare, for vendors that have it.
	PreparedID string
}

// ReissueRequest asks for a new certificate on a paid order.
type ReissueRequest struct {
	OrderConfig

	// OrderID is the order whose certificate is replaced.
	OrderID string

	// Reference, Names, CSR and Unique are as in OrderRequest.
	Reference string
	Names     []string
	CSR       []byte
	Unique    string
}

// Term is the paid term of an order. One of the fields is set.
type Term struct {
	Years int
	Days  int
}

// Status is where an order stands, in the words of this package.
type Status string

// The states of an order. A vendor word without a translation is StatusUnknown,
// which is not an end: the order is asked again.
const (
	StatusUnknown   Status = ""
	StatusPending   Status = "pending"   // being validated or made
	StatusIssued    Status = "issued"    // there is a certificate
	StatusReplaced  Status = "replaced"  // a reissue took its place under another ID
	StatusRejected  Status = "rejected"  // refused by the CA or the vendor
	StatusCancelled Status = "cancelled" // taken back
	StatusRevoked   Status = "revoked"   // its certificate was revoked
	StatusExpired   Status = "expired"   // its term is over
)

// Ended reports whether the order will never give a certificate (again).
func (s Status) Ended() bool {
	switch s {
	case StatusReplaced, StatusRejected, StatusCancelled, StatusRevoked, StatusExpired:
		return true
	case StatusUnknown, StatusPending, StatusIssued:
	}
	return false
}

// Order is what a vendor tells of an order. Everything but ID may be missing.
type Order struct {
	// ID is the vendor's handle of the order.
	ID string

	// Status is our translation, RawStatus the vendor's own word.
	Status    Status
	RawStatus string

	// CAOrderID is the number of the order at the CA behind the vendor.
	CAOrderID string

	// Challenges are what the vendor wants published. They win over predicted ones.
	Challenges []Challenge

	// Names is what the vendor tells about each name's validation.
	Names []NameStatus

	// Certificates holds the DER certificates of an issued order in the order
	// in which the vendor gave them: leaf, intermediates, perhaps a root.
	Certificates [][]byte

	// TermEnds is the end of the paid term. Zero if the vendor does not tell.
	TermEnds time.Time

	// Detail is a short note on progress in the vendor's own words.
	Detail string
}

// Describe tells where the order stands in one line, in the vendor's words where
// there are any.
func (o Order) Describe() string {
	words := []string{cmp.Or(o.RawStatus, string(o.Status), "no status")}
	if o.Detail != "" {
		words = append(words, o.Detail)
	}
	var open []string
	for _, n := range o.Names {
		if !n.Verified {
			open = append(open, n.Name)
		}
	}
	if len(open) > 0 {
		words = append(words, "not validated yet: "+strings.Join(open, ", "))
	}
	return strings.Join(words, "; ")
}

// NameStatus is the state of one name's validation.
type NameStatus struct {
	Name     string
	Verified bool
}

// Challenge is something to publish in proof of control of a name.
type Challenge struct {
	// Name is what it proves; empty means every name of the order.
	Name string `json:"name,omitempty"`

	// Method says which of the other fields count.
	Method Method `json:"method"`

	// FileName and FileContent are the file below /.well-known/pki-validation/.
	FileName    string `json:"file_name,omitempty"`
	FileContent string `json:"file_content,omitempty"`

	// RecordName is the owner name of the DNS record, relative to the proven
	// name's host; RecordType is CNAME or TXT.
	RecordName  string `json:"record_name,omitempty"`
	RecordType  string `json:"record_type,omitempty"`
	RecordValue string `json:"record_value,omitempty"`
}

// Product is something a vendor sells.
type Product struct {
	Code       string
	Name       string
	Validation string // dv, ov or ev
	Wildcard   bool
	MaxNames   int
	// Prices by term in months, as the vendor writes them.
	Prices map[int]string
}

// Contact is a person named in an order.
type Contact struct {
	// Given name. Placeholders are supported in all fields.
	FirstName string `json:"first_name,omitempty"`

	// Family name.
	LastName string `json:"last_name,omitempty"`

	// E-mail address.
	Email string `json:"email,omitempty"`

	// Telephone number with country code, for example +44.2012345678.
	Phone string `json:"phone,omitempty"`

	// Name of the company or other organization the person acts for.
	Organization string `json:"organization,omitempty"`

	// Position in the organization.
	JobTitle string `json:"job_title,omitempty"`

	// Street and house number.
	Address string `json:"address,omitempty"`

	// Town or city.
	City string `json:"city,omitempty"`

	// State or province.
	State string `json:"state,omitempty"`

	// Postal code (ZIP code) of the address.
	PostalCode string `json:"postal_code,omitempty"`

	// Two-letter country code (ISO 3166-1 alpha-2).
	Country string `json:"country,omitempty"`
}

// Organization is the subject of an OV or EV certificate.
type Organization struct {
	// Registered name.
	Name string `json:"name,omitempty"`

	// Telephone number with country code.
	Phone string `json:"phone,omitempty"`

	// Street and house number.
	Address string `json:"address,omitempty"`

	// Town or city.
	City string `json:"city,omitempty"`

	// State or province.
	State string `json:"state,omitempty"`

	// Postal code (ZIP code) of the address.
	PostalCode string `json:"postal_code,omitempty"`

	// Two-letter country code (ISO 3166-1 alpha-2).
	Country string `json:"country,omitempty"`

	// Number in the company register.
	RegistrationNumber string `json:"registration_number,omitempty"`
}
