package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/operator"
)

// trouble is one of the ways in which things go wrong, and how an operator with nothing
// but the tools finds out.
type trouble struct {
	title   string
	options string       // of the issuer
	happens func(*world) // before Caddy starts
	later   func(*world) // once the order is placed, or issued if nothing happens before
	state   string       // that list shows
	shown   []string     // what show says
	mend    func(*world) // does what is to be done, if it is at the CA
	args    []string     // of the command that show suggests, if there is one
	charges int
}

var troubles = []trouble{
	{
		title:   "no money is left",
		happens: func(w *world) { w.must(w.ca.SetBalance(apiToken, 1)) },
		state:   operator.StateNone, shown: []string{"balance", "next poll"},
		mend:    func(w *world) { w.must(w.ca.SetBalance(apiToken, 1_000_000)) },
		charges: 1,
	},
	{
		title:   "the credential is refused",
		happens: func(w *world) { w.update(func(c *hostile.Config) { c.Accounts[0].Token = "another-one" }) },
		state:   operator.StateNone, shown: []string{"credential"},
		mend:    func(w *world) { w.update(func(c *hostile.Config) { c.Accounts[0].Token = apiToken }) },
		charges: 1,
	},
	{
		title:   "the vendor is down",
		happens: func(w *world) { w.breaks(hostile.Fault{Kind: hostile.HTML}) },
		state:   operator.StateNone, shown: []string{"problem  ", "next poll"},
		mend:    (*world).mendFaults,
		charges: 1,
	},
	{
		title: "an answer was lost, and the vendor cannot tell",
		happens: func(w *world) {
			w.breaks(hostile.Fault{Endpoint: "place", Phase: hostile.AfterEffect, Kind: hostile.Reset, Times: 1})
			w.breaks(hostile.Fault{Endpoint: "certIdByrefId", Kind: hostile.HTML})
		},
		state: string(ledger.Asked), shown: []string{"reference", "the vendor's answer is waited for"},
		mend:    (*world).mendFaults,
		charges: 1,
	},
	{
		title:   "the CA does not reach the file",
		happens: func(w *world) { w.update(func(c *hostile.Config) { c.HTTPPort = freePort(w.t) }) },
		state:   string(ledger.Open), shown: []string{"/.well-known/pki-validation/", "not validated yet: shop.localhost"},
		mend:    func(w *world) { w.update(func(c *hostile.Config) { c.HTTPPort = w.node.http }) },
		charges: 1,
	},
	{
		title: "the CA takes days", happens: func(w *world) { w.update(neverIssue) },
		state: string(ledger.Open), shown: []string{"the vendor and its CA validate and issue", "next poll"},
		mend:    (*world).issueNow,
		charges: 1,
	},
	{
		title:   "the CA rejects the order",
		happens: func(w *world) { w.update(neverIssue) },
		later:   func(w *world) { w.must(w.ca.SetStatus(w.ca.Orders()[0].ID, "REJECTED")) },
		state:   operator.StateFlagged, shown: []string{"caddy commercial resolve shop.localhost"},
		mend: (*world).issueNow, args: []string{"resolve", switched, "--none", "--yes"}, charges: 2,
	},
	{
		title: "somebody has cancelled the order", options: "watch 2s",
		later: func(w *world) { w.must(w.ca.EndOrder(w.ca.Orders()[0].ID, hostile.StatusCancelled)) },
		state: operator.StateFlagged, shown: []string{"cancelled", "caddy commercial resolve shop.localhost"},
		args: []string{"resolve", switched, "--none", "--yes"}, charges: 2,
	},
	{
		title: "an entry is damaged",
		later: func(w *world) {
			w.must(os.WriteFile(w.damagedFile(), []byte("{"), 0o600))
		},
		state: "", shown: nil,
		mend:    func(w *world) { w.must(os.Remove(w.damagedFile())) },
		charges: 1,
	},
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// breaks makes the CA's API fail until mendFaults.
func (w *world) breaks(f hostile.Fault) { w.faults = append(w.faults, w.ca.Inject(f)) }

func (w *world) mendFaults() {
	for _, remove := range w.faults {
		remove()
	}
}

func (w *world) damagedFile() string {
	return filepath.Join(w.storage, "commercial", "racent", w.account(), "entries", "damaged.json")
}

// TestFindOut: whatever went wrong, list and show say what it is and what to do, and
// doing that brings the certificate.
func TestFindOut(t *testing.T) {
	const name = switched
	for _, tr := range troubles {
		t.Run(tr.title, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			if tr.happens != nil {
				tr.happens(w)
			}
			s := w.start(w.simple(w.node, name, "max_wait 1s", tr.options))
			if tr.later != nil {
				w.await("the order", func() error {
					if len(w.ca.Charges()) == 0 {
						return errors.Join(errors.New("there is none"), s.alive())
					}
					return nil
				})
				if tr.happens == nil {
					s.served(name)
				}
				tr.later(w)
			}
			var out string
			w.await("list and show to say it", func() error {
				rows := w.rows(s, "--state="+tr.state)
				if len(rows) == 0 {
					return errors.Join(fmt.Errorf("no row is %s: %+v", tr.state, w.rows(s)), s.alive())
				}
				if tr.shown == nil && !slices.ContainsFunc(rows, func(r operator.Row) bool { return strings.Contains(r.Problem, "damaged.json cannot be used") }) {
					return fmt.Errorf("%+v", rows)
				}
				var err error
				if out, err = w.commercial(s, "show", name); err != nil {
					return err
				}
				for _, part := range tr.shown {
					if !strings.Contains(out, part) {
						return fmt.Errorf("it does not say %q:\n%s", part, strings.Join(lines(out), "\n"))
					}
				}
				return nil
			})
			t.Log("\n" + strings.Join(lines(out), "\n"))
			if tr.mend != nil {
				tr.mend(w)
			}
			if tr.args != nil {
				if out, err := w.commercial(s, tr.args...); err != nil {
					t.Fatal(err, out)
				}
			}
			s.load(w.simple(w.node, name, "max_wait 1s", tr.options), true)
			w.await("the certificate", func() error {
				rows := w.rows(s, "--state=issued")
				if len(rows) == 0 {
					return errors.Join(errors.New("there is none"), s.alive())
				}
				return nil
			})
			s.served(name)
			w.charges(tr.charges)
		})
	}
}
