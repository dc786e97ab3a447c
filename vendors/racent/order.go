package racent

import (
	"context"
	"encoding/pem"
	"errors"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/internal/sectigo"
	"github.com/caddy-commercial/caddy-commercial/internal/vendorhttp"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Settings is what an account at a service with Racent's API is made of.
type Settings struct {
	Token    string
	Endpoint string
	Timeout  time.Duration // zero means 60 s
	Logger   *zap.Logger

	// Transport replaces the network, for tests and for services in this process.
	Transport http.RoundTripper

	// Description needs Name, Account, Portal, AbsenceAge and RenewWindow; what
	// follows from the API is filled in.
	Description vendors.Description
}

// Orders is the vendor itself: the contract of package vendors spoken in
// Racent's dialect. Close it when it is done.
type Orders struct {
	client client
	about  vendors.Description
	logger *zap.Logger
}

// New returns the vendor, or an error about its settings. It makes no call.
func New(s Settings) (*Orders, error) {
	if s.Logger == nil {
		s.Logger = zap.NewNop()
	}
	about := s.Description
	about.Methods = []vendors.Method{vendors.MethodHTTP, vendors.MethodHTTPS, vendors.MethodDNS}
	about.CoversTwin = true
	about.NeedsCommonName = true
	about.NeedsUnique = true
	about.RenewKeepsProduct = true // renew has no field for the product
	httpClient, err := vendorhttp.New(vendorhttp.Config{
		Vendor:  about.Name,
		BaseURL: s.Endpoint,
		Timeout: s.Timeout,
		Secrets: []string{s.Token},
		Logger:  s.Logger,

		Transport: s.Transport,
	})
	if err != nil {
		return nil, err
	}
	return &Orders{
		client: client{http: httpClient, vendor: about.Name, token: s.Token},
		about:  about,
		logger: s.Logger,
	}, nil
}

// Close ends idle connections.
func (o *Orders) Close() { o.client.http.Close() }

// Describe implements vendors.Vendor.
func (o *Orders) Describe() vendors.Description { return o.about }

// Validate asks for a dry run of the order. Its refusal of a parameter is only
// logged: published clients saw it refuse orders that the service had accepted
// before, and placing the order has the last word and refuses without charge.
// Any other failure is a reason not to order now.
func (o *Orders) Validate(ctx context.Context, req vendors.OrderRequest) error {
	a, err := o.client.Validate(ctx, req.Product, years(req.Term), params(req))
	if err == nil && a.Code == codeOK {
		return nil
	}
	if err == nil {
		err = o.client.failure("validate", vendorhttp.Read, a)
	}
	if a.Code == codeInput || isMissing(err) {
		o.logger.Warn("vendor's dry run is of no use; ordering without it", zap.Error(err))
		return nil
	}
	return err
}

// isMissing reports whether a call failed because the service does not have it.
func isMissing(err error) bool {
	e, ok := errors.AsType[*vendors.Error](err)
	return ok && (e.HTTPStatus == http.StatusNotFound || e.HTTPStatus == http.StatusMethodNotAllowed)
}

// Place implements vendors.Vendor. It buys.
func (o *Orders) Place(ctx context.Context, req vendors.OrderRequest) (vendors.Order, error) {
	a, err := o.client.Place(ctx, req.Product, years(req.Term), req.Reference, params(req))
	return o.placed("place", req.Method, a, err)
}

// Renew implements vendors.Renewer. It buys the product of the old order: the request's
// is not sent (documented, www.nicsrs.com/help-detail/18).
func (o *Orders) Renew(ctx context.Context, oldOrderID string, req vendors.OrderRequest) (vendors.Order, error) {
	a, err := o.client.Renew(ctx, oldOrderID, years(req.Term), req.Reference, params(req))
	return o.placed("renew", req.Method, a, err)
}

// Reissue implements vendors.Reissuer. The vendor's own reissue would use the old
// CSR again, so it is its replace that takes the new one. The order gets a new ID.
func (o *Orders) Reissue(ctx context.Context, oldOrderID string, req vendors.OrderRequest) (vendors.Order, error) {
	p := orderParams{
		CSR:         csrPEM(req.CSR),
		UniqueValue: uniqueFor(req.Product, req.Unique),
		DomainInfo:  domains(req.Names, req.Method),
	}
	a, err := o.client.Replace(ctx, oldOrderID, req.Reference, p)
	return o.placed("replace", req.Method, a, err)
}

// placed reads the answer of a call that makes an order. Without an ID there is
// no order to follow, whatever the code says: then the reference must be looked
// up.
func (o *Orders) placed(endpoint string, method vendors.Method, a answer, err error) (vendors.Order, error) {
	if err != nil {
		return vendors.Order{}, err
	}
	if a.Code != codeOK && a.Code != codeIssuing {
		return vendors.Order{}, o.client.failure(endpoint, vendorhttp.Effect, a)
	}
	d := a.order()
	if d.CertID.Word() == "" {
		return vendors.Order{}, &vendors.Error{
			Vendor: o.about.Name, Endpoint: endpoint, Verdict: vendors.Uncertain,
			Code: string(a.Code), Message: o.client.http.Scrub(message(a.Errors)),
			Err: errors.New("answer has no certId"),
		}
	}
	return vendors.Order{
		ID:         d.CertID.Word(),
		Status:     vendors.StatusPending,
		RawStatus:  o.client.http.Scrub(a.Status.Word()),
		CAOrderID:  d.VendorID.Word(),
		Challenges: d.challenges(method),
		Names:      d.names(),
	}, nil
}

// Status implements vendors.Vendor. A refused parameter means an unknown order:
// its ID is the only one.
func (o *Orders) Status(ctx context.Context, orderID string) (vendors.Order, error) {
	a, err := o.client.Collect(ctx, orderID)
	if err != nil {
		return vendors.Order{}, err
	}
	switch a.Code {
	case codeOK, codeIssuing:
		return o.client.collected(orderID, a), nil
	case codeCancelled:
		return vendors.Order{ID: orderID, Status: vendors.StatusCancelled}, nil
	}
	failure := o.client.failure("collect", vendorhttp.Read, a)
	if a.Code == codeInput {
		failure.Err = vendors.ErrNotFound
	}
	return vendors.Order{}, failure
}

// Predict implements vendors.Predictor. Products whose proofs are random have
// none to predict.
func (o *Orders) Predict(req vendors.OrderRequest) ([]vendors.Challenge, error) {
	if !sectigo.IsProduct(req.Product) {
		return nil, nil
	}
	return []vendors.Challenge{csrHash(req.CSR, req.Unique, req.Method)}, nil
}

// CAAIdentities implements vendors.CAAIdentifier for Sectigo, the CA of most
// products.
func (o *Orders) CAAIdentities(product string) []string {
	if !sectigo.IsProduct(product) {
		return nil
	}
	return sectigo.CAAIdentities()
}

// Recheck implements vendors.Rechecker: sending a name's method again makes the
// CA look at once (observed). That the CA is busy is not a failure.
func (o *Orders) Recheck(ctx context.Context, orderID string, names []string, method vendors.Method) error {
	for _, name := range names {
		a, err := o.client.UpdateDCV(ctx, orderID, name, methodWords[method])
		if err != nil {
			return err
		}
		switch a.Code {
		case codeOK:
		case codeIssuing, codeCA:
			return &vendors.Error{
				Vendor: o.about.Name, Endpoint: "updateDCV", Verdict: vendors.Retryable,
				Code: string(a.Code), Err: vendors.ErrStillIssuing,
			}
		default:
			return o.client.failure("updateDCV", vendorhttp.Effect, a)
		}
	}
	return nil
}

// Cancel implements vendors.Canceler. The vendor refunds orders, and issued ones
// up to 30 days after issue. An order that is cancelled already is no error.
func (o *Orders) Cancel(ctx context.Context, orderID, reason string) error {
	a, err := o.client.Cancel(ctx, orderID, reasonOr(reason))
	if err != nil || a.Code == codeOK || a.Code == codeCancelled {
		return err
	}
	return o.client.failure("cancel", vendorhttp.Effect, a)
}

// Revoke implements vendors.Revoker. There is no refund.
func (o *Orders) Revoke(ctx context.Context, orderID, reason string) error {
	a, err := o.client.Revoke(ctx, orderID, reasonOr(reason))
	if err != nil || a.Code == codeOK {
		return err
	}
	return o.client.failure("revoke", vendorhttp.Effect, a)
}

// reasonOr fills in the reason, which the vendor insists on.
func reasonOr(reason string) string {
	if strings.TrimSpace(reason) == "" {
		return "requested by the operator"
	}
	return reason
}

// params is the form's params of an order.
func params(req vendors.OrderRequest) orderParams {
	admin, finance, tech := contactOf(req.Contact), contactOf(req.BillingContact()), contactOf(req.TechContact())
	p := orderParams{
		CSR:           csrPEM(req.CSR),
		Server:        "other",
		UniqueValue:   uniqueFor(req.Product, req.Unique),
		DomainInfo:    domains(req.Names, req.Method),
		Administrator: &admin,
		Finance:       &finance,
		Tech:          &tech,
	}
	if org := req.Organization; org != nil {
		p.Organization = &organization{
			Name: org.Name, Address: org.Address, City: org.City, State: org.State,
			Country: strings.ToUpper(org.Country), PostCode: org.PostalCode, Mobile: org.Phone,
		}
	}
	return p
}

func contactOf(c vendors.Contact) contact {
	return contact{
		Job: c.JobTitle, FirstName: c.FirstName, LastName: c.LastName, Email: c.Email, Mobile: c.Phone,
		Country: strings.ToUpper(c.Country), State: c.State, City: c.City, Address: c.Address, PostCode: c.PostalCode,
		Organation: c.Organization, Organization: c.Organization,
	}
}

func domains(names []string, method vendors.Method) []domainInfo {
	list := make([]domainInfo, 0, len(names))
	for _, name := range names {
		list = append(list, domainInfo{DomainName: name, Method: methodWords[method]})
	}
	return list
}

// uniqueFor returns the unique value for products that take one: Sectigo's only
// (documented).
func uniqueFor(product, unique string) string {
	if !sectigo.IsProduct(product) {
		return ""
	}
	return unique
}

func csrPEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// years is a term as the API takes it. CheckConfig has seen it.
func years(t vendors.Term) int {
	if t.Years == 0 {
		return t.Days / 365
	}
	return t.Years
}

// Interface guards
var (
	_ vendors.Vendor        = (*Orders)(nil)
	_ vendors.Validator     = (*Orders)(nil)
	_ vendors.ConfigChecker = (*Orders)(nil)
	_ vendors.Finder        = (*Orders)(nil)
	_ vendors.Predictor     = (*Orders)(nil)
	_ vendors.Reissuer      = (*Orders)(nil)
	_ vendors.Renewer       = (*Orders)(nil)
	_ vendors.Rechecker     = (*Orders)(nil)
	_ vendors.Canceler      = (*Orders)(nil)
	_ vendors.Revoker       = (*Orders)(nil)
	_ vendors.ProductLister = (*Orders)(nil)
	_ vendors.CAAIdentifier = (*Orders)(nil)
)
