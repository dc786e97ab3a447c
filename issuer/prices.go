package issuer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// The vendor is asked once a day what the next order would cost, by one of the servers, so that
// nobody learns of another price from the bill. No vendor's answer to an order has the price.

// priceEvery is how often the vendor is asked.
const priceEvery = 24 * time.Hour

// watchPrice warns if the price of what this configuration orders has changed since the last
// order.
func (f *flow) watchPrice(ctx context.Context) {
	err := f.askPrice(ctx)
	if err != nil && ctx.Err() == nil {
		f.logger.Info("the vendor did not say what the next order would cost; asking again tomorrow",
			zap.String("vendor", f.about.Name), zap.String("product", f.order.Product), zap.Error(err))
	}
}

func (f *flow) askPrice(ctx context.Context) error {
	orders := f.account.ledger.Orders()
	if len(orders) == 0 {
		return nil
	}
	of := fmt.Sprintf("%s, %s", f.order.Product, f.order.Term)
	prices, err := f.ledger.Prices(ctx)
	if err != nil {
		return err
	}
	now := f.ledger.Time()
	if since := now.Sub(prices[of].Asked); -ledger.ClockSkew < since && since < priceEvery {
		return nil // another server has asked
	}
	if err := f.ledger.SetPrice(ctx, of, func(p *ledger.Price) { p.Asked = now }); err != nil {
		return err
	}
	// The price for one name is what all vendors that tell prices have in common, and can be compared.
	text, err := vendors.Price(ctx, f.vendor, f.order.Product, []string{"example.com"}, f.order.Term)
	if text == "" || text == prices[of].Text || err != nil {
		return err
	}
	var last ledger.Price // another server may have asked at the same time
	err = f.ledger.SetPrice(ctx, of, func(p *ledger.Price) {
		if last = *p; p.Text != text {
			*p = ledger.Price{Text: text, Since: now, Asked: now}
		}
	})
	if err != nil || last.Text == "" || last.Text == text {
		return err
	}
	latest, err := f.latestOf(ctx, orders)
	if latest == nil || err != nil {
		return err
	}
	f.logger.Warn("the vendor's price has changed since the last order",
		zap.String("vendor", f.about.Name), zap.String("product", f.order.Product), zap.Stringer("term", f.order.Term),
		zap.String("before", last.Text), zap.String("price", text), zap.String("order_id", latest.OrderID))
	f.tell(eventPriceChanged, latest, map[string]any{
		"product": f.order.Product, "term": f.order.Term.String(), "before": last.Text, "price": text, "since": timeText(last.Since),
	})
	return nil
}

// priceOrders is how many of the latest orders are read to find the one with which a change of
// the price is reported.
const priceOrders = 1000

// latestOf returns the latest of these orders for the product and term that this configuration
// orders, or nil.
func (f *flow) latestOf(ctx context.Context, orders []string) (*ledger.Entry, error) {
	for _, id := range orders[:min(len(orders), priceOrders)] {
		e, err := f.ledger.Load(ctx, id)
		switch {
		case errors.Is(err, fs.ErrNotExist): // moved or deleted meanwhile
		case err != nil:
			return nil, err
		case e.OrderID != "" && e.State != ledger.Gone && e.Product == f.order.Product && e.Term == f.order.Term:
			return e, nil
		}
	}
	return nil, nil
}
