package issuer

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/operator"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// TestAwait: a command that waits ends according to the states that it sees, and reports each change
// once where there is no terminal.
func TestAwait(t *testing.T) {
	row := func(state string) operator.Story {
		return operator.Story{Row: operator.Row{Name: "a.example", OrderID: "7", State: state}, Certificate: &ledger.Certificate{Serial: "0abc"}}
	}
	doing := row("open")
	doing.Doing = &operator.Doing{Said: "not validated yet"}
	flagged, lost := row("open"), row("issued")
	flagged.Flag, flagged.Next, lost.Certificate = "it was rejected", "look at the portal", &ledger.Certificate{Lost: true}
	unknown, broken := fmt.Errorf("nothing: %w", operator.ErrUnknown), errors.New("the storage is away")
	for _, tc := range []struct {
		what  string
		shown []any // stories and errors; the last one is repeated
		want  string
		fails string
	}{
		{"it comes", []any{unknown, row("asked"), row("asked"), row("open"), row("issued")}, "there is no order yet\nasked; order 7\nopen; order 7\nissued; order 7; serial number 0abc, until 0001-01-01\n", ""},
		{"a server tells more", []any{doing, row("issued")}, "open; order 7; not validated yet\nissued; order 7; serial number 0abc, until 0001-01-01\n", ""},
		{"a person is asked", []any{row("open"), flagged}, "open; order 7\n", "it was rejected; look at the portal"},
		{"it is revoked", []any{lost}, "issued; order 7; serial number , until 0001-01-01\n", "after 1h"},
		{"nothing comes", []any{unknown}, "there is no order yet\n", "after 1h"},
		{"nothing can be read", []any{broken}, "", "the storage is away"},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, errors.New("there is no certificate after 1h"))
			defer cancel()
			var out bytes.Buffer
			n := 0
			err := await(ctx, func(context.Context, string) ([]operator.Story, error) {
				now := tc.shown[min(n, len(tc.shown)-1)]
				n++
				if err, failed := now.(error); failed {
					return nil, err
				}
				return []operator.Story{now.(operator.Story)}, nil
			}, "a.example", &ticker{w: &out})
			if out.String() != tc.want {
				t.Errorf("%s: it says\n%s", tc.what, out.String())
			}
			if (err == nil) != (tc.fails == "") || err != nil && !strings.Contains(err.Error(), tc.fails) {
				t.Errorf("%s: %v", tc.what, err)
			}
		})
	}
}

// A vendor's text in an error does not command the terminal.
func TestErrorsOfCommandsArePrintable(t *testing.T) {
	dir := t.TempDir()
	l := &ledger.Ledger{Storage: &certmagic.FileStorage{Path: dir}, Prefix: ledger.Prefix("racent", "portal.example"), Memory: new(ledger.Memory)}
	now := l.Time()
	if err := l.Create(t.Context(), &ledger.Entry{
		ID: l.NewID(), Names: []string{shopName}, State: ledger.Open, OrderID: "7\x1b]0;owned\x07", Term: vendors.Term{Years: 1}, Paid: now, Ends: now.Add(365 * day),
		Flag: &ledger.Flag{Since: now, Reason: "it was\u009b31m rejected"},
	}); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "caddy.json")
	if err := os.WriteFile(config, fmt.Appendf(nil, `{"admin":{"listen":"127.0.0.1:1"},"storage":{"module":"file_system","root":%q}}`, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := waitCommand()
	cmd.SetArgs([]string{shopName, "--config", config})
	cmd.SilenceUsage = true
	err := cmd.Execute()
	if err == nil || !strings.Contains(err.Error(), "order 7 ]0;owned for "+shopName) || strings.ContainsFunc(err.Error(), unicode.IsControl) {
		t.Errorf("got %q", err)
	}
}

// Nor does the text of a certificate.
func TestImportIsPrintable(t *testing.T) {
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"a\x1b]0;owned\x07.example"}}, new(x509.Certificate), key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "cert.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := importCommand()
	if err := cmd.ParseFlags([]string{"--cert", file}); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := runImport(caddycmd.Flags{FlagSet: cmd.Flags()}, &out); err == nil {
		t.Error("a certificate without a key was imported")
	}
	text := strings.TrimSuffix(out.String(), "\n")
	if !strings.Contains(text, "certificate for a ]0;owned .example") || strings.ContainsFunc(text, unicode.IsControl) {
		t.Errorf("got %q", text)
	}
}

// TestTickerOnTerminal: on a terminal there is one line, which is never wider than the terminal.
func TestTickerOnTerminal(t *testing.T) {
	var out bytes.Buffer
	tick := &ticker{w: &out, width: 30}
	tick.show("open; order 7; next look in 5s", 61*time.Second)
	tick.show("open\x1b[31m; "+strings.Repeat("ü", 50), 62*time.Second)
	tick.say("issued")
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 3 || lines[1] != "issued" || strings.Count(lines[0], "\r\x1b[K") != 2 || strings.Contains(lines[0], "[31m") && strings.Contains(lines[0], "\x1b[31m") {
		t.Errorf("%q", out.String())
	}
	for _, shown := range strings.Split(lines[0], "\r\x1b[K") {
		if n := len([]rune(shown)); n >= 30 {
			t.Errorf("%q has %d characters", shown, n)
		}
	}
}
