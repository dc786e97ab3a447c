package check

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/miekg/dns"
	"golang.org/x/net/publicsuffix"

	"github.com/caddy-commercial/caddy-commercial/dcv"
)

// Resolvers are the recursive resolvers that are asked where a CA would ask its own.
type Resolvers struct {
	// List has hosts with an optional port. An empty one means those of the system.
	List []string

	// Exchange sends a question to a server. Default: [dcv.Exchange]
	Exchange func(ctx context.Context, question *dns.Msg, server string) (*dns.Msg, error)
}

// Problem is why a CA cannot make anything of a name.
type Problem string

// The problems. No resolver disagrees about them.
const (
	Absent Problem = "absent" // the name, or what it is an alias of, does not exist
	Empty  Problem = "empty"  // it has neither an A nor an AAAA record
	NoZone Problem = "zone"   // the domain that its records would be in does not exist
	Bogus  Problem = "bogus"  // its DNSSEC signatures do not verify
)

// NameError says that DNS keeps the CA from validating a name.
type NameError struct {
	Name    string
	Problem Problem
	Target  string   // of the alias that the problem is at, or the domain; else empty
	Servers []string // the resolvers that say so
	Reason  string   // the resolver's own words, where it has some
}

func (e *NameError) Error() string { return e.what() + "; " + e.Advice() }

func (e *NameError) what() string {
	by := "according to " + strings.Join(e.Servers, ", ")
	switch {
	case e.Problem == Absent && e.Target != "":
		return fmt.Sprintf("%s is an alias (CNAME) of %s, which does not exist in DNS (NXDOMAIN) %s", e.Name, e.Target, by)
	case e.Problem == Absent:
		return fmt.Sprintf("%s does not exist in DNS (NXDOMAIN) %s", e.Name, by)
	case e.Problem == Empty:
		return fmt.Sprintf("%s has neither an A nor an AAAA record %s", e.Name, by)
	case e.Problem == NoZone:
		return fmt.Sprintf("%s cannot be validated by a DNS record: the domain %s does not exist (NXDOMAIN) %s", e.Name, e.Target, by)
	}
	reason := ""
	if e.Reason != "" {
		reason = " (" + e.Reason + ")"
	}
	return fmt.Sprintf("the DNSSEC signatures of %s do not verify %s, which answers SERVFAIL%s, and with checking disabled (CD) finds it", e.Name, by, reason)
}

// Advice is what to do about it.
func (e *NameError) Advice() string {
	switch {
	case e.Problem == Absent && e.Target != "":
		return "correct the CNAME, or create the name that it leads to"
	case e.Problem == Absent, e.Problem == Empty:
		return "create its A or AAAA record; if only this machine's resolvers do not know it, set the global option tls_resolvers to public ones, or probe warn"
	case e.Problem == NoZone:
		return "register the domain, or correct the name"
	}
	return "CAs must refuse such a zone: sign it again, or correct or remove the DS record at the registrar"
}

// Lookup is what the resolvers say of a name.
type Lookup struct {
	Name      string
	Addresses []netip.Addr // of all resolvers together
	Doubts    []string     // what is not as it should be, and yet no [NameError]
	Disputed  []string     // those of them that are more than a resolver not answering
}

const (
	// questionTimeout bounds one question to one resolver, which is asked twice.
	questionTimeout = 2 * time.Second
	tries           = 2

	// maxAddresses is how many addresses of a name are looked at. An answer can have thousands,
	// each of which can be silent for as long as a look may take.
	maxAddresses = 32
)

// Host looks a name up as a CA does that fetches a file from it. A *NameError says that the CA
// would find nothing. It takes the word of all resolvers: where one does not answer, or has another
// answer, there are only doubts. Signatures that do not verify are only a doubt where another
// resolver has verified them. What resolvers remember that did not exist is only a doubt where a
// name server of the zone has it by now.
func (r Resolvers) Host(ctx context.Context, name string) (Lookup, error) {
	l, err := r.host(ctx, name)
	gone, ok := errors.AsType[*NameError](err)
	if !ok || gone.Problem == Bogus {
		return l, err
	}
	zone, views, unknown := r.authorities(ctx, name)
	i := slices.IndexFunc(views, func(v authority) bool { return v.problem == "" && slices.ContainsFunc(v.found, Public) })
	if unknown != nil || i < 0 {
		return l, err
	}
	l.Addresses = views[i].found[:min(len(views[i].found), maxAddresses)]
	l.Doubts = append(l.Doubts, fmt.Sprintf("%s, but %s, a name server of %s, has %s", gone.what(), views[i].server, zone, joined(l.Addresses)))
	return l, ctx.Err()
}

func (r Resolvers) host(ctx context.Context, name string) (Lookup, error) {
	l := Lookup{Name: name}
	servers := certmagic.RecursiveNameservers(r.List)
	views := forEach(servers, func(server string) view {
		return r.trusting(ctx, name, server, len(servers) > 1, r.view(ctx, name, server))
	})
	var failed *NameError
	more := false
	for i, v := range views {
		for _, addr := range v.addresses {
			switch {
			case slices.Contains(l.Addresses, addr):
			case len(l.Addresses) < maxAddresses:
				l.Addresses = append(l.Addresses, addr)
			default:
				more = true
			}
		}
		l.Doubts = append(l.Doubts, v.doubts...)
		l.Disputed = append(l.Disputed, v.disputed...)
		if v.problem == "" {
			continue
		}
		if failed == nil || v.problem == Bogus && failed.Problem != Bogus {
			failed = &NameError{Name: name, Problem: v.problem, Target: v.target, Reason: v.reason}
		}
		if v.problem == failed.Problem {
			failed.Servers = append(failed.Servers, servers[i])
		}
	}
	if more {
		l.Doubts = append(l.Doubts, fmt.Sprintf("%s has more than %d addresses, and only so many are looked at", name, maxAddresses))
	}
	if failed == nil {
		return l, ctx.Err()
	}
	if doubt := failed.against(servers, views); doubt != "" {
		doubt = failed.what() + ", but " + doubt
		l.Doubts, l.Disputed = append(l.Doubts, doubt), append(l.Disputed, doubt)
		return l, ctx.Err()
	}
	return l, failed
}

// against returns what speaks against a problem.
func (e *NameError) against(servers []string, views []view) string {
	for i, v := range views {
		switch {
		case e.Problem == Bogus && v.verified:
			return servers[i] + " has verified them"
		case e.Problem == Bogus: // one that does not verify says nothing
		case v.problem == "" && len(v.addresses) > 0:
			return fmt.Sprintf("%s finds %s", servers[i], joined(v.addresses[:min(len(v.addresses), maxAddresses)]))
		case v.problem == "":
			return servers[i] + " does not tell"
		}
	}
	return ""
}

// view is what one resolver says of a name.
type view struct {
	addresses []netip.Addr
	problem   Problem // empty if there is none, or nothing is known
	target    string
	reason    string
	verified  bool // DNSSEC
	doubts    []string
	disputed  []string // see Lookup
}

func (r Resolvers) view(ctx context.Context, name, server string) view {
	kinds := []uint16{dns.TypeA, dns.TypeAAAA}
	replies := forEach(kinds, func(kind uint16) reply { return r.ask(ctx, name, kind, server) })
	var v view
	empty, absent := 0, 0 // some servers deny the whole name where they have no AAAA record
	for i, reply := range replies {
		kind := dns.TypeToString[kinds[i]]
		switch {
		case reply.bogus:
			doubt := fmt.Sprintf("the DNSSEC signatures of the %s records of %s do not verify at %s", kind, name, server)
			v.doubts, v.disputed = append(v.doubts, doubt), append(v.disputed, doubt)
			v.reason = reply.reason
		case reply.err != nil:
			v.doubts = append(v.doubts, fmt.Sprintf("%s does not return the %s records of %s: %v", server, kind, name, reply.err))
		default:
			addresses := reply.addresses()
			v.addresses = append(v.addresses, addresses...)
			v.verified = v.verified || reply.msg.AuthenticatedData
			if len(addresses) == 0 {
				empty++
			}
			if reply.msg.Rcode == dns.RcodeNameError {
				absent++
				v.target = reply.alias()
			}
		}
	}
	switch {
	case len(v.addresses) > 0:
		v.target = ""
	case replies[0].bogus || replies[1].bogus:
		v.problem, v.doubts, v.disputed = Bogus, nil, nil
	case absent == len(kinds):
		v.problem = Absent
	case empty == len(kinds):
		v.problem, v.target = Empty, ""
	}
	return v
}

// trusting disregards what a resolver says of signatures if it accepts none, not even those of the
// top-level domain: its trust anchor or its clock is wrong. That is done only where there are other
// resolvers; with this one alone, nothing at all would work here.
func (r Resolvers) trusting(ctx context.Context, name, server string, others bool, v view) view {
	if v.problem != Bogus || !others || !r.believesNone(ctx, name, server) {
		return v
	}
	return view{doubts: []string{fmt.Sprintf("%s rejects all DNSSEC signatures; check its clock and its trust anchor", server)}}
}

func (r Resolvers) believesNone(ctx context.Context, name, server string) bool {
	return r.ask(ctx, name[strings.LastIndexByte(name, '.')+1:], dns.TypeSOA, server).bogus
}

// reply is the answer of one resolver.
type reply struct {
	msg    *dns.Msg
	err    error
	bogus  bool // then err is not nil
	reason string
}

// addresses are those of the answer, whatever aliases lead to them.
func (r reply) addresses() (list []netip.Addr) {
	for _, rr := range r.msg.Answer {
		var addr netip.Addr
		switch rr := rr.(type) {
		case *dns.A:
			addr, _ = netip.AddrFromSlice(rr.A)
		case *dns.AAAA:
			addr, _ = netip.AddrFromSlice(rr.AAAA)
		}
		if addr.IsValid() && !synthesized.Contains(addr) {
			list = append(list, addr.Unmap())
		}
	}
	return list
}

// synthesized are the addresses that resolvers make of IPv4 addresses for networks without IPv4
// (RFC 6052, section 2.1). They are in no zone.
var synthesized = netip.MustParsePrefix("64:ff9b::/96")

// alias is where the last CNAME of the answer leads, or empty.
func (r reply) alias() string {
	target := ""
	for _, rr := range r.msg.Answer {
		if cname, ok := rr.(*dns.CNAME); ok {
			target = strings.TrimSuffix(cname.Target, ".")
		}
	}
	return target
}

// ask asks one resolver, and finds out why where it answers SERVFAIL.
func (r Resolvers) ask(ctx context.Context, name string, kind uint16, server string) reply {
	answer, err := r.send(ctx, name, kind, server, false)
	if err != nil {
		return reply{err: err}
	}
	switch answer.Rcode {
	case dns.RcodeSuccess, dns.RcodeNameError:
		if i := slices.IndexFunc(extendedErrors(answer), untrue); i >= 0 {
			return reply{err: fmt.Errorf("its answer is not that of the zone (%s)", dns.ExtendedErrorCodeToString[extendedErrors(answer)[i]])}
		}
		return reply{msg: answer}
	case dns.RcodeServerFailure:
		return r.whyFailed(ctx, name, kind, server, answer)
	}
	return reply{err: fmt.Errorf("it answers %s", dns.RcodeToString[answer.Rcode])}
}

// whyFailed asks again with checking disabled. If that resolves, and a question with checking still
// does not, the signatures are at fault, or the resolver remembers that servers did not answer for a
// moment, as it must for up to five minutes (RFC 9520).
func (r Resolvers) whyFailed(ctx context.Context, name string, kind uint16, server string, failed *dns.Msg) reply {
	servfail := errors.New("it answers SERVFAIL: the name servers of the zone do not answer it, or its DNSSEC signatures do not verify")
	unchecked, err := r.send(ctx, name, kind, server, true)
	if err != nil || unchecked.Rcode != dns.RcodeSuccess && unchecked.Rcode != dns.RcodeNameError {
		return reply{err: servfail}
	}
	again, err := r.send(ctx, name, kind, server, false)
	switch {
	case err != nil:
		return reply{err: err}
	case again.Rcode == dns.RcodeSuccess || again.Rcode == dns.RcodeNameError:
		return reply{msg: again}
	case again.Rcode != dns.RcodeServerFailure:
		return reply{err: servfail}
	}
	reason, bogus, other := extended(failed, again)
	switch {
	case bogus && !other, expired(unchecked, time.Now()):
		return reply{bogus: true, reason: reason, err: servfail}
	case other && !bogus:
		return reply{err: fmt.Errorf("it answers SERVFAIL (%s)", reason)}
	}
	// The signatures may be those of what the name is an alias of.
	for _, name := range append([]string{name}, reply{msg: unchecked}.aliases()...) {
		if bogus, below := r.rejects(ctx, name, server); bogus {
			return reply{bogus: true, reason: cmp.Or(reason, below), err: servfail}
		}
	}
	return reply{err: errors.New("it answers SERVFAIL, and with checking disabled (CD) finds it, but does not reject other names there; it may remember a failure that is over")}
}

// rejects reports whether a resolver rejects the signatures of names below this one that nobody has
// asked it for, so that it remembers nothing of them. One that fails only now and then does not.
func (r Resolvers) rejects(ctx context.Context, name, server string) (bogus bool, reason string) {
	for range 2 {
		// An answer for CNAME follows no wildcard to another zone.
		below := "_" + strings.ToLower(rand.Text()) + "." + name
		checked, err := r.send(ctx, below, dns.TypeCNAME, server, false)
		if err != nil || checked.Rcode != dns.RcodeServerFailure {
			return false, ""
		}
		says, bogus, other := extended(checked)
		if other && !bogus {
			return false, ""
		}
		unchecked, err := r.send(ctx, below, dns.TypeCNAME, server, true)
		if err != nil || unchecked.Rcode != dns.RcodeSuccess && unchecked.Rcode != dns.RcodeNameError {
			return false, ""
		}
		reason = says
	}
	return true, reason
}

// expired reports whether an answer has records of which all signatures are out of their time. That
// needs no resolver's judgement.
func expired(answer *dns.Msg, now time.Time) bool {
	type set struct {
		name string
		kind uint16
	}
	valid := make(map[set]bool)
	for _, rr := range slices.Concat(answer.Answer, answer.Ns) {
		if sig, ok := rr.(*dns.RRSIG); ok {
			of := set{strings.ToLower(sig.Hdr.Name), sig.TypeCovered}
			valid[of] = valid[of] || sig.ValidityPeriod(now)
		}
	}
	return slices.Contains(slices.Collect(maps.Values(valid)), false)
}

// extended reads the Extended DNS Errors of answers (RFC 8914): whether they tell of signatures that do
// not verify, and whether of another cause, such as servers that could not be reached. That the error
// is one that the resolver remembers tells neither.
func extended(answers ...*dns.Msg) (reason string, bogus, other bool) {
	for _, code := range extendedErrors(answers...) {
		text := dns.ExtendedErrorCodeToString[code]
		switch code {
		case dns.ExtendedErrorCodeDNSBogus, dns.ExtendedErrorCodeSignatureExpired, dns.ExtendedErrorCodeSignatureNotYetValid,
			dns.ExtendedErrorCodeDNSKEYMissing, dns.ExtendedErrorCodeRRSIGsMissing, dns.ExtendedErrorCodeNoZoneKeyBitSet, dns.ExtendedErrorCodeNSECMissing,
			dns.ExtendedErrorCodeSignatureExpiredBeforeValid:
			reason, bogus = text, true
		case dns.ExtendedErrorCodeNoReachableAuthority, dns.ExtendedErrorCodeNetworkError:
			other = true
		default:
			other = other || untrue(code)
		}
		if other && !bogus && reason == "" {
			reason = text
		}
	}
	return reason, bogus, other
}

func extendedErrors(answers ...*dns.Msg) (codes []uint16) {
	for _, answer := range answers {
		opt := answer.IsEdns0()
		if opt == nil {
			continue
		}
		for _, option := range opt.Option {
			if ede, ok := option.(*dns.EDNS0_EDE); ok {
				codes = append(codes, ede.InfoCode)
			}
		}
	}
	return codes
}

// untrue reports whether a resolver says that it has made its answer up, as those do that filter
// what was registered lately, or that it is out of date. A CA does not ask that resolver.
func untrue(code uint16) bool {
	switch code {
	case dns.ExtendedErrorCodeForgedAnswer, dns.ExtendedErrorCodeBlocked, dns.ExtendedErrorCodeCensored, dns.ExtendedErrorCodeFiltered,
		dns.ExtendedErrorCodeProhibited, dns.ExtendedErrorCodeStaleNXDOMAINAnswer:
		return true
	}
	return false
}

// send asks a resolver, twice if it must be.
func (r Resolvers) send(ctx context.Context, name string, kind uint16, server string, unchecked bool) (answer *dns.Msg, err error) {
	question := new(dns.Msg)
	question.SetQuestion(dns.Fqdn(name), kind)
	question.SetEdns0(1232, unchecked) // the size that passes everywhere, as of DNS Flag Day 2020; with signatures, if nobody checks them
	question.CheckingDisabled = unchecked
	question.AuthenticatedData = !unchecked // asks whether it was verified (RFC 6840, section 5.7)
	exchange := r.Exchange
	if exchange == nil {
		exchange = dcv.Exchange
	}
	for range tries {
		if answer, err = within(ctx, question, server, exchange); err == nil || ctx.Err() != nil {
			break
		}
	}
	return answer, err
}

func within(ctx context.Context, question *dns.Msg, server string, exchange func(context.Context, *dns.Msg, string) (*dns.Msg, error)) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	answer, err := exchange(ctx, question.Copy(), server)
	if err == nil && answer == nil {
		err = errors.New("there is no answer")
	}
	return answer, err
}

// Zone looks whether there is a zone that records for a name, or a wildcard, can be in. The name
// itself need not exist. A *NameError says that a CA would find no record there.
func (r Resolvers) Zone(ctx context.Context, name string) (Lookup, error) {
	l := Lookup{Name: name}
	host := strings.TrimPrefix(name, "*.")
	domain := registrable(host)
	servers := certmagic.RecursiveNameservers(r.List)
	views := forEach(servers, func(server string) view {
		return r.trusting(ctx, host, server, len(servers) > 1, r.zoneView(ctx, host, domain, server))
	})
	var failed *NameError
	for i, v := range views {
		l.Doubts = append(l.Doubts, v.doubts...)
		if v.problem == "" {
			continue
		}
		if failed == nil || v.problem == Bogus && failed.Problem != Bogus {
			failed = &NameError{Name: name, Problem: v.problem, Target: domain, Reason: v.reason}
		}
		if v.problem == failed.Problem {
			failed.Servers = append(failed.Servers, servers[i])
		}
	}
	if failed == nil {
		return l, ctx.Err()
	}
	for i, v := range views {
		switch {
		case failed.Problem == Bogus && v.verified:
			l.Doubts = append(l.Doubts, failed.what()+", but "+servers[i]+" has verified them")
			return l, ctx.Err()
		case failed.Problem == NoZone && v.problem == "":
			l.Doubts = append(l.Doubts, failed.what()+", but not according to "+servers[i])
			return l, ctx.Err()
		}
	}
	return l, failed
}

// zoneView is what one resolver says of the zone of a name.
func (r Resolvers) zoneView(ctx context.Context, host, domain, server string) view {
	names := []string{domain}
	if host != domain {
		names = append(names, host)
	}
	replies := forEach(names, func(name string) reply { return r.ask(ctx, name, dns.TypeSOA, server) })
	v := view{verified: true}
	for i, reply := range replies {
		switch {
		case reply.bogus:
			return view{problem: Bogus, reason: reply.reason}
		case reply.err != nil:
			v.verified = false
			v.doubts = append(v.doubts, fmt.Sprintf("%s does not return the zone of %s: %v", server, names[i], reply.err))
		default:
			v.verified = v.verified && reply.msg.AuthenticatedData
			if i == 0 && reply.msg.Rcode == dns.RcodeNameError {
				v.problem = NoZone
			}
		}
	}
	return v
}

// registrable is the domain that somebody must have registered for a name to exist: one label below
// a suffix of ICANN's. Suffixes that private operators have below their own domains do not count.
func registrable(name string) string {
	labels := strings.Split(name, ".")
	for i := len(labels) - 1; i > 0; i-- {
		candidate := strings.Join(labels[i-1:], ".")
		suffix, icann := publicsuffix.PublicSuffix(candidate)
		if suffix != candidate || !icann {
			return candidate
		}
	}
	return name
}

// forEach calls f for all elements at the same time.
func forEach[T, R any](list []T, f func(T) R) []R {
	out := make([]R, len(list))
	var group sync.WaitGroup
	for i, element := range list {
		group.Go(func() { out[i] = f(element) })
	}
	group.Wait()
	return out
}

func joined[T fmt.Stringer](list []T) string {
	texts := make([]string, 0, len(list))
	for _, element := range list {
		texts = append(texts, element.String())
	}
	return strings.Join(texts, ", ")
}
