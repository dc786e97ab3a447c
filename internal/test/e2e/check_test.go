package e2e

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/caddy-commercial/caddy-commercial/check"
)

// checks runs the command check with a config, and fails unless it exits as wanted and
// its output has all of the words.
func (w *world) checks(config string, passes bool, words []string, args ...string) string {
	w.t.Helper()
	file := filepath.Join(w.node.home, "Caddyfile.check")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		w.t.Fatal(err)
	}
	out, err := w.run(w.node, append([]string{"commercial", "check", "--config", file, "--adapter", "caddyfile", "--timeout", "1m"}, args...)...)
	if (err == nil) != passes {
		w.t.Errorf("check: %v\n%s", err, out)
	}
	for _, word := range words {
		if !strings.Contains(out, word) {
			w.t.Errorf("check does not say %q:\n%s", word, out)
		}
	}
	if strings.Contains(out, apiToken) {
		w.t.Errorf("check shows the token:\n%s", out)
	}
	return out
}

// leftInStorage are the files of the plugin in the storage, without those that are being
// written: their names are numbers until they are complete.
func (w *world) leftInStorage() (files []string) {
	err := filepath.WalkDir(filepath.Join(w.storage, "commercial"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.Trim(d.Name(), "0123456789") != "" {
			files = append(files, path)
		}
		if os.IsNotExist(err) {
			return nil
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return files
}

// quoteIsForecast compares the orders of the quote with those of the forecast's first
// day, which are derived from the ledger's rules in another way.
func (w *world) quoteIsForecast(config string, orders int) {
	w.t.Helper()
	file := filepath.Join(w.node.home, "Caddyfile.check")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		w.t.Fatal(err)
	}
	ask := func(answer any, args ...string) {
		out, err := w.run(w.node, append([]string{"commercial"}, append(args, "--config", file, "--adapter", "caddyfile", "--json")...)...)
		if err == nil {
			err = json.Unmarshal([]byte(strings.Join(lines(out), "\n")), answer)
		}
		if err != nil {
			w.t.Fatalf("%s: %v\n%s", args[0], err, out)
		}
	}
	type order struct {
		What, Vendor, Account, Product, Term, Price string
		Names                                       []string
	}
	var said struct{ Quote []order }
	var told struct{ Steps []order }
	ask(&said, "check", "--timeout", "1m")
	ask(&told, "forecast", "--days", "1")
	told.Steps = slices.DeleteFunc(told.Steps, func(o order) bool { return o.What != "order" })
	for i := range told.Steps {
		o := &told.Steps[i]
		o.What, o.Names = "", o.Names[:1] // the others are those that the CA is expected to add
	}
	if len(said.Quote) != orders || !reflect.DeepEqual(said.Quote, told.Steps) {
		w.t.Errorf("check quotes %+v, and forecast shows %+v", said.Quote, told.Steps)
	}
}

// TestCheck: before the first order and while Caddy runs, at all vendors; nothing is ordered, and
// nothing is left behind.
func TestCheck(t *testing.T) {
	t.Parallel()
	const name = "shop.localhost"
	for _, seller := range sellers {
		t.Run(seller.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			config := w.localGlobals(w.node) + site(name, w.issuerOf(seller, "bind 127.0.0.1"))
			out := w.checks(config, true, []string{"accepts the credential", "serves the validation file", "keeps what is written", "agrees with that of",
				"would place 1 order now", seller.product})
			if strings.Contains(out, "not told") {
				t.Errorf("the price is missing:\n%s", out)
			}
			w.quoteIsForecast(config, 1)
			if left := w.leftInStorage(); len(left) > 0 {
				t.Errorf("it leaves %q behind", left)
			}
			w.charges(0)

			bad := strings.Replace(config, "{env.E2E_TOKEN}", "wrong", 1)
			w.checks(bad, false, []string{"STOP", "credential", "refuse"})
			w.checks(config, false, []string{"no commercial issuer for other.localhost"}, "other.localhost")

			s := w.start(config)
			s.served(name)
			w.await("the server to have asked for the price", func() error { // it notes that in a file
				if !slices.ContainsFunc(w.leftInStorage(), func(file string) bool { return filepath.Base(file) == "prices.json" }) {
					return errors.Join(errors.New("there is no prices.json"), s.alive())
				}
				return nil
			})
			before := w.leftInStorage()
			w.checks(config, true, []string{"Caddy listens on port", "serves the validation file", "would buy nothing now"})
			if after := w.leftInStorage(); len(after) != len(before) {
				t.Errorf("it leaves %q behind, and there was %q", after, before)
			}
			w.checks(config+site("new.localhost", w.issuerOf(seller, "bind 127.0.0.1")), true, []string{"warning", "does not have the name in its configuration yet", "would place 1 order now"})

			w.quoteIsForecast(config, 0)

			out = w.checks(config, true, nil, "--json", name)
			var said struct {
				Results []check.Result
				Quote   []any
			}
			if err := json.Unmarshal([]byte(strings.Join(lines(out), "\n")), &said); err != nil || len(said.Results) < 10 || check.Stops(said.Results) || len(said.Quote) > 0 {
				t.Errorf("%v\n%s", err, out)
			}
			w.charges(1)
		})
	}
}

// TestCheckRecords: with dcv dns, a record is added, seen and removed.
func TestCheckRecords(t *testing.T) {
	t.Parallel()
	w, n := newDNSWorld(t, nil)
	config := w.localGlobals(w.node) + site("shop.example.com", w.issuer(n.dcv(keySecret)))
	w.checks(config, true, []string{"a record was added, seen at all name servers, and removed"})
	w.clean(n)
	w.checks(strings.Replace(config, keySecret, "d3Jvbmc=", 1), false, []string{"STOP", "record", "look at the credential of the DNS provider"})
	w.clean(n)
	w.charges(0)
}

// TestCheckThatIsEnded: whoever ends it while its record is in the zone finds the zone as before.
func TestCheckThatIsEnded(t *testing.T) {
	t.Parallel()
	for _, by := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(by.String(), func(t *testing.T) {
			t.Parallel()
			w, n := newDNSWorld(t, nil)
			file := filepath.Join(w.node.home, "Caddyfile.check")
			config := w.localGlobals(w.node) + site("shop.example.com", w.issuer(n.dcv(keySecret)+"propagation_delay 1m\n"))
			if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := w.command(t.Context(), w.node, "commercial", "check", "--config", file, "--adapter", "caddyfile", "--timeout", "2m")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			w.await("the record to be added", func() error {
				if len(n.proofs()) == 0 {
					return errors.New("there is none")
				}
				return nil
			})
			if err := cmd.Process.Signal(by); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err == nil {
				t.Error("it has succeeded")
			}
			if own := n.proofs(); len(own) > 0 {
				t.Errorf("it leaves %q", own)
			}
		})
	}
}

// TestNameNotInDNS: check finds it out, and nothing is bought for it.
func TestNameNotInDNS(t *testing.T) {
	t.Parallel()
	n := startNamed(t)
	w := newWorld(t, nil)
	issuer := strings.NewReplacer("test_service", "", "probe strict", "", "poll 50ms 1s", "").Replace(w.issuer("bind 127.0.0.1"))
	config := w.localGlobals(w.node, "tls_resolvers "+n.addr) + site("gone.example.com", issuer)
	w.checks(config, false, []string{"STOP", "gone.example.com does not exist in DNS (NXDOMAIN) according to " + n.addr, "create its A or AAAA record"})
	s := w.start(config)
	s.awaitEntry("the refusal to order", func(e logEntry) bool {
		return e.Message == "getting a certificate failed; trying again" && strings.Contains(e.raw, "gone.example.com does not exist in DNS")
	})
	w.charges(0)
}
