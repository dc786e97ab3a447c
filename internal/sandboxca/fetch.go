package sandboxca

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
)

// fetchFile fetches the validation file of a name and compares it.
func (c *CA) fetchFile(ctx context.Context, cfg *Config, m Method, proof Proof, f *Fetch) error {
	scheme, port := "http", cfg.HTTPPort
	if m == MethodHTTPS {
		scheme, port = "https", cfg.HTTPSPort
	}
	f.URL = scheme + "://" + net.JoinHostPort(f.Host, strconv.Itoa(port)) + ValidationPath + proof.FileName
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.URL, nil)
	if err != nil {
		return err
	}
	// A CA uses the default ports, which a Host header does not show.
	req.Host = HostHeader(f.Host)
	req.Header.Set("User-Agent", "sandbox DCV perspective-"+strconv.Itoa(f.Perspective))

	transport := cfg.Transport
	if transport == nil {
		transport = c.network
	}
	// RoundTrip, not a client: redirects are not followed.
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	f.Status = resp.StatusCode
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		return fmt.Errorf("redirect to %q not followed", resp.Header.Get("Location"))
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxFileBytes+1))
	if err != nil {
		return fmt.Errorf("reading body: %w", err)
	}
	if len(body) > maxFileBytes {
		return fmt.Errorf("body is larger than %d bytes", maxFileBytes)
	}
	if !sameContent(body, proof.FileContent, cfg.Lenient) {
		return fmt.Errorf("wrong content of %d bytes", len(body))
	}
	return nil
}

func sameContent(got []byte, want string, lenient bool) bool {
	if !lenient {
		return string(got) == want
	}
	return slices.EqualFunc(bytes.Fields(got), strings.Fields(want), func(g []byte, w string) bool {
		return strings.EqualFold(string(g), w)
	})
}

// HostHeader is a host as it appears in a Host header and in a URL.
func HostHeader(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

// lookupCNAME looks for the record at the name and at each of its parents; the
// first one found decides.
func lookupCNAME(ctx context.Context, cfg *Config, proof Proof, f *Fetch) error {
	if cfg.LookupCNAME == nil {
		return errors.New("no resolver is configured")
	}
	name := strings.TrimPrefix(f.Host, "*.")
	for {
		f.URL = proof.DNSLabel + "." + name
		target, err := cfg.LookupCNAME(ctx, f.URL)
		if err == nil && target != "" {
			if !strings.EqualFold(strings.TrimSuffix(target, "."), proof.DNSTarget) {
				return fmt.Errorf("wrong target %q", target)
			}
			return nil
		}
		_, parent, ok := strings.Cut(name, ".")
		if !ok || !strings.Contains(parent, ".") {
			if err == nil {
				err = errors.New("not found")
			}
			return fmt.Errorf("no record: %w", err)
		}
		name = parent
	}
}

// lookupTXT looks for a record with the value at the label below the name and at the name
// itself, then likewise for each of its parents.
func lookupTXT(ctx context.Context, cfg *Config, proof Proof, f *Fetch) error {
	if cfg.LookupTXT == nil {
		return errors.New("no resolver is configured")
	}
	name := strings.TrimPrefix(f.Host, "*.")
	for {
		for _, host := range []string{proof.DNSLabel + "." + name, name} {
			f.URL = host
			values, err := cfg.LookupTXT(ctx, host)
			if err == nil && slices.Contains(values, proof.FileContent) {
				return nil
			}
		}
		_, parent, ok := strings.Cut(name, ".")
		if !ok || !strings.Contains(parent, ".") {
			return errors.New("no record with the value")
		}
		name = parent
	}
}

// newLoopbackTransport dials the address that resolve returns, if it is a loopback
// address.
func newLoopbackTransport(resolve func(string) (string, error)) http.RoundTripper {
	return &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			host, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			resolved, err := resolve(host)
			if err != nil {
				return nil, fmt.Errorf("resolving %s: %w", host, err)
			}
			ip, err := netip.ParseAddr(resolved)
			if err != nil {
				return nil, fmt.Errorf("resolving %s: %w", host, err)
			}
			if !ip.Unmap().IsLoopback() {
				return nil, fmt.Errorf("%s is at %s: the sandbox dials loopback addresses only", host, ip)
			}
			return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(ip.String(), port))
		},
		// A CA cannot demand a valid certificate before it has issued one.
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
		DisableKeepAlives: true,
		// The file is judged as it was sent.
		DisableCompression: true,
	}
}
