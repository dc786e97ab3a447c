package howssl

import (
	"context"
	"fmt"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Find implements vendors.Finder. HowSSL knows an order by its check_id, which the ledger has
// had since before commitOrder. Find cannot rule out that there will be an order: "not
// submitted" may mean that the commit waits in a queue, and the reasons of refusals are not known.
func (o *Orders) Find(ctx context.Context, req vendors.Lookup) ([]string, error) {
	if req.PreparedID == "" {
		return nil, nil // commitOrder was never sent
	}
	info, refusal, err := o.lookUp(ctx, req.PreparedID)
	switch {
	case refusal != nil:
		refusal.Err = fmt.Errorf("%w: what became of check_id %s is not known", vendors.ErrUndecidable, req.PreparedID)
		return nil, refusal
	case err != nil:
		return nil, err
	case info.known() && info.Status != statusDraft:
		return []string{info.ID}, nil
	}
	return nil, o.Fail(getOrderInfo, "", "", fmt.Errorf(
		"%w: order %s of check_id %s is %s, which does not prove that it was not paid for: a commit may wait in a queue",
		vendors.ErrUndecidable, info.ID, req.PreparedID, info.describe()))
}

// lookUp tells the order of a check_id and where it stands. Documented: the order ID
// may change when the order is committed, so it is asked for again afterwards.
func (o *Orders) lookUp(ctx context.Context, checkID string) (info orderInfo, refusal *vendors.Error, err error) {
	for range 2 {
		var found placed
		refusal, err = o.ask(ctx, fromCheckID, &found, field("check_id", checkID))
		if err == nil && refusal == nil && found.OrderID == "" {
			err = o.notTold(fromCheckID, "order_id")
		}
		if refusal != nil || err != nil || found.OrderID == info.ID {
			return info, refusal, err
		}
		info, refusal, err = o.info(ctx, found.OrderID)
		if refusal != nil || err != nil || info.Status == statusDraft {
			return info, refusal, err
		}
	}
	return info, nil, nil
}

// info tells where an order stands.
func (o *Orders) info(ctx context.Context, orderID string) (info orderInfo, refusal *vendors.Error, err error) {
	refusal, err = o.ask(ctx, getOrderInfo, &info, field("order_id", orderID))
	if err == nil && refusal == nil && info.Status == "" {
		err = o.notTold(getOrderInfo, "order_status")
	}
	info.ID = orderID
	return info, refusal, err
}

// known is info for an order that is expected to be there. Its ID is the only thing
// that getOrderInfo can refuse, besides the token.
func (o *Orders) known(ctx context.Context, orderID string) (orderInfo, error) {
	info, refusal, err := o.info(ctx, orderID)
	if refusal != nil {
		refusal.Err, err = vendors.ErrNotFound, refusal
	}
	return info, err
}
