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
	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
)

// maxYears is the longest term that is still sold (documented, "End of 4-6 year Multi-year
// Plans"); accounts may have lower limits of their own. maxDays is the same in days.
const (
	maxYears = 3
	maxDays  = maxYears*365 + 1
)

// CheckConfig implements vendors.ConfigChecker. It names everything that is wrong
// at once, in the words of the Caddyfile. Contacts are optional here.
func (o *Orders) CheckConfig(cfg vendors.OrderConfig) error {
	problems := []error{o.CheckOrder(cfg, "ssl_dv_rapidssl"), checkTerm(cfg.Term), kit.NoPapers(cfg)}
	switch {
	case strings.Trim(cfg.Product, "abcdefghijklmnopqrstuvwxyz0123456789_") != "":
		problems = append(problems, fmt.Errorf("product: %q is not a product ID such as ssl_dv_rapidssl", cfg.Product))
	case cfg.Product != "" && !isDV(cfg.Product) && o.options.OrganizationID == 0:
		problems = append(problems, fmt.Errorf("organization_id: missing; %s is not domain-validated and needs the ID of a validated organization, in the block of the vendor", cfg.Product))
	}
	if cfg.Organization != nil {
		problems = append(problems, fmt.Errorf("organization: %s takes organizations that it has validated before; give organization_id in the block of the vendor instead", o.Describe().Name))
	}
	return errors.Join(problems...)
}

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
// this looks at what an order would fail for: the key, the product, and the
// organization. Whatever the key may not see is left to the order, and so are the
// funds: if they seem too low, that is only logged.
func (o *Orders) Validate(ctx context.Context, req vendors.OrderRequest) error {
	if _, err := do[productData](ctx, o, callProduct, nil, req.Product); err != nil && !o.hidden(err) {
		return err
	}
	if id := o.options.OrganizationID; id > 0 && !isDV(req.Product) {
		org, err := do[struct{ Status string }](ctx, o, callOrganization, nil, id)
		switch {
		case err != nil && !o.hidden(err):
			return err
		case strings.EqualFold(org.Status, "inactive"):
			return o.Refuse(callOrganization, fmt.Errorf("organization %d is not active", id))
		}
	}
	if o.options.PaymentMethod == payByBalance {
		o.compareFunds(ctx, req)
	}
	return nil
}

// hidden reports whether an error only says that the key's role may not look at
// something (documented; a wrong key gets another error). It may be able to order
// all the same.
func (o *Orders) hidden(err error) bool {
	if !hasCode(err, "access_denied|missing_permission") {
		return false
	}
	o.Logger.Warn("the API key may not look at what an order needs; ordering without", zap.Error(err))
	return true
}

// compareFunds warns where the account's funds seem to be less than the price. It refuses
// nothing: the two numbers disagree for accounts that may order all the same (docs/digicert.md).
func (o *Orders) compareFunds(ctx context.Context, req vendors.OrderRequest) {
	has, err := o.funds(ctx)
	var costs money
	if err == nil {
		costs, err = o.price(ctx, req.Product, req.Names, req.Term)
	}
	switch {
	case err != nil:
		o.Logger.Warn("comparing the account's funds with the price failed; ordering without", zap.Error(err))
	case has.Currency == costs.Currency && less(has.Available, costs.Total):
		o.Logger.Warn("the account's funds seem to be too low for the order; ordering all the same, as accounts with a contract may",
			zap.Strings("identifiers", req.Names), zap.String("available", o.Text(has.Available+" "+has.Currency)),
			zap.String("estimated_price", o.Text(costs.Total+" "+costs.Currency)))
	}
}

// funds are those of the division that pays.
func (o *Orders) funds(ctx context.Context) (money, error) {
	if id := o.options.ContainerID; id > 0 {
		return do[money](ctx, o, callDivisionBalance, nil, id)
	}
	return do[money](ctx, o, callBalance, nil)
}

// Balance implements vendors.Funder.
func (o *Orders) Balance(ctx context.Context) (string, error) {
	has, err := o.funds(ctx)
	if err != nil {
		return "", err
	}
	if has.Available == "" {
		return "credit without a limit", nil
	}
	return o.Text(strings.TrimSpace(has.Available + " " + has.Currency)), nil
}

// price is an estimate. A total of "0" or "" means that there is none.
func (o *Orders) price(ctx context.Context, product string, names []string, term vendors.Term) (money, error) {
	return do[money](ctx, o, callPrice, map[string]any{
		"certificate": map[string]any{"dns_names": names}, "order_validity": validity(term), "product_name_id": product,
	})
}

// less reports whether an amount is known to be smaller than another.
func less(a, b string) bool {
	x, errX := strconv.ParseFloat(a, 64)
	y, errY := strconv.ParseFloat(b, 64)
	return errX == nil && errY == nil && x < y
}

// Products implements vendors.ProductLister: the TLS products of the account, with
// the estimated price of one name for a year.
func (o *Orders) Products(ctx context.Context) ([]vendors.Product, error) {
	list, err := do[struct{ Products []productData }](ctx, o, callProducts, nil)
	if err != nil {
		return nil, err
	}
	var products []vendors.Product
	for _, p := range list.Products {
		if p.Type != "dv_ssl_certificate" && p.Type != "ssl_certificate" {
			continue
		}
		product := vendors.Product{
			Code:       p.NameID,
			Name:       p.Name,
			Validation: strings.ToLower(p.ValidationType),
			Wildcard:   strings.Contains(p.NameID, "wildcard") || strings.Contains(p.NameID, "flex"),
			Prices:     make(map[int]string),
		}
		costs, err := o.Price(ctx, product.Code, []string{"example.com"}, vendors.Term{Years: 1})
		if ctx.Err() != nil {
			return nil, err
		}
		if err == nil && costs != "" {
			product.Prices[12] = costs
		}
		products = append(products, product)
	}
	return products, nil
}

// Price implements vendors.Pricer.
func (o *Orders) Price(ctx context.Context, product string, names []string, term vendors.Term) (string, error) {
	costs, err := o.price(ctx, product, names, term)
	if err != nil || !less("0", costs.Total) {
		return "", err
	}
	return o.Text(strings.TrimSpace(costs.Total + " " + costs.Currency)), nil
}
