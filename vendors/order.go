package vendors

import (
	"cmp"
	"fmt"
	"strings"
	"time"
	"unicode"
)

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

// Term is the paid term of an order. One of the fields is set.
type Term struct {
	Years int
	Days  int
}

// Months is the term as vendors list prices for it. 365 days count as a year.
func (t Term) Months() int { return 12 * (t.Years + t.Days/365) }

// String is for people, for example "2 years". It is empty for the zero term.
func (t Term) String() string {
	switch {
	case t.Years == 1:
		return "1 year"
	case t.Years > 0:
		return fmt.Sprintf("%d years", t.Years)
	case t.Days > 0:
		return fmt.Sprintf("%d days", t.Days)
	}
	return ""
}

// Status is where an order stands, in the words of this package.
type Status string

// The states of an order. A vendor word without a translation is StatusUnknown, which is not an
// end: the vendor is asked again.
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

	// CertificateRevoked is whether the certificate of an issued order was revoked while
	// the order lives on, so that a reissue gives another one.
	CertificateRevoked bool

	// Serial is the serial number of the latest certificate in hexadecimal, where the
	// certificate itself is left out. Empty if it is not told.
	Serial string

	// CAOrderID is the number of the order at the CA behind the vendor.
	CAOrderID string

	// Challenges are what the vendor wants published. They win over predicted ones.
	Challenges []Challenge

	// Held is whether the order waits for a person at the vendor's before anything is validated.
	Held bool

	// Names is what the vendor tells about each name's validation.
	Names []NameStatus

	// Certificates holds the DER certificates of an issued order in the order
	// in which the vendor gave them: leaf, intermediates, perhaps a root.
	Certificates [][]byte

	// TermEnds is the end of the paid term. Zero if the vendor does not tell, or not
	// yet; then it follows from the term that was paid for.
	TermEnds time.Time

	// Detail is a short note on progress in the vendor's own words.
	Detail string
}

// ListedOrder is what a list tells of an order. Everything but ID may be missing.
type ListedOrder struct {
	ID    string
	Names []string // in lower case

	// Status is our translation, RawStatus the vendor's own word.
	Status    Status
	RawStatus string

	// Serial is the serial number of the latest certificate in hexadecimal.
	Serial string

	Created  time.Time
	TermEnds time.Time // the end of the paid term

	// Reference is our own, of the request that made the order.
	Reference string
}

// maxDescribed bounds a description of an order, in bytes: it may have hundreds of names.
const maxDescribed = 1200

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
	return OneLine(strings.Join(words, "; "), maxDescribed)
}

// OneLine is a text of a stranger for people: in one line, without control characters, and cut
// after most bytes.
func OneLine(text string, most int) string {
	apart := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }
	text = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(text, " "), apart), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
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

	// Kind of document that identifies the person, in the vendor's words. Only a few CAs ask for
	// one.
	IDType string `json:"id_type,omitempty"`

	// Number of that document.
	IDNumber string `json:"id_number,omitempty"`
}

// Fields lists the fields by the names that they have in a configuration.
func (c *Contact) Fields() []Field {
	return []Field{
		{"first_name", &c.FirstName}, {"last_name", &c.LastName}, {"email", &c.Email}, {"phone", &c.Phone},
		{"organization", &c.Organization}, {"job_title", &c.JobTitle}, {"address", &c.Address}, {"city", &c.City},
		{"state", &c.State}, {"postal_code", &c.PostalCode}, {"country", &c.Country},
		{"id_type", &c.IDType}, {"id_number", &c.IDNumber},
	}
}

// Field is a field of a configuration block.
type Field struct {
	Name  string // in JSON and in the Caddyfile
	Value *string
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

	// Kind of register or document that the number is from, in the vendor's words. Only a few
	// CAs ask for one.
	IDType string `json:"id_type,omitempty"`
}

// Fields lists the fields by the names that they have in a configuration.
func (o *Organization) Fields() []Field {
	return []Field{
		{"name", &o.Name}, {"phone", &o.Phone}, {"address", &o.Address}, {"city", &o.City}, {"state", &o.State},
		{"postal_code", &o.PostalCode}, {"country", &o.Country}, {"registration_number", &o.RegistrationNumber},
		{"id_type", &o.IDType},
	}
}
