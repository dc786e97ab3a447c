package howssl

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
)

// Config is an account at a service with HowSSL's API.
type Config = kit.Config

// Orders is the vendor itself: the contract of package vendors spoken in HowSSL's
// dialect. Close it when it is done.
type Orders struct {
	*kit.Client

	token    string // sent as a field of each form
	fields   fieldMap
	checkIDs checkIDs

	committed sync.Map              // check_ids that commitOrder was sent for
	early     sync.Map              // of orderInfo by check_id: those that createOrder has bought
	bought    atomic.Pointer[error] // why createOrder is not called any more; nil while it is
}

// New returns the vendor, or an error about its configuration. It needs a name for the field
// of the domain, or a check_id. It makes no call.
func New(cfg Config, opts Options) (*Orders, error) {
	fields, err := newFieldMap(opts.CreateOrderFields)
	if err != nil {
		return nil, err
	}
	ids, err := newCheckIDs(opts.CheckIDs)
	if err != nil {
		return nil, err
	}
	if fields["domains"] == "" && len(ids) == 0 {
		return nil, errNoDomainField
	}
	about := &cfg.Description
	about.Methods = []vendors.Method{vendors.MethodHTTP, vendors.MethodDNS}
	about.CoversTwin, about.NeedsCommonName = true, true
	about.Cancelling = cancelling
	client, err := kit.NewClient(cfg)
	if err != nil {
		return nil, err
	}
	return &Orders{Client: client, token: cfg.Secret, fields: fields, checkIDs: ids}, nil
}

// Place implements vendors.Vendor. It pays for the check_id, once.
func (o *Orders) Place(ctx context.Context, req vendors.OrderRequest) (vendors.Order, error) {
	id := req.PreparedID
	if id == "" {
		return vendors.Order{}, o.Refuse(commitOrder, errors.New("the order was not prepared"))
	}
	// The ledger sees to it that a check_id is sent only once, also across restarts; this is
	// a second safeguard.
	if _, sent := o.committed.LoadOrStore(id, true); sent {
		return vendors.Order{}, o.Refuse(commitOrder, fmt.Errorf("check_id %s was sent before, and is not sent twice", id))
	}
	if info, ok := o.early.LoadAndDelete(id); ok {
		return info.(orderInfo).order(), nil
	}
	var p placed
	refusal, err := o.ask(ctx, commitOrder, &p, field("check_id", id))
	switch {
	case refusal != nil:
		return o.refused(ctx, id, refusal)
	case err != nil:
		if vendors.VerdictOf(err) == vendors.Retryable {
			o.committed.Delete(id) // it never left
		}
		return vendors.Order{}, err
	case p.OrderID == "":
		return vendors.Order{}, o.notTold(commitOrder, "order_id")
	}
	return vendors.Order{ID: p.OrderID, Status: vendors.StatusPending, Challenges: p.ValidInfo.Challenges()}, nil
}

// refused finds out what a refused commitOrder means. No error code but that of the token is
// known, and one page prints a failure for a success, so a refusal proves that nothing was
// paid for only together with an order that still waits to be submitted.
func (o *Orders) refused(ctx context.Context, checkID string, refusal *vendors.Error) (vendors.Order, error) {
	info, silent, err := o.lookUp(ctx, checkID)
	switch {
	case silent != nil || err != nil || !info.known():
		return vendors.Order{}, refusal
	case info.Status != statusDraft:
		o.Logger.Warn("the order was refused, but it is submitted; going on with it",
			zap.String("order_id", info.ID), zap.String("status", info.describe()), zap.Error(refusal))
		return info.order(), nil
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
		Balance *float64 `json:"user_amount"`
	}
	if err := o.get(ctx, accountInfo, &account); err != nil || account.Balance == nil {
		return false
	}
	for _, amount := range info.Amounts {
		if amount.Value == nil || *account.Balance >= *amount.Value {
			return false
		}
	}
	return len(info.Amounts) > 0 || *account.Balance <= 0
}

// Predict implements vendors.Predictor. The documented example of valid_info is made
// from the CSR in Sectigo's way. Orders that were created elsewhere have a CSR that is
// not known here.
func (o *Orders) Predict(req vendors.OrderRequest) ([]vendors.Challenge, error) {
	id, err := o.checkIDs.find(req.Names)
	if err != nil || id != "" || !kit.IsSectigo(req.Product) {
		return nil, nil //nolint:nilerr // nothing can be predicted; Prepare tells why
	}
	return kit.SectigoProofs(req.CSR, ""), nil
}

// CAAIdentities implements vendors.CAAIdentifier for Sectigo's products.
func (o *Orders) CAAIdentities(product string) []string { return kit.SectigoCAA(product) }

// Recheck implements vendors.Rechecker: refreshOrder, which updates the state of
// validation and issuance, is the nearest thing there is.
func (o *Orders) Recheck(ctx context.Context, orderID string, _ []string, _ vendors.Method) error {
	return o.get(ctx, refreshOrder, nil, field("order_id", orderID))
}

const cancelling = "only before the certificate is there. What is paid back is not documented: compare the account's balance"

// Cancel implements vendors.Canceler for orders that have no certificate yet. What
// cancelOrder does to one that has, and what is refunded, is not documented.
func (o *Orders) Cancel(ctx context.Context, orderID, _ string) error {
	info, err := o.known(ctx, orderID)
	if err != nil {
		return err
	}
	switch {
	case info.Status == statusCancelled:
		return nil
	case info.Status != statusDraft && info.Status != statusReview:
		return o.wrongState(cancelOrder, info)
	}
	if err := o.get(ctx, cancelOrder, nil, field("order_id", orderID)); err != nil {
		return err
	}
	if info, err = o.known(ctx, orderID); err == nil && info.Status != statusCancelled {
		return o.Fail(cancelOrder, "", "", fmt.Errorf("accepted, but the order is %s", info.describe()))
	}
	return err
}

func (o *Orders) wrongState(call kit.Call, info orderInfo) error {
	return o.Refuse(call, fmt.Errorf("%w: it is %s", vendors.ErrWrongState, info.describe()))
}
