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
	"context"
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

// Lookup is what is known of a request whose answer was lost. The more of it is given,
// the more vendors can decide.
type Lookup struct {
	// Reference, Names, CSR and PreparedID are those of the request.
	Reference  string
	Names      []string
	CSR        []byte
	PreparedID string

	// OrderID is the order that a reissue was asked for. Empty means that the request
	// was an order or a renewal.
	OrderID string

	// Sent is when the request was sent, or was about to be.
	Sent time.Time
}

// OrderLister is a vendor that can tell which orders an account has.
type OrderLister interface {
	// OrdersFor returns the IDs of the orders that may have given a certificate that names the
	// host, whoever has placed them, newest first. It only reads. There may be others: a list
	// may be cut.
	OrdersFor(ctx context.Context, name string) ([]string, error)
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
	Prepare(ctx context.Context, req OrderRequest) (Prepared, error)
}

// Prepared is a preparation that can be paid for.
type Prepared struct {
	ID string

	// Foreign is whether it was made elsewhere, with a CSR that is not the request's.
	// Such an order is reissued once it is issued.
	Foreign bool
}

// Reissuer is a vendor that replaces an issued certificate within the paid
// term, free of charge, with one for a new CSR.
type Reissuer interface {
	// Reissue returns the order as it is to be followed from now on. Its ID may
	// differ from the old one. Reference, names, CSR and unique value are the
	// reissue's own.
	Reissue(ctx context.Context, oldOrderID string, req OrderRequest) (Order, error)
}

// Renewer is a vendor where a new order can name the one it follows. Renew costs money and obeys
// the same rules as Place. Outside Description.RenewWindow, and where
// Description.RenewKeepsProduct would buy something other than configured, the issuer calls Place
// instead.
type Renewer interface {
	Renew(ctx context.Context, oldOrderID string, req OrderRequest) (Order, error)
}

// Rechecker is a vendor that can be asked to look at the challenges again now.
type Rechecker interface {
	// Recheck nudges the domain-control check of the given names, keeping the
	// method they have.
	Recheck(ctx context.Context, orderID string, names []string, method Method) error
}

// Watcher is a vendor with a cheaper look at an order that has given its certificate.
type Watcher interface {
	// Look reads such an order as Status does. It may leave out the certificates, and then
	// tells the serial number of the latest if that costs little.
	Look(ctx context.Context, orderID string) (Order, error)
}

// ChangeLister is a vendor that tells with one call which of all orders have changed, so
// that those can be looked at.
type ChangeLister interface {
	// Changed returns the IDs of the orders whose status has changed since then. It may return
	// others. ErrUndecidable means that not all can be told: they are too many, or since is too
	// long ago.
	Changed(ctx context.Context, since time.Time) ([]string, error)
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

// Auditor is a vendor that lists all orders of an account.
type Auditor interface {
	// ListOrders tells them one by one, until yield fails. It only reads. An error that matches
	// ErrUndecidable comes after what could be listed, and says that there may be more.
	ListOrders(ctx context.Context, yield func(ListedOrder) error) error
}

// ProductLister is a vendor that tells what it sells.
type ProductLister interface {
	Products(ctx context.Context) ([]Product, error)
}

// Pricer is a vendor that tells with one call what an order would cost.
type Pricer interface {
	// Price is an estimate, as the vendor writes it. It is empty if there is none.
	Price(ctx context.Context, product string, names []string, term Term) (string, error)
}

// Funder is a vendor that tells what the account has to pay orders with.
type Funder interface {
	// Balance is as the vendor writes it, with the currency if it tells that.
	Balance(ctx context.Context) (string, error)
}

// Clock is a vendor whose service tells the time.
type Clock interface {
	// Time sends no credential.
	Time(ctx context.Context) (time.Time, error)
}

// Price asks a vendor what an order would cost, as the vendor writes it: a [Pricer] for these
// names, a [ProductLister] for one. It is empty if the vendor does not tell.
func Price(ctx context.Context, v Vendor, product string, names []string, term Term) (string, error) {
	switch v := v.(type) {
	case Pricer:
		return v.Price(ctx, product, names, term)
	case ProductLister:
		products, err := v.Products(ctx)
		for _, p := range products {
			if p.Code == product {
				return p.Prices[term.Months()], nil
			}
		}
		return "", err
	}
	return "", nil
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

	// EndsWithTerm is whether certificates end with the paid term at the latest, and TermsAreDays
	// whether the vendor tells the end of a term as a day, which is taken for the beginning of
	// that day. A forecast goes by them where the ledger does not tell.
	EndsWithTerm, TermsAreDays bool

	// NeedsCommonName is whether a CSR must carry a CommonName.
	NeedsCommonName bool

	// Cancelling and Revoking tell people what a Canceler and a Revoker do to an order: when it is
	// possible, what is refunded, and what is lost with it.
	Cancelling, Revoking string

	// CancelWithin is how long after its first certificate an order can be cancelled. Zero if that
	// is not known, or not possible.
	CancelWithin time.Duration

	// NeedsUnique is whether each order and reissue takes a fresh unique value.
	NeedsUnique bool

	// AbsenceAge is how long after the entry of a paid request was stored an empty
	// answer of Find proves that no order was placed. Zero means at once. It is at
	// least the sum of
	//
	//   - the time between the entry and the sending: the issuer sends nothing later
	//     than one minute after it, or a quarter of AbsenceAge if that is less
	//   - a pause of the process or the machine just before the bytes leave
	//   - the time limit of the paid call: the issuer gives it two minutes, or half of
	//     AbsenceAge if that is less
	//   - the time until a request that has left is carried out
	//   - the time until Find shows its order.
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

	// RecordName is the name of these records, relative to the proven name, if it is known
	// before. Empty means that it is not.
	RecordName string

	// Pace is how often it makes sense to look at a pending order.
	Pace Pace

	// RenewWindow is how long before the end of the paid term Renew is allowed.
	RenewWindow time.Duration

	// RenewKeepsProduct is whether Renew buys again what the old order bought,
	// whatever the request's product, names and term say. Such a renewal is right only
	// where none of them has changed; otherwise the issuer calls Place instead.
	RenewKeepsProduct bool
}

// Pace bounds the waits between two looks at a pending order, which grow from Min. Zero values
// mean the issuer's defaults, and the configuration overrides all.
type Pace struct {
	// Min is the first wait, Max the longest while a proof is fresh, so that the CA is
	// expected to see it soon.
	Min, Max time.Duration

	// Fresh is how long after the request a proof is fresh. Slow is the longest wait from then on,
	// when people have to look at the order, or at why it is not validated.
	Fresh, Slow time.Duration

	// Watch is the shortest time between looks at two orders that have their certificates,
	// whichever they are: a small part of what the vendor allows.
	Watch time.Duration
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
