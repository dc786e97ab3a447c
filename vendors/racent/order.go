package racent

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
)

// Config is an account at a service with Racent's API. Of its Description, what follows
// from the API is filled in.
type Config = kit.Config

// Orders is the contract of package vendors spoken in Racent's dialect. Close it when it is done.
type Orders struct {
	*kit.Client

	token, server string
	document      kit.Field
	listing       chan struct{} // of the caller that lists all orders
}

// New returns the vendor, or an error about its settings. It makes no call.
func New(cfg Config, opts Options) (*Orders, error) {
	document, err := opts.check()
	if err != nil {
		return nil, err
	}
	about := &cfg.Description
	about.Methods = []vendors.Method{vendors.MethodHTTP, vendors.MethodHTTPS, vendors.MethodDNS}
	about.CoversTwin, about.NeedsCommonName, about.NeedsUnique = true, true, true
	about.RenewKeepsProduct = true // renew has no field for the product
	about.Cancelling, about.Revoking, about.CancelWithin = cancelling, revoking, cancelWithin
	client, err := kit.NewClient(cfg)
	if err != nil {
		return nil, err
	}
	return &Orders{client, cfg.Secret, cmp.Or(opts.Server, "other"), document, make(chan struct{}, 1)}, nil
}

// hiding returns the vendor with the identity numbers of a request's contacts among its secrets,
// because the service's errors may repeat them.
func (o *Orders) hiding(req vendors.OrderRequest) *Orders {
	hiding := *o
	hiding.Client = o.Hiding(req.Contact.IDNumber, req.TechContact().IDNumber, req.BillingContact().IDNumber)
	return &hiding
}

// Validate asks for a dry run of the order. If that refuses a parameter, it is only logged: dry
// runs have refused what the service had accepted before (observed), and placing the order has
// the last word and refuses without charge. Any other failure is a reason not to order now.
func (o *Orders) Validate(ctx context.Context, req vendors.OrderRequest) error {
	o = o.hiding(req)
	a, err := o.order(ctx, validate, req, field("productCode", req.Product), o.document)
	if a.Code == codeInput || kit.IsMissing(err) {
		o.Logger.Warn("the vendor's dry run cannot be used; ordering without it", zap.Error(err))
		return nil
	}
	return err
}

// Place implements vendors.Vendor. It buys.
func (o *Orders) Place(ctx context.Context, req vendors.OrderRequest) (vendors.Order, error) {
	o = o.hiding(req)
	a, err := o.order(ctx, place, req, field("productCode", req.Product), field("refId", req.Reference), o.document)
	return o.placed(place, req.Method, a, err)
}

// Renew implements vendors.Renewer. It buys the product of the old order: there are no
// fields for another one, nor for a document (documented).
func (o *Orders) Renew(ctx context.Context, oldOrderID string, req vendors.OrderRequest) (vendors.Order, error) {
	o = o.hiding(req)
	a, err := o.order(ctx, renew, req, field("renewId", oldOrderID), field("refId", req.Reference))
	return o.placed(renew, req.Method, a, err)
}

// order makes one of the calls about a new order, with the fields that all of them have.
func (o *Orders) order(ctx context.Context, call kit.Call, req vendors.OrderRequest, fields ...kit.Field) (answer, error) {
	years, _ := kit.Years(req.Term, maxYears) // CheckConfig has checked it
	return o.call(ctx, call, append(fields, field("years", strconv.Itoa(years)), field("params", o.params(req)))...)
}

// Reissue implements vendors.Reissuer. The vendor's call reissue would use the old
// CSR again; the one that takes a new CSR is replace. The order gets a new ID.
func (o *Orders) Reissue(ctx context.Context, oldOrderID string, req vendors.OrderRequest) (vendors.Order, error) {
	params := string(kit.JSON(certParams(req)))
	a, err := o.call(ctx, replace, field("certId", oldOrderID), field("refId", req.Reference), field("params", params))
	return o.placed(replace, req.Method, a, err)
}

// placed reads the answer of a call that makes an order. Without an ID there is no order to
// follow, whatever the code says: then the reference must be looked up.
func (o *Orders) placed(call kit.Call, method vendors.Method, a answer, err error) (vendors.Order, error) {
	if err != nil && a.Code != codeIssuing {
		return vendors.Order{}, err
	}
	d := a.order()
	if d.CertID == "" {
		return vendors.Order{}, o.Fail(call, a.Code, kit.Flatten(a.Errors), errors.New("answer has no certId"))
	}
	return vendors.Order{
		ID: d.CertID, Status: vendors.StatusPending, RawStatus: o.Text(a.Status), CAOrderID: d.VendorID,
		Challenges: d.challenges(method), Names: d.names(),
	}, nil
}

// Status implements vendors.Vendor.
func (o *Orders) Status(ctx context.Context, orderID string) (vendors.Order, error) {
	a, err := o.call(ctx, collect, field("certId", orderID))
	switch {
	case err == nil, a.Code == codeIssuing:
		return o.collected(orderID, a), nil
	case a.Code == codeCancelled:
		return vendors.Order{ID: orderID, Status: vendors.StatusCancelled}, nil
	}
	return vendors.Order{}, err
}

// Predict implements vendors.Predictor. Products whose proofs are random have
// none to predict.
func (o *Orders) Predict(req vendors.OrderRequest) ([]vendors.Challenge, error) {
	if !kit.IsSectigo(req.Product) {
		return nil, nil
	}
	proofs := kit.SectigoProofs(req.CSR, req.Unique) // a file and a record
	if req.Method == vendors.MethodDNS {
		return proofs[1:], nil
	}
	proofs[0].Method = req.Method
	return proofs[:1], nil
}

// CAAIdentities implements vendors.CAAIdentifier for Sectigo, the CA of most
// products.
func (o *Orders) CAAIdentities(product string) []string { return kit.SectigoCAA(product) }

// Recheck implements vendors.Rechecker: sending a name's method again makes the
// CA look at once (observed).
func (o *Orders) Recheck(ctx context.Context, orderID string, names []string, method vendors.Method) error {
	for _, name := range names {
		_, err := o.call(ctx, updateDCV, field("certId", orderID), field("domainName", name), field("dcvMethod", methodWords[method]))
		if err != nil {
			return err
		}
	}
	return nil
}

// What ends an order. The window is documented on www.nicsrs.com/help-detail/16.
const (
	cancelWithin = 30 * 24 * time.Hour
	cancelling   = "until 30 days after the certificate was issued (documented). The order is paid back (observed), and the certificate is to be taken for revoked (assumed)"
	revoking     = "nothing is paid back (observed). Whether the order lives on is not documented"
)

// Cancel implements vendors.Canceler. The vendor refunds up to 30 days after issue.
func (o *Orders) Cancel(ctx context.Context, orderID, reason string) error {
	return o.end(ctx, cancel, orderID, reason, codeCancelled)
}

// Revoke implements vendors.Revoker. There is no refund.
func (o *Orders) Revoke(ctx context.Context, orderID, reason string) error {
	return o.end(ctx, revoke, orderID, reason, codeOK)
}

// end ends an order for a reason. An answer with the code done is a success, too.
func (o *Orders) end(ctx context.Context, call kit.Call, orderID, reason, done string) error {
	a, err := o.call(ctx, call, field("certId", orderID), field("reason", kit.Reason(reason)))
	if a.Code == done {
		return nil
	}
	return err
}

// brands are the spellings that productList accepts (observed).
var brands = []string{"Sectigo", "sslTrus", "Digicert", "Thawte", "Certum"}

// Products implements vendors.ProductLister. A brand that the account does not
// sell is left out.
func (o *Orders) Products(ctx context.Context) ([]vendors.Product, error) {
	var products []vendors.Product
	for _, brand := range brands {
		a, err := o.call(ctx, productList, field("vendor", brand))
		if a.Code == codeInput {
			continue
		}
		if err != nil {
			return nil, err
		}
		var rows []productData
		_ = kit.Unmarshal(a.Data, &rows)
		for _, row := range rows {
			products = append(products, row.product(o.Text))
		}
	}
	return products, nil
}

// product is what the vendor sells. Text makes the vendor's own words fit for people.
func (p productData) product(text func(string) string) vendors.Product {
	prices := make(map[int]string)
	for key, price := range p.Price.BasePrice {
		if months, err := strconv.Atoi(strings.TrimPrefix(key, "price")); err == nil && price != "" {
			prices[months] = text(price)
		}
	}
	return vendors.Product{
		Code: p.Code, Name: text(p.ProductName), Validation: strings.ToLower(p.ValidationType),
		Wildcard: strings.EqualFold(p.SupportWildcard, "Y"), MaxNames: p.MaxDomain, Prices: prices,
	}
}

// params is the field params of an order. Keys do not leave Caddy, so the CSR is always there
// and privateKey never. The outer method is the same as those of the names; it is required
// for CFCA, and wins (documented).
func (o *Orders) params(req vendors.OrderRequest) string {
	p := certParams(req)
	p["server"], p["dcvMethod"] = o.server, methodWords[req.Method]
	p["Administrator"] = contact(req.Contact) // with a capital A, unlike the next two (documented)
	p["finance"], p["tech"] = contact(req.BillingContact()), contact(req.TechContact())
	if req.Organization != nil {
		p["organizationInfo"] = organization(*req.Organization)
	}
	return string(kit.JSON(p))
}

// certParams is what makes a certificate: the CSR, and how its names are proven. A unique
// value is for Sectigo only (documented).
func certParams(req vendors.OrderRequest) map[string]any {
	names := make([]texts, 0, len(req.Names))
	for _, name := range req.Names {
		names = append(names, texts{"domainName": name, "dcvMethod": methodWords[req.Method]})
	}
	p := map[string]any{"csr": kit.CSR(req.CSR), "domainInfo": names}
	if kit.IsSectigo(req.Product) && req.Unique != "" {
		p["uniqueValue"] = req.Unique
	}
	return p
}

// texts are fields without blank values, which the service takes for errors (observed).
type texts map[string]string

// contact has organation, a spelling that the service insists on. One page has organization,
// which a client leaves out on purpose (observed).
func contact(c vendors.Contact) texts {
	return withoutBlanks(texts{
		"job": c.JobTitle, "firstName": c.FirstName, "lastName": c.LastName, "email": c.Email, "mobile": c.Phone,
		"country": strings.ToUpper(c.Country), "state": c.State, "city": c.City, "address": c.Address,
		"postCode": c.PostalCode, "organation": c.Organization, "idType": c.IDType, "idNumber": c.IDNumber,
	})
}

func organization(o vendors.Organization) texts {
	return withoutBlanks(texts{
		"organizationName": o.Name, "organizationAddress": o.Address, "organizationCity": o.City, "organizationState": o.State,
		"organizationCountry": strings.ToUpper(o.Country), "organizationPostCode": o.PostalCode, "organizationMobile": o.Phone,
		"organizationRegNumber": o.RegistrationNumber, "idType": o.IDType,
	})
}

func withoutBlanks(t texts) texts {
	maps.DeleteFunc(t, func(_, value string) bool { return strings.TrimSpace(value) == "" })
	return t
}
