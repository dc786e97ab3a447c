package check

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/caddyserver/certmagic"
	"github.com/miekg/dns"

	"github.com/caddy-commercial/caddy-commercial/dcv"
)

// CAA asks whether the CA may issue. Lenient makes a warning of what forbids it.
func (r Resolvers) CAA(ctx context.Context, q dcv.CAAQuestion, lenient bool) []Result {
	if len(q.Identities) == 0 {
		return []Result{warning("find out which CA issues the product, and compare", "the CA's names in CAA records are not known for this product")}
	}
	err := r.CheckCAA(ctx, q)
	var result Result
	forbidden, isForbidden := errors.AsType[*dcv.CAAError](err)
	bogus, isBogus := errors.AsType[*NameError](err)
	switch {
	case err == nil:
		result = ok("%s may issue", q.Identities[0])
	case isBogus:
		result = stop(bogus.Advice(), "%s", bogus.what())
	case isForbidden:
		what, advice := split(forbidden.Error())
		result = stop(advice, "%s", what)
	case ctx.Err() != nil:
		result = warning("run the check again", "the CAA records could not be read in time")
	default:
		what, advice := split(err.Error())
		result = warning(advice, "%s", what)
	}
	result.Check = checkCAA
	return Site{Lenient: lenient}.soften([]Result{result})
}

// CheckCAA is Check of a [dcv.CAAChecker], but with a *NameError if the DNSSEC signatures of
// the CAA records do not verify, which is no permission to issue (Baseline Requirements,
// section 3.2.2.8.1).
func (r Resolvers) CheckCAA(ctx context.Context, q dcv.CAAQuestion) error {
	if len(q.Identities) == 0 {
		return nil
	}
	if err := r.verifyCAA(ctx, q.Name); err != nil {
		return err
	}
	checker := dcv.CAAChecker{Resolvers: r.List, Exchange: r.Exchange}
	return checker.Check(ctx, q)
}

// verifyCAA looks at the records of a name and, if it has none, at those above it, as a CA does.
func (r Resolvers) verifyCAA(ctx context.Context, name string) error {
	host := strings.TrimPrefix(name, "*.")
	domain := registrable(host)
	var names []string
	for host != domain && strings.Contains(host, ".") {
		names = append(names, host)
		_, host, _ = strings.Cut(host, ".")
	}
	type answer struct {
		bogus *NameError
		found bool
	}
	for _, a := range forEach(append(names, domain), func(name string) answer {
		bogus, found := r.bogusCAA(ctx, name)
		return answer{bogus, found}
	}) {
		if a.bogus != nil {
			return a.bogus
		}
		if a.found {
			break
		}
	}
	return nil
}

// bogusCAA returns nil unless a resolver says that the signatures do not verify, and none
// has verified the records. found is whether there are any.
func (r Resolvers) bogusCAA(ctx context.Context, name string) (bogus *NameError, found bool) {
	servers := certmagic.RecursiveNameservers(r.List)
	failed, verified := &NameError{Name: name, Problem: Bogus}, false
	for i, reply := range forEach(servers, func(server string) reply { return r.ask(ctx, name, dns.TypeCAA, server) }) {
		switch {
		case reply.bogus && (len(servers) == 1 || !r.believesNone(ctx, name, servers[i])):
			failed.Servers, failed.Reason = append(failed.Servers, servers[i]), reply.reason
		case reply.err == nil:
			verified = verified || reply.msg.AuthenticatedData
			found = found || slices.ContainsFunc(reply.msg.Answer, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeCAA })
		}
	}
	if verified || len(failed.Servers) == 0 {
		return nil, found
	}
	return failed, found
}

// split takes the text of an error apart: what is wrong, and what to do about it.
func split(text string) (what, advice string) {
	what, advice, _ = strings.Cut(strings.ReplaceAll(text, "\n", ", "), "; ")
	return what, advice
}
