package dcv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/miekg/dns"
)

// CAAError says that DNS forbids the CA to issue (RFC 8659).
type CAAError struct {
	Name    string   // for which the certificate is wanted
	Zone    string   // where the CAA records were found
	Allowed []string // the CAs they name
	Wanted  []string // names by which the CA would recognize itself
}

func (e *CAAError) Error() string {
	allowed := "no CA at all"
	if len(e.Allowed) > 0 {
		allowed = "only " + strings.Join(e.Allowed, ", ")
	}
	return fmt.Sprintf("the CAA records of %s allow %s to issue for %s; add one for %s, for example: %s CAA 0 issue %q",
		e.Zone, allowed, e.Name, e.Wanted[0], e.Zone, e.Wanted[0])
}

// CAAChecker looks CAA records up. The zero value asks the system's resolvers.
type CAAChecker struct {
	// Resolvers are host:port addresses of recursive resolvers.
	Resolvers []string
}

// caaTimeout bounds one question. The tree is at most a few labels deep.
const caaTimeout = 5 * time.Second

// Check climbs from the name towards the root until it finds CAA records, and
// returns a *CAAError if they do not allow a CA with one of the identities. Any
// other error means that DNS could not be asked; the CA will ask for itself.
func (c *CAAChecker) Check(ctx context.Context, name string, identities []string) error {
	if len(identities) == 0 {
		return nil
	}
	wildcard := strings.HasPrefix(name, "*.")
	labels := dns.SplitDomainName(strings.TrimPrefix(name, "*."))
	for i := range labels {
		zone := strings.Join(labels[i:], ".")
		records, err := c.lookup(ctx, zone)
		if err != nil {
			return fmt.Errorf("looking up the CAA records of %s: %w", zone, err)
		}
		if len(records) == 0 {
			continue
		}
		allowed, restricted := issuers(records, wildcard)
		if !restricted || slices.ContainsFunc(allowed, func(ca string) bool { return slices.Contains(identities, ca) }) {
			return nil
		}
		return &CAAError{Name: name, Zone: zone, Allowed: allowed, Wanted: identities}
	}
	return nil
}

// issuers returns the CAs that a record set names, and whether it restricts issuing
// at all: one with only an iodef property, say, does not.
func issuers(records []*dns.CAA, wildcard bool) (allowed []string, restricted bool) {
	tag := "issue"
	isTag := func(want string) func(*dns.CAA) bool {
		return func(r *dns.CAA) bool { return strings.EqualFold(r.Tag, want) }
	}
	// issuewild, where there is any, takes the place of issue for wildcards.
	if wildcard && slices.ContainsFunc(records, isTag("issuewild")) {
		tag = "issuewild"
	}
	for _, r := range records {
		if !isTag(tag)(r) {
			continue
		}
		restricted = true
		// Parameters of the CA follow a semicolon; nothing before it forbids all.
		ca, _, _ := strings.Cut(r.Value, ";")
		if ca = strings.ToLower(strings.TrimSpace(ca)); ca != "" && !slices.Contains(allowed, ca) {
			allowed = append(allowed, ca)
		}
	}
	return allowed, restricted
}

func (c *CAAChecker) lookup(ctx context.Context, zone string) ([]*dns.CAA, error) {
	ctx, cancel := context.WithTimeout(ctx, caaTimeout)
	defer cancel()
	question := new(dns.Msg)
	question.SetQuestion(dns.Fqdn(zone), dns.TypeCAA)
	question.SetEdns0(4096, false)
	resolvers := c.Resolvers
	if len(resolvers) == 0 {
		resolvers = certmagic.RecursiveNameservers(nil)
	}
	var problems []error
	for _, resolver := range resolvers {
		answer, err := exchange(ctx, question, resolver)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if answer.Rcode != dns.RcodeSuccess && answer.Rcode != dns.RcodeNameError {
			problems = append(problems, fmt.Errorf("%s answered %s", resolver, dns.RcodeToString[answer.Rcode]))
			continue
		}
		var records []*dns.CAA
		for _, rr := range answer.Answer {
			if caa, ok := rr.(*dns.CAA); ok {
				records = append(records, caa)
			}
		}
		return records, nil
	}
	return nil, errors.Join(problems...)
}

// exchange asks over UDP, and over TCP if the answer does not fit.
func exchange(ctx context.Context, question *dns.Msg, resolver string) (*dns.Msg, error) {
	answer, _, err := new(dns.Client).ExchangeContext(ctx, question, resolver)
	if err == nil && answer.Truncated {
		answer, _, err = (&dns.Client{Net: "tcp"}).ExchangeContext(ctx, question, resolver)
	}
	return answer, err
}
