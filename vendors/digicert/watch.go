package digicert

import (
	"context"
	"fmt"
	"maps"
	"math"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// watch remembers pending orders as they were at the last look, so that one call tells for
// all of them whether that has changed: status-changes lists the orders whose status changed,
// each with its present one (documented). It tells nothing else, so whatever else there is to
// see, such as which names are validated so far, is as old as the last look. No page tells
// how soon a change is listed, nor that a key sees all its orders there. So each order is
// still looked at from time to time.
type watch struct {
	turn   chan struct{}     // of whoever uses the list: one call at a time
	listed map[string]string // the latest list: status by ID of the order; nil if it was of no use
	began  time.Time         // when it was asked for
	until  time.Time         // when the next one may be

	mu     sync.Mutex
	orders map[string]*pendingOrder // by ID
}

type pendingOrder struct {
	order vendors.Order
	first time.Time // when it was seen pending first
	at    time.Time // when the last look at it began
	until time.Time // up to when lists have told that nothing changed
	stale bool      // something was done to it since
}

const (
	// fewOrders are looked at one by one: that costs little more, and takes nothing on trust.
	fewOrders = 4

	// changedLate is how late a change may be listed (assumed).
	changedLate = 15 * time.Minute

	// A list is used for listKept. It covers maxLook, which is how old the previous list or
	// look may be, and what is listed late.
	listKept    = 10 * time.Second
	listMinutes = int((maxLook + changedLate) / time.Minute)

	// listMost is where other lists end (documented), so this one may be cut there, too.
	// After a list that is of no use, the next one is asked for after listPause.
	listMost  = 1000
	listPause = 5 * time.Minute

	// An order that has been pending for an hour is looked at after half an hour, and so
	// on, within these bounds.
	minLook = time.Minute
	maxLook = time.Hour

	// Many orders are looked at in turn, one every lookEvery, however many they are: a look
	// takes three calls, and calls that only read may be five per second.
	lookEvery = 2 * time.Second
)

// known reports whether the last look is recent enough, given how many orders are pending,
// provided that nothing has changed since.
func (p *pendingOrder) known(orders int) bool {
	return p != nil && !p.stale && time.Since(p.until) <= maxLook &&
		time.Since(p.at) <= max(min(max(time.Since(p.first)/2, minLook), maxLook), time.Duration(orders)*lookEvery)
}

// unchanged returns a pending order as it was at the last look, if nothing has changed since.
func (o *Orders) unchanged(ctx context.Context, id string) (vendors.Order, bool) {
	w := &o.watch
	w.mu.Lock()
	p := w.orders[id]
	worthwhile := len(w.orders) > fewOrders && p.known(len(w.orders))
	w.mu.Unlock()
	if !worthwhile {
		return vendors.Order{}, false
	}
	list, began := o.changes(ctx)
	status, listed := list[id]
	if list == nil || listed && status != p.order.RawStatus {
		return vendors.Order{}, false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if began.After(p.until) {
		p.until = began
	}
	return p.order, true
}

// changes returns the list and when it was asked for. It asks for a new one if the latest has
// served its time. The list is nil if it is of no use.
func (o *Orders) changes(ctx context.Context) (list map[string]string, began time.Time) {
	w := &o.watch
	select {
	case w.turn <- struct{}{}:
		defer func() { <-w.turn }()
	case <-ctx.Done():
		return nil, time.Time{}
	}
	if time.Now().Before(w.until) {
		return w.listed, w.began
	}
	w.began = time.Now()
	w.listed, w.until = nil, w.began.Add(listPause)
	rows, err := do[orderList](ctx, o, callChanges, nil, listMinutes)
	if err != nil || len(rows) >= listMost {
		o.Logger.Debug("the list of changed orders cannot be used", zap.Int("orders", len(rows)), zap.Error(err))
		return nil, w.began
	}
	w.listed, w.until = make(map[string]string, len(rows)), w.began.Add(listKept)
	for _, row := range rows {
		w.listed[row.id()] = row.word()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.orders, func(_ string, p *pendingOrder) bool { return time.Since(p.until) > 2*maxLook })
	return w.listed, w.began
}

// saw notes what was found by a look at an order that began at the given time.
func (w *watch) saw(began time.Time, order vendors.Order) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if statuses[order.RawStatus] != vendors.StatusPending {
		delete(w.orders, order.ID)
		return
	}
	p := &pendingOrder{order: order, first: began, at: began, until: began}
	if before := w.orders[order.ID]; before != nil {
		p.first = before.first
	}
	w.orders[order.ID] = p
}

// forget has an order looked at when it is asked for the next time.
func (w *watch) forget(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.orders[id]; p != nil {
		p.stale = true
	}
}

// Status implements vendors.Vendor.
func (o *Orders) Status(ctx context.Context, orderID string) (vendors.Order, error) {
	if order, ok := o.unchanged(ctx, orderID); ok {
		return order, nil
	}
	began := time.Now()
	order, err := o.look(ctx, orderID)
	if err == nil {
		o.watch.saw(began, order)
	}
	return order, err
}

// longestList is how far back a list may reach (documented).
const longestList = 10_080 * time.Minute

// Changed implements vendors.ChangeLister. Whether an order is listed that lives on after its
// certificate was revoked is not documented.
func (o *Orders) Changed(ctx context.Context, since time.Time) ([]string, error) {
	back := time.Since(since) + changedLate
	if back > longestList {
		return nil, o.Refuse(callChanges, fmt.Errorf("%w: the list reaches back %s, not %s", vendors.ErrUndecidable, longestList, back.Round(time.Minute)))
	}
	rows, err := do[orderList](ctx, o, callChanges, nil, max(1, int(math.Ceil(back.Minutes()))))
	if err != nil {
		return nil, err
	}
	if len(rows) >= listMost {
		return nil, o.Refuse(callChanges, fmt.Errorf("%w: there are %d or more", vendors.ErrUndecidable, listMost))
	}
	ids := make([]string, 0, len(rows))
	for _, row := range rows {
		ids = append(ids, row.id())
	}
	return ids, nil
}

// Interface guards
var (
	_ vendors.Watcher      = (*Orders)(nil)
	_ vendors.ChangeLister = (*Orders)(nil)
)
