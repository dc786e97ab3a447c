// Package sandboxca is the core of a commercial certificate authority for tests and
// demos: what Pebble is for ACME, for the order APIs of commercial sellers. It keeps
// accounts with balances, products with prices, and orders; it really fetches validation
// files, really signs (with a root that nobody trusts) and records every charge, so tests
// can check on money.
//
// The core knows accounts, orders, validation, signing and persistence, but no seller.
// What a seller's API looks like is a [Dialect] on top of it, in a package of its own
// below this one. A dialect is strict: it refuses whatever the seller's documents do not
// allow, naming the field. What goes wrong on purpose is in packages of its own, too:
// fault for calls, quirk for everything else.
//
// Nothing here ever dials an address that is not loopback, except a resolver if one is
// configured.
package sandboxca

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"
)

// CA is a sandbox certificate authority. Make it with New, serve it with Handler, and
// Close it.
type CA struct {
	ctx       context.Context
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	logger    *zap.Logger
	authority *authority
	network   http.RoundTripper

	mu      sync.Mutex // guards everything below; never held during I/O other than in Dir
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

// Close stops all checks and fetches, and waits for the goroutines the CA has started.
// Later requests get an HTTP 503.
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

func (c *CA) resolve(host string) (string, error) {
	c.mu.Lock()
	resolve := c.cfg.Resolve
	c.mu.Unlock()
	return resolve(host)
}

// startScanner starts the one background goroutine, if it is needed and not running yet.
// The lock is held.
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
