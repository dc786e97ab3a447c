package howssl

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.uber.org/zap"
	"golang.org/x/net/idna"

	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
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
		switch {
		case slices.Equal(have, wanted):
			return id, nil
		case slices.ContainsFunc(have, func(name string) bool { return slices.Contains(wanted, name) }):
			return "", fmt.Errorf("check_id %s is for %s, but the order to be placed is for %s; both must have the same names",
				id, strings.Join(have, ", "), strings.Join(names, ", "))
		}
	}
	return "", nil
}

func toASCII(name string) (string, error) {
	return idna.ToASCII(strings.ToLower(strings.TrimSpace(name)))
}

// Prepare implements vendors.Preparer. It examines the draft to pay for and yields its
// check_id: one that was created at HowSSL for these names, or else a new one.
func (o *Orders) Prepare(ctx context.Context, req vendors.OrderRequest) (vendors.Prepared, error) {
	id, err := o.checkIDs.find(req.Names)
	if err != nil {
		return vendors.Prepared{}, o.Refuse(createOrder, err)
	}
	draft := vendors.Prepared{ID: id, Foreign: id != ""}
	if !draft.Foreign {
		if draft.ID, err = o.create(ctx, req); err != nil {
			return vendors.Prepared{}, err
		}
	}
	if err := o.examine(ctx, draft, req); err != nil {
		return vendors.Prepared{}, err
	}
	return draft, nil
}

// create has an unpaid order made and returns its check_id.
func (o *Orders) create(ctx context.Context, req vendors.OrderRequest) (checkID string, err error) {
	if err := o.creatable(req); err != nil {
		return "", o.Refuse(createOrder, err)
	}
	var created placed
	refusal, err := o.ask(ctx, createOrder, &created, o.fields.form(req)...)
	switch {
	case refusal != nil:
		refusal.Verdict = vendors.Permanent
		return "", refusal
	case err == nil && created.CheckID == "":
		err = o.notTold(createOrder, "check_id")
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
	case methodWords[req.Method].order == "":
		return fmt.Errorf("the method %q is not known", req.Method)
	}
	if why := o.bought.Load(); why != nil {
		return *why
	}
	return nil
}

// examine looks at a draft before it is paid for: it must wait for payment, and be for what
// is to be bought. If HowSSL tells nothing of a draft, one from the config counts as paid for
// already, and one that was just created counts as good.
func (o *Orders) examine(ctx context.Context, draft vendors.Prepared, req vendors.OrderRequest) error {
	info, refusal, err := o.lookUp(ctx, draft.ID)
	switch {
	case !draft.Foreign && (refusal != nil || errors.Is(err, errNotTold) || kit.IsMissing(err)):
		// Assumed: there are drafts that HowSSL tells nothing of. And one of the books does
		// not have the call that tells the order of a check_id.
		return nil //nolint:nilerr // as above
	case refusal != nil:
		refusal.Verdict = vendors.Permanent
		return refusal
	case err != nil:
		return err
	case info.Status != statusDraft:
		err := fmt.Errorf("check_id %s is not waiting for payment: its order %s is %s; if that is a good order, use it with: order %[2]s %[4]s",
			draft.ID, info.ID, info.describe(), strings.Join(req.Names, " "))
		if draft.Foreign || !info.known() {
			return o.Refuse(getOrderInfo, err)
		}
		// Documented: createOrder does not buy. If it does all the same, it is not called
		// again, and the order is used: otherwise nothing would remember after a restart
		// that it was bought.
		err = fmt.Errorf("createOrder is not called again, as it seems to buy: %w", err)
		o.bought.Store(&err)
		if info.order().Status.Ended() {
			return o.Refuse(getOrderInfo, err)
		}
		o.Logger.Error("createOrder has bought an order; going on with it", zap.String("order_id", info.ID), zap.Error(err))
		o.early.Store(draft.ID, info)
	}
	if got, want := info.differs(draft.Foreign, req); got != want {
		err = fmt.Errorf("not sent: the draft of check_id %s is for %s, but the order is for %s", draft.ID, o.Text(got), want)
		return o.Refuse(commitOrder, err)
	}
	return nil
}

// differs tells what a draft is for and what was wanted instead, if they differ. The documents
// show where its names are, but show neither product nor term anywhere. Orders that were created
// at HowSSL have a product of their own, so it is not compared with the one in the config.
func (i orderInfo) differs(foreign bool, req vendors.OrderRequest) (got, want string) {
	names, term := i.names(), strconv.Itoa(req.Term.Months())
	switch {
	case len(names) > 0 && !sameNames(names, req.Names):
		return strings.Join(names, ", "), strings.Join(req.Names, ", ")
	case !foreign && i.Product != "" && i.Product != req.Product:
		return fmt.Sprintf("the product %q", i.Product), req.Product
	case slices.Contains([]string{"12", "24", "36", "48", "60"}, i.Months) && i.Months != term:
		return i.Months + " months", term
	}
	return "", ""
}

// toldName is the display text of a name and its validation. Documented, pages 2252022 and
// English 2296849: the word for domain name in Chinese or English, a colon, the name, and a
// line break in HTML before the method.
var toldName = regexp.MustCompile(`^(?:[^:：<]*[:：])?\s*((?:\*\.)?[\pL\pN_-]+(?:\.[\pL\pN_-]+)+)\s*(?:<|$)`)

// names are the names that the display texts tell.
func (i orderInfo) names() []string {
	var names []string
	for _, v := range i.Validity {
		if found := toldName.FindStringSubmatch(v.Text); found != nil {
			if name, err := toASCII(found[1]); err == nil {
				names = append(names, name)
			}
		}
	}
	return names
}

// sameNames reports whether the names that a draft tells are those of an order. A wildcard
// may be told as the name that it is validated by. A single name may be told as its twin,
// with or without www, which such an order covers, too (see Description.CoversTwin).
func sameNames(told, names []string) bool {
	same := func(told, name string) bool {
		return told == name || told == strings.TrimPrefix(name, "*.") ||
			len(names) == 1 && strings.TrimPrefix(told, "www.") == strings.TrimPrefix(name, "www.")
	}
	for _, t := range told {
		if !slices.ContainsFunc(names, func(n string) bool { return same(t, n) }) {
			return false
		}
	}
	for _, n := range names {
		if !slices.ContainsFunc(told, func(t string) bool { return same(t, n) }) {
			return false
		}
	}
	return true
}
