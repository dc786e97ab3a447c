package digicert

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
)

// Config is an account that is ready for use.
type Config = kit.Config

// Orders is a client of the API as a vendor. Make one with New; it is safe for concurrent use.
type Orders struct {
	*kit.Client

	key     string
	options Options
	watch   watch
}

// The values of the options that have a choice.
const (
	payByBalance = "balance"
	payByProfile = "profile"
	recordTXT    = "txt"
	recordCNAME  = "cname"
)

// New returns a client, or an error about its configuration. It completes the account's
// description with what the API can do.
func New(cfg Config, opts Options) (*Orders, error) {
	opts.PaymentMethod, opts.DNSRecord = cmp.Or(opts.PaymentMethod, payByBalance), cmp.Or(opts.DNSRecord, recordTXT)
	switch {
	case opts.PaymentMethod != payByBalance && opts.PaymentMethod != payByProfile:
		return nil, fmt.Errorf("payment_method: must be %s or %s, got %q", payByBalance, payByProfile, opts.PaymentMethod)
	case opts.DNSRecord != recordTXT && opts.DNSRecord != recordCNAME:
		return nil, fmt.Errorf("dns_record: must be %s or %s, got %q", recordTXT, recordCNAME, opts.DNSRecord)
	case strings.ContainsFunc(cfg.Secret, func(r rune) bool { return r < ' ' || r > '~' }):
		return nil, errors.New("api_key: has characters that API keys do not have")
	}
	// Names come from the JSON of a request alone (documented). So a CSR needs no
	// common name, and no twin is added that was not asked for.
	cfg.Description.Methods = []vendors.Method{vendors.MethodHTTP, vendors.MethodDNS}
	cfg.Description.RecordType, cfg.Description.RecordName = strings.ToUpper(opts.DNSRecord), recordName
	// That certificates end with the order is assumed; order_valid_till is a day (documented).
	cfg.Description.EndsWithTerm, cfg.Description.TermsAreDays = true, true
	cfg.Description.Cancelling, cfg.Description.Revoking = cancelling, revoking
	client, err := kit.NewClient(cfg)
	if err != nil {
		return nil, err
	}
	return &Orders{
		Client: client, key: cfg.Secret, options: opts,
		watch: watch{turn: make(chan struct{}, 1), orders: make(map[string]*pendingOrder)},
	}, nil
}

// Place implements vendors.Vendor. It buys.
func (o *Orders) Place(ctx context.Context, req vendors.OrderRequest) (vendors.Order, error) {
	return o.buy(ctx, req, "")
}

// Renew implements vendors.Renewer. It buys: a renewal is a new order that names
// the old one (documented), which stays as it is.
func (o *Orders) Renew(ctx context.Context, oldOrderID string, req vendors.OrderRequest) (vendors.Order, error) {
	if strings.Trim(oldOrderID, "0123456789") != "" || oldOrderID == "" || oldOrderID[0] == '0' {
		return vendors.Order{}, o.Refuse(callOrder, fmt.Errorf("%q is not an order ID", oldOrderID))
	}
	return o.buy(ctx, req, json.Number(oldOrderID))
}

// buy places an order, which may renew another. Organizations are for products that name one.
func (o *Orders) buy(ctx context.Context, req vendors.OrderRequest, renewalOf json.Number) (vendors.Order, error) {
	body := o.body(req.Names, req)
	body.Validity, body.TechnicalContact = validity(req.Term), contactOf(req.TechContact())
	body.PaymentMethod, body.Container.ID = o.options.PaymentMethod, o.options.ContainerID
	body.AlternativeID, body.RenewalOf = req.Reference, renewalOf
	if !isDV(req.Product) {
		body.Organization.ID = o.options.OrganizationID
	}
	p, err := do[placed](ctx, o, callOrder, body, req.Product)
	if err == nil && p.ID == "" {
		err = o.Fail(callOrder, "", "", errors.New("answer has no id")) // it must be looked up by its reference
	}
	if err != nil {
		return vendors.Order{}, err
	}
	return o.placed(p.ID, req.Method, p), nil
}

// Reissue implements vendors.Reissuer. The order keeps its ID. The names that it has are
// asked for and kept, with their common name: leaving one out would have all earlier
// certificates revoked within 72 hours, and a new one may cost money (both documented under
// "Reissue certificates").
func (o *Orders) Reissue(ctx context.Context, oldOrderID string, req vendors.OrderRequest) (vendors.Order, error) {
	info, err := o.info(ctx, oldOrderID)
	if err != nil {
		return vendors.Order{}, err
	}
	if statuses[info.word()] != vendors.StatusIssued {
		return vendors.Order{}, o.Refuse(callReissue, fmt.Errorf("%w: it is %q", vendors.ErrWrongState, o.Text(info.word())))
	}
	names := info.names()
	for _, name := range req.Names {
		if !slices.Contains(names, name) {
			return vendors.Order{}, o.Refuse(callReissue,
				fmt.Errorf("the order is for %s; adding %s could cost money", o.Text(strings.Join(names, ", ")), name))
		}
	}
	if len(names) > len(req.Names) {
		o.Logger.Info("the order has more names than configured; keeping them", zap.Strings("names", names))
	}
	p, err := do[placed](ctx, o, callReissue, o.body(names, req), oldOrderID)
	o.watch.forget(oldOrderID)
	if err != nil {
		return vendors.Order{}, err
	}
	return o.placed(oldOrderID, req.Method, p), nil
}

// placed takes what is needed from the answer of a call that makes a certificate. The next look
// tells the rest, such as a certificate that was issued at once (documented).
func (o *Orders) placed(id string, method vendors.Method, p placed) vendors.Order {
	order := vendors.Order{ID: id, Status: vendors.StatusPending, TermEnds: kit.Time(p.OrderValidTill)}
	if ch, ok := proofOf(o.methodWord(method), p.RandomValue); ok {
		order.Challenges = []vendors.Challenge{ch}
	}
	return order
}

// What ends an order, all documented.
const (
	cancelling = "only before the first certificate. What was paid from the balance is not paid back by itself: ask DigiCert's support (documented)"
	revoking   = "all certificates of the order are revoked, reissues included, and nothing is paid back (documented)"
)

// Cancel implements vendors.Canceler. The balance is not refunded by itself: the vendor's
// support must be asked (documented).
func (o *Orders) Cancel(ctx context.Context, orderID, reason string) error {
	defer o.watch.forget(orderID)
	_, err := do[json.RawMessage](ctx, o, callCancel, map[string]string{"status": "canceled", "note": kit.Reason(reason)}, orderID)
	return o.unless(ctx, orderID, vendors.StatusCancelled, err)
}

// unless forgives the refusal of something that is done already. The codes of such a refusal
// are observed at best, so the order is looked at instead.
func (o *Orders) unless(ctx context.Context, orderID string, done vendors.Status, err error) error {
	if e, ok := errors.AsType[*vendors.Error](err); !ok || e.HTTPStatus != http.StatusBadRequest {
		return err
	}
	if info, failed := o.info(ctx, orderID); failed != nil || statuses[info.word()] != done {
		return err
	}
	return nil
}

// Revoke implements vendors.Revoker. It revokes every certificate of the order, reissues
// included, without refund: the order's ID does not tell which of them somebody worries about.
func (o *Orders) Revoke(ctx context.Context, orderID, reason string) error {
	pending, err := do[request](ctx, o, callRevoke,
		map[string]any{"revocation_reason": revocationReason(reason), "comments": kit.Reason(reason), "skip_approval": true}, orderID)
	if note := approval([]request{pending}, false); err == nil && note != "" {
		return o.Fail(callRevoke, "", "the revocation "+o.Text(note), nil) // it may still be approved
	}
	return o.unless(ctx, orderID, vendors.StatusRevoked, err)
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

// body is what orders and reissues have in common.
func (o *Orders) body(names []string, req vendors.OrderRequest) orderBody {
	return orderBody{
		Certificate: certificateBody{
			CommonName: names[0], DNSNames: names[1:], CSR: kit.CSR(req.CSR), SignatureHash: "sha256",
			ServerPlatform: idBody{-1}, // "other" (documented); it picks installation hints only
		},
		DCVMethod:    o.methodWord(req.Method),
		SkipApproval: true,
		Comments:     commentPrefix + req.Reference,
	}
}

// commentPrefix marks our comments, which are a second place to find a reference in.
const commentPrefix = "caddy-commercial "

// contactOf returns nil if the contact is not complete: it is optional, and half a
// contact would be refused.
func contactOf(c vendors.Contact) map[string]string {
	if kit.Missing("", c.Fields(), "first_name", "last_name", "email", "phone") != nil {
		return nil
	}
	contact := map[string]string{"first_name": c.FirstName, "last_name": c.LastName, "email": c.Email, "telephone": c.Phone}
	if c.JobTitle != "" {
		contact["job_title"] = c.JobTitle
	}
	return contact
}

// CAAIdentities implements vendors.CAAIdentifier with the names that DigiCert's
// certification practices statement lists.
func (o *Orders) CAAIdentities(string) []string {
	return []string{
		"digicert.com", "www.digicert.com", "digicert.ne.jp", "cybertrust.ne.jp",
		"symantec.com", "thawte.com", "geotrust.com", "rapidssl.com", "digitalcertvalidation.com",
	}
}
