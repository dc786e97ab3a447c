package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/operator"
)

// commercial runs one of the plugin's commands with the config of a server.
func (w *world) commercial(s *server, args ...string) (string, error) {
	w.t.Helper()
	return w.run(s.node, append([]string{"commercial", args[0], "--config", s.config}, args[1:]...)...)
}

// lines are those of an output that were not written by Caddy's logger.
func lines(out string) (list []string) {
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, `{"level"`) {
			list = append(list, strings.TrimSuffix(line, "\n"))
		}
	}
	return list
}

// rows runs list --json and reads its output.
func (w *world) rows(s *server, args ...string) []operator.Row {
	w.t.Helper()
	out, err := w.commercial(s, append([]string{"list", "--json"}, args...)...)
	if err != nil {
		w.t.Fatal(err, out)
	}
	var rows []operator.Row
	if err := json.Unmarshal([]byte(strings.Join(lines(out), "\n")), &rows); err != nil {
		w.t.Fatal(err, out)
	}
	return rows
}

// TestListAndShow: the same is listed and shown by a running server and, when it is down, from
// the storage.
func TestListAndShow(t *testing.T) {
	t.Parallel()
	const name = "shop.localhost"
	for _, seller := range sellers {
		t.Run(seller.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, neverIssue)
			s := w.start(w.localGlobals(w.node) + site(name, w.issuerOf(seller, "max_wait 1s")))
			w.await("the order", func() error {
				if rows := w.rows(s); len(rows) != 1 || rows[0].State != "open" {
					return errors.Join(errors.New("it is not open"), s.alive())
				}
				return nil
			})
			out, err := w.commercial(s, "show", name)
			if err != nil || !strings.Contains(out, "/.well-known/pki-validation/") || !strings.Contains(out, "placed") {
				t.Error(err, out)
			}
			w.issueNow()
			out, err = w.commercial(s, "wait", name, "--timeout", "1m")
			if err != nil || !strings.Contains(out, "issued") {
				t.Error(err, out)
			}
			if out, err := w.commercial(s, "show", name); err != nil || !strings.Contains(out, "visits ") || !strings.Contains(out, ": 200  ") {
				t.Error(err, out)
			}
			up := w.rows(s)
			if len(up) != 1 || up[0].Name != name || up[0].Vendor != seller.name || up[0].OrderID == "" || up[0].State != "issued" ||
				time.Until(up[0].CertificateNotAfter) < 24*time.Hour || up[0].NextRenewal.IsZero() || up[0].NextCharge.Before(up[0].NextRenewal) {
				t.Errorf("%+v", up)
			}
			for filter, want := range map[string]int{
				"--state=issued": 1, "--state=open": 0, "--state=flagged": 0, "--vendor=" + seller.name: 1, "--vendor=other": 0, "--expiring=24h": 0,
			} {
				if got := len(w.rows(s, filter)); got != want {
					t.Errorf("%s: %d rows, want %d", filter, got, want)
				}
			}
			for path, want := range map[string]string{
				"/commercial/":                     `"issuers":1`,
				"/commercial/orders":               up[0].OrderID,
				"/commercial/orders/" + name:       `"events":[`,
				"/commercial/orders?state=strange": "state: must be one of",
				"/commercial/forecast":             up[0].OrderID,
				"/commercial/forecast?days=0":      "days: must be from 1",
				"/commercial/forecast?vendor=x":    "the config buys nothing from",
				"/commercial/orders/unknown":       "no ledger knows it",
				"/commercial/strange":              "there is nothing at",
			} {
				if got, err := s.call(http.MethodGet, path, nil, ""); !strings.Contains(got, want) && !strings.Contains(errorText(err), want) {
					t.Errorf("%s: %q, %v, want %q", path, got, err, want)
				}
			}
			if got, err := s.call(http.MethodGet, "/commercial/orders", http.Header{"Origin": {"https://evil.example"}}, ""); err == nil {
				t.Errorf("another origin got an answer: %s", got)
			}
			foretold := func() string {
				out, err := w.commercial(s, "forecast", "--csv", "--days", "300", "--vendor", seller.name)
				if err != nil || !strings.Contains(out, ",reissue,"+name) {
					t.Error(err, out)
				}
				return out[strings.Index(out, "time,"):]
			}
			whileUp := foretold()
			s.stop()
			if down := foretold(); down != whileUp {
				t.Errorf("%s\nwith the server\n%s", down, whileUp)
			}
			for _, bad := range []string{"--days=0", "--days=4001", "--csv --json", "--vendor=x"} {
				if out, err := w.commercial(s, append([]string{"forecast"}, strings.Fields(bad)...)...); err == nil {
					t.Errorf("%s was accepted: %s", bad, out)
				}
			}
			down := w.rows(s)
			if len(down) != 1 || down[0].OrderID != up[0].OrderID || !down[0].NextCharge.Equal(up[0].NextCharge) || !down[0].NextRenewal.Equal(up[0].NextRenewal) {
				t.Errorf("%+v, with the server %+v", down, up)
			}
			if out, err := w.commercial(s, "show", up[0].OrderID); err != nil || !slices.ContainsFunc(lines(out), func(l string) bool { return strings.HasPrefix(l, "next ") }) {
				t.Error(err, out)
			}
			if out, err := w.commercial(s, "show", "other.localhost"); err == nil || !strings.Contains(out, "no ledger knows it") {
				t.Error(err, out)
			}
			if out, err := w.commercial(s, "list", "--address", "127.0.0.1:1"); err == nil || !strings.Contains(out, "nobody listens") {
				t.Error(err, out)
			}
		})
	}
}

// TestNameWithoutOrder: a name for which nothing is bought is listed by a running server,
// with the reason.
func TestNameWithoutOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	s := w.start(w.localGlobals(w.node) + site("a.localhost, b.localhost", w.issuer("spend_limit 1 per 24h")))
	w.await("the one that waits", func() error {
		rows := w.rows(s, "--state=none")
		if len(rows) != 1 || !strings.Contains(rows[0].Problem, "limit") {
			return errors.Join(fmt.Errorf("%+v", rows), s.alive())
		}
		return nil
	})
	waits := w.rows(s, "--state=none")[0]
	if all := w.rows(s); len(all) != 2 || all[1].Name != waits.Name || all[0].State == operator.StateNone {
		t.Errorf("%+v", all)
	}
	out, err := w.commercial(s, "show", waits.Name)
	if err != nil || !strings.Contains(out, "limit") || !strings.Contains(out, "next poll") {
		t.Error(err, out)
	}
	s.stop()
	out, err = w.commercial(s, "show", waits.Name)
	if err != nil || !strings.Contains(out, "an order is placed when Caddy runs") {
		t.Error(err, out)
	}
	w.charges(1)
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
