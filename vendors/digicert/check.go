package digicert

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// maxYears is the longest term that is still sold (documented, "End of 4-6 year
// Multi-year Plans"); accounts may have lower limits of their own. maxDays is the
// same in days.
const (
	maxYears = 3
	maxDays  = maxYears*365 + 1
)

// CheckConfig implements vendors.ConfigChecker. It names everything that is wrong
// at once, in the words of the Caddyfile. Contacts are optional here.
func (o *Orders) CheckConfig(cfg vendors.OrderConfig) error {
	var problems []error
	switch {
	case cfg.Product == "":
		problems = append(problems, errors.New("product: missing, for example ssl_dv_rapidssl"))
	case strings.Trim(cfg.Product, productLetters) != "":
		problems = append(problems, fmt.Errorf("product: %q is no product ID such as ssl_dv_rapidssl", cfg.Product))
	case !isDV(cfg.Product) && o.organization == 0:
		problems = append(problems, fmt.Errorf("organization_id: missing; %s is not domain-validated and needs the ID of a validated organization, in the block of the vendor", cfg.Product))
	}
	problems = append(problems, checkTerm(cfg.Term))
	if cfg.Method != "" && !o.about.Supports(cfg.Method) {
		problems = append(problems, fmt.Errorf("dcv: %s does not know the method %q", o.about.Name, cfg.Method))
	}
	if cfg.Organization != nil {
		problems = append(problems, fmt.Errorf("organization: %s takes organizations that it has validated before; give organization_id in the block of the vendor instead", o.about.Name))
	}
	return errors.Join(problems...)
}

const productLetters = "abcdefghijklmnopqrstuvwxyz0123456789_"

func checkTerm(t vendors.Term) error {
	switch {
	case t.Years != 0 && t.Days != 0:
		return fmt.Errorf("term: must be years or days, got %dy %dd", t.Years, t.Days)
	case t.Days == 0 && (t.Years < 1 || t.Years > maxYears):
		return fmt.Errorf("term: must be 1y to %dy, got %dy", maxYears, t.Years)
	case t.Days < 0 || t.Days > maxDays:
		return fmt.Errorf("term: must be 1d to %dd, got %dd", maxDays, t.Days)
	}
	return nil
}

// isDV reports whether a product is domain-validated, which its ID says: all that
// are documented have "dv" as a part of their own.
func isDV(product string) bool { return slices.Contains(strings.Split(product, "_"), "dv") }

// Validate implements vendors.Validator. The API has no dry run of an order, so
// this looks at what an order would fail for: the key, the product, the
// organization, and the funds. What the key may not see is left to the order.
func (o *Orders) Validate(ctx context.Context, req vendors.OrderRequest) error {
	if _, err := o.client.Product(ctx, req.Product); err != nil && !o.hidden(err) {
		return err
	}
	if o.organization > 0 && !isDV(req.Product) {
		org, err := o.client.Organization(ctx, o.organization)
		switch {
		case err != nil && !o.hidden(err):
			return err
		case err == nil && strings.EqualFold(org.Status.Word(), "inactive"):
			return o.client.fail("organization", vendors.Permanent, fmt.Sprintf("organization %d is not active", o.organization))
		}
	}
	if o.payment != payByBalance {
		return nil
	}
	return o.checkFunds(ctx, req)
}

// hidden reports whether a key may order although it may not ask: its role lacks a
// permission (documented), which a wrong key is told otherwise.
func (o *Orders) hidden(err error) bool {
	if !hasCode(err, "access_denied|missing_permission") {
		return false
	}
	o.logger.Warn("the API key may not look at what an order needs; ordering without", zap.Error(err))
	return true
}

// checkFunds compares the account's funds with the estimated price. Where either is
// unknown or in another currency there is nothing to compare.
func (o *Orders) checkFunds(ctx context.Context, req vendors.OrderRequest) error {
	has, err := o.client.Balance(ctx, o.container)
	if err == nil {
		var costs price
		costs, err = o.client.Price(ctx, req.Product, req.Names, termOf(req.Term))
		if err == nil && less(has.Available, costs.Total) && has.Currency == costs.Currency {
			return &vendors.Error{
				Vendor: o.about.Name, Endpoint: "balance", Verdict: vendors.Permanent,
				Message: o.client.http.Scrub(short(fmt.Sprintf("%s %s available, %s %s needed",
					has.Available.Word(), has.Currency.Word(), costs.Total.Word(), costs.Currency.Word()))),
				Err: vendors.ErrBalance,
			}
		}
	}
	if err != nil {
		// An order without money is refused or waits for it; either way this is
		// only a kindness.
		o.logger.Warn("comparing the account's funds with the price failed; ordering without", zap.Error(err))
	}
	return nil
}

// less reports whether an amount is known to be smaller than another.
func less(a, b text) bool {
	x, errX := strconv.ParseFloat(a.Word(), 64)
	y, errY := strconv.ParseFloat(b.Word(), 64)
	return errX == nil && errY == nil && x < y
}

// Products implements vendors.ProductLister: the TLS products of the account, with
// the estimated price of one name for a year.
func (o *Orders) Products(ctx context.Context) ([]vendors.Product, error) {
	list, err := o.client.Products(ctx)
	if err != nil {
		return nil, err
	}
	var products []vendors.Product
	for _, p := range list {
		kind := p.Type.Word()
		if kind != "dv_ssl_certificate" && kind != "ssl_certificate" {
			continue
		}
		product := vendors.Product{
			Code:       p.NameID.Word(),
			Name:       p.Name.Word(),
			Validation: strings.ToLower(p.ValidationType.Word()),
			Wildcard:   strings.Contains(p.NameID.Word(), "wildcard") || strings.Contains(p.NameID.Word(), "flex"),
			Prices:     make(map[int]string),
		}
		costs, err := o.client.Price(ctx, product.Code, []string{"example.com"}, validity{Years: 1})
		if ctx.Err() != nil {
			return nil, err
		}
		if err == nil && less("0", costs.Total) {
			product.Prices[12] = strings.TrimSpace(costs.Total.Word() + " " + costs.Currency.Word())
		}
		products = append(products, product)
	}
	return products, nil
}
