package check

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/certmagic"
	"github.com/miekg/dns"
)

// Place is where a CA looks for the record that proves a name, as far as that is known before the
// order.
type Place struct {
	Name     string // to be proven, maybe a wildcard
	Label    string // of the record, below the name; empty if only the order tells it
	Type     string // of the record, CNAME or TXT
	Override string // where the record is put, if not at the place itself; see override_domain

	// Taken is whether the record is already at the place, so that nothing else can be there.
	Taken bool
}

// PlaceError says that the CA would not find a record of ours, wherever it looks.
type PlaceError struct{ What, Advice string }

func (e *PlaceError) Error() string { return e.What + "; " + e.Advice }

func (p Place) host() string { return strings.TrimPrefix(p.Name, "*.") }

// at is the name of the record.
func (p Place) at() string { return p.Label + "." + p.host() }

// all are the places where a CA looks for a record: a label below the name or the name itself, or
// the same at a domain above it (Baseline Requirements, section 3.2.2.4.7).
func (p Place) all() (list []string) {
	for host, domain := p.host(), registrable(p.host()); ; _, host, _ = strings.Cut(host, ".") {
		list = append(list, p.Label+"."+host, host)
		if host == domain || !strings.Contains(host, ".") {
			return list
		}
	}
}

// Place looks whether a record of ours can be where the CA looks for it, or an alias there leads to
// it. A *PlaceError says that neither is so. It takes the word of all resolvers, and that of the name
// servers of the zone, which remember nothing; where they do not agree, there are only doubts.
func (r Resolvers) Place(ctx context.Context, p Place) (doubts []string, err error) {
	switch {
	case p.Override == "" && (p.Label == "" || p.Taken):
		return nil, nil
	case p.Override == "":
		return r.vacant(ctx, p)
	case p.Label == "":
		return []string{fmt.Sprintf("override_domain: where the CA looks for the record of %s is known only after the order, so that no alias (CNAME) of %s can be looked for there",
			p.Name, p.Override)}, nil
	case slices.Contains(p.all(), p.Override):
		return nil, nil
	case p.Type == "CNAME":
		return nil, &PlaceError{
			fmt.Sprintf("override_domain: the CA looks for a CNAME record at %s, and would find an alias of %s there instead of the record", p.at(), p.Override),
			"remove override_domain, or prove the names by TXT records (dns_record txt of DigiCert)",
		}
	}
	return r.leads(ctx, p)
}

// leads looks for the alias that override_domain needs.
func (r Resolvers) leads(ctx context.Context, p Place) (doubts []string, err error) {
	servers := certmagic.RecursiveNameservers(r.List)
	missing := &PlaceError{
		fmt.Sprintf("override_domain: %s is not an alias (CNAME) of %s according to %s, so that the CA would not find the record for %s",
			p.at(), p.Override, strings.Join(servers, ", "), p.Name),
		fmt.Sprintf("create the alias: %s CNAME %s", p.at(), p.Override),
	}
	for _, place := range p.all() {
		replies := forEach(servers, func(server string) reply { return r.ask(ctx, place, dns.TypeTXT, server) })
		for i, reply := range replies {
			switch {
			case reply.err != nil:
				doubts = append(doubts, fmt.Sprintf("%s does not return the TXT records of %s: %v", servers[i], place, reply.err))
			case slices.Contains(reply.aliases(), p.Override):
				return nil, ctx.Err()
			}
		}
		if len(doubts) > 0 || !strings.HasPrefix(place, p.Label+".") {
			continue
		}
		for _, v := range r.current(ctx, place) {
			if first := v.standing(place, p.Type); first != "" && first != replies[0].standing(place, p.Type) {
				doubts = append(doubts, fmt.Sprintf("%s, but %s, a name server of its zone, has %s %s", missing.What, v.server, place, first))
			}
		}
	}
	if len(doubts) > 0 {
		return doubts, ctx.Err()
	}
	return nil, missing
}

// vacant looks for what would keep a record from being at its place. A wildcard record does not: it
// only shows where there is no other.
func (r Resolvers) vacant(ctx context.Context, p Place) (doubts []string, err error) {
	place, servers := p.at(), certmagic.RecursiveNameservers(r.List)
	replies := forEach(servers, func(server string) reply { return r.ask(ctx, place, dns.TypeTXT, server) })
	found := ""
	var against []string
	for i, reply := range replies {
		if reply.err != nil {
			against = append(against, fmt.Sprintf("%s does not tell: %v", servers[i], reply.err))
		} else if what := reply.standing(place, p.Type); what == "" {
			against = append(against, servers[i]+" finds nothing there")
		} else {
			found = what
		}
	}
	if found == "" {
		return nil, ctx.Err() // adding the record will tell
	}
	beside := "_" + strings.ToLower(rand.Text()) + "." + p.host()
	for i, reply := range forEach(servers, func(server string) reply { return r.ask(ctx, beside, dns.TypeTXT, server) }) {
		if reply.err != nil {
			against = append(against, fmt.Sprintf("%s does not tell whether it is a wildcard: %v", servers[i], reply.err))
			continue
		}
		switch reply.standing(beside, p.Type) {
		case "":
		case found:
			return nil, ctx.Err()
		default:
			against = append(against, servers[i]+" finds a wildcard")
		}
	}
	for _, v := range r.current(ctx, place) {
		if v.standing(place, p.Type) != found {
			against = append(against, v.server+", a name server of its zone, does not have it")
		}
	}
	what := fmt.Sprintf("dcv dns: the record for %s is to be at %s, where there is a record %s already, and nothing can stand beside a CNAME", p.Name, place, found)
	if len(against) > 0 {
		return []string{what + ", but " + strings.Join(against, ", and ")}, ctx.Err()
	}
	advice := "remove that record; if it belongs to an order that is pending, it is removed with it"
	if target, is := strings.CutPrefix(found, "CNAME "); is && p.Type == "TXT" {
		advice = fmt.Sprintf("remove that record, or, if the provider can add records at %s, set override_domain to that name", target)
	}
	return nil, &PlaceError{what, advice}
}

// standing is a record at a name that keeps one of the given type away, or empty.
func (r reply) standing(name, kind string) string {
	for _, rr := range r.msg.Answer {
		if !strings.EqualFold(strings.TrimSuffix(rr.Header().Name, "."), name) {
			continue
		}
		switch rr := rr.(type) {
		case *dns.CNAME:
			return "CNAME " + strings.ToLower(strings.TrimSuffix(rr.Target, "."))
		case *dns.TXT:
			if kind == "CNAME" {
				return "TXT " + strings.Join(rr.Txt, "")
			}
		}
	}
	return ""
}

// aliases are the names that the answer leads to.
func (r reply) aliases() (targets []string) {
	for _, rr := range r.msg.Answer {
		if cname, ok := rr.(*dns.CNAME); ok {
			targets = append(targets, strings.ToLower(strings.TrimSuffix(cname.Target, ".")))
		}
	}
	return targets
}

// said is the answer of a name server.
type said struct {
	server string
	reply
}

// current is what the name servers of a name's zone say of its TXT records, as far as they answer.
func (r Resolvers) current(ctx context.Context, name string) []said {
	_, servers, err := r.delegation(ctx, name)
	if err != nil {
		return nil
	}
	all := forEach(servers[:min(len(servers), maxServers)], func(server string) said {
		addr, problem := r.addressOf(ctx, server)
		if problem != "" {
			return said{}
		}
		answer, err := r.send(ctx, name, dns.TypeTXT, addr, false)
		if err != nil || !answer.Authoritative || answer.Rcode != dns.RcodeSuccess && answer.Rcode != dns.RcodeNameError {
			return said{}
		}
		return said{server, reply{msg: answer}}
	})
	return slices.DeleteFunc(all, func(s said) bool { return s.server == "" })
}

// CheckPlace looks at where the CA looks for a record. lenient makes a warning of what would stop.
func (r Resolvers) CheckPlace(ctx context.Context, p Place, lenient bool) []Result {
	doubts, err := r.Place(ctx, p)
	var results []Result
	for _, doubt := range doubts {
		results = append(results, warning("look at the zone; a CA that finds the same does not find the record", "%s", doubt))
	}
	wrong, ok := errors.AsType[*PlaceError](err)
	switch {
	case ok:
		results = append(results, stop(wrong.Advice, "%s", wrong.What))
	case err != nil:
		results = append(results, warning("run the check again", "it could not be looked at in time"))
	case len(doubts) == 0 && p.Override != "":
		results = append(results, Result{Verdict: OK, Message: "the CA finds what is at " + p.Override})
	case len(doubts) == 0:
		results = append(results, Result{Verdict: OK, Message: "the record can be where the CA looks"})
	}
	return Site{Lenient: lenient}.soften(results)
}
