package sandboxca

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	fetchTimeout = 10 * time.Second
	maxFileBytes = 64 << 10

	// lookPatience is how long a call waits for the check it has started.
	lookPatience = 2 * time.Second

	// ValidationPath is fixed by the CA/Browser Forum for file validation.
	ValidationPath = "/.well-known/pki-validation/"
)

// Fetch is one attempt of one perspective to see the proof of one name.
type Fetch struct {
	Time        time.Time `json:"time"`
	OrderID     string    `json:"order_id"`
	Host        string    `json:"host"`             // the name being proven
	URL         string    `json:"url"`              // or the DNS name looked up
	Perspective int       `json:"perspective"`      // from 1
	Status      int       `json:"status,omitempty"` // HTTP status, 0 if there was none
	Result      string    `json:"result"`           // ResultOK or what went wrong
}

// ResultOK is the Result of a fetch that found the right proof.
const ResultOK = "ok"

// Look starts a check of the names of an order and waits for its end, but not for slow
// hosts: no seller makes its customers' calls wait for them. Without force, nothing
// happens if the last check was recent.
func (c *CA) Look(id string, force bool) {
	if !c.begin() {
		return
	}
	done := make(chan struct{})
	go func() {
		defer c.wg.Done()
		defer close(done)
		c.look(id, force)
	}()
	timer := time.NewTimer(lookPatience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// begin counts something in flight, unless the CA is closed.
func (c *CA) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.wg.Add(1)
	return true
}

// look checks the unproven names of a pending order, all at once. Without force it does
// so only if the last check is long enough ago.
func (c *CA) look(id string, force bool) {
	l := c.beginLook(id, force)
	if l == nil {
		return
	}
	proven := make([]bool, len(l.asked))
	var wg sync.WaitGroup
	for i := range l.asked {
		wg.Go(func() { proven[i] = c.check(l, l.asked[i]) })
	}
	wg.Wait()
	c.endLook(l, proven)
}

// look is a round of checks of one order.
type look struct {
	cfg   Config
	order *Order  // for endLook; everything else is a copy
	live  []*Name // the names to be marked
	asked []Name
	proof Proof
	caa   caaQuestion // except name and method
}

// beginLook marks an order as being checked. It returns nil if there is nothing to check.
func (c *CA) beginLook(id string, force bool) *look {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.st.byID[id]
	now := c.cfg.Now()
	c.cfg.keepCalendar(now)
	l := &look{cfg: c.cfg, order: o}
	if o == nil || c.closed || !o.checkable(&l.cfg, now) {
		return nil
	}
	interval := l.cfg.CheckInterval
	if interval <= 0 {
		interval = minLookInterval
	}
	if !force && now.Before(o.lastLook.Add(interval)) {
		return nil
	}
	names := slices.Clone(o.Names)
	if o.Twin != nil {
		names = append(names, o.Twin)
	}
	for _, n := range names {
		// A mail is answered by a person, see Approve.
		if (!n.Verified || l.cfg.Hooks.Recheck) && n.Method != MethodEmail {
			l.live = append(l.live, n)
			l.asked = append(l.asked, *n)
		}
	}
	l.proof = o.Proof
	l.caa = caaQuestion{identities: c.identities[o.Dialect], account: AccountURI(o.Account)}
	o.looking, o.lastLook = true, now
	return l
}

// endLook marks the names that were proven.
func (c *CA) endLook(l *look, proven []bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := l.order
	o.looking = false
	if !o.Pending() || c.ctx.Err() != nil {
		return
	}
	changed := false
	for i, n := range l.live {
		if n.Method == l.asked[i].Method && n.Verified != proven[i] { // else it was changed meanwhile
			n.Verified, n.Validated, changed = proven[i], c.cfg.Now(), true
		}
	}
	o.settle(c.cfg.Now())
	if c.advance(o); changed && o.Pending() {
		c.keep(o)
	}
}

// check checks one name from all perspectives.
func (c *CA) check(l *look, n Name) bool {
	cfg, orderID := &l.cfg, l.order.ID
	results := make([]Fetch, cfg.Perspectives)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(c.ctx, fetchTimeout)
			defer cancel()
			f := Fetch{Time: cfg.Now(), OrderID: orderID, Host: n.Name, Perspective: i + 1, Result: ResultOK}
			if err := c.fetch(ctx, l, n.Method, &f); err != nil {
				f.Result = err.Error()
			}
			results[i] = f
		})
	}
	wg.Wait()

	agreeing := 0
	for _, f := range results {
		if f.Result == ResultOK {
			agreeing++
		}
		c.logger.Debug("validation fetch", zap.String("order_id", orderID), zap.String("url", f.URL),
			zap.Int("perspective", f.Perspective), zap.Int("status", f.Status), zap.String("result", f.Result))
	}
	c.mu.Lock()
	c.fetches = append(c.fetches, results...)
	if extra := len(c.fetches) - maxFetches; extra > 0 {
		c.fetches = slices.Delete(c.fetches, 0, extra)
	}
	c.mu.Unlock()
	return agreeing >= cfg.Quorum
}

// fetch checks the proof and the CAA records from one perspective.
func (c *CA) fetch(ctx context.Context, l *look, m Method, f *Fetch) error {
	cfg, question := &l.cfg, l.caa
	if cfg.Hooks.Fetch != nil {
		if err := cfg.Hooks.Fetch(f.Perspective, f.Host); err != nil {
			return err
		}
	}
	var err error
	switch m {
	case MethodCNAME:
		err = lookupCNAME(ctx, cfg, l.proof, f)
	case MethodTXT:
		err = lookupTXT(ctx, cfg, l.proof, f)
	default:
		err = c.fetchFile(ctx, cfg, m, l.proof, f)
	}
	if err != nil {
		return err
	}
	question.name, question.method, question.bare = f.Host, m, cfg.IgnoreCAAParameters
	return checkCAA(ctx, cfg, question)
}

// pendingIDs lists the pending orders, oldest first.
func (c *CA) pendingIDs() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advanceAll()
	list := c.st.pending()
	ids := make([]string, len(list))
	for i, o := range list {
		ids[i] = o.ID
	}
	return ids
}
