// Package vendorhttp is the one way in which vendors speak HTTP.
//
// Every call belongs to a class. A Read may be repeated and is, a few times. An
// Effect may cost money and is sent at most once; its error tells whether the
// request can have reached the vendor.
//
// Answers are judged before anyone decodes them: status, size, completeness,
// and whether they are JSON at all. Secrets are removed from every error, and
// neither headers nor bodies are ever logged.
package vendorhttp

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.uber.org/zap"
)

const (
	// DefaultTimeout bounds one attempt of a call. Published clients of
	// certificate resellers use 20 to 60 seconds; paid calls wait for the CA
	// behind the vendor, and giving up early makes their outcome unknown.
	DefaultTimeout = 60 * time.Second

	// MaxBody bounds an answer. The largest legitimate one, a list of all
	// products or orders of an account, stays far below.
	MaxBody = 4 << 20

	// MaxRetryAfter bounds how long a vendor can make us wait.
	MaxRetryAfter = 60 * time.Second

	maxAttempts = 3
	firstDelay  = time.Second
)

// Class says what repeating a request would mean.
type Class int

const (
	// Effect is a request that may change something or cost money. It is the
	// zero value, so that forgetting the class cannot cost anything.
	Effect Class = iota

	// Read is a request that is free and safe to repeat.
	Read
)

// Config is what a vendor knows about its seller's service.
type Config struct {
	// Vendor is the module name, for logs.
	Vendor string

	// BaseURL is what CheckEndpoint accepts. Request paths are appended to it.
	BaseURL string

	// Timeout bounds one attempt. Zero means DefaultTimeout.
	Timeout time.Duration

	// UserAgent defaults to that of this plugin.
	UserAgent string

	// Secrets are removed from errors.
	Secrets []string

	// Logger receives one debug line per attempt. Nil means none.
	Logger *zap.Logger

	// Transport replaces the network, for tests. It is used for both classes.
	Transport http.RoundTripper
}

// Client sends requests to one vendor. It is safe for concurrent use. Close it
// when its vendor is done.
type Client struct {
	vendor    string
	base      string
	timeout   time.Duration
	userAgent string
	secrets   scrubber
	logger    *zap.Logger

	// reads keeps connections alive. effects opens a new one for each request:
	// a kept connection that the server has meanwhile closed fails after the
	// request was written, which would leave the outcome of a payment unknown
	// for no reason, and is what net/http repeats requests for.
	reads, effects http.RoundTripper
}

// New returns a client, or an error about the base URL.
func New(cfg Config) (*Client, error) {
	base, err := CheckEndpoint(cfg.BaseURL)
	if err != nil {
		return nil, err
	}
	c := &Client{
		vendor:    cfg.Vendor,
		base:      base,
		timeout:   cfg.Timeout,
		userAgent: cfg.UserAgent,
		secrets:   newScrubber(cfg.Secrets),
		logger:    cfg.Logger,
		reads:     cfg.Transport,
		effects:   cfg.Transport,
	}
	if c.timeout <= 0 {
		c.timeout = DefaultTimeout
	}
	if c.userAgent == "" {
		c.userAgent = "caddy-commercial"
	}
	if c.logger == nil {
		c.logger = zap.NewNop()
	}
	if cfg.Transport == nil {
		reads := http.DefaultTransport.(*http.Transport).Clone()
		effects := reads.Clone()
		effects.DisableKeepAlives = true
		// HTTP/2 sends the head of a request before its body is read; see BeforeSending.
		effects.ForceAttemptHTTP2 = false
		effects.Protocols = new(http.Protocols)
		effects.Protocols.SetHTTP1(true)
		c.reads, c.effects = reads, effects
	}
	return c, nil
}

// Close ends idle connections.
func (c *Client) Close() {
	for _, rt := range []http.RoundTripper{c.reads, c.effects} {
		if t, ok := rt.(*http.Transport); ok {
			t.CloseIdleConnections()
		}
	}
}

// Scrub removes the secrets from a text, for messages that a vendor takes from
// an answer.
func (c *Client) Scrub(text string) string { return c.secrets.scrub(text) }

// CheckEndpoint judges a configured base URL and returns it without a trailing
// slash. It must be https; http is accepted on a loopback host, where the
// credential does not leave the machine.
func CheckEndpoint(endpoint string) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Hostname() == "" {
		return "", fmt.Errorf("endpoint: not an absolute URL")
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("endpoint: must not hold credentials, a query or a fragment")
	}
	switch {
	case u.Scheme == "https":
	case u.Scheme == "http" && IsLoopback(u.Hostname()):
	case u.Scheme == "http":
		return "", fmt.Errorf("endpoint: %s would send the credential in the clear; use https", u.Host)
	default:
		return "", fmt.Errorf("endpoint: scheme %q is not https", u.Scheme)
	}
	return strings.TrimRight(u.String(), "/"), nil
}

// IsLoopback reports whether a host is on this machine: localhost, or a loopback
// address.
func IsLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// Request is one call.
type Request struct {
	// Endpoint is the call's name in errors and logs.
	Endpoint string

	// Method defaults to POST.
	Method string

	// Path is appended to the base URL, for example "/place".
	Path string

	Class       Class
	ContentType string
	Header      http.Header
	Body        []byte

	// Raw accepts a successful answer that is not JSON.
	Raw bool
}

// Response is a complete answer with a 2xx status, and JSON unless the request
// was Raw.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Do sends the request. Every error is an *Error.
func (c *Client) Do(ctx context.Context, req Request) (*Response, error) {
	for attempt := 1; ; attempt++ {
		resp, err := c.try(ctx, req, attempt)
		if err == nil {
			return resp, nil
		}
		if req.Class != Read || !err.again || attempt == maxAttempts || ctx.Err() != nil {
			return nil, err
		}
		if !wait(ctx, delay(attempt, err.RetryAfter)) {
			return nil, err
		}
	}
}
