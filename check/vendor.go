package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Account is what orders are placed with.
type Account struct {
	Vendor vendors.Vendor
	About  vendors.Description
	Order  vendors.OrderConfig
}

// Fields judges contacts, organization, term and method, without asking the vendor.
func (a Account) Fields() Result {
	if !a.About.Supports(a.Order.Method) {
		return stop("use another method, see dcv", "%s does not support the method %q", a.About.Name, a.Order.Method)
	}
	c, can := a.Vendor.(vendors.ConfigChecker)
	if !can {
		return ok("%s requires no particular fields", a.About.Name)
	}
	if err := c.CheckConfig(a.Order); err != nil {
		return stop("correct the options of the issuer", "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return ok("contact, organization, term and method are what %s asks for", a.About.Name)
}

// Credentials asks the vendor whether it takes the credential, and whether it would take the
// order as far as that can be told for free.
func (a Account) Credentials(ctx context.Context, req vendors.OrderRequest) Result {
	asked := "the product list"
	var err error
	switch v := a.Vendor.(type) {
	case vendors.Validator:
		asked = "its check of an order for " + strings.Join(req.Names, ", ")
		err = v.Validate(ctx, req)
	case vendors.ProductLister:
		_, err = v.Products(ctx)
	default:
		return warning("", "%s has no call to check it without an order", a.About.Name)
	}
	if err != nil {
		return a.refused(ctx, asked, err)
	}
	return ok("%s accepts the credential (%s)", a.About.Name, asked)
}

// refused says what a failed call means.
func (a Account) refused(ctx context.Context, asked string, err error) Result {
	switch {
	case ctx.Err() != nil:
		return warning("run the check again, or give it more time with --timeout", "%s did not answer in time (%s)", a.About.Name, asked)
	case errors.Is(err, vendors.ErrCredential):
		return stop("look at the credential, its permissions and the addresses that it is allowed from, at "+a.About.Portal,
			"the credential or this machine's address is refused: %v", err)
	case errors.Is(err, vendors.ErrBalance):
		return stop("pay in, at "+a.About.Portal, "the balance is too low: %v", err)
	case vendors.VerdictOf(err) == vendors.Permanent:
		return stop("correct the options of the issuer", "%s refuses such an order: %v", a.About.Name, err)
	}
	return warning("run the check again; no order is placed while the vendor does not answer", "%s could not be asked: %v", a.About.Name, err)
}

// Product looks the product up in the vendor's list, for orders of these names. Vendors whose
// list costs a call for each product are left to Credentials, which asks for one.
func (a Account) Product(ctx context.Context, orders [][]string) []Result {
	lister, can := a.Vendor.(vendors.ProductLister)
	_, dear := a.Vendor.(vendors.Pricer)
	if !can || dear || a.Order.Product == "" {
		return []Result{ok("%s judges the product together with the credential", a.About.Name)}
	}
	products, err := lister.Products(ctx)
	if err != nil {
		return []Result{a.refused(ctx, "the product list", err)}
	}
	i := slices.IndexFunc(products, func(p vendors.Product) bool { return p.Code == a.Order.Product })
	if i < 0 {
		return []Result{stop(fmt.Sprintf("caddy commercial products --vendor %s lists those that there are", a.About.Name),
			"%s does not sell %q to this account", a.About.Name, a.Order.Product)}
	}
	results := []Result{ok("%s sells %s", a.About.Name, a.Order.Product)}
	p := products[i]
	if len(p.Prices) > 0 && p.Prices[a.Order.Term.Months()] == "" {
		results = append(results, warning("choose a term that has a price, see caddy commercial products", "%s has no price for %s of %s", a.About.Name, a.Order.Term, p.Code))
	}
	if (p.Validation == "ov" || p.Validation == "ev") && a.Order.Organization == nil {
		results = append(results, warning("give the block organization, unless the vendor has it already", "%s names an organization (%s), and the issuer has none", p.Code, p.Validation))
	}
	for _, names := range orders {
		if r := Fits(p, names); r.Verdict != OK {
			r.Name = strings.Join(names, ", ")
			results = append(results, r)
		}
	}
	return results
}

// Balance tells what the account has.
func (a Account) Balance(ctx context.Context) Result {
	f, can := a.Vendor.(vendors.Funder)
	if !can {
		return ok("%s does not report it through its API; see %s", a.About.Name, a.About.Portal)
	}
	has, err := f.Balance(ctx)
	if err != nil {
		r := a.refused(ctx, "the balance", err)
		if r.Verdict == Stop { // whoever may order need not be allowed to look
			r.Verdict, r.Advice = Warning, "see "+a.About.Portal
		}
		return r
	}
	return ok("%s has %s", a.About.Name, has)
}

// Clocks that differ by more than this are a warning, or stop orders: a clock that is days
// ahead takes paid terms for over.
const (
	slightSkew = time.Minute
	wrongSkew  = 12 * time.Hour
)

// Clock compares this machine's clock with the vendor's.
func (a Account) Clock(ctx context.Context) Result {
	c, can := a.Vendor.(vendors.Clock)
	if !can {
		return ok("%s does not report the time", a.About.Name)
	}
	theirs, err := c.Time(ctx)
	if err != nil {
		return warning("run the check again", "the clock could not be compared with that of %s: %v", a.About.Name, err)
	}
	return skewed(time.Since(theirs), a.About.Name)
}

func skewed(ahead time.Duration, vendor string) Result {
	const advice = "set the clock, best by NTP"
	word := "ahead of"
	if ahead < 0 {
		word = "behind"
	}
	message := fmt.Sprintf("this machine's clock is %s %s that of %s", ahead.Abs().Round(time.Second), word, vendor)
	switch {
	case ahead.Abs() > wrongSkew:
		return stop(advice, "%s, so terms and certificates seem to have ended, or not to have begun", message)
	case ahead.Abs() > slightSkew:
		return warning(advice, "%s", message)
	}
	return ok("it agrees with that of %s", vendor)
}

// Term compares the paid term with how long a certificate may last.
func Term(t vendors.Term, now time.Time) Result {
	ends := now.AddDate(t.Years, 0, t.Days)
	n := 0
	for at := now; at.Before(ends); n++ {
		at = at.AddDate(0, 0, longest(at))
	}
	message := fmt.Sprintf("an order is for %s; a certificate lasts at most %d days today", t, longest(now))
	if soon := longest(ends); soon < longest(now) {
		message += fmt.Sprintf(", %d at the end of the term", soon)
	}
	if n <= 1 {
		return ok("%s", message)
	}
	if t.Years > 1 {
		return warning("see what the vendor promises for later years", "%s, so it takes at least %d, by reissues, each of which is validated anew", message, n)
	}
	return ok("%s, so it takes at least %d, by free reissues, before which the names are validated again", message, n)
}

func longest(at time.Time) int { return vendors.LifetimeAt(vendors.Lifetimes, at).Max }
