package sandboxca

import (
	"context"
	"net/http"
	"time"

	"go.uber.org/zap"
)

// Config describes a sandbox. The zero value is usable but has no accounts, so
// every call is refused.
type Config struct {
	// Dir is where keys, certificates, orders and charges are kept across restarts. One
	// CA per directory. Empty means memory only.
	Dir string

	// Accounts are the customers.
	Accounts []Account

	// Products is the catalogue. Nothing else is sold.
	Products []Product

	// Lifetime is the validity of one issued certificate, counted from the moment of
	// issue. Default 199 days, one less than the limit of 200 days.
	Lifetime time.Duration

	// Year is how long one paid year lasts, default 365 days. Everything that the seller
	// states in days of a term (renewal and refund windows) scales with it, so a test can
	// compress time.
	Year time.Duration

	// SubmitDelay is the time until the CA receives an order that was placed. Before that
	// there are no validation values and no validation.
	SubmitDelay time.Duration

	// CheckInterval is how often pending orders are checked in the background. Zero means
	// that they are checked only while an API call is served, such as place, updateDCV,
	// and collect (at most every 250 ms).
	CheckInterval time.Duration

	// OVDelay is how long the check of the organization takes, for products that are not
	// domain-validated, counted from when the CA receives the order.
	OVDelay time.Duration

	// IssueDelay is the time between the end of all checks and the certificate.
	IssueDelay time.Duration

	// HTTPPort and HTTPSPort are where validation files are fetched. Default 80
	// and 443. The Host header never shows them.
	HTTPPort, HTTPSPort int

	// Perspectives is how many independent checks of each name's proof are made at a
	// time, default 3; Quorum is how many of them must succeed, default all.
	Perspectives, Quorum int

	// Calendar replaces Lifetime, Perspectives, Quorum, Reuse, IgnoreCAAParameters and
	// ClientAuth with the industry's rules in force at the time.
	Calendar bool

	// Reuse is how long DigiCert reuses the validation of a name. Zero means that it does
	// not.
	Reuse time.Duration

	// IgnoreCAAParameters ignores everything after the CA's name in CAA records, as CAs
	// may until 2027-03-15 (ballot SC-098v2).
	IgnoreCAAParameters bool

	// Lenient compares validation files word by word, ignoring case, instead of byte by
	// byte.
	Lenient bool

	// Resolve names the address to dial for a host. Default 127.0.0.1 for all.
	// An answer that is not loopback fails the fetch.
	Resolve func(host string) (ip string, err error)

	// LookupCNAME looks up records for DNS validation. Nil means that there are none.
	LookupCNAME func(ctx context.Context, host string) (target string, err error)

	// LookupTXT looks up TXT records for DNS validation. Nil means that there are none.
	LookupTXT func(ctx context.Context, host string) (values []string, err error)

	// LookupCAA returns the CAA properties of one name, without climbing. Nil means that
	// they are not checked.
	LookupCAA func(ctx context.Context, host string) ([]CAA, error)

	// Transport replaces the network for validation fetches.
	Transport http.RoundTripper

	// Now is the clock, default time.Now. It must not call back into the CA.
	Now func() time.Time

	// Logger may be nil.
	Logger *zap.Logger

	// ClientAuth issues certificates with clientAuth besides serverAuth.
	ClientAuth bool

	// CRLURL, if not empty, is put into certificates as the URL of the CRL. Handler
	// serves it at CRLPath.
	CRLURL string

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
	return cfg.Year / 365 * time.Duration(n) // dividing first, since years times days overflows
}
