package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/ledger"
)

// patience is how long a test waits for what only the vendor or a person can bring about. It is
// shorter than the time after which a request is flagged.
const patience = 3 * 24 * time.Hour

// drive does what Caddy does for a name until a certificate is served that the process did not serve
// before, or until patience is over. certmagic asks once; the rest is up to the process. When that
// dies, next makes one that continues: it first loads what is stored, and asks for what is missing
// or due. The error is the one that a call gets in the end.
func (w *world) drive(p *process, name string, next func() *process) (chain, *process, error) {
	w.tb.Helper()
	before := p.site.serving(name)
	served := func() chain {
		if now := p.site.serving(name); now != nil && (before == nil || !now.leaf().Equal(before.leaf())) {
			return now
		}
		return nil
	}
	_, err := p.attempt(context.Background(), name)
	for start := time.Now(); ; time.Sleep(30 * time.Second) {
		if p.fuse.burnt() {
			p.stop()
			p = next()
			err = p.bootOne(name)
			continue
		}
		if got := served(); got != nil {
			return got, p, nil
		}
		if time.Since(start) > patience {
			break
		}
	}
	if err == nil {
		w.tb.Errorf("%s: a call got a certificate that is not served", name)
		return nil, p, errors.New("not served")
	}
	// A call now gets the reason why there is no certificate.
	if _, now := p.attempt(context.Background(), name); now != nil {
		err = now
	}
	return nil, p, err
}

// bootOne does for a name what Caddy does when it starts: it serves what is stored, and asks
// for a certificate if there is none, or if it is due.
func (p *process) bootOne(name string) error {
	p.site.manage(name)
	err := p.site.Reload(context.Background(), name)
	if got := p.site.serving(name); err == nil && !p.site.Due(got.leaf()) {
		return nil
	}
	_, err = p.attempt(context.Background(), name)
	return err
}

// rest lets time pass. The process runs only for a moment at the beginning, because checking its
// names thousands of times would only take long.
func (p *process) rest(d time.Duration) {
	const moment = 5 * time.Minute
	if d <= moment {
		time.Sleep(d)
		return
	}
	time.Sleep(moment)
	p.stop()
	time.Sleep(d - moment)
	p.attach()
}

// noForgottenOrders fails if the CA has an order that was paid for and that the ledger
// does not know.
func (w *world) noForgottenOrders() {
	w.tb.Helper()
	known := make(map[string]bool)
	for key, value := range w.storage.snapshot() {
		if !strings.HasPrefix(key, "commercial/") || !strings.Contains(key, "/entries/") && !strings.Contains(key, "/past/") {
			continue
		}
		var e ledger.Entry
		if err := json.Unmarshal([]byte(value), &e); err != nil {
			w.tb.Errorf("%s: %v", key, err)
		}
		known[e.Attempt.Reference], known[e.OrderID], known[e.RootID] = true, true, true
	}
	for _, charge := range w.ca.Charges() {
		if !known[charge.OrderID] && (charge.Reference == "" || !known[charge.Reference]) {
			w.tb.Errorf("order %s with reference %s was paid for and is forgotten", charge.OrderID, charge.Reference)
		}
	}
}

// noKeysLeft fails if private keys of requests that are over are left.
func (w *world) noKeysLeft() {
	w.tb.Helper()
	for key := range w.storage.snapshot() {
		if strings.Contains(key, "/keys/") {
			w.tb.Errorf("a private key is left at %s", key)
		}
	}
}
