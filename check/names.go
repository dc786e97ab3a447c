package check

import (
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Legal judges a name without asking anybody: whether public CAs issue for such names at all.
func Legal(name string) Result {
	const advice = "correct the name, or give it another issuer, such as internal"
	host := strings.TrimPrefix(name, "*.")
	labels := strings.Split(host, ".")
	suffix, icann := publicsuffix.PublicSuffix(host)
	_, noAddress := netip.ParseAddr(name)
	switch {
	case noAddress == nil:
		return stop(advice, "it is an IP address; orders are for host names")
	case strings.Contains(host, "*"):
		return stop(advice, "a wildcard stands for one whole label, the first")
	case len(host) > 253 || slices.ContainsFunc(labels, func(label string) bool { return len(label) > 63 || label == "" }):
		return stop(advice, "DNS has no such names: a label has 1 to 63 bytes, all of it 253")
	case strings.Contains(host, "_"):
		return stop(advice, "it has an underscore, which CAs must refuse (Baseline Requirements, section 7.1.4.2.1)")
	case slices.ContainsFunc(labels, badLabel):
		return stop(advice, "its labels must be letters, digits and hyphens, and not begin or end with a hyphen")
	case slices.ContainsFunc(labels, reservedLabel):
		return stop(advice, "a label has hyphens in the third and fourth place, which is for internationalized names only, so CAs must refuse it (Baseline Requirements, section 7.1.2.7.12)")
	case slices.ContainsFunc(labels, badPunycode):
		return stop(advice, "a label begins with xn-- and is not Punycode, so CAs must refuse it (Baseline Requirements, section 7.1.2.7.12)")
	case len(labels) == 1:
		return stop(advice, "it is not below a public suffix, so no CA issues for it")
	case !icann && !strings.Contains(suffix, "."):
		return warning(advice, "no public registry is known for names below %q; without one, no CA issues for it", suffix)
	case suffix == host && icann && name != host:
		return stop(advice, "%s is a public suffix, and CAs must refuse wildcards for these (Baseline Requirements, section 3.2.2.6)", host)
	case suffix == host && icann:
		return warning(advice, "%s is a public suffix; some CAs refuse to certify these, though they need not", host)
	}
	return ok("CAs issue for such names")
}

func badLabel(label string) bool {
	return strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != ""
}

// reservedLabel reports whether a label is reserved and not for internationalized names, RFC 5890,
// section 2.3.1.
func reservedLabel(label string) bool {
	return len(label) >= 4 && label[2:4] == "--" && !strings.HasPrefix(label, "xn--")
}

func badPunycode(label string) bool {
	_, err := idna.Punycode.ToUnicode(label)
	return err != nil
}

// Fits judges the names of one order by what the vendor says of the product.
func Fits(p vendors.Product, names []string) Result {
	wild := slices.IndexFunc(names, func(name string) bool { return strings.HasPrefix(name, "*.") })
	switch {
	case wild >= 0 && !p.Wildcard:
		return stop("choose a product for wildcards, see caddy commercial products", "%s does not cover wildcards such as %s", p.Code, names[wild])
	case p.MaxNames > 0 && len(names) > p.MaxNames:
		return stop("choose a product for several names, or make smaller groups with one_order", "%s takes at most %d names, and the order has %d", p.Code, p.MaxNames, len(names))
	}
	return ok("%s takes %s", p.Code, strings.Join(names, ", "))
}
