package sandboxca

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// CAA is one property of a CAA record (RFC 8659).
type CAA struct {
	Critical   bool
	Tag, Value string
}

// methodLabels are the labels of each method in the parameter validationmethods (RFC
// 8657). The numbers are those of the subsections of Baseline Requirements 3.2.2.4. That
// ACME's labels stand for the same kinds of proof is assumed.
var methodLabels = map[Method][]string{
	MethodHTTP:  {"ca-tbr-18", "http-01"},
	MethodHTTPS: {"ca-tbr-18", "http-01"},
	MethodCNAME: {"ca-tbr-7", "dns-01"},
	MethodTXT:   {"ca-tbr-7", "dns-01"},
	MethodEmail: {"ca-tbr-4"},
}

// AccountURI is the value of the parameter accounturi (RFC 8657) for the account with
// this key.
func AccountURI(account string) string { return "https://sandbox.invalid/accounts/" + account }

// KnowAs sets the names by which the CA recognizes itself in CAA records when it takes
// orders of a dialect. Without any, it does not check CAA records for them.
func (c *CA) KnowAs(dialect string, identities ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.identities[dialect] = identities
}

// caaQuestion is whether the CA may issue for a name.
type caaQuestion struct {
	name       string // may be a wildcard
	identities []string
	account    string // as a URI
	method     Method
	bare       bool // whether to ignore parameters
}

// checkCAA climbs from the name towards the root until it finds CAA records, which
// decide. A failed lookup forbids issuance (Baseline Requirements 3.2.2.8).
func checkCAA(ctx context.Context, cfg *Config, q caaQuestion) error {
	if cfg.LookupCAA == nil || len(q.identities) == 0 || IsIP(q.name) {
		return nil
	}
	for zone := strings.TrimPrefix(q.name, "*."); zone != ""; _, zone, _ = strings.Cut(zone, ".") {
		records, err := cfg.LookupCAA(ctx, zone)
		if err != nil {
			return fmt.Errorf("looking up the CAA records of %s: %w", zone, err)
		}
		if len(records) > 0 {
			return q.judge(zone, records)
		}
	}
	return nil
}

// judge decides by the records of one name.
func (q caaQuestion) judge(zone string, records []CAA) error {
	tag := "issue"
	if strings.HasPrefix(q.name, "*.") && slices.ContainsFunc(records, func(r CAA) bool { return strings.EqualFold(r.Tag, "issuewild") }) {
		tag = "issuewild"
	}
	restricted := false
	for _, r := range records {
		switch known := strings.ToLower(r.Tag); {
		case known == tag:
			restricted = true
		case r.Critical && !slices.Contains([]string{"issue", "issuewild", "iodef", "contactemail", "contactphone"}, known):
			return fmt.Errorf("the CAA records of %s have the unknown critical property %q", zone, r.Tag)
		}
	}
	if !restricted {
		return nil
	}
	for _, r := range records {
		if strings.EqualFold(r.Tag, tag) && q.allows(r.Value) {
			return nil
		}
	}
	return fmt.Errorf("the CAA records of %s do not allow %s to issue to the account %s by the method %s",
		zone, q.identities[0], q.account, methodLabels[q.method][0])
}

// allows reads the value of one issue property: the name of a CA and parameters. A
// repeated parameter cannot be met.
func (q caaQuestion) allows(value string) bool {
	issuer, rest, more := strings.Cut(value, ";")
	if !slices.Contains(q.identities, strings.ToLower(strings.TrimSpace(issuer))) {
		return false
	}
	seen := make(map[string]bool)
	for more && !q.bare {
		var param string
		param, rest, more = strings.Cut(rest, ";")
		if strings.TrimSpace(param) == "" {
			continue
		}
		name, arg, found := strings.Cut(param, "=")
		name, arg = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(arg)
		if !found || seen[name] || !q.meets(name, arg) {
			return false
		}
		seen[name] = true
	}
	return true
}

// meets reports whether one parameter is met. Those that RFC 8657 does not define are up
// to the CA; this one ignores them.
func (q caaQuestion) meets(name, arg string) bool {
	switch name {
	case "accounturi":
		return arg == q.account
	case "validationmethods":
		return slices.ContainsFunc(strings.Split(arg, ","), func(label string) bool {
			return slices.Contains(methodLabels[q.method], strings.ToLower(label))
		})
	}
	return true
}
