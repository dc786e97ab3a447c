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

// Names of the checks of one name.
const (
	checkDNS       = "dns"
	checkTwin      = "twin"
	checkFile      = "file"
	checkAuthority = "nameservers"
	checkCAA       = "caa"
)

// Site is a name that is proven by a file.
type Site struct {
	Name string

	// Resolvers tell where the name leads.
	Resolvers Resolvers

	// File is what the CA would fetch. Nil means that nobody serves one: then it is only looked at
	// who answers, and nothing of that stops an order.
	File *dcv.Challenge

	// Unserved says why nobody does, or why the server that runs may not serve it for this name. A
	// Caddy that answers without the file is then no reason to stop.
	Unserved string

	// Prober fetches as the CA does.
	Prober dcv.Prober

	// AnyName is whether the name is for a test service, and need not be in DNS.
	AnyName bool

	// Lenient is whether the configuration takes problems of the name for warnings.
	Lenient bool
}

// Check looks the name up, and fetches the file from each of its addresses.
func (s Site) Check(ctx context.Context) []Result {
	if s.AnyName {
		r := s.fetch(ctx, netip.Addr{})
		return append([]Result{{Check: checkDNS, Verdict: OK, Message: "a test service takes any name"}}, s.soften([]Result{r.Result})...)
	}
	l, err := s.Resolvers.Host(ctx, s.Name)
	results := s.soften(lookedUp(l, err))
	if len(l.Addresses) == 0 {
		return results
	}
	fetched := forEach(l.Addresses, func(addr netip.Addr) fetchedFrom { return s.fetch(ctx, addr) })
	var files []Result
	for _, f := range fetched {
		if f.unanswered && slices.ContainsFunc(fetched, f.isBlamedBy) {
			f.Verdict = Stop
			f.Message += ", and where the name's other addresses serve the file, this one is at fault"
		}
		files = append(files, f.Result)
	}
	return append(results, s.soften(files)...)
}

// Twin looks at the name with www. or without, which many CAs add to an order. Nothing of it
// keeps an order from being validated.
func (s Site) Twin(ctx context.Context, twin string) []Result {
	s.Name = twin
	l, err := s.Resolvers.Host(ctx, twin)
	if gone, ok := errors.AsType[*NameError](err); ok {
		return []Result{{Check: checkTwin, Name: twin, Verdict: OK, Message: gone.what() + "; an order is for the other name only"}}
	}
	var results []Result
	for _, addr := range l.Addresses {
		r := s.fetch(ctx, addr).Result
		if r.Verdict == Stop {
			r.Verdict = Warning
			r.Message += "; a CA that adds this name to the order may wait for it"
		}
		results = append(results, r)
	}
	if len(results) == 0 {
		results = []Result{{Verdict: OK, Message: "nothing is known of it; the CA adds it only if it can be validated"}}
	}
	for i := range results {
		results[i].Check, results[i].Name = checkTwin, twin
	}
	return results
}

// CheckZone looks at DNS for a name that is proven by a record. lenient makes a warning of what
// would stop.
func (r Resolvers) CheckZone(ctx context.Context, name string, lenient bool) []Result {
	l, err := r.Zone(ctx, name)
	return Site{Lenient: lenient}.soften(lookedUp(l, err))
}

// lookedUp tells what came of a lookup.
func lookedUp(l Lookup, err error) []Result {
	var results []Result
	gone, ok := errors.AsType[*NameError](err)
	switch {
	case ok:
		results = append(results, Result{Check: checkDNS, Verdict: Stop, Message: gone.what(), Advice: gone.Advice()})
	case len(l.Addresses) > 0:
		results = append(results, Result{Check: checkDNS, Verdict: OK, Message: "leads to " + joined(l.Addresses)})
	case len(l.Doubts) == 0 && err == nil:
		results = append(results, Result{Check: checkDNS, Verdict: OK, Message: "the domain exists"})
	}
	for _, doubt := range l.Doubts {
		results = append(results, Result{Check: checkDNS, Verdict: Warning, Message: doubt,
			Advice: "look at the zone and its name servers; a CA that finds the same may refuse"})
	}
	return results
}

// soften makes warnings of what would stop, where the configuration says that it shall not.
func (s Site) soften(results []Result) []Result {
	for i := range results {
		if s.Lenient && results[i].Verdict == Stop {
			results[i].Verdict = Warning
			results[i].Message += "; the order is placed all the same, as probe says"
		}
	}
	return results
}

// fetchedFrom is what came of fetching the file from an address.
type fetchedFrom struct {
	Result
	addr                       netip.Addr
	served, unanswered, inside bool
}

// isBlamedBy reports whether another address, which serves the file, shows that this one is at fault.
// One of the other family does not show that a router sends back inside what comes from there.
func (f fetchedFrom) isBlamedBy(other fetchedFrom) bool {
	return other.served && (!f.inside || f.addr.Is6() == other.addr.Is6())
}

// fetch fetches the file from one address.
func (s Site) fetch(ctx context.Context, addr netip.Addr) (f fetchedFrom) {
	f.addr = addr
	f.Result = s.judge(ctx, addr, &f)
	f.Check = checkFile
	return f
}

func (s Site) judge(ctx context.Context, addr netip.Addr, f *fetchedFrom) Result {
	if addr.IsValid() && !Public(addr) {
		return warning("give the name a public address; if this machine's resolvers have another view of the zone, set the global option tls_resolvers to public ones",
			"%s is not a public address, so no CA can fetch from it", addr)
	}
	file := s.File
	if file == nil {
		file = &dcv.Challenge{Path: dcv.PathPrefix + "caddy-commercial-check.txt", Body: []byte("nobody serves this")}
	}
	prober := s.Prober
	prober.Address = addr
	at := addr.String()
	if !addr.IsValid() {
		at = s.Name
	}
	began := time.Now()
	err := prober.Probe(ctx, s.Name, *file)
	problem, ok := errors.AsType[*dcv.ProbeError](err)
	switch {
	case err == nil:
		f.served = true
		return Result{Verdict: OK, Message: fmt.Sprintf("%s serves the validation file (%s)", at, time.Since(began).Round(time.Millisecond))}
	case !ok:
		return warning("run the check again", "fetching from %s was not finished: %v", at, err)
	}
	detail, advice := inTwo(problem)
	message := fmt.Sprintf("%s: %s: %s", at, strings.ReplaceAll(string(problem.Kind), "_", " "), detail)
	switch {
	case problem.NoRoute():
		return warning("run the check from a machine that has it", "%s: this machine has no %s connectivity, so it is not known what the CA would get", at, family(addr))
	case s.File == nil:
		return warning("let the check listen, or run it while Caddy runs", "%s, which may be otherwise once Caddy runs; %s", message, s.Unserved)
	case problem.Kind == dcv.Unreachable:
		f.unanswered, f.inside = true, problem.Inside()
		return warning(advice, "%s; a CA that gets no answer there cannot validate", message)
	case s.Unserved != "" && byCaddy(problem):
		return warning("", "%s: a Caddy answers, without the file: %s", at, s.Unserved)
	}
	return stop(advice, "%s", message)
}

func family(addr netip.Addr) string {
	if addr.Is6() {
		return "IPv6"
	}
	return "IPv4"
}

// inTwo takes the advice from the end of a probe's detail. What a host has answered may contain
// semicolons, too.
func inTwo(e *dcv.ProbeError) (detail, advice string) {
	if i := strings.LastIndex(e.Detail, "; "); i >= 0 {
		return e.Detail[:i], e.Detail[i+2:]
	}
	return e.Detail, ""
}

// byCaddy reports whether what answered is a Caddy that nothing stands in front of.
func byCaddy(e *dcv.ProbeError) bool {
	return strings.EqualFold(e.Header.Get("Server"), "Caddy") && e.Header.Get("Via") == ""
}

// Public reports whether a CA can connect to an address at all.
func Public(addr netip.Addr) bool {
	return !addr.IsLoopback() && !addr.IsPrivate() && !addr.IsUnspecified() && !addr.IsLinkLocalUnicast() && !addr.IsMulticast() && !shared.Contains(addr)
}

// shared is the address space of carriers' NAT, RFC 6598.
var shared = netip.MustParsePrefix("100.64.0.0/10")
