// Package dnsprovider is a DNS provider for tests: it changes the zones of a real name
// server with dynamic updates (RFC 2136) that are signed with a key (RFC 8945), and
// reads them by zone transfers.
package dnsprovider

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/libdns/libdns"
	"github.com/miekg/dns"
)

func init() {
	caddy.RegisterModule(Provider{})
}

// Provider manages the zones of one name server.
type Provider struct {
	// Address and port of the server.
	Server string `json:"server,omitempty"`

	// Name and base64 secret of the key, for hmac-sha256.
	KeyName string `json:"key_name,omitempty"`
	Secret  string `json:"secret,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (Provider) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "dns.providers.e2e_update",
		New: func() caddy.Module { return new(Provider) },
	}
}

// UnmarshalCaddyfile sets up the provider from Caddyfile tokens.
//
//	e2e_update <server> {
//	    key <name> <secret>
//	}
func (p *Provider) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume provider name
	if !d.Args(&p.Server) {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		if d.Val() != "key" || !d.Args(&p.KeyName, &p.Secret) {
			return d.Errf("unrecognized option '%s'", d.Val())
		}
	}
	return nil
}

const timeout = 10 * time.Second

// GetRecords implements libdns.RecordGetter.
func (p *Provider) GetRecords(_ context.Context, zone string) ([]libdns.Record, error) {
	question := new(dns.Msg)
	question.SetAxfr(zone)
	question.SetTsig(p.key(), dns.HmacSHA256, 300, time.Now().Unix())
	transfer := &dns.Transfer{TsigSecret: p.secrets(), ReadTimeout: timeout}
	envelopes, err := transfer.In(question, p.Server)
	if err != nil {
		return nil, fmt.Errorf("transferring %s: %w", zone, err)
	}
	var list []libdns.Record
	for envelope := range envelopes {
		if envelope.Error != nil {
			err = errors.Join(err, envelope.Error)
			continue
		}
		for _, rr := range envelope.RR {
			head := rr.Header()
			record, perr := libdns.RR{
				Name: libdns.RelativeName(head.Name, zone), TTL: time.Duration(head.Ttl) * time.Second,
				Type: dns.TypeToString[head.Rrtype], Data: data(rr),
			}.Parse()
			if perr == nil {
				list = append(list, record)
			}
		}
	}
	return list, err
}

// data is a record without its header, as libdns expects it.
func data(rr dns.RR) string {
	if txt, ok := rr.(*dns.TXT); ok {
		return strings.Join(txt.Txt, "")
	}
	return strings.TrimPrefix(rr.String(), rr.Header().String())
}

// AppendRecords implements libdns.RecordAppender.
func (p *Provider) AppendRecords(ctx context.Context, zone string, list []libdns.Record) ([]libdns.Record, error) {
	return p.update(ctx, zone, list, (*dns.Msg).Insert)
}

// DeleteRecords implements libdns.RecordDeleter. It needs whole records.
func (p *Provider) DeleteRecords(ctx context.Context, zone string, list []libdns.Record) ([]libdns.Record, error) {
	return p.update(ctx, zone, list, (*dns.Msg).Remove)
}

// SetRecords implements libdns.RecordSetter.
func (p *Provider) SetRecords(ctx context.Context, zone string, list []libdns.Record) ([]libdns.Record, error) {
	return p.update(ctx, zone, list, func(update *dns.Msg, rrs []dns.RR) {
		update.RemoveRRset(rrs)
		update.Insert(rrs)
	})
}

func (p *Provider) update(ctx context.Context, zone string, list []libdns.Record, change func(*dns.Msg, []dns.RR)) ([]libdns.Record, error) {
	update := new(dns.Msg)
	update.SetUpdate(zone)
	for _, record := range list {
		rr, err := parse(record.RR(), zone)
		if err != nil {
			return nil, err
		}
		change(update, []dns.RR{rr})
	}
	update.SetTsig(p.key(), dns.HmacSHA256, 300, time.Now().Unix())
	client := &dns.Client{Net: "tcp", TsigSecret: p.secrets(), Timeout: timeout}
	answer, _, err := client.ExchangeContext(ctx, update, p.Server)
	if err != nil {
		return nil, fmt.Errorf("updating %s: %w", zone, err)
	}
	if answer.Rcode != dns.RcodeSuccess {
		return nil, fmt.Errorf("updating %s: the server answers %s", zone, dns.RcodeToString[answer.Rcode])
	}
	return list, nil
}

// parse reads a record as a line of the zone's file.
func parse(rr libdns.RR, zone string) (dns.RR, error) {
	value := rr.Data
	if rr.Type == "TXT" {
		value = strconv.Quote(value)
	}
	line := fmt.Sprintf("%s %d IN %s %s", rr.Name, int(rr.TTL.Seconds()), rr.Type, value)
	parser := dns.NewZoneParser(strings.NewReader(line), zone, "")
	parsed, ok := parser.Next()
	if err := parser.Err(); err != nil || !ok {
		return nil, fmt.Errorf("record %q: %w", line, err)
	}
	return parsed, nil
}

func (p *Provider) key() string { return dns.Fqdn(p.KeyName) }

func (p *Provider) secrets() map[string]string { return map[string]string{p.key(): p.Secret} }

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*Provider)(nil)
	_ libdns.RecordGetter   = (*Provider)(nil)
	_ libdns.RecordAppender = (*Provider)(nil)
	_ libdns.RecordDeleter  = (*Provider)(nil)
	_ libdns.RecordSetter   = (*Provider)(nil)
)
