// Package dcv proves control of names to certificate authorities: by serving
// validation files from Caddy's own listeners, or by DNS records.
//
// A [Challenge] is put into the [Store]; the [Handler] answers for it. [Attach]
// places the handler first on every HTTP server of a config that is being
// loaded, so that no user has to; [Listen] listens where Caddy does not. A
// [Prober] fetches the file as a CA would, before anybody is asked to look.
//
// [DNS] adds a [Record] through a libdns provider, waits until it can be seen, and
// removes it, and nothing else.
//
// The package knows neither orders nor vendors.
package dcv

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// PathPrefix is the directory of all validation files. It is the one that the
// CA/Browser Forum's Baseline Requirements name in section 3.2.2.4.18.
const PathPrefix = "/.well-known/pki-validation/"

const (
	maxFileName = 128         // bytes; the longest in use is 36 (MD5 in hex and ".txt")
	maxBody     = 64 << 10    // bytes; the longest in use is a few hundred
	maxID       = 256         // bytes
	maxHost     = 253         // bytes, RFC 1035 without the root label
	maxRawHost  = 4 * maxHost // bytes of a name that is not yet in punycode
)

// Challenge is one file that a CA must be able to fetch from each of its hosts.
// Make one with [NewChallenge].
type Challenge struct {
	// ID names the owner, for example our reference of an order. Visits are
	// counted under it. Challenges for different hosts may share one.
	ID string

	// Group says whose ID it is where several users share a storage, see
	// [Store.WriteVisits]. It may be empty.
	Group string

	// Hosts are the names in normalized form. The store serves the file on the
	// twin of each name too; see [Twin].
	Hosts []string

	// Path is the whole URL path. It starts with PathPrefix.
	Path string

	// Body is what the CA must read, to the byte. It must not be changed.
	Body []byte

	// Expires is when the file is taken for abandoned. It matters after a crash,
	// when nobody is left to clean it up. Zero means never.
	Expires time.Time
}

// ChallengeError tells what is wrong with the parts of a challenge.
type ChallengeError struct {
	// Part is "id", "group", "host", "file name" or "body".
	Part string

	// Reason is short and never repeats more than a few bytes of the part.
	Reason string
}

func (e *ChallengeError) Error() string {
	return fmt.Sprintf("invalid challenge: %s %s", e.Part, e.Reason)
}

// NewChallenge makes a challenge for a file below PathPrefix. The file name and
// body come from a vendor and are not trusted: the name is 1 to 128 letters,
// digits, dots, hyphens and underscores, does not start with a dot and has no
// two dots in a row; the body is 1 byte to 64 KiB of UTF-8 without control
// characters other than line feed. A carriage return is allowed directly before
// a line feed only, and kept, because the CA compares bytes. Hosts are
// normalized and may not be wildcards, which no file can prove.
//
// Errors are of type *ChallengeError.
func NewChallenge(id string, hosts []string, fileName, body string) (Challenge, error) {
	ch := Challenge{ID: id, Path: PathPrefix + fileName, Body: []byte(body)}
	for _, host := range hosts {
		host = NormalizeHost(host)
		if !slices.Contains(ch.Hosts, host) {
			ch.Hosts = append(ch.Hosts, host)
		}
	}
	if err := ch.check(); err != nil {
		return Challenge{}, err
	}
	return ch, nil
}

// FileName returns the last element of the path.
func (ch Challenge) FileName() string { return strings.TrimPrefix(ch.Path, PathPrefix) }

func (ch Challenge) check() error {
	if ch.ID == "" || len(ch.ID) > maxID || !utf8.ValidString(ch.ID) || strings.ContainsFunc(ch.ID, unicode.IsControl) {
		return &ChallengeError{Part: "id", Reason: fmt.Sprintf("must be 1 to %d bytes of text", maxID)}
	}
	if len(ch.Group) > maxID {
		return &ChallengeError{Part: "group", Reason: fmt.Sprintf("must have at most %d bytes", maxID)}
	}
	if len(ch.Hosts) == 0 {
		return &ChallengeError{Part: "host", Reason: "is missing"}
	}
	for _, host := range ch.Hosts {
		if err := checkHost(host); err != nil {
			return err
		}
	}
	if !strings.HasPrefix(ch.Path, PathPrefix) {
		return &ChallengeError{Part: "file name", Reason: "is not below " + PathPrefix}
	}
	if err := checkFileName(ch.FileName()); err != nil {
		return err
	}
	return checkBody(ch.Body)
}

func checkHost(host string) error {
	if host == "" || len(host) > maxHost {
		return &ChallengeError{Part: "host", Reason: fmt.Sprintf("must be 1 to %d bytes, has %d", maxHost, len(host))}
	}
	if strings.HasPrefix(host, "*") {
		return &ChallengeError{Part: "host", Reason: "is a wildcard, which a file cannot prove"}
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	for i := range len(host) {
		if c := host[i]; !isHostByte(c) {
			return &ChallengeError{Part: "host", Reason: fmt.Sprintf("has byte %q, which no name has", c)}
		}
	}
	if host[0] == '.' || strings.Contains(host, "..") {
		return &ChallengeError{Part: "host", Reason: "has an empty label"}
	}
	return nil
}

// isHostByte is about normalized names, hence no capitals. Underscores are not
// legal in host names but do occur in DNS.
func isHostByte(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_'
}

func checkFileName(name string) error {
	bad := func(reason string) error { return &ChallengeError{Part: "file name", Reason: reason} }
	if name == "" || len(name) > maxFileName {
		return bad(fmt.Sprintf("must be 1 to %d bytes, has %d", maxFileName, len(name)))
	}
	for i := range len(name) {
		c := name[i]
		if !isHostByte(c) && (c < 'A' || c > 'Z') {
			return bad(fmt.Sprintf("has byte %q; only letters, digits, dot, hyphen and underscore are allowed", c))
		}
	}
	if name[0] == '.' || strings.Contains(name, "..") {
		return bad("starts with a dot or has two in a row")
	}
	return nil
}

func checkBody(body []byte) error {
	bad := func(reason string) error { return &ChallengeError{Part: "body", Reason: reason} }
	if len(body) == 0 || len(body) > maxBody {
		return bad(fmt.Sprintf("must be 1 to %d bytes, has %d", maxBody, len(body)))
	}
	if !utf8.Valid(body) {
		return bad("is not UTF-8")
	}
	text := string(body)
	for i, r := range text {
		if !unicode.IsControl(r) || r == '\n' || r == '\r' && strings.HasPrefix(text[i+1:], "\n") {
			continue
		}
		return bad(fmt.Sprintf("has control character %U at byte %d", r, i))
	}
	return nil
}

// NormalizeHost returns the form in which hosts are compared: lower case, without
// port, brackets and trailing dot, internationalized names in punycode, IPv6
// addresses in their shortest form. It accepts anything that may stand in a Host
// header and does not allocate for a name that is in that form but for the port.
// The result of something that is no host is harmless: it matches nothing.
func NormalizeHost(host string) string {
	if len(host) > maxRawHost {
		return ""
	}
	host = stripPort(host)
	plain := true
	for i := range len(host) {
		if c := host[i]; c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			plain = false
			break
		}
	}
	if !plain {
		host = toASCII(host)
	}
	if strings.Contains(host, ":") {
		if addr, err := netip.ParseAddr(host); err == nil {
			return addr.String()
		}
	}
	return strings.TrimSuffix(host, ".")
}

func stripPort(host string) string {
	if strings.HasPrefix(host, "[") {
		if end := strings.IndexByte(host, ']'); end > 0 {
			return host[1:end]
		}
		return host
	}
	colon := strings.IndexByte(host, ':')
	if colon < 0 || strings.IndexByte(host[colon+1:], ':') >= 0 {
		return host // no port, or an IPv6 address without brackets
	}
	return host[:colon]
}

// toASCII uses the lookup profile, the one browsers and CAs use. Names that it
// refuses keep their spelling in lower case.
func toASCII(host string) string {
	if ascii, err := idna.Lookup.ToASCII(host); err == nil {
		return ascii
	}
	host = strings.ToLower(host)
	if ascii, err := idna.Punycode.ToASCII(host); err == nil {
		return ascii
	}
	return host
}

// Twin returns the name with its "www." label taken away or, where it has none,
// put in front. Sectigo adds this name to a certificate for a single domain by
// itself and looks for the file there too. It is empty for wildcards, IP
// addresses and names that would get too long. The name must be normalized.
func Twin(name string) string {
	if name == "" || strings.HasPrefix(name, "*") {
		return ""
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return ""
	}
	if rest, ok := strings.CutPrefix(name, "www."); ok {
		return rest
	}
	if len(name)+len("www.") > maxHost {
		return ""
	}
	return "www." + name
}
