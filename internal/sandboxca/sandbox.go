// Package sandboxca is the core of a commercial certificate authority for tests and
// demos: what Pebble is for ACME, for the order APIs of commercial sellers. It keeps
// accounts with balances, products with prices, and orders; it really fetches
// validation files, really signs (with a root that nobody trusts) and records
// every charge, so that a test can assert on money.
//
// The core knows accounts, orders, validation, signing and persistence, and no
// seller. What a seller's API looks like is a [Dialect] on top of it, in a package of
// its own below this one. A dialect is strict: it refuses whatever the seller's
// documents do not allow, naming the field. What goes wrong on purpose is in packages
// of its own, too: fault for calls, quirk for everything else.
//
// Nothing here ever dials an address that is not loopback, but for a resolver if it is
// given one.
package sandboxca

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Config describes a sandbox. The zero value is usable but has no accounts, so
// every call is refused.
type Config struct {
	// Dir is where keys, certificates, orders and charges are kept, so that a
	// restart finds them again. One CA per directory. Empty means memory only.
	Dir string

	// Accounts are the customers.
	Accounts []Account

	// Products is the catalogue. Nothing else is sold.
	Products []Product

	// Lifetime is the validity of one issued certificate, counted from the
	// moment of issue. Default 199 days: what a 200-day cap leaves.
	Lifetime time.Duration

	// Year is how long one paid year lasts, default 365 days. Everything that
	// the seller states in days of a term (renewal and refund windows) scales
	// with it, so that a test can compress time.
	Year time.Duration

	// SubmitDelay is the time between placing an order and the CA having it.
	// Before that there are no validation values and no validation.
	SubmitDelay time.Duration

	// CheckInterval is the rhythm in which pending orders are looked at without
	// being asked. Zero means that validation is looked at only while an API
	// call is served: place, updateDCV, and collect (at most every 250 ms).
	CheckInterval time.Duration

	// OVDelay is how long the check of the organisation takes for products that
	// are not domain-validated, counted from the submission.
	OVDelay time.Duration

	// IssueDelay is the time between the end of all checks and the certificate.
	IssueDelay time.Duration

	// HTTPPort and HTTPSPort are where validation files are fetched. Default 80
	// and 443. The Host header never shows them.
	HTTPPort, HTTPSPort int

	// Perspectives is how many independent fetches are made of each name's file
	// in one look, default 3; Quorum is how many of them must succeed, default
	// all.
	Perspectives, Quorum int

	// Lenient compares validation files word by word and without regard to
	// case, instead of byte for byte.
	Lenient bool

	// Resolve names the address to dial for a host. Default 127.0.0.1 for all.
	// An answer that is not loopback fails the fetch.
	Resolve func(host string) (ip string, err error)

	// LookupCNAME answers DNS validation. Nil means that nothing resolves.
	LookupCNAME func(ctx context.Context, host string) (target string, err error)

	// LookupTXT answers DNS validation by TXT records. Nil means that nothing
	// resolves.
	LookupTXT func(ctx context.Context, host string) (values []string, err error)

	// LookupCAA answers for the CAA properties of one name, without climbing. Nil means
	// that nobody looks at them.
	LookupCAA func(ctx context.Context, host string) ([]CAA, error)

	// Transport replaces the network for validation fetches.
	Transport http.RoundTripper

	// Now is the clock, default time.Now. It must not call back into the CA.
	Now func() time.Time

	// Logger may be nil.
	Logger *zap.Logger

	// ClientAuth puts clientAuth beside serverAuth into certificates.
	ClientAuth bool

	// Hooks are deviations from what the CA would do.
	Hooks Hooks
}

const (
	defaultLifetime     = 199 * 24 * time.Hour
	defaultYear         = 365 * 24 * time.Hour
	defaultPerspectives = 3

	// minLookInterval keeps a client that polls in a tight loop from turning
	// each poll into a round of fetches.
	minLookInterval = 250 * time.Millisecond

	// maxFetches bounds the memory of a long-running demo.
	maxFetches = 10_000
)

func (cfg *Config) setDefaults() {
	if cfg.Lifetime <= 0 {
		cfg.Lifetime = defaultLifetime
	}
	if cfg.Year <= 0 {
		cfg.Year = defaultYear
	}
	if cfg.HTTPPort == 0 {
		cfg.HTTPPort = 80
	}
	if cfg.HTTPSPort == 0 {
		cfg.HTTPSPort = 443
	}
	if cfg.Perspectives <= 0 {
		cfg.Perspectives = defaultPerspectives
	}
	if cfg.Quorum <= 0 || cfg.Quorum > cfg.Perspectives {
		cfg.Quorum = cfg.Perspectives
	}
	if cfg.Resolve == nil {
		cfg.Resolve = func(string) (string, error) { return "127.0.0.1", nil }
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
}

// days scales a number of days to the length of a paid year.
func (cfg *Config) days(n int) time.Duration {
	return cfg.Year * time.Duration(n) / 365
}

// CA is a sandbox certificate authority. Make it with New, serve it with Handler, and
// Close it.
type CA struct {
	ctx       context.Context
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	logger    *zap.Logger
	authority *authority
	network   http.RoundTripper

	mu      sync.Mutex // guards everything below; never held during I/O other than Dir
	cfg     Config
	journal *journal
	st      state
	fetches []Fetch

	// identities are the CA's names in CAA records, by dialect.
	identities map[string][]string

	scanning bool
	closed   bool
}

// New makes a CA, or loads the one in cfg.Dir. It fails when the configuration
// contradicts itself or the directory cannot be used.
func New(cfg Config) (*CA, error) {
	cfg.setDefaults()
	if err := checkAccounts(cfg.Accounts); err != nil {
		return nil, err
	}
	if err := checkProducts(cfg.Products); err != nil {
		return nil, err
	}
	auth, err := openAuthority(cfg.Dir, cfg.Now())
	if err != nil {
		return nil, fmt.Errorf("opening sandbox authority: %w", err)
	}
	journal, st, err := openJournal(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("loading sandbox state: %w", err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	c := &CA{
		ctx:       ctx,
		cancel:    cancel,
		logger:    cfg.Logger,
		authority: auth,
		cfg:       cfg,
		journal:   journal,
		st:        st,

		identities: make(map[string][]string),
	}
	c.network = newLoopbackTransport(c.resolve)
	if err := c.openAccounts(cfg.Accounts); err != nil {
		cancel()
		return nil, err
	}
	c.logger.Warn("sandbox certificate authority started; its certificates are not trusted by anyone",
		zap.String("root", auth.root.Subject.CommonName),
		zap.String("dir", cfg.Dir))

	c.mu.Lock()
	c.startScanner()
	c.mu.Unlock()
	return c, nil
}

// Close stops all timers, hanging answers and fetches, and waits for the
// goroutines the CA has started. Later requests get an HTTP 503.
func (c *CA) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.wg.Wait()
}

// Update changes the configuration at run time, under the lock, so f must not
// call the CA. Dir and Logger stay what they were; the balance of an account
// that exists already is not touched (see SetBalance).
func (c *CA) Update(f func(*Config)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.cfg
	f(&next)
	next.Dir, next.Logger = c.cfg.Dir, c.cfg.Logger
	next.setDefaults()
	err := errors.Join(checkAccounts(next.Accounts), checkProducts(next.Products))
	if err != nil {
		return err
	}
	c.cfg = next
	c.startScanner()
	return c.openAccounts(next.Accounts)
}

// RootPEM is the root certificate.
func (c *CA) RootPEM() []byte { return certPEM(c.authority.root.Raw) }

// Roots is a pool that holds only the root certificate.
func (c *CA) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.authority.root)
	return pool
}

// Charges lists every charge ever made, oldest first.
func (c *CA) Charges() []Charge {
	c.mu.Lock()
	defer c.mu.Unlock()
	return cloneCharges(c.st.charges)
}

// Orders lists every order, reissue and replacement, oldest first.
func (c *CA) Orders() []OrderInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advanceAll()
	infos := make([]OrderInfo, 0, len(c.st.orders))
	for _, o := range c.st.orders {
		infos = append(infos, o.info())
	}
	return infos
}

// Order is the order with this ID, and whether there is one.
func (c *CA) Order(id string) (OrderInfo, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.st.byID[id]
	if o == nil {
		return OrderInfo{}, false
	}
	c.advance(o)
	return o.info(), true
}

// Fetches lists the validation fetches since New, oldest first; only the newest
// ten thousand are kept.
func (c *CA) Fetches() []Fetch {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Fetch{}, c.fetches...)
}

// Revoked tells whether the certificate with this serial number was revoked,
// by revoke, by cancel, or by SetStatus.
func (c *CA) Revoked(serial *big.Int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.st.orders {
		if o.Revoked && o.Serial == serial.Text(16) {
			return true
		}
	}
	return false
}

// SetStatus changes an order behind the client's back, as a person at the
// seller may. The word is stored as it is; CANCELLED and REVOKED also revoke the
// certificate.
func (c *CA) SetStatus(orderID, status string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.st.byID[orderID]
	if o == nil {
		return fmt.Errorf("no order %q", orderID)
	}
	c.advance(o)
	o.Status = status
	if status == StatusCancelled || status == StatusRevoked {
		o.Revoked = o.Cert != nil
	}
	return c.store(o)
}

// RevokeCertificate revokes the certificate of an order behind the client's back, as a
// CA does that finds it wrong. The order lives on and may be reissued.
func (c *CA) RevokeCertificate(orderID string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.st.byID[orderID]
	if o == nil {
		return fmt.Errorf("no order %q", orderID)
	}
	if c.advance(o); o.Cert == nil {
		return fmt.Errorf("order %q has no certificate", orderID)
	}
	o.Revoked = true
	return c.store(o)
}

// RevokeAll revokes all certificates at once, as after a fault of the CA, and returns
// how many there were. The orders live on.
func (c *CA) RevokeAll() (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advanceAll()
	var revoked []*Order
	for _, o := range c.st.orders {
		if o.Cert != nil && !o.Revoked {
			o.Revoked = true
			revoked = append(revoked, o)
		}
	}
	return len(revoked), c.saved(change{Progress: progressOf(revoked)}).Err()
}

// Approve proves one name of a pending order, as a click on the link in a
// validation mail would.
func (c *CA) Approve(orderID, name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.st.byID[orderID]
	if o == nil {
		return fmt.Errorf("no order %q", orderID)
	}
	n := o.Name(name)
	if n == nil {
		return fmt.Errorf("order %q has no name %q", orderID, name)
	}
	n.Verified = true
	o.settle(c.cfg.Now())
	c.advance(o)
	return c.store(o)
}

// store stores what has changed on an order. The lock is held.
func (c *CA) store(o *Order) error {
	return c.saved(change{Progress: progressOf([]*Order{o})}).Err()
}

func (c *CA) resolve(host string) (string, error) {
	c.mu.Lock()
	resolve := c.cfg.Resolve
	c.mu.Unlock()
	return resolve(host)
}

// startScanner starts the one background goroutine, if it is wanted and not
// there yet. The lock is held.
func (c *CA) startScanner() {
	if c.cfg.CheckInterval <= 0 || c.scanning || c.closed {
		return
	}
	c.scanning = true
	c.wg.Go(c.scan)
}

func (c *CA) scan() {
	for {
		c.mu.Lock()
		interval := c.cfg.CheckInterval
		if interval <= 0 {
			c.scanning = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()

		timer := time.NewTimer(interval)
		select {
		case <-timer.C:
		case <-c.ctx.Done():
			timer.Stop()
			return
		}
		for _, id := range c.pendingIDs() {
			c.look(id, true)
		}
	}
}
