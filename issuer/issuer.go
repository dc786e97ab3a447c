package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/app"
	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/internal/poll"
	"github.com/caddy-commercial/caddy-commercial/issuer/proof"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/operator"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

func init() {
	caddy.RegisterModule(new(Issuer))
}

// Issuer gets certificates from a commercial certificate authority through one
// of its resellers or its own API. An order costs money; the issuer keeps a
// ledger in the configured storage so that it pays at most once per name and
// term, whatever crashes or is asked twice.
//
// The vendor's validation file is served from Caddy's own listeners without any
// route in the configuration.
type Issuer struct {
	// Where certificates are bought. REQUIRED.
	VendorRaw json.RawMessage `json:"vendor,omitempty" caddy:"namespace=tls.vendors inline_key=name"`

	// The vendor's code of the product to order, for example
	// `comodo-positivessl`. Required by vendors that sell several. Placeholders
	// are supported.
	//
	// Changing it takes effect with the next paid order, not before: an order
	// that is paid for is used to the end of its term.
	Product string `json:"product,omitempty"`

	// The paid term of an order: a number of years such as `1y`, or of days such
	// as `365d`. Within it, renewals are free reissues. Default: `1y`
	Term string `json:"term,omitempty"`

	// The person in charge of the orders. What is required depends on the vendor.
	Contact *vendors.Contact `json:"contact,omitempty"`

	// The technical contact. Default: the contact
	TechContact *vendors.Contact `json:"tech_contact,omitempty"`

	// The billing contact. Default: the contact
	BillingContact *vendors.Contact `json:"billing_contact,omitempty"`

	// The organization to be named in OV and EV certificates. Leave it out for
	// DV products.
	Organization *vendors.Organization `json:"organization,omitempty"`

	// How control of the names is proven. Default: with a file over HTTP
	DCV *DCV `json:"dcv,omitempty"`

	// The longest that one attempt waits for a certificate before the next
	// issuer of the policy is tried. The order goes on and is picked up by the
	// next attempt, or delivered when it is ready. Default: 10m
	MaxWait caddy.Duration `json:"max_wait,omitempty"`

	// The shortest wait between two looks at a pending order, with which
	// waiting begins, at least 1s. Default: the vendor's, usually 5s
	PollMin caddy.Duration `json:"poll_min,omitempty"`

	// The longest wait between two looks at a pending order. Default: the vendor's,
	// usually 10m in the first two hours and 1h from then on
	PollMax caddy.Duration `json:"poll_max,omitempty"`

	// How long before the end of the paid term a renewal places a new order
	// instead of a reissue. Default: a twelfth of the term, at most 30 days
	RenewMargin caddy.Duration `json:"renew_margin,omitempty"`

	// How late the storage may show one server what another has written to it. A
	// paid order waits that long before it is sent, to see whether another server has
	// ordered for the same name. Raise it for a storage that is only eventually
	// consistent, to at most 30s. Default: `1s`, and 0 for test services
	Settle *caddy.Duration `json:"settle,omitempty"`

	// How many paid orders may be placed in a span of time, over all names and
	// all servers that share the storage. Default: 20 per 24h
	SpendLimit *SpendLimit `json:"spend_limit,omitempty"`

	// Whether a TLS handshake for an unknown name may place a paid order. A
	// stranger's handshake then spends money. Default: false
	AllowOnDemand bool `json:"allow_on_demand,omitempty"`

	// How often orders that have given their certificate are looked at. One whose
	// certificate was revoked is reissued, free of charge, for a new key. -1 means not to
	// look. Default: `1h`
	Watch caddy.Duration `json:"watch,omitempty"`

	// Whether another order may be placed, and paid for, in place of one that the
	// vendor has revoked or cancelled after it gave a certificate: once for each name
	// within the term that was paid for, and within the spending limit. Default: false,
	// a person is asked
	ReplaceEndedOrders bool `json:"replace_ended_orders,omitempty"`

	// Whether the metrics tell for each name when its certificate expires and when its paid
	// term ends, instead of only the earliest of these times per vendor. Default: false
	MetricsPerName bool `json:"metrics_per_name,omitempty"`

	// Orders that were bought elsewhere, to be used for the given names. No
	// order is ever placed for these names.
	Orders []AdoptedOrder `json:"orders,omitempty"`

	// Groups of names that share one order. The product must be able to hold
	// them all. The first name of a group becomes the common name.
	OneOrder [][]string `json:"one_order,omitempty"`

	// What to do if, before an order, the validation file cannot be fetched through the
	// name, the DNS record cannot be seen, or the name is not in DNS. `strict` places no
	// order, `warn` places it all the same, `off` does not look, and only warns of names
	// that are not in DNS. By default, a wrong answer stops the order, and a failed
	// connection is only a warning, because a server behind NAT may be unable to reach
	// itself.
	Probe string `json:"probe,omitempty"`

	// The port on which the validation file is fetched over HTTP, if port 80 is
	// forwarded to another one. Default: the HTTP port of Caddy
	HTTPPort int `json:"http_port,omitempty"`

	// The addresses on which to listen for the CA while an order is pending, if
	// Caddy itself has no HTTP server. Default: all
	Bind []string `json:"bind,omitempty"`

	ctx    caddy.Context
	logger *zap.Logger
	app    *app.App
	vendor vendors.Vendor
	about  vendors.Description
	order  vendors.OrderConfig
	rules  rules

	proofs   proof.Config
	unmanage func() // nil until the first SetConfig

	mu      sync.Mutex
	magic   *certmagic.Config
	lineKey string    // set by the first SetConfig
	line    *app.Line // nil before that, and after Cleanup
	prove   *proof.ByMethod
	stop    func() // detaches from the line; nil before the app has started
}

// DCV is how control of the names is proven (domain control validation).
type DCV struct {
	// `http` serves a file over plain HTTP. `https` serves the same over HTTPS,
	// which works only once the site has a certificate. `dns` adds a DNS record,
	// which needs no server and also proves wildcards. Default: `http`
	Method vendors.Method `json:"method,omitempty"`

	// The DNS provider that adds and removes the records of the method `dns`.
	// Default: that of the TLS app (the global option `dns`)
	ProviderRaw json.RawMessage `json:"provider,omitempty" caddy:"namespace=dns.providers inline_key=name"`

	// How long resolvers may cache the records. Default: what the provider chooses
	TTL caddy.Duration `json:"ttl,omitempty"`

	// How long to wait before looking for a new record. Default: 0
	PropagationDelay caddy.Duration `json:"propagation_delay,omitempty"`

	// How long to look until all name servers of the zone have a new record. What
	// happens if they do not is up to `probe`. -1 means not to look. Default: 2m
	PropagationTimeout caddy.Duration `json:"propagation_timeout,omitempty"`

	// Resolvers to ask instead of those of the system, and instead of the zone's
	// own name servers: addresses with an optional port. Default: those of the TLS
	// app, if it has any
	Resolvers []string `json:"resolvers,omitempty"`

	// The name to add the records at, if the names where the CA looks are CNAMEs
	// to it. This works only with vendors whose records have the same name for each
	// order, such as DigiCert's; Sectigo's do not. Placeholders are supported.
	// Default: none, records are added where the CA looks
	OverrideDomain string `json:"override_domain,omitempty"`

	provider certmagic.DNSProvider
}

// CaddyModule returns the Caddy module information.
func (*Issuer) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "tls.issuance.commercial",
		New: func() caddy.Module { return new(Issuer) },
	}
}

// Provision loads the vendor and resolves placeholders and defaults.
func (iss *Issuer) Provision(ctx caddy.Context) error {
	iss.ctx, iss.logger = ctx, ctx.Logger()
	var err error
	if iss.app, err = app.Of(ctx); err != nil {
		return err
	}
	iss.app.Register(ctx, iss)
	if iss.vendor == nil {
		if err := iss.loadVendor(ctx); err != nil {
			return err
		}
	}
	if err := iss.provisionOrder(caddy.NewReplacer()); err != nil {
		return err
	}
	if err := iss.provisionRules(); err != nil {
		return err
	}
	return iss.provisionProofs(caddy.NewReplacer())
}

// loadVendor loads the vendor that is configured.
func (iss *Issuer) loadVendor(ctx caddy.Context) error {
	if len(iss.VendorRaw) == 0 {
		return errors.New("a vendor is required, for example: issuer commercial racent {env.RACENT_TOKEN}")
	}
	mod, err := ctx.LoadModule(iss, "VendorRaw")
	if err != nil {
		return fmt.Errorf("loading vendor: %w", err)
	}
	vendor, ok := mod.(vendors.Vendor)
	if !ok {
		return fmt.Errorf("module %T is not a vendor", mod)
	}
	iss.vendor, iss.about = vendor, vendor.Describe()
	return nil
}

// Validate judges the configuration before any of it is used.
func (iss *Issuer) Validate() error {
	if m := iss.order.Method; m != vendors.MethodHTTP && m != vendors.MethodHTTPS && m != vendors.MethodDNS {
		return fmt.Errorf("dcv: the method must be http, https or dns, got %q", m)
	}
	if err := iss.DCV.check(); err != nil {
		return err
	}
	if !iss.about.Supports(iss.order.Method) {
		return fmt.Errorf("dcv: %s does not support the method %q", iss.about.Name, iss.order.Method)
	}
	if c, ok := iss.vendor.(vendors.ConfigChecker); ok {
		if err := c.CheckConfig(iss.order); err != nil {
			return err
		}
	}
	if err := iss.rules.check(iss.order.Method); err != nil {
		return err
	}
	if longest := sendWithin(iss.about) / 2; iss.rules.settle > longest {
		return fmt.Errorf("settle: must be at most %s, because an order is sent within %s of its entry or not at all, got %s",
			longest, 2*longest, iss.rules.settle)
	}
	if err := iss.checkListen(); err != nil {
		return err
	}
	if err := iss.checkMargin(); err != nil {
		return err
	}
	if err := iss.checkLooks(); err != nil {
		return err
	}
	if err := iss.checkPeers(); err != nil {
		return err
	}
	return iss.checkAdopted()
}

// IssuerKey returns the name under which certificates of this vendor and account
// are stored. The product is not part of it, so that a change of product leaves the
// certificate in use until its order's term is over.
func (iss *Issuer) IssuerKey() string {
	return "commercial-" + ledger.Escape(iss.about.Name) + "-" + ledger.Escape(iss.about.Account)
}

// SetConfig is called by the TLS app with the config of each policy that uses
// this issuer: first when the policy is provisioned, and again while the HTTP app
// sets up automatic HTTPS.
func (iss *Issuer) SetConfig(cfg *certmagic.Config) {
	rememberKeysOf(cfg)
	if len(cfg.Issuers) > 1 {
		// Otherwise certmagic would load the certificate with the latest NotBefore, and the
		// stopgap of the next issuer, which is renewed often, would win over one that is paid for.
		cfg.LoadFirstUsableCert = true
	}
	app.Quiet(cfg, isPending).Observe(iss.IssuerKey(), func(_ context.Context, event string, names []string) {
		if event == "cert_obtained" {
			iss.obtained(names)
		}
	})
	iss.mu.Lock()
	defer iss.mu.Unlock()
	iss.magic = cfg
	if iss.line == nil {
		iss.lineKey = iss.lineKeyOn(cfg.Storage)
		iss.line = app.Process.Line(iss.lineKey, newMemory)
		iss.app.Measure(iss, iss.about.Name, &iss.line.Memory().(*account).ledger, iss.MetricsPerName)
		iss.unmanage = dcv.Live.Manage(cfg.Storage, iss.app.Managed)
		iss.app.OnStart(iss.start)
		iss.app.OnListening(iss.listening)
		iss.app.OnStop(iss.end)
	}
	if err := iss.app.Attach(iss); err != nil {
		iss.logger.Error("cannot serve validation files from the servers of this config; add the dcv directive to a site on the HTTP port", zap.Error(err))
	}
}

// ServesFiles reports whether names are proven by files over HTTP.
func (iss *Issuer) ServesFiles() bool { return iss.order.Method == vendors.MethodHTTP }

func (iss *Issuer) config() *certmagic.Config {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	return iss.magic
}

func (iss *Issuer) currentLine() *app.Line {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	return iss.line
}

// lineKeyOn returns the key of the line for the issuer's account on a storage.
func (iss *Issuer) lineKeyOn(storage certmagic.Storage) string {
	return ledger.StorageIdentity(storage) + " " + iss.IssuerKey()
}

// newMemory is what a new line remembers.
func newMemory() any { return newAccount() }

// borrowLine returns the line, to be released, even after Cleanup: certmagic goes on with the
// issuers of a configuration that failed to load. It is nil before the first SetConfig.
func (iss *Issuer) borrowLine() *app.Line {
	iss.mu.Lock()
	key := iss.lineKey
	iss.mu.Unlock()
	if key == "" {
		return nil
	}
	return app.Process.Line(key, newMemory)
}

func (iss *Issuer) siteOf(magic *certmagic.Config) *magicSite {
	return &magicSite{
		magic: magic, issuerKey: iss.IssuerKey(),
		allows:  func(name string) (bool, bool) { return iss.app.Allows(iss, name) },
		manages: func(name string) bool { return iss.app.Manages(iss, name) },
	}
}

func (iss *Issuer) flow() *flow { return iss.flowOn(iss.currentLine()) }

func (iss *Issuer) flowOn(line *app.Line) *flow {
	magic := iss.config()
	account := line.Memory().(*account)
	f := &flow{
		vendor: iss.vendor, about: iss.about, order: iss.order, rules: iss.rules, prove: iss.prove, files: dcv.Live, server: hostName(),
		ledger:  &ledger.Ledger{Storage: magic.Storage, Prefix: ledger.Prefix(iss.about.Name, iss.about.Account), Memory: &account.ledger},
		account: account, site: iss.siteOf(magic), emit: iss.app.Emit, wake: line.Wake, busy: func(name string) bool { _, busy := line.Due(name); return busy },
		config: magic, logger: iss.logger,
	}
	f.ledger.Written = f.written
	return f
}

// Account implements app.Member.
func (iss *Issuer) Account() (operator.Account, bool) {
	magic, line := iss.config(), iss.currentLine()
	if magic == nil || line == nil {
		return operator.Account{}, false
	}
	f := iss.flowOn(line)
	return operator.Account{
		Ledger: f.ledger, Vendor: f.vendor, About: f.about, Margin: f.margin, Settle: f.rules.settle, WindowRatio: magic.RenewalWindowRatio,
		Order:   func(string) vendors.OrderConfig { return f.order },
		Manages: f.site.Manages, Names: func() []string { return iss.app.NamesOf(iss) }, Rules: f.rulesOf, Maybe: f.maybeNames, Stored: f.isStored,
		SpendOrders: f.rules.spend.Orders, SpendPer: time.Duration(f.rules.spend.Per), OnDemand: f.rules.allowOnDemand && magic.OnDemand != nil,
		Wake: f.wake, Hold: f.account.drive,
		Doing: func(name string, e *ledger.Entry) operator.Doing {
			doing := f.account.doing(name)
			at, busy := line.Due(name)
			if e != nil {
				if said, when, next, ok := f.account.lookedAt(e.Attempt.Reference); ok {
					doing.Said, doing.At = said, when.UTC().Truncate(time.Second)
					if !next.IsZero() {
						at, busy = next, true
					}
				}
			}
			if busy {
				doing.Next = at.UTC().Truncate(time.Second)
			}
			return doing
		},
		Unordered: func() []string {
			return slices.DeleteFunc(iss.app.NamesOf(iss), f.account.ledger.Knows)
		},
	}, true
}

func issuedCertificate(about vendors.Description, got chain, e *ledger.Entry) *certmagic.IssuedCertificate {
	return &certmagic.IssuedCertificate{
		Certificate: got.pem(),
		Metadata: metadata{
			Vendor: about.Name, Account: about.Account,
			OrderID: e.OrderID, CAOrderID: e.CAOrderID,
			Product: e.Product, TermEnds: e.Ends,
		},
	}
}

// metadata is stored by certmagic beside the certificate. It lets Revoke find the
// order.
type metadata struct {
	Vendor    string    `json:"vendor"`
	Account   string    `json:"account"`
	OrderID   string    `json:"order_id"`
	CAOrderID string    `json:"ca_order_id,omitempty"`
	Product   string    `json:"product,omitempty"`
	TermEnds  time.Time `json:"term_ends"`
}

// Revoke asks the vendor to revoke the certificate of the order that cert belongs
// to. That uses the order up.
func (iss *Issuer) Revoke(ctx context.Context, cert certmagic.CertificateResource, reason int) error {
	var meta metadata
	if err := json.Unmarshal(cert.IssuerData, &meta); err != nil || meta.OrderID == "" {
		return fmt.Errorf("the stored certificate for %s does not say which order it is from; revoke it at %s",
			strings.Join(cert.SANs, ", "), iss.about.Portal)
	}
	r, ok := iss.vendor.(vendors.Revoker)
	if !ok {
		return fmt.Errorf("%s cannot revoke certificates through its API; revoke order %s at %s",
			iss.about.Name, meta.OrderID, iss.about.Portal)
	}
	if err := r.Revoke(ctx, meta.OrderID, reasonText(reason)); err != nil {
		return fmt.Errorf("revoking the certificate of order %s: %w", meta.OrderID, err)
	}
	iss.logger.Info("certificate revoked",
		zap.Strings("identifiers", cert.SANs), zap.String("vendor", iss.about.Name), zap.String("order_id", meta.OrderID))
	return nil
}

// reasonText names a revocation reason of RFC 5280, section 5.3.1.
func reasonText(reason int) string {
	names := map[int]string{
		0: "unspecified", 1: "key compromise", 2: "CA compromise", 3: "affiliation changed",
		4: "superseded", 5: "cessation of operation", 9: "privilege withdrawn",
	}
	if name, ok := names[reason]; ok {
		return name
	}
	return "reason " + strconv.Itoa(reason)
}

// start begins the work of this configuration for the issuer's account, once everything is
// provisioned. What the previous configuration served goes on being served until there is a
// certificate of ours.
func (iss *Issuer) start() {
	magic, line := iss.config(), iss.currentLine()
	proofs := iss.proofs
	proofs.Storage, proofs.Port = magic.Storage, iss.listenPort
	proofs.Group = ledger.Prefix(iss.about.Name, iss.about.Account)
	proofs.Listen = func(ctx context.Context) (func(), error) { return iss.app.Listen(ctx, iss.Bind, iss.listenPort()) }
	ctx, cancel := context.WithCancel(iss.ctx)
	prove := proof.New(proofs)
	iss.mu.Lock()
	iss.prove = prove
	iss.mu.Unlock()
	app.TakeStopgaps(ctx, magic, iss.IssuerKey(), iss.app.Written(iss))
	f := iss.flow()
	detach := line.Attach(ctx, iss.app.Worker(iss.IssuerKey()))
	var background sync.WaitGroup
	background.Go(func() {
		f.sweep(ctx,
			func() []string { return iss.app.NamesOf(iss) },
			func(name string) bool { return iss.app.First(iss, name) })
	})
	background.Go(func() { f.watch(ctx, func(name string) bool { return iss.app.First(iss, name) }) })
	background.Go(func() { f.keepVisits(ctx) })
	background.Go(func() { f.tryStorage(ctx, openAgain) })
	background.Go(func() {
		for poll.Wait(ctx, stopgapEvery) == nil {
			app.TakeStopgaps(ctx, magic, iss.IssuerKey(), iss.app.Written(iss))
		}
	})
	background.Go(func() {
		f.tellUnserved(ctx,
			func() []string { return iss.app.Written(iss) },
			func() bool { return len(iss.config().Issuers) == 1 })
	})
	iss.mu.Lock()
	defer iss.mu.Unlock()
	iss.stop = sync.OnceFunc(func() {
		cancel()
		detach()
		background.Wait()
		prove.Close()
	})
}

// stopgapEvery is how often stopgaps that are about to expire are looked for.
const stopgapEvery = time.Hour

// listening drops the stopgaps of names that are no longer configured.
func (iss *Issuer) listening() {
	app.KeepStopgaps(iss.config(), func(name string) bool { ours, _ := iss.app.Managed(name); return ours })
}

// listenPort is where validation files are served over HTTP.
func (iss *Issuer) listenPort() int {
	if iss.HTTPPort != 0 {
		return iss.HTTPPort
	}
	return iss.app.HTTPPort()
}

// Round implements app.Member.
func (iss *Issuer) Round(ctx context.Context, name string) (again time.Duration, more bool) {
	return iss.flow().Round(ctx, name)
}

// obtained notes that certmagic has stored certificates for names.
func (iss *Issuer) obtained(names []string) {
	line := iss.borrowLine()
	if line == nil {
		return
	}
	defer line.Release()
	for _, name := range names {
		if line.Memory().(*account).stored(name) {
			line.Wake(name)
		}
	}
}

// end ends the work of this configuration. Orders stay as they are; the next configuration
// goes on with them.
func (iss *Issuer) end() {
	iss.mu.Lock()
	stop := iss.stop
	iss.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// Cleanup lets go of everything that outlives a single call.
func (iss *Issuer) Cleanup() error {
	iss.end()
	iss.mu.Lock()
	defer iss.mu.Unlock()
	if iss.line != nil {
		iss.unmanage()
		iss.line.Release()
		iss.line = nil
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Issuer)(nil)
	_ caddy.Validator       = (*Issuer)(nil)
	_ caddy.CleanerUpper    = (*Issuer)(nil)
	_ certmagic.Issuer      = (*Issuer)(nil)
	_ certmagic.Revoker     = (*Issuer)(nil)
	_ caddytls.ConfigSetter = (*Issuer)(nil)
	_ app.Member            = (*Issuer)(nil)
)
