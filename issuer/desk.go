package issuer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/caddyserver/certmagic"
	"github.com/spf13/cobra"

	"github.com/caddy-commercial/caddy-commercial/app"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/operator"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// desk is where commands look at orders: at a running server if there is one, and in the storage of
// the config if not.
type desk struct {
	address string // of the admin endpoint; empty if no server runs
	*operator.Desk
	release func()
}

// deskFlags adds the flags of all commands that need a desk.
func deskFlags(cmd *cobra.Command) {
	cmd.Flags().StringP("config", "c", "", "Configuration file, if Caddy runs elsewhere or not at all")
	cmd.Flags().StringP("adapter", "a", "", "Name of the config adapter")
	cmd.Flags().String("address", "", "Address of the admin endpoint of the running Caddy, if not that of the config")
}

// openDesk finds the running server, or opens the storages of the config. Without a config, that
// is Caddy's default storage.
func openDesk(ctx context.Context, fl caddycmd.Flags) (*desk, error) {
	file, adapter := fl.String("config"), fl.String("adapter")
	address, err := caddycmd.DetermineAdminAPIAddress(fl.String("address"), nil, file, adapter)
	if err != nil {
		return nil, err
	}
	d := &desk{address: address, release: func() {}}
	if !d.answers(ctx) {
		if given := fl.String("address"); given != "" {
			return nil, fmt.Errorf("nobody listens at the admin endpoint %s", given)
		}
	} else {
		var about operator.About
		switch _, err := d.call(http.MethodGet, "", nil, &about); {
		case err == nil && about.Issuers > 0:
			return d, nil
		case err != nil && !errors.Is(err, errNotFound):
			return nil, err // it is there, and must not be bypassed
		case fl.String("address") != "":
			return nil, fmt.Errorf("the Caddy at %s has no commercial issuer", address)
		}
	}
	d.address = ""
	raw, _, _, err := caddycmd.LoadConfig(file, adapter)
	if err != nil {
		return nil, err
	}
	var config configuration
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &config); err != nil {
			return nil, fmt.Errorf("reading the config: %w", err)
		}
	}
	if d.Desk, d.release, err = config.desk(sayTo(os.Stderr)); err != nil {
		return nil, err
	}
	return d, nil
}

// answers reports whether somebody listens at the admin endpoint.
func (d *desk) answers(ctx context.Context) bool {
	at, err := caddy.ParseNetworkAddress(d.address)
	if err != nil {
		return true // asking tells what is wrong with it
	}
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, at.Network, at.JoinHostPort(0))
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

// errNotFound is the answer of an admin endpoint that does not know what it is asked for.
var errNotFound = errors.New("HTTP 404")

// call asks the running server, and returns the path of the next page, if there is one.
func (d *desk) call(method, path string, body io.Reader, into any) (next string, err error) {
	resp, err := caddycmd.AdminAPIRequest(d.address, method, app.AdminPath+path, http.Header{"Content-Type": {"application/json"}}, body)
	if err != nil {
		return "", adminError(d.address, err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return "", fmt.Errorf("reading the answer of Caddy's admin endpoint at %s: %w", d.address, err)
	}
	if link, _, ok := strings.Cut(strings.TrimPrefix(resp.Header.Get("Link"), "<"+app.AdminPath), `>; rel="next"`); ok {
		next = link
	}
	return next, nil
}

// adminError is an error of caddycmd.AdminAPIRequest, which has what the server answered in its
// text only.
func adminError(address string, err error) error {
	_, answer, _ := strings.Cut(err.Error(), "caddy responded with error: ")
	status, body, ok := strings.Cut(answer, ": ")
	var said struct{ Error string }
	if !ok || json.Unmarshal([]byte(body), &said) != nil || said.Error == "" {
		err = fmt.Errorf("asking Caddy's admin endpoint at %s: %w", address, err)
	} else {
		err = errors.New(said.Error)
	}
	if status == errNotFound.Error() {
		return &notFoundError{err}
	}
	return err
}

// notFoundError matches errNotFound, and says what the server said.
type notFoundError struct{ error }

func (e *notFoundError) Is(target error) bool { return target == errNotFound }

// list calls yield for the rows of a query, page by page.
func (d *desk) list(ctx context.Context, q operator.Query, yield func(operator.Row) error) error {
	if d.Desk != nil {
		return d.List(ctx, q, yield)
	}
	for path := "orders?" + q.Values().Encode(); path != ""; {
		var rows []operator.Row
		next, err := d.call(http.MethodGet, path, nil, &rows)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if err := yield(row); err != nil {
				return err
			}
		}
		if path = next; q.Limit > 0 {
			return nil
		}
	}
	return nil
}

// forecast tells what the names of the config will need.
func (d *desk) forecast(ctx context.Context, o operator.Outlook) (f operator.Forecast, err error) {
	if d.Desk != nil {
		return d.Forecast(ctx, o)
	}
	_, err = d.call(http.MethodGet, "forecast?"+o.Values().Encode(), nil, &f)
	return f, err
}

// show tells all about an order.
func (d *desk) show(ctx context.Context, about string) (stories []operator.Story, err error) {
	if d.Desk != nil {
		return d.Show(ctx, about)
	}
	_, err = d.call(http.MethodGet, "orders/"+url.PathEscape(about), nil, &stories)
	return stories, err
}

// do does what a person asks for, or tells what that would be.
func (d *desk) do(ctx context.Context, what string, a operator.Action) (out operator.Outcome, err error) {
	if d.Desk != nil {
		return d.Do(ctx, what, a)
	}
	return out, d.post(what, a, &out)
}

// reconcile compares the ledgers with what the vendors have.
func (d *desk) reconcile(ctx context.Context, r operator.Reconciliation) (audits []operator.Audit, err error) {
	if d.Desk != nil {
		return d.Reconcile(ctx, r)
	}
	return audits, d.post("reconcile", r, &audits)
}

func (d *desk) post(what string, with, into any) error {
	body, err := json.Marshal(with)
	if err == nil {
		_, err = d.call(http.MethodPost, what, bytes.NewReader(body), into)
	}
	return err
}

// policySite is the site of names in a config that is not running.
type policySite struct {
	site
	storage certmagic.Storage
	issuer  string
	manages func(name string) bool
	allows  func(name string) (configured, onDemand bool)
}

func (s policySite) Stored(ctx context.Context, name string) (*x509.Certificate, crypto.Signer, error) {
	leaf, _, key, err := app.Stored(ctx, s.storage, s.issuer, name)
	return leaf, key, err
}

func (s policySite) Manages(name string) bool                       { return s.manages(name) }
func (s policySite) Allows(name string) (configured, onDemand bool) { return s.allows(name) }

// desk opens the storages of a config, and provisions the accounts of its issuers as far as
// that succeeds: the orders of others are shown all the same.
func (c *configuration) desk(say say) (_ *operator.Desk, release func(), err error) {
	// An empty configuration gives vendors Caddy's own logger. It ends with the process.
	empty, err := caddy.ProvisionContext(&caddy.Config{Admin: &caddy.AdminConfig{Disabled: true}})
	if err != nil {
		return nil, nil, err
	}
	var releases []func()
	release = func() {
		for _, f := range releases {
			f()
		}
	}
	storages := make(map[string]certmagic.Storage)
	open := func(raw json.RawMessage) (certmagic.Storage, error) {
		if storage := storages[string(raw)]; storage != nil {
			return storage, nil
		}
		storage, end, err := loadStorage(raw)
		if err == nil {
			releases = append(releases, end)
			storages[string(raw)] = storage
		}
		return storage, err
	}
	main, err := open(c.Storage)
	if err != nil {
		return nil, nil, err
	}
	var accounts []operator.Account
	managed := c.managed()
	for i, p := range c.Apps.TLS.Automation.Policies {
		for _, raw := range p.ours("") {
			storage := main
			if len(p.Storage) > 0 {
				if storage, err = open(p.Storage); err != nil {
					release()
					return nil, nil, err
				}
			}
			iss := new(Issuer)
			err := json.Unmarshal(raw, iss)
			if err == nil {
				err = iss.settings(empty)
			}
			if err != nil {
				say("warning: an issuer of the config cannot be loaded, so what comes next for its orders is not shown: %v", err)
				continue
			}
			manages := func(name string) bool {
				_, at := c.policyOf(name)
				return managed[name] && at == i
			}
			f := &flow{about: iss.about, rules: iss.rules, site: policySite{storage: storage, issuer: iss.IssuerKey(), manages: manages, allows: func(name string) (configured, onDemand bool) {
				_, at := c.policyOf(name)
				return at == i, at == i && p.OnDemand && !managed[name]
			}}}
			accounts = append(accounts, operator.Account{
				Ledger: &ledger.Ledger{Storage: storage, Prefix: ledger.Prefix(iss.about.Name, iss.about.Account), Memory: new(ledger.Memory)},
				Vendor: iss.vendor, About: iss.about, Margin: iss.rules.margin, Settle: iss.rules.settle, WindowRatio: p.Ratio,
				Order:   func(string) vendors.OrderConfig { return iss.order },
				Manages: manages, Names: func() []string {
					return slices.DeleteFunc(c.needed(managed), func(name string) bool { return !manages(name) })
				},
				Rules: f.rulesOf, Maybe: f.maybeNames, Stored: f.isStored,
				SpendOrders: iss.rules.spend.Orders, SpendPer: time.Duration(iss.rules.spend.Per), OnDemand: iss.rules.allowOnDemand && p.OnDemand,
			})
		}
	}
	d := operator.NewDesk(accounts)
	if len(accounts) == 0 {
		d.Storages = []certmagic.Storage{main}
	}
	return d, release, nil
}
