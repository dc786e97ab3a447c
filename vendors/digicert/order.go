package digicert

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/internal/certpem"
	"github.com/caddy-commercial/caddy-commercial/internal/vendorhttp"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Settings are what New needs.
type Settings struct {
	Key      string
	Endpoint string // base URL, such as https://www.digicert.com/services/v2

	// OrganizationID and ContainerID are left out of requests if zero.
	OrganizationID, ContainerID int

	// PaymentMethod is balance (also if empty) or profile, DNSRecord txt (also if
	// empty) or cname.
	PaymentMethod, DNSRecord string

	Timeout time.Duration // zero means vendorhttp.DefaultTimeout
	Logger  *zap.Logger   // nil means none

	// Description is completed with what the API can do.
	Description vendors.Description

	// Transport replaces the network, for tests.
	Transport http.RoundTripper
}

// Orders is a client of the API as a vendor. Make one with New; it is safe for
// concurrent use.
type Orders struct {
	client       client
	about        vendors.Description
	logger       *zap.Logger
	organization int
	container    int
	payment      string
	record       string
	values       valueCache
}

// The values of the settings that have a choice.
const (
	payByBalance = "balance"
	payByProfile = "profile"
	recordTXT    = "txt"
	recordCNAME  = "cname"
)

// New returns a client, or an error about its settings.
func New(s Settings) (*Orders, error) {
	if s.Logger == nil {
		s.Logger = zap.NewNop()
	}
	switch s.PaymentMethod {
	case "":
		s.PaymentMethod = payByBalance
	case payByBalance, payByProfile:
	default:
		return nil, fmt.Errorf("payment_method: must be %s or %s, got %q", payByBalance, payByProfile, s.PaymentMethod)
	}
	switch s.DNSRecord {
	case "", recordTXT, recordCNAME:
	default:
		return nil, fmt.Errorf("dns_record: must be %s or %s, got %q", recordTXT, recordCNAME, s.DNSRecord)
	}
	if strings.ContainsFunc(s.Key, func(r rune) bool { return r < ' ' || r > '~' }) {
		return nil, errors.New("api_key: has characters that no key has")
	}
	// Names come from the JSON of a request alone (documented). So a CSR needs no
	// common name, and no twin is added that was not asked for.
	about := s.Description
	about.Methods = []vendors.Method{vendors.MethodHTTP, vendors.MethodDNS}
	about.RecordType = strings.ToUpper(s.DNSRecord)
	httpClient, err := vendorhttp.New(vendorhttp.Config{
		Vendor:  about.Name,
		BaseURL: s.Endpoint,
		Timeout: s.Timeout,
		Secrets: []string{s.Key},
		Logger:  s.Logger,

		Transport: s.Transport,
	})
	if err != nil {
		return nil, err
	}
	return &Orders{
		client:       client{http: httpClient, vendor: about.Name, key: s.Key},
		about:        about,
		logger:       s.Logger,
		organization: s.OrganizationID,
		container:    s.ContainerID,
		payment:      s.PaymentMethod,
		record:       s.DNSRecord,
	}, nil
}

// Close ends idle connections.
func (o *Orders) Close() { o.client.http.Close() }

// Describe implements vendors.Vendor.
func (o *Orders) Describe() vendors.Description { return o.about }

// Place implements vendors.Vendor. It buys.
func (o *Orders) Place(ctx context.Context, req vendors.OrderRequest) (vendors.Order, error) {
	p, err := o.client.Order(ctx, req.Product, o.order(req))
	return o.placed("order", "", req.Method, p, err)
}

// Renew implements vendors.Renewer. It buys: a renewal is a new order that names
// the old one (documented), which stays as it is.
func (o *Orders) Renew(ctx context.Context, oldOrderID string, req vendors.OrderRequest) (vendors.Order, error) {
	body := o.order(req)
	if strings.Trim(oldOrderID, "0123456789") != "" || oldOrderID == "" || oldOrderID[0] == '0' {
		return vendors.Order{}, o.client.fail("order", vendors.Permanent, fmt.Sprintf("%q is no order ID", oldOrderID))
	}
	body.RenewalOf = json.Number(oldOrderID)
	p, err := o.client.Order(ctx, req.Product, body)
	return o.placed("order", "", req.Method, p, err)
}

// Reissue implements vendors.Reissuer. The order keeps its ID. Its names are asked
// for first: leaving one out would have the certificates in use revoked, and a new
// one may cost money (both documented under "Reissue certificates").
func (o *Orders) Reissue(ctx context.Context, oldOrderID string, req vendors.OrderRequest) (vendors.Order, error) {
	info, err := o.client.Info(ctx, oldOrderID)
	if err != nil {
		return vendors.Order{}, err
	}
	if raw := strings.ToLower(info.Status.Word()); statuses[raw] != vendors.StatusIssued {
		return vendors.Order{}, &vendors.Error{
			Vendor: o.about.Name, Endpoint: "reissue", Verdict: vendors.Permanent,
			Code: o.client.http.Scrub(short(raw)), Err: vendors.ErrWrongState,
		}
	}
	names, err := o.reissueNames(info.names(), req.Names)
	if err != nil {
		return vendors.Order{}, err
	}
	p, err := o.client.Reissue(ctx, oldOrderID, orderBody{
		Certificate:  certificateOf(names, req.CSR),
		DCVMethod:    o.methodWord(req.Method),
		SkipApproval: true,
		Comments:     comment(req.Reference),
	})
	o.values.forget(oldOrderID)
	return o.placed("reissue", oldOrderID, req.Method, p, err)
}

// reissueNames returns the names to reissue with: those that the order has, with
// the same common name.
func (o *Orders) reissueNames(has, wanted []string) ([]string, error) {
	if len(has) == 0 {
		return wanted, nil
	}
	for _, name := range wanted {
		if !slices.Contains(has, strings.ToLower(name)) {
			return nil, o.client.fail("reissue", vendors.Permanent, fmt.Sprintf(
				"the order is for %s; adding %s could cost money", strings.Join(has, ", "), name))
		}
	}
	if extra := len(has) - len(wanted); extra > 0 {
		o.logger.Info("the order has more names than configured; keeping them", zap.Strings("names", has))
	}
	return has, nil
}

// placed reads the answer of a call that makes a certificate. A reissue's ID is
// known; an order without one must be looked up by its reference.
func (o *Orders) placed(endpoint, orderID string, method vendors.Method, p placed, err error) (vendors.Order, error) {
	if err != nil {
		return vendors.Order{}, err
	}
	order := vendors.Order{
		ID:       orderID,
		Status:   vendors.StatusPending,
		TermEnds: parseTime(p.OrderValidTill),
	}
	if order.ID == "" {
		order.ID = p.ID.Word()
	}
	if order.ID == "" {
		return vendors.Order{}, o.client.fail(endpoint, vendors.Uncertain, "answer has no id")
	}
	if waiting := approvals(p.Requests.V); len(waiting) > 0 {
		order.Detail = o.client.http.Scrub(approvalNote(waiting))
	}
	if value := p.RandomValue.Word(); value != "" {
		if ch, ok := proofOf(o.methodWord(method), value); ok {
			order.Challenges = []vendors.Challenge{ch}
			o.values.put(order.ID, value, fresh(time.Time{}))
		}
	}
	var chain strings.Builder
	for _, member := range p.Chain.V {
		chain.WriteString(string(member.PEM) + "\n")
	}
	if certs, err := certpem.Parse(chain.String()); err == nil && len(certs) > 0 {
		order.Status, order.Certificates = vendors.StatusIssued, certs
	}
	return order, nil
}

// Cancel implements vendors.Canceler. The balance is not refunded by itself: the
// vendor's support must be asked (documented). An order that is cancelled already
// is no error.
func (o *Orders) Cancel(ctx context.Context, orderID, reason string) error {
	err := o.client.Cancel(ctx, orderID, reasonOr(reason))
	if e, ok := errors.AsType[*vendors.Error](err); !ok || e.HTTPStatus != http.StatusBadRequest {
		return err
	}
	info, infoErr := o.client.Info(ctx, orderID)
	if infoErr == nil && statuses[strings.ToLower(info.Status.Word())] == vendors.StatusCancelled {
		return nil
	}
	return err
}

// Revoke implements vendors.Revoker. It revokes every certificate of the order,
// reissues included, without refund: the order's ID does not tell which of them
// somebody worries about.
func (o *Orders) Revoke(ctx context.Context, orderID, reason string) error {
	pending, err := o.client.Revoke(ctx, orderID, revocationReason(reason), reasonOr(reason))
	if err != nil {
		return err
	}
	if len(approvals([]request{pending})) > 0 {
		e := o.client.fail("revoke", vendors.Permanent, "the revocation "+o.client.http.Scrub(approvalNote([]request{pending})))
		return e
	}
	return nil
}

// revocationReason picks the documented word that a text means.
func revocationReason(text string) string {
	plain := strings.ToLower(strings.ReplaceAll(text, " ", ""))
	for _, word := range []string{"keyCompromise", "affiliationChanged", "superseded", "cessationOfOperation"} {
		if strings.Contains(plain, strings.ToLower(word)) {
			return word
		}
	}
	return "unspecified"
}

// reasonOr fills in the reason, which the vendor insists on.
func reasonOr(reason string) string {
	if strings.TrimSpace(reason) == "" {
		return "requested by the operator"
	}
	return reason
}

// order is the body of an order.
func (o *Orders) order(req vendors.OrderRequest) orderBody {
	term := termOf(req.Term)
	body := orderBody{
		Certificate:      certificateOf(req.Names, req.CSR),
		Validity:         &term,
		DCVMethod:        o.methodWord(req.Method),
		SkipApproval:     true,
		Comments:         comment(req.Reference),
		TechnicalContact: contactOf(req.TechContact()),
		PaymentMethod:    o.payment,
		AlternativeID:    req.Reference,
	}
	if o.organization > 0 && !isDV(req.Product) {
		body.Organization = &idBody{o.organization}
	}
	if o.container > 0 {
		body.Container = &idBody{o.container}
	}
	return body
}

func certificateOf(names []string, csr []byte) certificateBody {
	return certificateBody{
		CommonName:     names[0],
		DNSNames:       names[1:],
		CSR:            string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})),
		SignatureHash:  "sha256",
		ServerPlatform: idBody{-1}, // "other" (documented); it picks installation hints only
	}
}

// commentPrefix marks our comments, which are a second place to find a reference in.
const commentPrefix = "caddy-commercial "

func comment(reference string) string {
	if reference == "" {
		return ""
	}
	return commentPrefix + reference
}

// contactOf returns nil if the contact is not complete: it is optional, and half a
// contact would be refused.
func contactOf(c vendors.Contact) *contactBody {
	if c.FirstName == "" || c.LastName == "" || c.Email == "" || c.Phone == "" {
		return nil
	}
	return &contactBody{
		FirstName: c.FirstName, LastName: c.LastName, Telephone: c.Phone, JobTitle: c.JobTitle, Email: c.Email,
	}
}

// termOf is a term as the API takes it. CheckConfig has seen it.
func termOf(t vendors.Term) validity { return validity{Years: t.Years, Days: t.Days} }

// CAAIdentities implements vendors.CAAIdentifier with the names that DigiCert's
// certification practices statement lists.
func (o *Orders) CAAIdentities(string) []string {
	return []string{
		"digicert.com", "www.digicert.com", "digicert.ne.jp", "cybertrust.ne.jp",
		"symantec.com", "thawte.com", "geotrust.com", "rapidssl.com", "digitalcertvalidation.com",
	}
}

// Interface guards
var (
	_ vendors.Vendor        = (*Orders)(nil)
	_ vendors.Validator     = (*Orders)(nil)
	_ vendors.ConfigChecker = (*Orders)(nil)
	_ vendors.Finder        = (*Orders)(nil)
	_ vendors.Reissuer      = (*Orders)(nil)
	_ vendors.Renewer       = (*Orders)(nil)
	_ vendors.Rechecker     = (*Orders)(nil)
	_ vendors.Canceler      = (*Orders)(nil)
	_ vendors.Revoker       = (*Orders)(nil)
	_ vendors.ProductLister = (*Orders)(nil)
	_ vendors.CAAIdentifier = (*Orders)(nil)
)
