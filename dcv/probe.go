package dcv

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"
)

// probeUserAgent marks requests of our own, which are not counted as visits.
const probeUserAgent = "caddy-commercial-probe"

const (
	defaultProbeTimeout = 10 * time.Second // for one fetch, all of it
	maxShown            = 120              // bytes of an answer that an error repeats
)

// ProbeKind is what came of a probe that did not fetch the file.
type ProbeKind string

// The kinds of failure.
const (
	// Unreachable means that there was no answer: the name does not resolve, the
	// connection is refused or drops, or time ran out. Behind split DNS, or a
	// router that does not send connections back inside, this says nothing about
	// what a CA would get.
	Unreachable ProbeKind = "unreachable"

	// Redirected means that the answer points elsewhere. CAs differ in what
	// redirects they follow, so none is good enough.
	Redirected ProbeKind = "redirected"

	// WrongStatus means an answer other than 200.
	WrongStatus ProbeKind = "wrong_status"

	// WrongBody means that something answered, and it was not us.
	WrongBody ProbeKind = "wrong_body"
)

// ProbeError tells what a probe got instead of the file.
type ProbeError struct {
	Host    string
	URL     string
	Address netip.Addr // the one that was asked, if it was given
	From    netip.Addr // this machine's own on the way there, if that is known
	Kind    ProbeKind
	Detail  string      // what came back, and what to do about it
	Header  http.Header // of the answer, if there was one
	Err     error       // cause of Unreachable, else nil
}

func (e *ProbeError) Error() string {
	at := e.URL
	if e.Address.IsValid() {
		at += " at " + e.Address.String()
	}
	return fmt.Sprintf("probing %s: %s: %s", at, strings.ReplaceAll(string(e.Kind), "_", " "), e.Detail)
}

func (e *ProbeError) Unwrap() error { return e.Err }

// NoRoute reports whether this machine cannot reach any address of that family, as one without
// IPv6, so that the failure says nothing. A router that has no way does not count.
func (e *ProbeError) NoRoute() bool {
	return e.Address.IsValid() && !e.From.IsValid() && (errors.Is(e.Err, syscall.ENETUNREACH) || errors.Is(e.Err, syscall.EADDRNOTAVAIL) || errors.Is(e.Err, syscall.EAFNOSUPPORT))
}

// Inside reports whether a router stands between this machine and the address that gives it another
// one, so that it may send nothing back inside.
func (e *ProbeError) Inside() bool { return e.From.IsPrivate() }

// Wrong reports whether there was an answer, so that a CA on the same way to the
// host must be expected to get it too.
func (e *ProbeError) Wrong() bool { return e.Kind != Unreachable }

// Prober fetches validation files as a CA does. The zero value uses plain HTTP on
// port 80 and the system's resolver.
type Prober struct {
	// Port to connect to. Default: 80, or 443 with HTTPS.
	Port int

	// HTTPS fetches over TLS. The certificate is not verified: there may be none
	// worth the name yet, and the file is no secret.
	HTTPS bool

	// Address to connect to. Default: what the name resolves to
	Address netip.Addr

	// Dial makes connections. Default: that of net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// Timeout of one probe. Default: 10 seconds.
	Timeout time.Duration
}

// Probe fetches the challenge's file from the host, following no redirect and
// using no proxy, and compares it byte by byte. Any failure but a cancelled
// context is a *ProbeError.
func (p *Prober) Probe(ctx context.Context, host string, ch Challenge) error {
	timeout := p.Timeout
	if timeout <= 0 {
		timeout = defaultProbeTimeout
	}
	probeCtx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	url := p.url(host) + ch.Path
	failed := func(kind ProbeKind, detail string) error {
		return &ProbeError{Host: host, URL: url, Address: p.Address, Kind: kind, Detail: detail}
	}
	req, err := http.NewRequestWithContext(probeCtx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("probing %s: %w", host, err)
	}
	req.Header.Set("User-Agent", probeUserAgent)
	var conn atomic.Pointer[hearingConn]
	transport := &http.Transport{
		DialContext:            p.dialHearing(probeCtx, &conn),
		TLSClientConfig:        &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see Prober.HTTPS
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	resp, err := transport.RoundTrip(req) // a client would follow redirects
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("probing %s: %w", url, ctx.Err())
		}
		if otherProtocol(err) || !p.HTTPS && conn.Load().closeHeard() && probeCtx.Err() == nil {
			return failed(WrongBody, "what listens there speaks another protocol; have the port lead to Caddy")
		}
		return &ProbeError{Host: host, URL: url, Address: p.Address, From: p.from(ctx), Kind: Unreachable, Err: err, Detail: unreachableDetail(host, timeout, err)}
	}
	defer resp.Body.Close()
	failed = func(kind ProbeKind, detail string) error {
		return &ProbeError{Host: host, URL: url, Address: p.Address, Kind: kind, Detail: detail, Header: resp.Header}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(len(ch.Body))+maxShown))
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("probing %s: %w", url, ctx.Err())
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		return failed(Redirected, fmt.Sprintf("status %d leads to %s%s; serve %s over the same scheme without a redirect",
			resp.StatusCode, shown([]byte(resp.Header.Get("Location"))), answeredBy(resp.Header), PathPrefix))
	case resp.StatusCode != http.StatusOK:
		return failed(WrongStatus, fmt.Sprintf("status %d instead of 200%s; %s",
			resp.StatusCode, answeredBy(resp.Header), remedy(resp.Header)))
	case !bytes.Equal(body, ch.Body):
		got := "an empty file"
		if len(body) > 0 {
			got = shown(body)
		}
		if err != nil {
			got += " and then the connection broke"
		}
		return failed(WrongBody, fmt.Sprintf("got %s instead of the file%s; %s", got, answeredBy(resp.Header), remedy(resp.Header)))
	}
	return nil
}

// dial connects. Names below localhost are this machine (RFC 6761, section 6.3), which
// not every resolver knows.
func (p *Prober) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if host, port, err := net.SplitHostPort(addr); err == nil && strings.HasSuffix(host, ".localhost") {
		addr = net.JoinHostPort("localhost", port)
	}
	if _, port, err := net.SplitHostPort(addr); err == nil && p.Address.IsValid() {
		addr = net.JoinHostPort(p.Address.String(), port)
	}
	if p.Dial != nil {
		return p.Dial(ctx, network, addr)
	}
	return new(net.Dialer).DialContext(ctx, network, addr)
}

// from is this machine's own address on the way to the given one. Nothing is sent for it.
func (p *Prober) from(ctx context.Context) netip.Addr {
	if !p.Address.IsValid() {
		return netip.Addr{}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := p.dial(ctx, "udp", net.JoinHostPort(p.Address.String(), "80"))
	if err != nil {
		return netip.Addr{}
	}
	defer func() { _ = conn.Close() }() // nothing was written
	own, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		return netip.Addr{}
	}
	return own.AddrPort().Addr().Unmap()
}

func (p *Prober) url(host string) string {
	scheme, standard := "http", 80
	if p.HTTPS {
		scheme, standard = "https", 443
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if p.Port != 0 && p.Port != standard {
		host += ":" + strconv.Itoa(p.Port)
	}
	return scheme + "://" + host
}

func unreachableDetail(host string, timeout time.Duration, err error) string {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return host + " does not resolve; create its A or AAAA record"
	case errors.As(err, &dns):
		return fmt.Sprintf("looking %s up failed (%v); check the resolver of this machine", host, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("no answer within %s; check firewall and port forwarding", timeout)
	}
	return fmt.Sprintf("%v; check that the name leads here and that the port is open", err)
}

// dialHearing returns the prober's dial function, which keeps the connection, to know whether
// anything was received. A server that speaks first, as those of SSH and mail do, makes the
// transport fail in ways that its errors do not tell apart. The context is that of the probe: the
// transport would let a dial outlive it, for minutes where nobody answers.
func (p *Prober) dialHearing(ctx context.Context, kept *atomic.Pointer[hearingConn]) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(_ context.Context, network, addr string) (net.Conn, error) {
		conn, err := p.dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		hearing := &hearingConn{Conn: conn}
		kept.Store(hearing)
		return hearing, nil
	}
}

type hearingConn struct {
	net.Conn
	reading sync.Mutex
	heard   bool // guarded by reading
}

func (c *hearingConn) Read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	n, err := c.Conn.Read(p)
	c.heard = c.heard || n > 0
	return n, err
}

// closeHeard closes the connection, which ends a Read under way, and reports whether anything was
// received. The transport may fail by what it writes before it has read all. A nil connection has
// heard nothing.
func (c *hearingConn) closeHeard() bool {
	if c == nil {
		return false
	}
	_ = c.Close() // the transport's error is the one that counts
	c.reading.Lock()
	defer c.reading.Unlock()
	return c.heard
}

// otherProtocol reports whether the error is about an answer that is not TLS, or
// not HTTP within it. The standard library has no types for two of these.
func otherProtocol(err error) bool {
	var notTLS tls.RecordHeaderError
	return errors.As(err, &notTLS) ||
		strings.Contains(err.Error(), "malformed HTTP") ||
		strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

// cdnHeaders are response headers by which a content delivery network or cache
// gives itself away even where Server does not.
var cdnHeaders = []string{"CF-RAY", "X-Amz-Cf-Id", "X-Served-By", "X-Varnish", "X-Akamai-Transformed", "X-Cache"}

// answeredBy names the server as it names itself.
func answeredBy(header http.Header) string {
	var hints []string
	for _, name := range append([]string{"Server", "Via"}, cdnHeaders...) {
		if value := header.Get(name); value != "" {
			hints = append(hints, name+": "+shown([]byte(value)))
		}
	}
	if len(hints) == 0 {
		return ""
	}
	return " (" + strings.Join(hints, ", ") + ")"
}

func remedy(header http.Header) string {
	server := header.Get("Server")
	if strings.EqualFold(server, "Caddy") && header.Get("Via") == "" {
		return "a Caddy answered, but without this file: " +
			"add the dcv directive to the site, or check that the name leads to this instance"
	}
	named := func(name string) bool { return header.Get(name) != "" }
	if strings.EqualFold(server, "cloudflare") || named("Via") || slices.ContainsFunc(cdnHeaders, named) {
		return "a proxy or CDN stands in front: have it pass " + PathPrefix + " through to Caddy unchanged"
	}
	return "another server answers for the name: point the name at Caddy, or have that server pass " + PathPrefix + " on"
}

// shown returns the beginning of untrusted text in a form that is safe in a log.
func shown(text []byte) string {
	cut := len(text) > maxShown
	if cut {
		text = text[:maxShown]
	}
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		text = text[size:]
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			r = '.'
		}
		b.WriteRune(r)
	}
	if cut {
		b.WriteString("...")
	}
	return strconv.Quote(b.String())
}
