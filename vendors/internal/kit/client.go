package kit

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

const (
	// DefaultTimeout bounds one attempt of a call. Published clients of
	// certificate resellers use 20 to 60 seconds; paid calls wait for the CA
	// behind the vendor, and giving up early makes their outcome unknown.
	DefaultTimeout = 60 * time.Second

	// MaxBody bounds an answer, and MaxList that of a call which lists all orders of an
	// account at once: some 180,000 of 350 bytes.
	MaxBody = 4 << 20
	MaxList = 64 << 20

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

	// Once is a request that is free, but leaves something behind, such as a draft. It is
	// sent once like an Effect; whatever becomes of it, the caller may send another.
	Once
)

// Config is an account at a vendor, ready for use. [Account.Config] makes one.
type Config struct {
	// Secret is the credential. It is removed from errors, and the vendor puts it where
	// its API wants it.
	Secret string

	// Endpoint is what CheckEndpoint accepts. Request paths are appended to it.
	Endpoint string

	// Timeout bounds one attempt of a call. Zero means DefaultTimeout.
	Timeout time.Duration

	// Logger receives one debug line per attempt. Nil means none.
	Logger *zap.Logger

	// Description is what is known of the vendor, whose New adds what follows from its API.
	// Its Name is that of errors and logs.
	Description vendors.Description

	// Limiter is what the requests have to wait for. Nil means nothing.
	Limiter *Limiter

	// Transport replaces the network, for tests and for services in this process. It is used
	// for all classes.
	Transport http.RoundTripper

	account *Account // whose Cleanup closes the client; may be nil
}

// Client sends requests to one account at a vendor, which embeds it. It is safe for
// concurrent use. Close it when its vendor is done.
type Client struct {
	// Logger is that of the Config, never nil.
	Logger *zap.Logger

	about   vendors.Description
	base    string
	timeout time.Duration
	secrets scrubber
	limiter *Limiter

	// reads keeps connections alive. effects opens a new one for each request:
	// a kept connection that the server has meanwhile closed fails after the
	// request was written, which would leave the outcome of a payment unknown
	// for no reason, and is what net/http repeats requests for.
	reads, effects http.RoundTripper
}

// NewClient returns a client, or an error about the endpoint.
func NewClient(cfg Config) (*Client, error) {
	base, err := CheckEndpoint(cfg.Endpoint)
	if err != nil {
		return nil, err
	}
	c := &Client{
		Logger:  cmp.Or(cfg.Logger, zap.NewNop()),
		about:   cfg.Description,
		base:    base,
		timeout: cfg.Timeout,
		secrets: newScrubber([]string{cfg.Secret}),
		limiter: cfg.Limiter,
		reads:   cfg.Transport,
		effects: cfg.Transport,
	}
	if c.timeout <= 0 {
		c.timeout = DefaultTimeout
	}
	if cfg.Transport == nil {
		reads := new(http.Transport)
		if of, ok := http.DefaultTransport.(*http.Transport); ok { // another module may have put its own there
			reads = of.Clone()
		}
		effects := reads.Clone()
		effects.DisableKeepAlives = true
		// HTTP/2 sends the head of a request before its body is read; see BeforeSending.
		effects.ForceAttemptHTTP2 = false
		effects.Protocols = new(http.Protocols)
		effects.Protocols.SetHTTP1(true)
		if effects.TLSClientConfig != nil {
			effects.TLSClientConfig.NextProtos = nil // or else HTTP/2 is still offered
		}
		c.reads, c.effects = reads, effects
	}
	if cfg.account != nil {
		cfg.account.ends = append(cfg.account.ends, c.Close)
	}
	return c, nil
}

// Describe implements vendors.Vendor.
func (c *Client) Describe() vendors.Description { return c.about }

// minPrivate is the shortest value that is hidden: a shorter one may also be a part of a
// code.
const minPrivate = 5

// Hiding returns a client that keeps further values out of errors and logs, too, such as the
// number of a passport in an order, which the vendor may repeat in its answer.
func (c *Client) Hiding(values ...string) *Client {
	all := slices.Clone(c.secrets.forms)
	for _, v := range values {
		if v = strings.TrimSpace(v); len(v) >= minPrivate {
			all = append(all, v)
		}
	}
	if len(all) == len(c.secrets.forms) {
		return c
	}
	hiding := *c
	hiding.secrets = newScrubber(all)
	return &hiding
}

// Close ends idle connections.
func (c *Client) Close() {
	for _, rt := range []http.RoundTripper{c.reads, c.effects} {
		if t, ok := rt.(*http.Transport); ok {
			t.CloseIdleConnections()
		}
	}
}

// CheckEndpoint judges a configured base URL and returns it without a trailing
// slash. It must be https; http is accepted on a loopback host, where the
// credential does not leave the machine.
func CheckEndpoint(endpoint string) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Hostname() == "" {
		return "", fmt.Errorf("endpoint: not an absolute URL")
	}
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
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
	// The host tells accounts and their ledgers apart, so that it has one spelling.
	u.Host = strings.ToLower(u.Host)
	if u.Scheme == "https" {
		u.Host = strings.TrimSuffix(u.Host, ":443")
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

// Call is what a request is, for errors and logs, and where it goes.
type Call struct {
	// Name is the vendor's name of it, for example "place". It is a label of metrics, so that
	// it never holds an ID.
	Name string

	// Method defaults to POST.
	Method string

	// Path is appended to the endpoint, for example "/place", or "/orders/%s" for With.
	Path string

	Class Class

	// MaxBody is how many bytes an answer may have. Zero means the constant MaxBody.
	MaxBody int
}

// With puts arguments, such as the ID of an order, in place of each %s of the path, escaped.
func (c Call) With(args ...any) Call {
	escaped := make([]any, len(args))
	for i, arg := range args {
		escaped[i] = url.PathEscape(fmt.Sprint(arg))
	}
	c.Path = fmt.Sprintf(c.Path, escaped...)
	return c
}

// Request is one call with what it carries.
type Request struct {
	Call

	ContentType string
	Header      http.Header
	Body        []byte

	// Raw accepts a successful answer that is not JSON.
	Raw bool
}

// Response is a complete answer.
type Response struct {
	Status int
	Header http.Header

	// Body is JSON, unless the request was Raw. It may hold secrets.
	Body []byte
}

// Do sends the request. The response has a 2xx status, or there is an error, which is always
// a *vendors.Error: Retryable if the request certainly had no effect, otherwise judged by its
// class, see Fail. An answer with another status is returned beside the error if it is JSON,
// for vendors that explain refusals that way; else the response is nil.
func (c *Client) Do(ctx context.Context, req Request) (*Response, error) {
	for attempt := 1; ; attempt++ {
		resp, failed := c.try(ctx, req, attempt)
		if failed == nil {
			return resp, nil
		}
		if req.Class != Read || !failed.again || attempt == maxAttempts || ctx.Err() != nil || !wait(ctx, delay(attempt, failed.retryAfter)) {
			return resp, c.error(req, failed)
		}
	}
}
