package dcv

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// Record is a DNS record that proves control of a name. Make one with [NewRecord].
type Record struct {
	Name  string // absolute, in lower case, without the dot of the root
	Type  string // CNAME or TXT
	Value string // the target, without the dot of the root, or the text
}

func (r Record) String() string { return r.Name + " " + r.Type + " " + r.Value }

// NewRecord makes the record that proves control of host. A wildcard is proven at
// the name it stands below. The label comes from a vendor and is relative to the
// host, though a vendor may as well write the whole name. The kind is CNAME or TXT,
// the value a name or one string of text. None of them is trusted.
//
// The Baseline Requirements (section 3.2.2.4.7) know two places for a record, and so
// does this: one label below the host that begins with an underscore, unless that name
// has another use, and, for a random value in a TXT record only, the host itself, which
// is an empty label or @.
//
// Errors are of type *ChallengeError.
func NewRecord(host, label, kind, value string) (Record, error) {
	host = strings.TrimPrefix(NormalizeHost(host), "*.")
	if err := checkHost(host); err != nil {
		return Record{}, err
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return Record{}, &ChallengeError{Part: "host", Reason: "is an IP address, which no DNS record proves"}
	}
	r := Record{Name: host, Type: strings.ToUpper(kind), Value: value}
	label = strings.ToLower(strings.TrimSuffix(label, "."))
	if label == "" || label == "@" || label == host {
		if err := r.check(); err != nil {
			return Record{}, err
		}
		return r, r.checkAtHost()
	}
	label = strings.TrimSuffix(label, "."+host)
	if err := checkLabel(label); err != nil {
		return Record{}, err
	}
	r.Name = label + "." + host
	return r, r.check()
}

// NewRecordAt makes a record at a name that the operator has chosen, because the names
// at which CAs look are aliases of it. The kind and the value are as for [NewRecord],
// and not trusted.
//
// Errors are of type *ChallengeError.
func NewRecordAt(name, kind, value string) (Record, error) {
	r := Record{Name: NormalizeHost(name), Type: strings.ToUpper(kind), Value: value}
	return r, r.check()
}

// checkAtHost judges a record at the proven name itself, where its owner has records
// of other kinds and texts of other meanings: a policy for mail, say, or another
// service's proof of ownership. Such texts have an equals sign or a space.
func (r *Record) checkAtHost() error {
	if r.Type != "TXT" {
		return &ChallengeError{Part: "record name", Reason: "is the host itself, where only a TXT record may be"}
	}
	odd := func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_'
	}
	if strings.ContainsFunc(r.Value, odd) {
		return &ChallengeError{Part: "record value", Reason: "must be a random value of letters, digits, hyphens and underscores at the host itself"}
	}
	return nil
}

// checkLabel judges what stands before the host.
func checkLabel(label string) error {
	bad := func(reason string) error { return &ChallengeError{Part: "record name", Reason: reason} }
	switch {
	case strings.Contains(label, "."):
		return bad("has several labels; proofs of control have one below the name, or none")
	case !strings.HasPrefix(label, "_"):
		return bad("does not begin with an underscore; it could be the name of a host")
	case strings.Trim(label, "-_") == "":
		return bad("has no letter or digit")
	case reservedLabel(label):
		return bad("has another use than proving control to a CA")
	}
	return nil
}

// reservedLabels are underscored names with a meaning of their own: those in IANA's
// registry "Underscored and Globally Scoped DNS Node Names" (RFC 8552), and those by
// which well-known services recognize the owner of a name. A vendor who had one of them
// created could order elsewhere, redirect mail, or take an account over.
var reservedLabels = map[string]bool{
	// Other ways to get certificates.
	"_acme-challenge": true, "_validation-persist": true, "_validation-contactemail": true, "_validation-contactphone": true,

	// Mail, and the keys of its users.
	"_dmarc": true, "_domainkey": true, "_adsp": true, "_report": true, "_spf": true, "_mta-sts": true, "_smtp-tls": true,
	"_bimi": true, "_vouch": true, "_smimecert": true, "_openpgpkey": true, "_cert": true, "_pka": true,

	// Transports and protocols, below which services are found.
	"_tcp": true, "_udp": true, "_sctp": true, "_dccp": true, "_tls": true, "_quic": true, "_dns": true, "_http": true,
	"_https": true, "_smtp": true, "_submission": true, "_submissions": true, "_imap": true, "_imaps": true, "_pop3": true,
	"_pop3s": true, "_autodiscover": true, "_sip": true, "_sips": true, "_xmpp": true, "_ldap": true, "_kerberos": true,
	"_caldav": true, "_caldavs": true, "_carddav": true, "_carddavs": true, "_matrix": true, "_matrix-fed": true, "_stun": true,
	"_turn": true, "_iris": true, "_nfsv4-domain": true, "_msdcs": true, "_sites": true, "_uri": true,

	// Trust and discovery in DNS itself.
	"_dsboot": true, "_signal": true, "_er": true, "_dns-sd": true, "_deleg": true, "_wildcard": true,

	// Accounts and contents at well-known services.
	"_atproto": true, "_dnslink": true, "_ens": true, "_keybase": true, "_discord": true, "_domainconnect": true,
	"_amazonses": true, "_psl": true, "_netlify": true, "_vercel": true, "_did": true, "_nostr": true,
}

// reservedPrefixes are the same for labels that end in something variable.
var reservedPrefixes = []string{"_acme-", "_dmarc", "_domainkey", "_github-", "_gitlab-", "_cf-", "_ta-", "_azure", "_google"}

func reservedLabel(label string) bool {
	return reservedLabels[label] || slices.ContainsFunc(reservedPrefixes, func(prefix string) bool { return strings.HasPrefix(label, prefix) })
}

// The lengths are those of RFC 1035: a string of a TXT record, and, by way of
// dns.IsDomainName, names and their labels.
const maxText = 255

func (r *Record) check() error {
	if !isPlainName(r.Name) {
		return &ChallengeError{Part: "record name", Reason: "is not a name of letters, digits, hyphens and underscores"}
	}
	switch r.Type {
	case "CNAME":
		r.Value = strings.TrimSuffix(r.Value, ".")
		if !isPlainName(r.Value) {
			return &ChallengeError{Part: "record value", Reason: "is not a name that a CNAME could lead to"}
		}
	case "TXT":
		odd := func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' }
		if r.Value == "" || len(r.Value) > maxText || strings.ContainsFunc(r.Value, odd) {
			return &ChallengeError{Part: "record value", Reason: fmt.Sprintf("must be 1 to %d printable characters without quotes", maxText)}
		}
	default:
		return &ChallengeError{Part: "record type", Reason: "must be CNAME or TXT"}
	}
	return nil
}

func isPlainName(name string) bool {
	_, valid := dns.IsDomainName(name)
	odd := func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.'
	}
	return valid && len(name) <= maxHost && strings.Contains(name, ".") && !strings.ContainsFunc(name, odd)
}

// same reports whether two values of the record's type mean the same.
func (r Record) same(value string) bool {
	if r.Type == "CNAME" {
		return strings.EqualFold(strings.TrimSuffix(value, "."), r.Value)
	}
	// Some providers list texts the way zone files write them.
	return value == r.Value || value == `"`+r.Value+`"`
}
