package check

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/dcv"
)

// Cause is why a CA has not validated a name, as far as that can be seen from outside of the CA.
type Cause string

// The causes, the plainest first.
const (
	CauseDNS        Cause = "dns"                 // the name does not exist, or has no address
	CauseDNSSEC     Cause = "dnssec"              // its signatures do not verify
	CauseCAA        Cause = "caa"                 // its CAA records forbid the CA to issue
	CausePort       Cause = "port"                // this server cannot listen where the CA comes
	CauseOther      Cause = "other_server"        // what answers at an address does not have the file
	CauseUnanswered Cause = "unanswered"          // nobody answers at an address
	CausePrivate    Cause = "private_address"     // no CA can connect to an address
	CauseServer     Cause = "server_without_file" // a server of this cluster answered without the file
	CauseRecord     Cause = "record"              // the record is not in DNS, or not everywhere
	CauseServers    Cause = "name_servers"        // those of the zone do not say the same
	CauseKeptOut    Cause = "kept_out"            // some of the CA's perspectives have come, but too few
	CauseNoVisit    Cause = "no_visit"            // none has, though the file can be fetched from here
	CauseUndecided  Cause = "undecided"           // everything is as it should be
)

var causes = []Cause{
	CauseDNS, CauseDNSSEC, CauseCAA, CausePort, CauseOther, CauseUnanswered, CausePrivate, CauseServer, CauseRecord, CauseServers,
	CauseKeptOut, CauseNoVisit, CauseUndecided,
}

// Diagnosis says why a name is not validated.
type Diagnosis struct {
	Cause   Cause  `json:"cause"`
	Name    string `json:"name"`
	Message string `json:"message"`
	Advice  string `json:"advice,omitempty"`
}

// Plainest is the diagnosis to act on first.
func Plainest(list []Diagnosis) (first Diagnosis) {
	rank := func(d Diagnosis) int { return slices.Index(causes, d.Cause) }
	for i, d := range list {
		if i == 0 || rank(d) < rank(first) {
			first = d
		}
	}
	return first
}

// Visit is a request for a validation file that a server of ours has answered.
type Visit struct {
	From   string // the address that it came from
	Server string // who answered
	Status int
	Missed bool // whether the answer was not the file, whatever its status
	Time   time.Time
}

// From 2026-12-15 on, a CA looks from its own network and from at least five more. Of up to five of
// these, one may miss what its own network sees, of six or more, two (CA/Browser Forum, ballot SC-067;
// Baseline Requirements, section 3.2.2.9). agreeing counts its own network and the fewest of the others
// that must see the same.
const (
	perspectives = 6
	agreeing     = 5
)

// trusted is for how long a visit counts for more than what is seen from here: routers that send
// nothing back inside, and resolvers with a view of their own, show less than the CA gets. An older
// one may have come to what is no longer there.
const trusted = time.Hour

// visitors are the addresses that came, by what each of them got last.
type visitors struct {
	fetched, failed []Visit
	hidden          bool // whether a proxy hides where they come from
}

func countVisits(list []Visit) (v visitors) {
	outside := func(visit Visit) bool {
		addr, err := netip.ParseAddr(visit.From)
		return err != nil || Public(addr.Unmap())
	}
	// A visitor from inside is no CA, unless all come from there.
	if v.hidden = len(list) > 0 && !slices.ContainsFunc(list, outside); !v.hidden {
		list = slices.DeleteFunc(slices.Clone(list), func(visit Visit) bool { return !outside(visit) })
	}
	list = slices.SortedStableFunc(slices.Values(list), func(a, b Visit) int { return a.Time.Compare(b.Time) })
	last := make(map[string]Visit)
	var order []string
	for _, visit := range list {
		if _, known := last[visit.From]; !known {
			order = append(order, visit.From)
		}
		last[visit.From] = visit
	}
	for _, from := range order {
		if visit := last[from]; visit.Status == 200 && !visit.Missed {
			v.fetched = append(v.fetched, visit)
		} else {
			v.failed = append(v.failed, visit)
		}
	}
	return v
}

// over counts those that have fetched the file over the family of an address, or over any if it is
// not known.
func (v visitors) over(family netip.Addr, since time.Time) (n int) {
	for _, visit := range v.fetched {
		addr, err := netip.ParseAddr(visit.From)
		same := v.hidden || !family.IsValid() || err == nil && addr.Unmap().Is6() == family.Is6()
		if same && !visit.Time.Before(since) {
			n++
		}
	}
	return n
}

// tell says who came. Families are of interest where the name has addresses of both.
func (v visitors) tell(families bool) string {
	if len(v.fetched)+len(v.failed) == 0 {
		return "nobody has requested the file"
	}
	var parts []string
	if len(v.fetched) > 0 {
		four, six := v.over(netip.IPv4Unspecified(), time.Time{}), v.over(netip.IPv6Unspecified(), time.Time{})
		text := fmt.Sprintf("it was fetched from %s", counted(len(v.fetched), "address"))
		switch {
		case v.hidden:
			text += " inside of your network"
		case !families:
		case four > 0 && six > 0:
			text += fmt.Sprintf(", %d of them over IPv6", six)
		case six > 0:
			text += ", over IPv6 only"
		case four > 0:
			text += ", over IPv4 only"
		}
		parts = append(parts, text)
	}
	type answer struct {
		server string
		status int
	}
	var answers []answer
	count := make(map[answer]int)
	for _, visit := range v.failed {
		a := answer{visit.Server, visit.Status}
		if count[a]++; count[a] == 1 {
			answers = append(answers, a)
		}
	}
	for _, a := range answers {
		parts = append(parts, fmt.Sprintf("%s got %d without the file from server %s", counted(count[a], "address"), a.status, a.server))
	}
	return strings.Join(parts, "; ")
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ses", n, what)
}

// probed is what came of fetching the file from an address, which is not valid where only the name
// is known.
type probed struct {
	addr netip.Addr
	err  error
}

func (p probed) at(name string) string {
	if p.addr.IsValid() {
		return p.addr.String()
	}
	return name
}

// failed reports whether the file could not be fetched, though this machine has a way there.
func (p probed) failed() bool {
	_, ok := errors.AsType[*dcv.ProbeError](p.err)
	return ok && !p.noRoute()
}

func (p probed) noRoute() bool {
	problem, ok := errors.AsType[*dcv.ProbeError](p.err)
	return ok && problem.NoRoute()
}

// Explain finds out why the CA has not validated a name by the file that the site has. deaf is why
// this server does not listen where the CA connects, nil if it does. Visits are those for the name
// to all servers of the cluster.
func (s Site) Explain(ctx context.Context, q dcv.CAAQuestion, deaf error, visits []Visit) Diagnosis {
	came, since := countVisits(visits), time.Now().Add(-trusted)
	late := came.over(netip.Addr{}, since)
	l := Lookup{Addresses: []netip.Addr{{}}}
	found := func(cause Cause, advice, format string, args ...any) Diagnosis {
		families := slices.ContainsFunc(l.Addresses, netip.Addr.Is4) && slices.ContainsFunc(l.Addresses, netip.Addr.Is6)
		return Diagnosis{Cause: cause, Name: s.Name, Message: fmt.Sprintf(format, args...) + "; " + came.tell(families), Advice: advice}
	}
	if !s.AnyName {
		d, known := s.Resolvers.explain(ctx, q, s.Resolvers.Host, &l)
		if known && (d.Cause != CauseDNS || late == 0) {
			d.Message += "; " + came.tell(false)
			return d
		}
		if len(l.Addresses) == 0 {
			l.Addresses = []netip.Addr{{}} // this machine may reach the name in another way
		}
	}
	probe := func(addr netip.Addr) probed {
		if addr.IsValid() && !Public(addr) {
			return probed{addr, errPrivate}
		}
		prober := s.Prober
		prober.Address = addr
		return probed{addr, prober.Probe(ctx, s.Name, *s.File)}
	}
	var probes []probed
	here := "what the CA gets was not tried from here (see probe)"
	if s.File != nil {
		here = "from here, the file is where the CA looks"
		probes = forEach(l.Addresses, probe)
		missed := slices.DeleteFunc(slices.Clone(probes), func(p probed) bool { return p.err == nil })
		switch {
		case len(missed) == 0:
		case len(missed) < len(probes) && !slices.ContainsFunc(missed, func(p probed) bool { return !p.noRoute() }):
			here += ", but for " + family(missed[0].addr) + ", which this machine does not have"
		default:
			here = "what the CA gets cannot be seen from here" // if no cause is found in them below
		}
	}
	if deaf != nil && len(came.fetched) == 0 && slices.ContainsFunc(probes, probed.failed) {
		return found(CausePort, "stop what uses the port, or let it pass requests on to Caddy", "%v", deaf)
	}
	enough := len(came.fetched) >= agreeing && !came.hidden
	for _, p := range probes {
		if problem, ok := errors.AsType[*dcv.ProbeError](p.err); ok && problem.Wrong() && (!enough || late < agreeing) {
			detail, advice := inTwo(problem)
			return found(CauseOther, advice, "at %s the CA gets something else: %s: %s", p.at(s.Name), strings.ReplaceAll(string(problem.Kind), "_", " "), detail)
		}
	}
	for _, p := range probes {
		problem, ok := errors.AsType[*dcv.ProbeError](p.err)
		if !ok || problem.Wrong() || enough || came.over(p.addr, since) > 0 {
			continue // or it does not answer to this machine only
		}
		if problem.NoRoute() {
			if len(came.fetched) == 0 || came.over(p.addr, time.Time{}) > 0 {
				continue // nothing tells it from the other family
			}
			return found(CauseUnanswered, "see to it that it answers, or remove its record",
				"the name has the address %s, at which nothing was requested, and which this machine cannot try without %s", p.addr, family(p.addr))
		}
		detail, advice := inTwo(problem)
		return found(CauseUnanswered, advice, "%s does not answer: %s", p.at(s.Name), detail)
	}
	inside := late > 0 && !slices.ContainsFunc(l.Addresses, Public) // the view of the zone is another one
	for _, p := range probes {
		if errors.Is(p.err, errPrivate) && !enough && !inside {
			return found(CausePrivate, "give the name public addresses only; if this machine's resolvers have another view of the zone, set the global option tls_resolvers to public ones",
				"%s is not a public address, so no CA can connect to it", p.addr)
		}
	}
	if ctx.Err() != nil && !enough {
		return found(CauseUndecided, "wait, and look at the resolvers of this machine", "from here, not everything could be looked at in time")
	}
	if enough {
		return found(CauseUndecided, "wait; if nothing changes within a day, ask the vendor about the order",
			"%s, and as many of the CA's perspectives as must agree have fetched it", here)
	}
	if len(came.failed) > 0 {
		return found(CauseServer, "see to it that this server has the same configuration and storage as the others, and that nothing changes paths before Caddy",
			"a server of yours, %s, answered the CA without the file", came.failed[len(came.failed)-1].Server)
	}
	if came.hidden && len(came.fetched) > 0 {
		return found(CauseUndecided, fmt.Sprintf("name the proxy in trusted_proxies, or look in its log for who has requested it: a CA looks from %d places or more, of which %d must agree", perspectives, agreeing),
			"%s, but a proxy before Caddy hides who has fetched it", here)
	}
	if doubt := s.doubt(ctx, l, probe); doubt != "" {
		return found(CauseServers, "see to it that all name servers have the same version of the zone, and answer", "the CA's perspectives may come to different places: %s", doubt)
	}
	if len(came.fetched) == 0 {
		return found(CauseNoVisit, "wait a little; if it does not change, look for what keeps the CA out: a firewall or a CDN that blocks by country or by data center",
			"%s", here)
	}
	return found(CauseKeptOut, fmt.Sprintf("look for what keeps the CA out: a firewall or a CDN that blocks by country or by data center, or limits requests; a CA looks from %d places or more, of which %d must agree. "+
		"If a proxy before Caddy hides where requests come from, name it in trusted_proxies, or look in its log", perspectives, agreeing),
		"%s, but only some of the CA's perspectives have fetched it", here)
}

var errPrivate = errors.New("no public address")

// ExplainZone finds out why the CA has not validated a name by a DNS record, but for the record
// itself. known is whether a cause was found.
func (r Resolvers) ExplainZone(ctx context.Context, q dcv.CAAQuestion) (d Diagnosis, known bool) {
	return r.explain(ctx, q, r.Zone, new(Lookup))
}

// explain looks at the name and its CAA records.
func (r Resolvers) explain(ctx context.Context, q dcv.CAAQuestion, look func(context.Context, string) (Lookup, error), l *Lookup) (d Diagnosis, known bool) {
	var err error
	*l, err = look(ctx, q.Name)
	if err == nil {
		err = r.CheckCAA(ctx, q)
	}
	if gone, ok := errors.AsType[*NameError](err); ok {
		cause := CauseDNS
		if gone.Problem == Bogus {
			cause = CauseDNSSEC
		}
		return Diagnosis{Cause: cause, Name: q.Name, Message: gone.what(), Advice: gone.Advice()}, true
	}
	if forbidden, ok := errors.AsType[*dcv.CAAError](err); ok {
		what, advice := split(forbidden.Error())
		return Diagnosis{Cause: CauseCAA, Name: q.Name, Message: what, Advice: advice}, true
	}
	return Diagnosis{}, false
}

// doubt is what resolvers or name servers do not agree about. Different addresses are no doubt
// where all of them have the file, as with load balancing.
func (s Site) doubt(ctx context.Context, l Lookup, probe func(netip.Addr) probed) string {
	if s.AnyName {
		return ""
	}
	if len(l.Disputed) > 0 {
		return l.Disputed[0]
	}
	zone, views, err := s.Resolvers.authorities(ctx, s.Name)
	if err != nil {
		return ""
	}
	views = slices.DeleteFunc(views, func(v authority) bool { return v.problem != "" })
	doubts := conflicts(zone, s.Name, views)
	if len(doubts) == 0 {
		return ""
	}
	var more []netip.Addr
	for _, v := range views {
		if len(v.found) == 0 || s.File == nil {
			return doubts[0]
		}
		more = append(more, v.found...)
	}
	more = slices.DeleteFunc(more, func(addr netip.Addr) bool { return slices.Contains(l.Addresses, addr) })
	slices.SortFunc(more, netip.Addr.Compare)
	for _, p := range forEach(slices.Compact(more), probe) {
		if p.err != nil {
			return doubts[0]
		}
	}
	return ""
}
