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

// CAAError says that DNS forbids the CA to issue (RFC 8659), or to validate in the way
// in which it will (RFC 8657).
type CAAError struct {
	Name    string   // for which the certificate is wanted
	Zone    string   // where the CAA records were found
	Tag     string   // issue, or issuewild for a wildcard where there is any
	Allowed []string // the CAs they name
	Wanted  []string // names by which the CA would recognize itself

	// Method is the label of the validation method to add, if the CA is among those
	// allowed, but not with this method. Otherwise it is empty.
	Method string

	// Critical is the tag of a property that CAs do not know and that is marked
	// critical, so that they must not issue. Otherwise it is empty.
	Critical string
}

func (e *CAAError) Error() string {
	if e.Critical != "" {
		return fmt.Sprintf("the CAA records of %s have the property %q, which is marked critical and which CAs do not know, so none issues for %s; "+
			"remove it, or write it with the flag 0", e.Zone, e.Critical, e.Name)
	}
	if e.Method != "" {
		return fmt.Sprintf("the CAA records of %s do not allow %s to validate %s by the method %s (validationmethods, RFC 8657); "+
			"add it, for example: %s CAA 0 %s %q", e.Zone, e.Wanted[0], e.Name, e.Method, e.Zone, e.Tag, e.Wanted[0]+"; validationmethods="+e.Method)
	}
	allowed := "no CA at all"
	if len(e.Allowed) > 0 {
		allowed = "only " + strings.Join(e.Allowed, ", ")
	}
	return fmt.Sprintf("the CAA records of %s allow %s to issue for %s; add one for %s, for example: %s CAA 0 %s %q",
		e.Zone, allowed, e.Name, e.Wanted[0], e.Zone, e.Tag, e.Wanted[0])
}

// CAAQuestion is what to find out from CAA records.
type CAAQuestion struct {
	// Name is what to certify. It may be a wildcard.
	Name string

	// Identities are the names by which the CA recognizes itself. If there are none,
	// nothing is asked, and the answer is yes.
	Identities []string

	// Methods are the labels of the methods by which the CA may validate the name, as in
	// the parameter validationmethods. It is enough if one is allowed. The first is what
	// an error says to add. If there are none, the parameter is not judged.
	Methods []string
}

// CAAChecker looks CAA records up. The zero value asks the system's resolvers.
type CAAChecker struct {
	// Resolvers are recursive resolvers: hosts with an optional port.
	Resolvers []string

	// Exchange sends a question to a server. Default: [Exchange]
	Exchange func(ctx context.Context, question *dns.Msg, server string) (*dns.Msg, error)
}

// caaTimeout bounds one question to one resolver.
const caaTimeout = 5 * time.Second

// Check climbs from the name towards the root until it finds CAA records, and
// returns a *CAAError if they do not allow the CA to issue. Any other error means that
// this could not be found out here; the CA will ask for itself.
func (c *CAAChecker) Check(ctx context.Context, q CAAQuestion) error {
	if len(q.Identities) == 0 {
		return nil
	}
	labels := dns.SplitDomainName(strings.TrimPrefix(q.Name, "*."))
	for i := range labels {
		zone := strings.Join(labels[i:], ".")
		records, err := c.lookup(ctx, zone)
		if err != nil {
			return fmt.Errorf("looking up the CAA records of %s: %w", zone, err)
		}
		if len(records) > 0 {
			return q.judge(zone, records)
		}
	}
	return nil
}

// judge decides by the records of one name. A single one that allows is enough.
func (q CAAQuestion) judge(zone string, records []*dns.CAA) error {
	tag, values := issueValues(records, strings.HasPrefix(q.Name, "*."))
	forbidden := &CAAError{Name: q.Name, Zone: zone, Tag: tag, Wanted: q.Identities}
	if i := slices.IndexFunc(records, unknownCritical); i >= 0 {
		forbidden.Critical = records[i].Tag
		return forbidden
	}
	account := ""
	for _, value := range values {
		issuer, params, ok := parseIssueValue(value)
		if !ok || issuer == "" {
			continue // forbids all, RFC 8659, section 4.2
		}
		if !slices.Contains(forbidden.Allowed, issuer) {
			forbidden.Allowed = append(forbidden.Allowed, issuer)
		}
		switch {
		case !slices.Contains(q.Identities, issuer):
		case !q.allowsMethod(params):
			forbidden.Method = q.Methods[0]
		case len(params["accounturi"]) > 0:
			account = params["accounturi"][0]
		default:
			return nil
		}
	}
	switch {
	case len(values) == 0:
		return nil
	case account != "":
		return fmt.Errorf("the CAA records of %s let the CA issue to the account %q only, and which one the vendor has is not known here; "+
			"if the CA refuses, add a record without accounturi", zone, account)
	}
	return forbidden
}

// knownProperties are the tags that CAs know: those of RFC 8659 and of the registry "CAA
// Property Tags" of IANA.
var knownProperties = []string{"issue", "issuewild", "iodef", "issuemail", "issuevmc", "contactemail", "contactphone", "auth", "path", "policy"}

// unknownCritical reports whether a CA must not issue whatever the other properties say,
// RFC 8659, section 4.1.
func unknownCritical(r *dns.CAA) bool {
	const critical = 0x80
	return r.Flag&critical != 0 && !slices.Contains(knownProperties, strings.ToLower(r.Tag))
}

// issueValues returns the tag of the properties that restrict issuing for a name, and
// their values. Where there are none, as with only an iodef property, nothing does.
func issueValues(records []*dns.CAA, wildcard bool) (tag string, values []string) {
	tag = "issue"
	isTag := func(want string) func(*dns.CAA) bool {
		return func(r *dns.CAA) bool { return strings.EqualFold(r.Tag, want) }
	}
	// issuewild, where there is any, takes the place of issue for wildcards.
	if wildcard && slices.ContainsFunc(records, isTag("issuewild")) {
		tag = "issuewild"
	}
	for _, r := range records {
		if isTag(tag)(r) {
			values = append(values, r.Value)
		}
	}
	return tag, values
}

// parseIssueValue takes the value of an issue property apart, after the grammar of
// RFC 8659, section 4.2: the name of a CA and its parameters, by tags in lower case.
// What does not follow the grammar is not ok.
func parseIssueValue(value string) (issuer string, params map[string][]string, ok bool) {
	issuer, rest, _ := strings.Cut(value, ";")
	issuer = strings.ToLower(strings.Trim(issuer, " \t"))
	if strings.ContainsAny(issuer, " \t=") {
		return "", nil, false
	}
	params = make(map[string][]string)
	for param := range strings.SplitSeq(rest, ";") {
		if param = strings.Trim(param, " \t"); param == "" {
			continue
		}
		tag, arg, found := strings.Cut(param, "=")
		tag, arg = strings.ToLower(strings.Trim(tag, " \t")), strings.Trim(arg, " \t")
		if !found || tag == "" || strings.ContainsAny(tag+arg, " \t") {
			return "", nil, false
		}
		params[tag] = append(params[tag], arg)
	}
	return issuer, params, true
}

// allowsMethod judges the parameter validationmethods. Given twice, it allows nothing
// (RFC 8657, section 4).
func (q CAAQuestion) allowsMethod(params map[string][]string) bool {
	lists := params["validationmethods"]
	if len(lists) == 0 || len(q.Methods) == 0 {
		return true
	}
	return len(lists) == 1 && slices.ContainsFunc(strings.Split(lists[0], ","), func(label string) bool {
		return slices.ContainsFunc(q.Methods, func(own string) bool { return strings.EqualFold(own, label) })
	})
}

// lookup asks one resolver after the other, until one knows.
func (c *CAAChecker) lookup(ctx context.Context, zone string) ([]*dns.CAA, error) {
	question := new(dns.Msg)
	question.SetQuestion(dns.Fqdn(zone), dns.TypeCAA)
	question.SetEdns0(4096, false)
	var problems []error
	for _, resolver := range certmagic.RecursiveNameservers(c.Resolvers) {
		answer, err := c.ask(ctx, question, resolver)
		if err != nil {
			problems = append(problems, err)
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

func (c *CAAChecker) ask(ctx context.Context, question *dns.Msg, resolver string) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, caaTimeout)
	defer cancel()
	send := c.Exchange
	if send == nil {
		send = Exchange
	}
	answer, err := send(ctx, question, resolver)
	switch {
	case err != nil:
		return nil, err
	case answer.Rcode == dns.RcodeServerFailure:
		return nil, fmt.Errorf("%s answered SERVFAIL: either the name servers of the zone do not answer, or its DNSSEC signatures "+
			"do not verify; a CA that finds the same does not issue", resolver)
	case answer.Rcode != dns.RcodeSuccess && answer.Rcode != dns.RcodeNameError:
		return nil, fmt.Errorf("%s answered %s", resolver, dns.RcodeToString[answer.Rcode])
	}
	return answer, nil
}

// Exchange asks a server over UDP, and over TCP if the answer does not fit.
func Exchange(ctx context.Context, question *dns.Msg, resolver string) (*dns.Msg, error) {
	answer, _, err := new(dns.Client).ExchangeContext(ctx, question, resolver)
	if err == nil && answer.Truncated {
		answer, _, err = (&dns.Client{Net: "tcp"}).ExchangeContext(ctx, question, resolver)
	}
	return answer, err
}
