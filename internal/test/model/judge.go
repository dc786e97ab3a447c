package model

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Violation is a rule that a system broke.
type Violation struct {
	Kind string // a constant for each rule
	Text string
	At   time.Duration // the true time since the history began
}

func (v *Violation) String() string {
	return fmt.Sprintf("%s after %.1f days: %s", v.Kind, v.At.Hours()/24, v.Text)
}

// The kinds of violations.
const (
	PaidTwice           = "paid twice"
	BoughtThoughCovered = "bought though covered"
	BoughtForAdopted    = "bought for an adopted name"
	BoughtUnasked       = "bought for a name that is not configured"
	BoughtOther         = "bought another product or term"
	LimitPassed         = "spending limit"
	Undead              = "undead"
	Panicked            = "panic"
	NoCertificate       = "no certificate"
)

// Charge is an order that was paid.
type Charge struct {
	At      time.Duration // the true time since the history began
	Server  int
	Vendor  int
	Account string
	OrderID string
	Names   []string
	Product string
	Term    time.Duration
}

// charged notes a paid order and judges it.
func (s *seller) charged(p *Process, o *order) {
	w := s.w
	ch := Charge{w.now(), p.Server, s.number, o.account, o.id, o.names, o.product, o.term}
	w.say("CHARGE %s for %v, account %q, reference %s, by server %d", o.id, o.names, o.account, o.ref, p.Server)
	w.result.Charges++
	if w.p.Observe != nil {
		w.p.Observe(ch)
	}
	s.judge(p, o)
	s.charges = append(s.charges, ch)
}

// grace is how long a config that is no longer in force may still account for an order:
// the time from the last moment at which a process checks its config until the charge
// lands.
func (w *World) grace() time.Duration {
	return w.p.LateCheck + w.p.PauseBeforeSend + w.p.PaidTimeout + w.p.Land + time.Minute
}

// toBeKnown is how long a certificate may be unknown to the servers after it was issued:
// they learn which names the CA has added only when they ask. If processes are stopped
// for hours, several such stops add up.
func (w *World) toBeKnown() time.Duration {
	if w.p.Slow {
		return 18 * time.Hour
	}
	return 6 * time.Hour
}

// judge compares a new order with those before, by the vendor's truth and the true time.
func (s *seller) judge(p *Process, o *order) {
	w := s.w
	now, slack := w.now(), 2*w.p.Skew+3*w.p.AbsenceAge
	var configs []Config
	for _, l := range p.server.loaded {
		if (l.until == 0 || l.until+w.grace() >= now) && l.Vendor == s.number && l.Account == o.account {
			configs = append(configs, l.Config)
		}
	}
	if len(configs) == 0 {
		w.violate(BoughtUnasked, "%v, by server %d: no config names this account", o.names, p.Server)
		return
	}
	margin := time.Duration(0)
	for _, cfg := range configs {
		margin = max(margin, cfg.Margin)
	}
	if !slices.ContainsFunc(configs, func(cfg Config) bool {
		return cfg.Product == o.product && time.Duration(cfg.Term)*day == o.term
	}) {
		w.violate(BoughtOther, "%s for %s, by server %d", o.product, o.term, p.Server)
	}
	for _, n := range o.names {
		for _, x := range s.list {
			if x == o || x.account != o.account || x.root.dismissed {
				continue
			}
			ends, term, held := x.ends, x.term, x.root.held
			switch {
			case x.ours:
			case held.from == 0 || now < held.from:
				continue
			default:
				ends, term = min(x.ends, held.until), held.term
			}
			left, inMargin := ends-now, min(margin, term/2)+slack
			if left <= inMargin {
				continue
			}
			if x.root == x && slices.Contains(x.names, n) {
				w.violate(PaidTwice, "%s: %s has %.1f days left, margin %.1f, and %s was bought by server %d",
					n, x.id, left.Hours()/24, min(margin, term/2).Hours()/24, o.id, p.Server)
			}
			// No server may be able to know of an order whose answer was lost.
			since := max(x.issued, x.root.asked, held.from)
			known := !x.root.handled && x.status == vendors.StatusIssued && x.issued > 0 && x.root.asked > 0 && since < now-w.toBeKnown()
			if known && !slices.Contains(x.names, n) && slices.Contains(s.covered(x), n) {
				w.violate(BoughtThoughCovered, "%s by %s", n, x.id)
			}
		}
		if !slices.ContainsFunc(configs, func(cfg Config) bool { return cfg.Adopt[n] == "" }) {
			w.violate(BoughtForAdopted, "%s by server %d", n, p.Server)
		} else if !slices.ContainsFunc(configs, func(cfg Config) bool { return cfg.MayBuy(n) }) {
			w.violate(BoughtUnasked, "%s by server %d", n, p.Server)
		}
	}
	// Each server counts by its own clock, and from when an order was recorded, not sent.
	per, count := day-2*w.p.Skew-w.grace(), 1
	for _, ch := range s.charges {
		if ch.Account == o.account && ch.At > now-per {
			count++
		}
	}
	if count > w.p.Limit {
		w.violate(LimitPassed, "%d charges in %.0f hours", count, per.Hours())
	}
}

// serves checks whether a server's process serves a valid certificate for the name, and
// says what is wrong if not. It is called outside the loop, because it calls the system.
func (s *server) serves(p *Process, name string) string {
	if p == nil || p.system == nil {
		return "it is down"
	}
	cert := p.system.Served(name)
	if cert == nil {
		return "it has none"
	}
	leaf := cert.Leaf
	if leaf == nil {
		return "its leaf is not known"
	}
	now := time.Now()
	if now.After(leaf.NotAfter) {
		return fmt.Sprintf("it ended %s ago", now.Sub(leaf.NotAfter))
	}
	if err := leaf.VerifyHostname(name); err != nil {
		return err.Error()
	}
	if s.checked[name] == cert {
		return ""
	}
	if err := s.w.verify(cert); err != nil {
		return err.Error()
	}
	if !fits(cert.PrivateKey, leaf) {
		return "its private key belongs to another certificate"
	}
	s.checked[name] = cert
	return ""
}

// verify checks the signatures of what is served.
func (w *World) verify(cert *tls.Certificate) error {
	if w.market == nil {
		return cert.Leaf.CheckSignatureFrom(modelCA().cert)
	}
	pool := x509.NewCertPool()
	for _, der := range cert.Certificate[1:] {
		above, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		pool.AddCert(above)
	}
	_, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: w.market.Roots(), Intermediates: pool})
	return err
}

// fits reports whether the private key belongs to the certificate.
func fits(key crypto.PrivateKey, leaf *x509.Certificate) bool {
	signer, ok := key.(crypto.Signer)
	return ok && sameKey(signer.Public(), leaf.PublicKey)
}

// lost lists the orders that cover a name, for the reader of a failure.
func (w *World) lost(name string) string {
	w.readBooks(nil)
	var text []string
	for _, s := range w.sellers {
		for _, o := range s.list {
			if o.ends > w.now()-day && slices.Contains(s.covered(o), name) {
				text = append(text, fmt.Sprintf("%s %s of account %q, %.1f days left", o.id, o.status, o.account, (o.ends-w.now()).Hours()/24))
			}
		}
	}
	return strings.Join(text, "; ")
}
