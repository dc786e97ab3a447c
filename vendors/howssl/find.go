package howssl

import (
	"context"
	"errors"
	"fmt"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Find implements vendors.Finder. HowSSL knows an order by its check_id, which the
// ledger has since before commitOrder. What it cannot tell is that there will be no
// order: "not submitted" may also mean that the commit waits in a queue, and
// refusals have no known reasons. Then a person has to look.
func (o *Orders) Find(ctx context.Context, req vendors.Lookup) ([]string, error) {
	if req.PreparedID == "" {
		return nil, nil // commitOrder was never sent
	}
	orderID, info, err := o.lookUp(ctx, req.PreparedID)
	if isRefused(err) {
		e := err.(*vendors.Error) //nolint:errorlint // isRefused has seen it
		e.Err = undecided{fmt.Sprintf("what became of check_id %s cannot be told", req.PreparedID)}
		return nil, e
	}
	if err != nil {
		return nil, err
	}
	if info.known() && info.status() != statusDraft {
		return []string{orderID}, nil
	}
	return nil, &vendors.Error{
		Vendor: o.about.Name, Endpoint: getOrderInfo.name, Verdict: vendors.Retryable,
		Err: undecided{fmt.Sprintf("order %s of check_id %s is %s, which does not prove that it was not paid for: a commit may wait in a queue",
			orderID, req.PreparedID, info.describe())},
	}
}

// undecided is why Find cannot tell whether there is an order.
type undecided struct{ why string }

func (u undecided) Error() string        { return u.why }
func (u undecided) Is(target error) bool { return target == vendors.ErrUndecidable }

// lookUp tells the order of a check_id and where it stands. Documented: the order ID
// may change when the order is committed, so it is asked for again afterwards.
func (o *Orders) lookUp(ctx context.Context, checkID string) (orderID string, info orderInfo, err error) {
	for range 2 {
		var found placed
		if err := o.client.into(ctx, fromCheckID, &found, field{"check_id", checkID}); err != nil {
			return "", orderInfo{}, err
		}
		id := found.OrderID.Word()
		switch id {
		case "":
			return "", orderInfo{}, o.client.unclear(fromCheckID, errors.New("answer has no order_id"))
		case orderID:
			return orderID, info, nil
		}
		if info, err = o.info(ctx, id); err != nil {
			return "", orderInfo{}, err
		}
		if orderID = id; info.status() == statusDraft {
			break
		}
	}
	return orderID, info, nil
}
