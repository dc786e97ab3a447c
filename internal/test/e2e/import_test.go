package e2e

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// elsewhere is what somebody who bought without this storage has.
type elsewhere struct {
	cert, key, order, ends string
	leaf                   *x509.Certificate
}

// buyElsewhere buys for the name, and leaves a storage without any trace of that.
func (w *world) buyElsewhere(config, name string) elsewhere {
	w.t.Helper()
	s := w.start(config)
	got := elsewhere{leaf: s.served(name)}
	s.stop()
	e := w.entries()[0]
	got.order, got.ends = e.OrderID, e.Ends.Format(time.DateOnly)
	old := filepath.Join(w.dir, "elsewhere")
	if err := os.Rename(w.storage, old); err != nil {
		w.t.Fatal(err)
	}
	got.cert, got.key = "cert.pem", "key.pem"
	for ext, to := range map[string]string{".crt": got.cert, ".key": got.key} {
		files, err := filepath.Glob(filepath.Join(old, "certificates", "*", name, name+ext))
		if err != nil || len(files) != 1 {
			w.t.Fatal(files, err)
		}
		// Commands run in the node's home.
		if err := os.Rename(files[0], filepath.Join(w.node.home, to)); err != nil {
			w.t.Fatal(err)
		}
	}
	return got
}

// imports runs the command, and fails if its output contains a secret.
func (w *world) imports(config string, args ...string) (string, error) {
	w.t.Helper()
	file := filepath.Join(w.node.home, "Caddyfile")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		w.t.Fatal(err)
	}
	out, err := w.run(w.node, append([]string{"commercial", "import", "--config", file}, args...)...)
	if strings.Contains(out, "PRIVATE KEY") {
		w.t.Errorf("there is a private key in the output:\n%s", out)
	}
	return out, err
}

// shape is the output of the command without what differs from one import to the next.
func shape(text string) []string {
	for _, r := range [][2]string{
		{`\d{4}-\d\d-\d\d`, "<day>"},
		{`serial number [0-9a-f]+`, "serial number"},
		{`FileStorage:\S+`, "FileStorage"},
		{`"[^"]*"`, "<CA>"},
		{`127\.0\.0\.1(:|_3a)\d+|www\.digicert\.com`, "<account>"},
	} {
		text = regexp.MustCompile(r[0]).ReplaceAllString(text, r[1])
	}
	return strings.Split(strings.TrimSpace(text), "\n")
}

// asDocumented compares the output of the command with what docs/import.md shows.
func (w *world) asDocumented(out string) {
	w.t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "import.md"))
	if err != nil {
		w.t.Fatal(err)
	}
	shown := regexp.MustCompile("(?ms)^```text\n(.*?)^```$").FindAllStringSubmatch(string(page), 2)
	if len(shown) != 2 {
		w.t.Fatalf("the page shows %d outputs", len(shown))
	}
	said := shape(out)
	for _, block := range shown {
		for _, line := range shape(block[1]) {
			if !slices.Contains(said, line) {
				w.t.Errorf("the command does not say %q as docs/import.md does:\n%s", line, out)
			}
		}
	}
}

// TestImport moves a site whose certificate was bought without Caddy to Caddy, for all
// vendors. It is served with what was bought, and nothing is bought or reissued.
func TestImport(t *testing.T) {
	const name = "shop.example.com"
	reissues := map[string]string{"racent": "replace", "digicert": "reissue", "howssl": "Reissue/submit"}
	for _, seller := range sellers {
		t.Run(seller.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			config := w.localGlobals(w.node) + site(name, w.issuerOf(seller, ""))
			bought := w.buyElsewhere(config, name)
			args := []string{"--cert", bought.cert, "--key", bought.key}
			if seller.name == "howssl" {
				args = append(args, "--order", bought.order, "--ends", bought.ends)
			}
			out, err := w.imports(config, append(args, "--dry-run")...)
			if err != nil || !strings.Contains(out, "Nothing was changed") || !strings.Contains(out, "would be stored: certificates/commercial-"+seller.name) ||
				!strings.Contains(out, "would be entered into the ledger: order "+bought.order) {
				t.Errorf("%v\n%s", err, out)
			}
			if _, err := os.Stat(w.storage); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a dry run has created the storage: %v", err)
			}

			// The site as it was: with files. Then Caddy manages its certificate.
			s := w.start(w.localGlobals(w.node) + fmt.Sprintf("%s {\n\ttls %s %s\n\trespond hello\n}\n", name, bought.cert, bought.key))
			s.served(name)
			v := w.visit(w.node, name, w.ca.Roots())
			all := out
			for range 2 { // the second time, it changes nothing
				if out, err = w.imports(config, args...); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				all += out
			}
			if seller.name == "digicert" {
				w.asDocumented(all)
			}
			if !strings.Contains(out, "order "+bought.order+" is in the ledger with this certificate") || !strings.Contains(out, "reissued, free of charge") {
				t.Error(out)
			}
			shake := w.slowly(w.node, name, w.ca.Roots())
			s.load(config, false)
			s.load(config, true)
			// certmagic now manages the very certificate that was loaded from files,
			// although Caddy removes from the cache what the old config had loaded.
			s.awaitEntry("the certificate to be managed", func(e logEntry) bool {
				return e.Message == "added certificate to cache" && strings.Contains(e.raw, `"managed":true`) && strings.Contains(e.raw, `"issuer_key":"commercial-`)
			})
			// A server that Caddy has stopped chooses certificates from files by their tag.
			if err := shake(); err != nil {
				t.Errorf("a handshake that was overtaken by the reloads: %v", err)
			}
			w.welcome("import", v)
			for range 2 {
				if got := s.served(name); !got.Equal(bought.leaf) {
					t.Error("another certificate is served")
				}
				s.stop()
				s = w.start(config)
			}
			// The first check of all names is three seconds after the start.
			s.served(name)
			v = w.visit(w.node, name, w.ca.Roots())
			w.await("a check of the ledger", func() error {
				v.mu.Lock()
				defer v.mu.Unlock()
				if v.made < 500 {
					return errors.New("not yet")
				}
				return nil
			})
			w.welcome("first minutes", v)
			if got := s.served(name); !got.Equal(bought.leaf) {
				t.Error("after a restart, another certificate is served")
			}
			s.stop()
			if n := w.ca.Calls(reissues[seller.name]); n != 0 {
				t.Errorf("it was reissued %d times", n)
			}
			w.charges(1)
			w.nothingForgotten()
			list := w.entries()
			if len(list) != 1 || list[0].OrderID != bought.order || !list[0].Adopted || list[0].Issued != 1 {
				t.Errorf("the ledger has %+v", list)
			}
			if out, err := w.commercial(s, "show", bought.order); err != nil || !strings.Contains(out, "decided    caddy commercial import") {
				t.Error(err, out)
			}
		})
	}
}

// TestImportErrors covers what can only go wrong with a config and a command line.
func TestImportErrors(t *testing.T) {
	t.Parallel()
	const name = "shop.example.com"
	w := newWorld(t, nil)
	config := w.localGlobals(w.node) + site(name, w.issuerOf(sellers[0], ""))
	bought := w.buyElsewhere(config, name)
	data, err := os.ReadFile(filepath.Join(w.node.home, bought.cert))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	alone := filepath.Join(w.dir, "alone.pem")
	if err := os.WriteFile(alone, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	pair := []string{"--cert", bought.cert, "--key", bought.key}
	for title, tt := range map[string]struct {
		config string
		args   []string
		want   string
	}{
		"nothing given":        {config, nil, "at least one of the flags"},
		"no chain":             {config, []string{"--cert", alone, "--key", bought.key}, "give it with --chain"},
		"both":                 {config, append(pair, "--order", "1", "--no-order"), "none of the others can be"},
		"bad day":              {config, append(pair, "--ends", "tomorrow"), "--ends: must be a day"},
		"other names":          {w.localGlobals(w.node) + site("other.example.com", w.issuerOf(sellers[0], "")), pair, "the config has none of these with a commercial issuer; it has other.example.com"},
		"no issuer of ours":    {w.localGlobals(w.node) + site(name, "issuer internal\n"), pair, "the config has no names with a commercial issuer"},
		"two vendors":          {w.localGlobals(w.node) + site(name, w.issuerOf(sellers[0], "")+w.issuerOf(sellers[1], "")), pair, "--vendor racent/"},
		"a vendor that is not": {config, append(pair, "--vendor", "digicert"), "no names with a commercial issuer of digicert"},
		"unknown order":        {config, append(pair, "--order", "nosuchorder"), "does not know order nosuchorder"},
	} {
		out, err := w.imports(tt.config, tt.args...)
		if err == nil || !strings.Contains(out, tt.want) {
			t.Errorf("%s: %v, want %q\n%s", title, err, tt.want, out)
		}
	}
	two := w.localGlobals(w.node) + site(name, w.issuerOf(sellers[0], "")+w.issuerOf(sellers[1], ""))
	if out, err := w.imports(two, append(pair, "--vendor", "racent", "--dry-run")...); err != nil || !strings.Contains(out, "issuer: racent") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := os.Stat(w.storage); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was stored: %v", err)
	}
	w.charges(1)
}
