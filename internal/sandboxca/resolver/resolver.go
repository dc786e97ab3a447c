// Package resolver asks a recursive resolver for the records that a CA checks. DNSSEC
// validation is up to that resolver: if signatures are bogus, it answers SERVFAIL, and
// the lookup fails.
package resolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
)

// timeout bounds one query.
const timeout = 5 * time.Second

// Resolver is a recursive resolver, by its address and port.
type Resolver struct{ address string }

// New takes the address of a resolver, with an optional port. It must be an IP address:
// there is nothing else to look a name up with.
func New(address string) (*Resolver, error) {
	if ip, err := netip.ParseAddr(address); err == nil {
		return &Resolver{net.JoinHostPort(ip.String(), "53")}, nil
	}
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("resolver %q is not an IP address with an optional port", address)
	}
	return &Resolver{at.String()}, nil
}

// Serve makes a CA use the resolver.
func (r *Resolver) Serve(cfg *sandboxca.Config) {
	cfg.LookupCNAME, cfg.LookupTXT, cfg.LookupCAA = r.CNAME, r.TXT, r.CAA
}

// CNAME returns the target of a name's CNAME record. Having none is an error.
func (r *Resolver) CNAME(ctx context.Context, host string) (string, error) {
	records, err := r.ask(ctx, host, dns.TypeCNAME)
	if err != nil {
		return "", err
	}
	for _, rr := range records {
		if cname, ok := rr.(*dns.CNAME); ok {
			return cname.Target, nil
		}
	}
	return "", errors.New("there is no CNAME record")
}

// TXT lists the TXT records of a name. The strings of one record are joined.
func (r *Resolver) TXT(ctx context.Context, host string) ([]string, error) {
	records, err := r.ask(ctx, host, dns.TypeTXT)
	var values []string
	for _, rr := range records {
		if txt, ok := rr.(*dns.TXT); ok {
			values = append(values, strings.Join(txt.Txt, ""))
		}
	}
	return values, err
}

// caaCritical is the flag of RFC 8659, section 4.1.
const caaCritical = 0x80

// CAA lists the CAA properties of a name.
func (r *Resolver) CAA(ctx context.Context, host string) ([]sandboxca.CAA, error) {
	records, err := r.ask(ctx, host, dns.TypeCAA)
	var list []sandboxca.CAA
	for _, rr := range records {
		if caa, ok := rr.(*dns.CAA); ok {
			list = append(list, sandboxca.CAA{Critical: caa.Flag&caaCritical != 0, Tag: caa.Tag, Value: caa.Value})
		}
	}
	return list, err
}

// ask queries over UDP, and over TCP if the answer is truncated. A name that does not
// exist has no records.
func (r *Resolver) ask(ctx context.Context, host string, kind uint16) ([]dns.RR, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	question := new(dns.Msg)
	question.SetQuestion(dns.Fqdn(host), kind)
	question.SetEdns0(dns.DefaultMsgSize, false)
	answer, _, err := new(dns.Client).ExchangeContext(ctx, question, r.address)
	if err == nil && answer.Truncated {
		answer, _, err = (&dns.Client{Net: "tcp"}).ExchangeContext(ctx, question, r.address)
	}
	switch {
	case err != nil:
		return nil, err
	case answer.Rcode == dns.RcodeSuccess, answer.Rcode == dns.RcodeNameError:
		return answer.Answer, nil
	}
	return nil, fmt.Errorf("the resolver answered %s", dns.RcodeToString[answer.Rcode])
}
