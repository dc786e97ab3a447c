package howssl

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/internal/sectigo"
	"github.com/caddy-commercial/caddy-commercial/internal/vendorhttp"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Settings is what an account at a service with HowSSL's API is made of.
type Settings struct {
	Token    string
	Endpoint string        // base URL, without /Home
	Timeout  time.Duration // zero means 60 s
	Logger   *zap.Logger

	// CreateOrderFields and CheckIDs are those of the module. At least one of a name
	// for the domains and a check_id is needed.
	CreateOrderFields map[string]string
	CheckIDs          []CheckID

	// Transport replaces the network, for tests and for services in this process.
	Transport http.RoundTripper

	// Description needs Name, Account, Portal and AbsenceAge; what follows from the
	// API is filled in.
	Description vendors.Description
}

// Orders is the vendor itself: the contract of package vendors spoken in HowSSL's
// dialect. Close it when it is done.
type Orders struct {
	client   client
	about    vendors.Description
	fields   fieldMap
	checkIDs checkIDs
	logger   *zap.Logger

	mu        sync.Mutex
	committed map[string]bool // check_ids that commitOrder was sent for
}

// New returns the vendor, or an error about its settings. It makes no call.
func New(s Settings) (*Orders, error) {
	if s.Logger == nil {
		s.Logger = zap.NewNop()
	}
	fields, err := newFieldMap(s.CreateOrderFields)
	if err != nil {
		return nil, err
	}
	ids, err := newCheckIDs(s.CheckIDs)
	if err != nil {
		return nil, err
	}
	if fields["domains"] == "" && len(ids) == 0 {
		return nil, errNoDomainField
	}
	about := s.Description
	about.Methods = []vendors.Method{vendors.MethodHTTP, vendors.MethodDNS}
	about.CoversTwin = true
	about.NeedsCommonName = true
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
		client:    client{http: httpClient, vendor: about.Name, token: s.Token},
		about:     about,
		fields:    fields,
		checkIDs:  ids,
		logger:    s.Logger,
		committed: make(map[string]bool),
	}, nil
}

// Close ends idle connections.
func (o *Orders) Close() { o.client.http.Close() }

// Describe implements vendors.Vendor.
func (o *Orders) Describe() vendors.Description { return o.about }

// local is an error about a call that is not made.
func (o *Orders) local(ep endpoint, err error) error {
	return &vendors.Error{Vendor: o.about.Name, Endpoint: ep.name, Verdict: vendors.Permanent, Err: err}
}

// Place implements vendors.Vendor. It pays for the check_id, once.
func (o *Orders) Place(ctx context.Context, req vendors.OrderRequest) (vendors.Order, error) {
	id := req.PreparedID
	if id == "" {
		return vendors.Order{}, o.local(commitOrder, errors.New("the order was not prepared"))
	}
	if !o.claim(id) {
		return vendors.Order{}, o.local(commitOrder, fmt.Errorf("check_id %s was sent before, and is not sent twice", id))
	}
	var p placed
	err := o.client.into(ctx, commitOrder, &p, field{"check_id", id})
	switch {
	case isRefused(err):
		return o.refused(ctx, id, err.(*vendors.Error)) //nolint:errorlint // isRefused has seen it
	case err != nil:
		if vendors.VerdictOf(err) == vendors.Retryable {
			o.release(id) // it never left
		}
		return vendors.Order{}, err
	case p.OrderID.Word() == "":
		return vendors.Order{}, o.client.unclear(commitOrder, errors.New("answer has no order_id"))
	}
	return vendors.Order{
		ID:         p.OrderID.Word(),
		Status:     vendors.StatusPending,
		Challenges: p.ValidInfo.V.challenges(),
	}, nil
}

// claim reserves a check_id for the one commitOrder that may be sent for it. The
// ledger sees to that across restarts; this is the second lock on the same door.
func (o *Orders) claim(checkID string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.committed[checkID] {
		return false
	}
	o.committed[checkID] = true
	return true
}

func (o *Orders) release(checkID string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.committed, checkID)
}

// refused finds out what a refused commitOrder means. No error code but that of the
// token is known, and one page prints a failure for a success, so the refusal alone
// does not prove that nothing was paid for; together with an order that still waits to
// be submitted it does.
func (o *Orders) refused(ctx context.Context, checkID string, refusal *vendors.Error) (vendors.Order, error) {
	orderID, info, err := o.lookUp(ctx, checkID)
	switch {
	case err != nil || !info.known():
		return vendors.Order{}, refusal
	case info.status() != statusDraft:
		o.logger.Warn("the order was refused, but it is submitted; going on with it",
			zap.String("order_id", orderID), zap.String("status", info.describe()), zap.Error(refusal))
		return info.order(orderID), nil
	}
	refusal.Verdict = vendors.Permanent
	if o.isPoor(ctx, info) {
		refusal.Err = vendors.ErrBalance
	}
	return vendors.Order{}, refusal
}

// isPoor reports whether the balance explains a refusal: it is below the order's
// amount in every currency that is told. Nothing else is decided by these numbers.
func (o *Orders) isPoor(ctx context.Context, info orderInfo) bool {
	var account struct {
		Balance text `json:"user_amount"`
	}
	if err := o.client.into(ctx, accountInfo, &account); err != nil {
		return false
	}
	balance, err := strconv.ParseFloat(account.Balance.Word(), 64)
	if err != nil {
		return false
	}
	for _, amount := range info.Amounts.V {
		if price, err := strconv.ParseFloat(amount.Value.Word(), 64); err != nil || balance >= price {
			return false
		}
	}
	return len(info.Amounts.V) > 0 || balance <= 0
}

func (o *Orders) info(ctx context.Context, orderID string) (orderInfo, error) {
	var info orderInfo
	err := o.client.into(ctx, getOrderInfo, &info, field{"order_id", orderID})
	if err == nil && info.status() == "" {
		err = o.client.unclear(getOrderInfo, errors.New("answer has no order_status"))
	}
	return info, err
}

// Predict implements vendors.Predictor. The documented example of valid_info is made
// from the CSR in Sectigo's way. Orders that were created elsewhere have a CSR that is
// not known here.
func (o *Orders) Predict(req vendors.OrderRequest) ([]vendors.Challenge, error) {
	id, err := o.checkIDs.find(req.Names)
	if err != nil || id != "" || !sectigo.IsProduct(req.Product) {
		return nil, nil //nolint:nilerr // nothing can be predicted; Prepare tells why
	}
	return csrChallenges(req.CSR), nil
}

// csrChallenges are the proofs that Sectigo derives from a CSR.
func csrChallenges(csr []byte) []vendors.Challenge {
	proof := sectigo.CSRHash(csr, "")
	return []vendors.Challenge{
		{Method: vendors.MethodHTTP, FileName: proof.FileName, FileContent: proof.FileContent},
		{Method: vendors.MethodDNS, RecordName: proof.RecordName, RecordType: "CNAME", RecordValue: proof.RecordValue},
	}
}

// CAAIdentities implements vendors.CAAIdentifier for Sectigo's products.
func (o *Orders) CAAIdentities(product string) []string {
	if !sectigo.IsProduct(product) {
		return nil
	}
	return sectigo.CAAIdentities()
}

// Recheck implements vendors.Rechecker: refreshOrder, which updates the state of
// validation and issuance, is the nearest that there is.
func (o *Orders) Recheck(ctx context.Context, orderID string, _ []string, _ vendors.Method) error {
	_, err := o.client.call(ctx, refreshOrder, field{"order_id", orderID})
	return err
}

// Cancel implements vendors.Canceler for orders that have no certificate yet. What it
// does to one that has, and what is refunded, is not documented.
func (o *Orders) Cancel(ctx context.Context, orderID, _ string) error {
	info, err := o.known(ctx, orderID)
	if err != nil {
		return err
	}
	switch info.status() {
	case "5":
		return nil
	case statusDraft, "11":
	default:
		return o.wrongState(cancelOrder, info)
	}
	if _, err := o.client.call(ctx, cancelOrder, field{"order_id", orderID}); err != nil {
		return err
	}
	if info, err = o.info(ctx, orderID); err == nil && info.status() != "5" {
		err = o.client.unclear(cancelOrder, fmt.Errorf("accepted, but the order is %s", info.describe()))
	}
	return err
}

// known is info for an order that is expected to be there. Its ID is the only thing
// that getOrderInfo can refuse, besides the token.
func (o *Orders) known(ctx context.Context, orderID string) (orderInfo, error) {
	info, err := o.info(ctx, orderID)
	if isRefused(err) {
		err.(*vendors.Error).Err = vendors.ErrNotFound //nolint:errorlint // isRefused has seen it
	}
	return info, err
}

func (o *Orders) wrongState(ep endpoint, info orderInfo) error {
	return o.local(ep, fmt.Errorf("%w: it is %s", vendors.ErrWrongState, info.describe()))
}

func csrPEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// Interface guards
var (
	_ vendors.Vendor        = (*Orders)(nil)
	_ vendors.ConfigChecker = (*Orders)(nil)
	_ vendors.Preparer      = (*Orders)(nil)
	_ vendors.Finder        = (*Orders)(nil)
	_ vendors.Predictor     = (*Orders)(nil)
	_ vendors.Reissuer      = (*Orders)(nil)
	_ vendors.Rechecker     = (*Orders)(nil)
	_ vendors.Canceler      = (*Orders)(nil)
	_ vendors.ProductLister = (*Orders)(nil)
	_ vendors.CAAIdentifier = (*Orders)(nil)
)
