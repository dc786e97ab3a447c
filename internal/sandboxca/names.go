package sandboxca

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// Mailboxes are where validation mails may go (CA/Browser Forum, Baseline
// Requirements 3.2.2.4.4).
var Mailboxes = strings.Fields("admin administrator postmaster webmaster hostmaster")

var dnsLabel = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// ValidDomain reports whether a name can be that of a host in the public DNS.
func ValidDomain(name string) bool {
	labels := strings.Split(name, ".")
	return len(name) <= 253 && len(labels) >= 2 &&
		!slices.ContainsFunc(labels, func(l string) bool { return !dnsLabel.MatchString(l) })
}

// IsIP reports whether a name is an address.
func IsIP(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil
}
