package howssl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/idna"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// checkIDs are the orders that were created at HowSSL, by their IDs, each with its
// names sorted.
type checkIDs map[string][]string

func newCheckIDs(list []CheckID) (checkIDs, error) {
	ids := make(checkIDs)
	owner := make(map[string]string)
	for _, c := range list {
		id := strings.TrimSpace(c.ID)
		switch {
		case id == "":
			return nil, errors.New("check_id: the ID is missing")
		case len(c.Names) == 0:
			return nil, fmt.Errorf("check_id: %s has no names", id)
		case ids[id] != nil:
			return nil, fmt.Errorf("check_id: %s is given twice", id)
		}
		var names []string
		for _, name := range c.Names {
			ascii, err := toASCII(name)
			if err != nil || ascii == "" {
				return nil, fmt.Errorf("check_id: %q is not a name", name)
			}
			if other := owner[ascii]; other != "" {
				return nil, fmt.Errorf("check_id: %s is a name of both %s and %s", ascii, other, id)
			}
			owner[ascii] = id
			names = append(names, ascii)
		}
		slices.Sort(names)
		ids[id] = names
	}
	return ids, nil
}

// find returns the ID for exactly these names. It fails if an order has some of them
// only: paying for it once for each of its names would be paying twice.
func (ids checkIDs) find(names []string) (string, error) {
	wanted := slices.Sorted(slices.Values(names))
	for id, have := range ids {
		if slices.Equal(have, wanted) {
			return id, nil
		}
		for _, name := range wanted {
			if slices.Contains(have, name) {
				return "", fmt.Errorf("check_id %s is for %s, but the order to be placed is for %s; both must have the same names",
					id, strings.Join(have, ", "), strings.Join(names, ", "))
			}
		}
	}
	return "", nil
}

func toASCII(name string) (string, error) {
	return idna.ToASCII(strings.ToLower(strings.TrimSpace(name)))
}

// Prepare implements vendors.Preparer. It yields the check_id to pay for, one that was
// created at HowSSL for these names or else a new one.
func (o *Orders) Prepare(ctx context.Context, req vendors.OrderRequest) (vendors.Prepared, error) {
	id, err := o.checkIDs.find(req.Names)
	if err != nil {
		return vendors.Prepared{}, o.api.Refuse(createOrder, err)
	}
	draft := vendors.Prepared{ID: id, Foreign: id != ""}
	if draft.Foreign {
		err = o.unpaid(ctx, draft.ID)
	} else {
		draft.ID, err = o.create(ctx, req)
	}
	if err != nil {
		return vendors.Prepared{}, err
	}
	return draft, nil
}

// create has an unpaid order made and returns its check_id.
func (o *Orders) create(ctx context.Context, req vendors.OrderRequest) (checkID string, err error) {
	if err := o.creatable(req); err != nil {
		return "", o.api.Refuse(createOrder, err)
	}
	var created struct {
		CheckID string `json:"check_id"`
	}
	refusal, err := o.api.ask(ctx, createOrder, &created, o.fields.form(req)...)
	switch {
	case refusal != nil:
		refusal.Verdict = vendors.Permanent
		return "", refusal
	case err == nil && created.CheckID == "":
		err = o.api.notTold(createOrder, "check_id")
	}
	return created.CheckID, err
}

// creatable tells why createOrder cannot be called for a request.
func (o *Orders) creatable(req vendors.OrderRequest) error {
	switch {
	case o.fields["domains"] == "":
		return errNoDomainField
	case len(req.Names) > 1:
		return fmt.Errorf("how an order is given several names (%s) is not documented; "+
			"create it at HowSSL and give it as check_id", strings.Join(req.Names, ", "))
	case checkWays[req.Method] == "":
		return fmt.Errorf("the method %q is not known", req.Method)
	}
	return nil
}

// unpaid makes sure that a check_id from the config was not paid for already. What
// cannot be found out counts as paid.
func (o *Orders) unpaid(ctx context.Context, checkID string) error {
	info, refusal, err := o.lookUp(ctx, checkID)
	switch {
	case refusal != nil:
		refusal.Verdict = vendors.Permanent
		return refusal
	case err != nil:
		return err
	case info.Status != statusDraft:
		return o.api.Refuse(getOrderInfo, fmt.Errorf("check_id %s is not waiting for payment: its order %s is %s; "+
			"if that is a good order, use it with: order %[2]s %[4]s", checkID, info.ID, info.describe(),
			strings.Join(o.checkIDs[checkID], " ")))
	}
	return nil
}
