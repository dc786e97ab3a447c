package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-commercial/caddy-commercial/operator"
)

// does runs one of the plugin's commands, and expects words in its output.
func (w *world) does(s *server, words string, args ...string) {
	w.t.Helper()
	out, err := w.commercial(s, args...)
	if err != nil || !strings.Contains(out, words) {
		w.t.Fatalf("caddy commercial %s: %v, want %q\n%s", strings.Join(args, " "), err, words, out)
	}
}

// fails does so, but expects the command to fail with an exit code.
func (w *world) fails(s *server, code int, words string, args ...string) {
	w.t.Helper()
	out, err := w.commercial(s, args...)
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != code || !strings.Contains(out, words) {
		w.t.Fatalf("caddy commercial %s: %v, want exit code %d and %q\n%s", strings.Join(args, " "), err, code, words, out)
	}
}

// paid fails unless this many orders were paid for.
func (w *world) paid(want int) {
	w.t.Helper()
	if got := w.ca.Charges(); len(got) != want {
		w.t.Fatalf("charged %d times, want %d: %+v", len(got), want, got)
	}
}

// TestActions: an operator renews, ends, resolves and adopts orders, at a running server,
// which carries on at once, and without one. Nothing is bought without their consent.
func TestActions(t *testing.T) {
	t.Parallel()
	const name = "shop.localhost"
	for _, seller := range sellers[:2] {
		t.Run(seller.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			config := w.localGlobals(w.node) + site(name, w.issuerOf(seller, ""))
			s := w.start(config)
			first := s.served(name)

			w.does(s, "Nothing was done (--dry-run).", "renew", name, "--dry-run")
			w.does(s, "another certificate of order", "renew", name, "--note", "a laptop was lost")
			w.await("another certificate", func() error {
				if now, err := w.handshake(s.node, name, w.ca.Roots()); err != nil || now.Equal(first) {
					return errors.Join(errors.New("it is the same"), err, s.alive())
				}
				return nil
			})
			w.does(s, "a laptop was lost", "show", name)
			w.paid(1)

			order := w.rows(s)[0].OrderID
			w.fails(s, 1, "give --yes", "revoke", order) // there is no terminal
			w.fails(s, 1, "no ledger knows it", "revoke", "other.localhost", "--yes")
			if n := w.ca.Calls("revoke"); n > 0 {
				t.Errorf("revoked without consent, %d times", n)
			}
			w.does(s, "nothing is bought in its place by itself", "revoke", order, "--yes", "--note", "key compromise")
			w.await("the order to be flagged", func() error {
				if rows := w.rows(s, "--state=flagged"); len(rows) != 1 || !strings.Contains(rows[0].Flag, "revoked by hand") {
					return errors.Join(fmt.Errorf("%+v", w.rows(s)), s.alive())
				}
				return nil
			})
			s.served(name) // the revoked one, for lack of another
			w.paid(1)

			w.does(s, "price of the next order", "resolve", name, "--none", "--dry-run")
			w.fails(s, 1, "give --yes", "resolve", name, "--none")
			if rows := w.rows(s, "--state=flagged"); len(rows) != 1 || rows[0].OrderID != order {
				t.Errorf("given up without consent: %+v", w.rows(s))
			}
			w.paid(1)
			w.does(s, "a new one may be placed, at once", "resolve", name, "--none", "--yes")
			w.await("another order", func() error {
				if rows := w.rows(s, "--state=issued"); len(rows) != 1 || rows[0].OrderID == order {
					return errors.Join(errors.New("it is not there"), s.alive())
				}
				return nil
			})
			w.paid(2)
			s.stop()

			// The ledger is lost, and rebuilt.
			if err := os.RemoveAll(filepath.Join(w.storage, "commercial")); err != nil {
				t.Fatal(err)
			}
			w.fails(s, 4, "can be adopted", "reconcile")
			w.fails(s, 1, "give --yes", "reconcile", "--adopt")
			if rows := w.rows(s); len(rows) > 0 {
				t.Errorf("adopted without consent: %+v", rows)
			}
			w.does(s, "adopted", "reconcile", "--adopt", "--yes")
			w.does(s, "findings: 0", "reconcile")
			before := w.rows(s)
			s = w.start(config)
			s.served(name)
			w.does(s, "issued", "wait", name, "--timeout", "30s")
			if after := w.rows(s); len(after) != 1 || after[0].OrderID != before[0].OrderID {
				t.Errorf("%+v, before %+v", after, before)
			}
			w.paid(2)
			w.does(s, "findings: 0", "reconcile", "--json=false")
		})
	}
}

// TestActionsByAdminAPI: the admin API does what the commands do, and refuses bad
// requests with the appropriate status.
func TestActionsByAdminAPI(t *testing.T) {
	t.Parallel()
	const name = "shop.localhost"
	w := newWorld(t, nil)
	s := w.start(w.localGlobals(w.node) + site(name, w.issuerOf(sellers[0], "")))
	s.served(name)
	post := func(action, body string) (string, error) {
		return s.call(http.MethodPost, "/commercial/"+action, http.Header{"Content-Type": {"application/json"}}, body)
	}
	about := fmt.Sprintf(`{"about":%q`, name)
	answer, err := post("cancel", about+`}`)
	var told operator.Outcome
	if err == nil {
		err = json.Unmarshal([]byte(answer), &told)
	}
	if err != nil || told.Done || told.Plan.Means == "" || told.Plan.Revision == 0 || w.ca.Calls("cancel") > 0 {
		t.Fatalf("%s, %v", answer, err)
	}
	answer, err = post("resolve", about+`,"none":true}`)
	if err != nil || !strings.Contains(answer, `"done":false`) || !strings.Contains(answer, "another order is placed, and paid for") || !strings.Contains(answer, `"price":"`) {
		t.Error(answer, err)
	}
	if rows := w.rows(s); len(rows) != 1 || rows[0].OrderID != told.Plan.OrderID || rows[0].State != "issued" {
		t.Errorf("given up without consent: %+v", rows)
	}
	for _, c := range []struct{ action, body, status, words string }{
		{"cancel", `{`, "400", "reading the body"},
		{"cancel", about + `,"force":true}`, "400", `unknown field`},
		{"cancel", `{}`, "400", "which order?"},
		{"cancel", `{"about":"other.localhost"}`, "404", "no ledger knows it"},
		{"resolve", about + `}`, "400", "either an order ID or none"},
		{"adopt", about + `,"order":"unheard-of","confirm":true}`, "400", "of the ledger is for"},
		{"cancel", about + fmt.Sprintf(`,"confirm":true,"revision":%d}`, told.Plan.Revision+7), "409", "look again"},
		{"reconcile", `{"vendor":"digicert"}`, "400", "its commercial issuers are of racent/"},
		{"dance", about + `}`, "404", "there is nothing at"},
	} {
		if _, err := post(c.action, c.body); err == nil || !strings.Contains(err.Error(), "status "+c.status) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s %s: %v, want %s and %q", c.action, c.body, err, c.status, c.words)
		}
	}
	for kind, status := range map[string]string{"text/plain": "415", "": "415"} {
		if _, err := s.call(http.MethodPost, "/commercial/cancel", http.Header{"Content-Type": {kind}}, about+`,"confirm":true}`); err == nil || !strings.Contains(err.Error(), status) {
			t.Errorf("%q: %v", kind, err)
		}
	}
	if _, err := s.call(http.MethodGet, "/commercial/cancel", nil, ""); err == nil || !strings.Contains(err.Error(), "405") {
		t.Error(err)
	}
	answer, err = post("reconcile", `{}`)
	if err != nil || !strings.Contains(answer, `"findings":[]`) {
		t.Error(answer, err)
	}
	if w.ca.Calls("cancel") > 0 {
		t.Error("it was cancelled without consent")
	}
	answer, err = post("cancel", about+`,"confirm":true,"note":"bought by mistake","by":"ada"}`)
	if err != nil || !strings.Contains(answer, `"done":true`) || w.ca.Calls("cancel") != 1 {
		t.Fatal(answer, err)
	}
	answer, err = s.call(http.MethodGet, "/commercial/orders/"+name, nil, "")
	if err != nil || !strings.Contains(answer, "cancelled by hand: CANCELLED") || !strings.Contains(answer, "by ada: bought by mistake") {
		t.Error(answer, err)
	}
	w.paid(1)
}
