package check

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/caddyserver/certmagic"
	"github.com/miekg/dns"
)

// maxServers is how many name servers of a zone are asked.
const maxServers = 8

// Servers compares what the name servers of a name's zone say of it. A CA looks from several
// places, and each may come to another of them.
func (r Resolvers) Servers(ctx context.Context, name string) []Result {
	zone, views, err := r.authorities(ctx, name)
	if err != nil {
		return []Result{{Check: checkAuthority, Verdict: Warning, Message: err.Error(), Advice: "run the check again"}}
	}
	var results []Result
	var known []authority
	for _, v := range views {
		if v.problem == "" {
			known = append(known, v)
			continue
		}
		results = append(results, warning("fix or remove this name server; a CA that asks it may not find the name", "%s, a name server of %s, %s", v.server, zone, v.problem))
	}
	for _, conflict := range conflicts(zone, name, known) {
		results = append(results, warning("wait until all have the same version of the zone, or fix those that do not", "%s", conflict))
	}
	switch {
	case len(results) > 0:
	case len(known) == 0:
		results = []Result{warning("run the check again", "no name server of %s could be asked", zone)}
	default:
		results = []Result{ok("all %d name servers of %s say the same", len(known), zone)}
	}
	for i := range results {
		results[i].Check = checkAuthority
	}
	return results
}

// authorities asks the name servers of a name's zone for it.
func (r Resolvers) authorities(ctx context.Context, name string) (zone string, views []authority, err error) {
	host := strings.TrimPrefix(name, "*.")
	zone, hosts, err := r.delegation(ctx, host)
	if err != nil {
		return "", nil, err
	}
	if len(hosts) > maxServers {
		hosts = hosts[:maxServers]
	}
	return zone, forEach(hosts, func(server string) authority { return r.authority(ctx, zone, host, server) }), nil
}

// conflicts are what name servers that have answered do not agree about.
func conflicts(zone, name string, known []authority) (list []string) {
	for _, v := range known[min(1, len(known)):] {
		if first := known[0]; v.says != first.says {
			list = append(list, fmt.Sprintf("the name servers of %s disagree about %s: %s has %.300s (serial %d), %s has %.300s (serial %d)",
				zone, strings.TrimPrefix(name, "*."), first.server, first.says, first.serial, v.server, v.says, v.serial))
		}
	}
	return list
}

var errNoServers = errors.New("no resolver tells them")

// delegation finds the zone of a name and its name servers.
func (r Resolvers) delegation(ctx context.Context, host string) (zone string, servers []string, err error) {
	for _, resolver := range certmagic.RecursiveNameservers(r.List) {
		for zone = host; strings.Contains(zone, "."); _, zone, _ = strings.Cut(zone, ".") {
			reply := r.ask(ctx, zone, dns.TypeNS, resolver)
			if reply.err != nil {
				break
			}
			for _, rr := range reply.msg.Answer {
				if ns, is := rr.(*dns.NS); is && strings.EqualFold(strings.TrimSuffix(ns.Hdr.Name, "."), zone) {
					servers = append(servers, strings.ToLower(strings.TrimSuffix(ns.Ns, ".")))
				}
			}
			if len(servers) > 0 {
				slices.Sort(servers)
				return zone, slices.Compact(servers), nil
			}
		}
	}
	return "", nil, fmt.Errorf("the name servers of %s are not known: %w", host, errNoServers)
}

// authority is what one name server says.
type authority struct {
	server  string
	serial  uint32
	says    string // of the name
	found   []netip.Addr
	problem string
}

// addressOf finds where a name server is.
func (r Resolvers) addressOf(ctx context.Context, server string) (addr, problem string) {
	at, err := r.host(ctx, server)
	switch {
	case len(at.Addresses) > 0:
	case err != nil && ctx.Err() != nil:
		return "", "could not be looked up in time"
	default:
		return "", "has no address"
	}
	// IPv4 first: not every machine has the other.
	slices.SortStableFunc(at.Addresses, func(a, b netip.Addr) int { return a.BitLen() - b.BitLen() })
	return net.JoinHostPort(at.Addresses[0].String(), "53"), ""
}

func (r Resolvers) authority(ctx context.Context, zone, host, server string) authority {
	v := authority{server: server}
	addr, problem := r.addressOf(ctx, server)
	if problem != "" {
		v.problem = problem
		return v
	}
	soa, err := r.send(ctx, zone, dns.TypeSOA, addr, false)
	switch {
	case err != nil:
		v.problem = "does not answer: " + err.Error()
		return v
	case soa.Rcode != dns.RcodeSuccess || !soa.Authoritative:
		v.problem = "does not serve the zone: it answers " + dns.RcodeToString[soa.Rcode]
		if soa.Rcode == dns.RcodeSuccess {
			v.problem = "does not serve the zone: its answers are not its own"
		}
		return v
	}
	for _, rr := range soa.Answer {
		if soa, is := rr.(*dns.SOA); is {
			v.serial = soa.Serial
		}
	}
	var all []string
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		answer, err := r.send(ctx, host, kind, addr, false)
		switch {
		case err != nil:
			v.problem = "does not answer: " + err.Error()
			return v
		case answer.Rcode == dns.RcodeNameError:
			all = append(all, "no such name")
		case answer.Rcode != dns.RcodeSuccess:
			v.problem = "answers " + dns.RcodeToString[answer.Rcode]
			return v
		}
		v.found = append(v.found, reply{msg: answer}.addresses()...)
		for _, rr := range answer.Answer {
			switch rr := rr.(type) {
			case *dns.A:
				all = append(all, rr.A.String())
			case *dns.AAAA:
				all = append(all, rr.AAAA.String())
			case *dns.CNAME:
				all = append(all, "an alias of "+strings.ToLower(rr.Target))
			}
		}
	}
	slices.Sort(all)
	if v.says = strings.Join(slices.Compact(all), ", "); v.says == "" {
		v.says = "no address"
	}
	return v
}
