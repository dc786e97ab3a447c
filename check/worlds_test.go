package check

import (
	"cmp"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/dcv"
)

// The name that all worlds are about.
const shop = "shop.example.com"

// The label of its validation record, and a name in another zone that the record may be put at.
const (
	label  = "_dnsauth"
	proofs = "proofs.example.net"
)

// world is an internet in which a certificate for shop.example.com is to be bought.
type world struct {
	title     string
	records   string // of DNS, one per line; "bogus <zone>" and "bogus <name> <type>" for signatures that do not verify
	resolvers string // kinds of resolvers, separated by commas; "plain" if empty

	look func(t *testing.T, n *internet, r Resolvers, p dcv.Prober) []Result

	want Verdict
	word string // in the message
}

// tally counts what must not happen.
type tally struct {
	sync.Mutex
	worlds, doomed, good, through, stopped int
}

func (w world) run(t *testing.T, p dcv.Prober, sum *tally) {
	n := newInternet(t, strings.FieldsFunc(strings.TrimSpace(w.records), func(r rune) bool { return r == '\n' })...)
	var list []string
	kinds := w.resolvers
	if kinds == "" {
		kinds = "plain"
	}
	for i, kind := range strings.Split(kinds, ",") {
		at := fmt.Sprintf("192.0.2.%d:53", i+1)
		list = append(list, at)
		if kind != "dead" {
			n.resolver(at, kind)
		}
	}
	if strings.Contains(w.records, addressOf("silence", false)) || strings.Contains(w.records, addressOf("silence", true)) {
		p.Timeout = 3 * time.Second // it is waited for
	}
	results := w.look(t, n, Resolvers{List: list, Exchange: n.exchange}, p)
	got := worst(results)
	said := ""
	for _, r := range results {
		if r.Verdict == got {
			said += r.Message + "; " + r.Advice + "\n"
		}
		if r.Verdict != OK && r.Message == "" {
			t.Errorf("%s: there is no message", w.title)
		}
	}
	if got != w.want || !strings.Contains(said, w.word) {
		t.Errorf("%s: %s, want %s with %q:\n%s", w.title, got, w.want, w.word, said)
	}
	sum.Lock()
	defer sum.Unlock()
	sum.worlds++
	if w.want == Stop {
		sum.doomed++
	} else {
		sum.good++
	}
	switch {
	case w.want == Stop && got != Stop:
		sum.through++
	case w.want != Stop && got == Stop:
		sum.stopped++
	}
}

// bySite checks a name that is proven by a file.
func bySite(t *testing.T, _ *internet, r Resolvers, p dcv.Prober) []Result {
	return Site{Name: shop, Resolvers: r, File: &trial, Prober: p}.Check(t.Context())
}

func byZone(name string) func(*testing.T, *internet, Resolvers, dcv.Prober) []Result {
	return func(t *testing.T, _ *internet, r Resolvers, _ dcv.Prober) []Result {
		return r.CheckZone(t.Context(), name, false)
	}
}

func byCAA(name, method string) func(*testing.T, *internet, Resolvers, dcv.Prober) []Result {
	return func(t *testing.T, _ *internet, r Resolvers, _ dcv.Prober) []Result {
		q := dcv.CAAQuestion{Name: name, Identities: []string{"sectigo.com", "comodoca.com"}, Methods: []string{method}}
		return r.CAA(t.Context(), q, false)
	}
}

// TestWorlds: no doomed order is let through, and no good one is stopped.
func TestWorlds(t *testing.T) {
	var sum tally
	p := web(t)
	t.Run("all", func(t *testing.T) {
		for _, w := range allWorlds() {
			t.Run(w.title, func(t *testing.T) {
				t.Parallel()
				w.run(t, p, &sum)
			})
		}
	})
	t.Logf("%d worlds: of %d doomed orders, %d were let through; of %d good ones, %d were stopped", sum.worlds, sum.doomed, sum.through, sum.good, sum.stopped)
	if sum.worlds < 100 || sum.through+sum.stopped > 0 {
		t.Errorf("%d worlds, %d doomed let through, %d good stopped", sum.worlds, sum.through, sum.stopped)
	}
}

func allWorlds() (all []world) {
	all = append(all, hostWorlds()...)
	all = append(all, resolverWorlds()...)
	all = append(all, dnsWorlds()...)
	all = append(all, zoneWorlds()...)
	all = append(all, caaWorlds()...)
	all = append(all, placeWorlds()...)
	return append(all, serverWorlds()...)
}

func a(name, addr string) string {
	kind := "A"
	if strings.Contains(addr, ":") {
		kind = "AAAA"
	}
	return fmt.Sprintf("%s. 60 IN %s %s\n", name, kind, addr)
}

// hostWorlds have every kind of host behind each address, alone and beside a good one, because the
// CA may come to any of them.
func hostWorlds() (all []world) {
	ours := func(six bool) string { return a(shop, addressOf("ours", six)) }
	for _, h := range hosts {
		four, six := a(shop, addressOf(h.title, false)), a(shop, addressOf(h.title, true))
		for _, c := range []struct{ where, records string }{
			{"by IPv4", four},
			{"by IPv6", six},
			{"by IPv6 beside ours by IPv4", six + ours(false)},
			{"by IPv4 beside ours by IPv6", four + ours(true)},
		} {
			want := h.want
			if want == Warning && strings.Contains(c.where, "beside") {
				want = Stop // this machine gets back inside, and the CA may come there
			}
			all = append(all, world{title: h.title + " " + c.where, records: c.records, look: bySite, want: want, word: h.word})
		}
	}
	for _, h := range hosts[3:10] {
		all = append(all, world{title: h.title + " at the second address", records: ours(false) + a(shop, addressOf(h.title, false)), look: bySite, want: h.want, word: h.word})
	}
	return all
}

// resolverWorlds pair resolvers that see the name differently. Only what all of them say stops an order.
func resolverWorlds() (all []world) {
	has := a(shop, addressOf("ours", false))
	kinds := []string{"plain", "validating", "denying", "empty", "refusing", "failing", "strict", "distrusting", "dead", "flaky", "cut off", "denies AAAA", "fails AAAA", "failed"}
	finds := map[string]bool{"plain": true, "validating": true, "flaky": true, "denies AAAA": true, "fails AAAA": true}
	without := map[string]bool{"denying": true, "empty": true}
	for _, one := range kinds {
		for _, two := range kinds {
			w := world{title: "resolvers: " + one + ", " + two, records: has, resolvers: one + "," + two, look: bySite, want: Warning}
			switch {
			case without[one] && without[two]:
				w.want, w.word = Stop, "according to"
			case (one == "strict" || two == "strict") && one != "validating" && two != "validating":
				w.want, w.word = Stop, "DNSSEC"
			case finds[one] && finds[two] && one != "fails AAAA" && two != "fails AAAA":
				w.want = OK
			}
			all = append(all, w)
		}
	}
	return all
}

// dnsWorlds are about what is in DNS.
func dnsWorlds() []world {
	ours := addressOf("ours", false)
	return []world{
		{title: "no such name", records: a("example.com", ours), want: Stop, word: "shop.example.com does not exist", look: bySite},
		{title: "no such domain", records: a("example.net", ours), want: Stop, word: "NXDOMAIN", look: bySite},
		{title: "the resolver is named", records: a("example.com", ours), want: Stop, word: "192.0.2.1:53", look: bySite},
		{title: "it says what to do", records: a("example.com", ours), want: Stop, word: "create its A or AAAA record", look: bySite},
		{title: "only a TXT record", records: shop + `. 60 IN TXT "x"`, want: Stop, word: "neither an A nor an AAAA", look: bySite},
		{title: "only names below", records: a("www."+shop, ours), want: Stop, word: "neither", look: bySite},
		{title: "only an MX record", records: shop + ". 60 IN MX 10 mail.example.com.", want: Stop, word: "neither", look: bySite},
		{title: "an alias of ours", records: shop + ". 60 IN CNAME web.example.net.\n" + a("web.example.net", ours), want: OK, word: ours, look: bySite},
		{title: "an alias of an alias", records: shop + ". 60 IN CNAME one.example.net.\none.example.net. 60 IN CNAME two.example.net.\n" + a("two.example.net", ours), want: OK, look: bySite},
		{title: "a dangling alias", records: shop + ". 60 IN CNAME gone.example.net.\n" + a("example.net", ours), want: Stop, word: "gone.example.net", look: bySite},
		{title: "an alias of a name without addresses", records: shop + ". 60 IN CNAME mail.example.net.\n" + `mail.example.net. 60 IN TXT "x"`, want: Stop, word: "neither", look: bySite},
		{title: "an alias of a bad host", records: shop + ". 60 IN CNAME web.example.net.\n" + a("web.example.net", addressOf("nginx without it", false)), want: Stop, word: "nginx", look: bySite},
		{title: "a loop of aliases", records: shop + ". 60 IN CNAME one.example.net.\none.example.net. 60 IN CNAME shop.example.com.", want: Warning, word: "SERVFAIL", look: bySite},
		{title: "bad signatures", records: a(shop, ours) + "bogus " + shop, resolvers: "validating", want: Stop, word: "DNSSEC", look: bySite},
		{title: "bad signatures, explained", records: a(shop, ours) + "bogus " + shop, resolvers: "explaining", want: Stop, word: "Signature Expired", look: bySite},
		{title: "bad signatures that only one resolver looks at", records: a(shop, ours) + "bogus " + shop, resolvers: "plain,validating", want: Stop, word: "192.0.2.2:53", look: bySite},
		{title: "bad signatures, CD is named", records: a(shop, ours) + "bogus " + shop, resolvers: "validating,validating", want: Stop, word: "checking disabled", look: bySite},
		{title: "bad signatures that nobody looks at", records: a(shop, ours) + "bogus " + shop, resolvers: "plain", want: OK, look: bySite},
		{title: "bad signatures of what it is an alias of", records: shop + ". 60 IN CNAME web.example.net.\n" + a("web.example.net", ours) + "bogus web.example.net", resolvers: "validating", want: Stop, word: "DNSSEC", look: bySite},
		{title: "bad signatures of a name that is not there", records: a("example.com", ours) + "bogus " + shop, resolvers: "validating", want: Stop, word: "DNSSEC", look: bySite},
		{title: "bad signatures of the AAAA records only", records: a(shop, ours) + "bogus " + shop + ". AAAA", resolvers: "validating", want: Warning, word: "AAAA", look: bySite},
		{title: "bad signatures, and an error that is remembered", records: a(shop, ours) + "bogus " + shop, resolvers: "remembering errors", want: Stop, word: "DNSSEC", look: bySite},
		{title: "bad signatures, and a name server that does not answer", records: a(shop, ours) + "bogus example.com", resolvers: "explaining too much", want: Stop, word: "DNSSEC Bogus", look: bySite},
		{title: "bad signatures of an alias", records: shop + ". 60 IN CNAME web.example.net.\n" + a("web.example.net", ours) + "bogus example.com", resolvers: "validating", want: Stop, word: "DNSSEC", look: bySite},
		{title: "expired signatures of some records", records: a(shop, ours) + "bogus " + shop + ". A\nbogus " + shop + ". AAAA", resolvers: "validating", want: Stop, word: "DNSSEC", look: bySite},
		{title: "a failure that is over", records: a(shop, ours), resolvers: "failed", want: Warning, word: "may remember a failure", look: bySite},
		{title: "a failure that is over, of all resolvers", records: a(shop, ours), resolvers: "failed,failed", want: Warning, word: "may remember a failure", look: bySite},
		{title: "a failure that is over, and is told", records: a(shop, ours), resolvers: "failed and says so", want: Warning, word: "may remember a failure", look: bySite},
		{title: "a failure that is over, and is taken for bad signatures", records: a(shop, ours), resolvers: "failed and guesses", want: Warning, word: "may remember a failure", look: bySite},
		{title: "a failure that comes back", records: a(shop, ours), resolvers: "failing often", want: Warning, word: "may remember a failure", look: bySite},
		{title: "a failure that is over, and another resolver", records: a(shop, ours), resolvers: "failed,validating", want: Warning, word: "may remember a failure", look: bySite},
		{title: "a failure that is over, and bad signatures that another resolver sees", records: a(shop, ours) + "bogus " + shop, resolvers: "failed,explaining", want: Stop, word: "DNSSEC", look: bySite},
		{title: "a failure that is over, and a wildcard to bad signatures", records: a(shop, ours) + "*." + shop + ". 60 IN CNAME web.example.net.\n" + a("web.example.net", ours) + "bogus example.net", resolvers: "failed", want: Warning, word: "may remember a failure", look: bySite},
		{title: "good signatures", records: a(shop, ours), resolvers: "validating", want: OK, look: bySite},
		{title: "a private address", records: a(shop, "10.0.0.7"), want: Warning, word: "not a public address", look: bySite},
		{title: "a loopback address", records: a(shop, "127.0.0.1"), want: Warning, word: "not a public address", look: bySite},
		{title: "an address of a carrier's NAT", records: a(shop, "100.64.1.1"), want: Warning, word: "not a public address", look: bySite},
		{title: "a unique local address beside ours", records: a(shop, ours) + a(shop, "fd00::1"), want: Warning, word: "fd00::1", look: bySite},
		{title: "a wildcard record is none here", records: "*.example.org. 60 IN A " + ours, want: Stop, word: "NXDOMAIN", look: bySite},
		{title: "no resolver is there", records: a(shop, ours), resolvers: "dead,dead", want: Warning, word: "connection refused", look: bySite},
		{title: "who probes leniently is warned only", records: a("example.com", ours), want: Warning, word: "as probe says", look: func(t *testing.T, _ *internet, r Resolvers, p dcv.Prober) []Result {
			return Site{Name: shop, Resolvers: r, File: &trial, Prober: p, Lenient: true}.Check(t.Context())
		}},
		{title: "a bad host, and who probes leniently", records: a(shop, addressOf("SSH", false)), want: Warning, word: "as probe says", look: func(t *testing.T, _ *internet, r Resolvers, p dcv.Prober) []Result {
			return Site{Name: shop, Resolvers: r, File: &trial, Prober: p, Lenient: true}.Check(t.Context())
		}},
		{title: "a Caddy that has the name not yet", records: a(shop, addressOf("a Caddy without it", false)), want: Warning, word: "not yet", look: unserved},
		{title: "a Caddy that redirects, and has the name not yet", records: a(shop, addressOf("a redirect by Caddy", false)), want: Warning, word: "not yet", look: unserved},
		{title: "another server, while Caddy has the name not yet", records: a(shop, addressOf("nginx without it", false)), want: Stop, word: "nginx", look: unserved},
		{title: "nobody serves the file, and nginx answers", records: a(shop, addressOf("nginx without it", false)), want: Warning, word: "once Caddy runs", look: noFile},
		{title: "nobody serves the file, and nobody answers", records: a(shop, addressOf("nothing", false)), want: Warning, word: "the port is taken", look: noFile},
		{title: "nobody serves the file, and the name is not there", records: a("example.com", ours), want: Stop, word: "NXDOMAIN", look: noFile},
		{title: "the only resolver believes no signatures", records: a(shop, ours), resolvers: "distrusting", want: Stop, word: "DNSSEC", look: bySite},
		{title: "the twin is fine", records: a("www."+shop, ours), want: OK, word: "serves", look: byTwin},
		{title: "the twin is not there", records: a(shop, ours), want: OK, word: "for the other name only", look: byTwin},
		{title: "the twin is elsewhere", records: a("www."+shop, addressOf("nginx without it", false)), want: Warning, word: "may wait for it", look: byTwin},
		{title: "a test service takes any name", want: OK, word: "any name", look: func(t *testing.T, _ *internet, r Resolvers, p dcv.Prober) []Result {
			return Site{Name: "a.localhost", Resolvers: r, AnyName: true, Lenient: true, Prober: p}.Check(t.Context())[:1]
		}},
	}
}

func unserved(t *testing.T, _ *internet, r Resolvers, p dcv.Prober) []Result {
	return Site{Name: shop, Resolvers: r, File: &trial, Prober: p, Unserved: "it has the name not yet"}.Check(t.Context())
}

func noFile(t *testing.T, _ *internet, r Resolvers, p dcv.Prober) []Result {
	return Site{Name: shop, Resolvers: r, Prober: p, Unserved: "the port is taken"}.Check(t.Context())
}

func byTwin(t *testing.T, _ *internet, r Resolvers, p dcv.Prober) []Result {
	return Site{Name: shop, Resolvers: r, File: &trial, Prober: p}.Twin(t.Context(), "www."+shop)
}

// zoneWorlds are about names that are proven by records.
func zoneWorlds() []world {
	soa := func(zone string) string {
		return zone + ". 60 IN SOA ns1." + zone + ". h." + zone + ". 1 3600 600 86400 60\n"
	}
	return []world{
		{title: "zone: it is there", records: soa("example.com") + a(shop, "203.0.113.1"), look: byZone(shop), want: OK, word: "the domain exists"},
		{title: "zone: the name itself is not there", records: soa("example.com"), look: byZone(shop), want: OK},
		{title: "zone: a wildcard", records: soa("example.com"), look: byZone("*.example.com"), want: OK},
		{title: "zone: a wildcard below a name that is not there", records: soa("example.com"), look: byZone("*.shop.example.com"), want: OK},
		{title: "zone: the domain is not there", records: soa("example.net"), look: byZone(shop), want: Stop, word: "the domain example.com does not exist"},
		{title: "zone: the domain of a wildcard is not there", records: soa("example.net"), look: byZone("*.example.com"), want: Stop, word: "register the domain"},
		{title: "zone: a domain below a suffix of two labels", records: soa("co.uk"), look: byZone("www.example.co.uk"), want: Stop, word: "example.co.uk"},
		{title: "zone: below a suffix of a company", records: soa("github.io"), look: byZone("me.github.io"), want: OK},
		{title: "zone: one resolver denies it", records: soa("example.com"), resolvers: "plain,denying", look: byZone(shop), want: Warning, word: "not according to"},
		{title: "zone: all resolvers deny it", records: soa("example.com"), resolvers: "denying,denying", look: byZone(shop), want: Stop, word: "192.0.2.2"},
		{title: "zone: one denies it, and one is dead", records: soa("example.com"), resolvers: "denying,dead", look: byZone(shop), want: Warning},
		{title: "zone: no resolver is there", records: soa("example.com"), resolvers: "dead", look: byZone(shop), want: Warning, word: "does not return"},
		{title: "zone: no resolver finds out", records: soa("example.com"), resolvers: "failing,refusing", look: byZone(shop), want: Warning},
		{title: "zone: bad signatures", records: soa("example.com") + "bogus example.com", resolvers: "validating", look: byZone(shop), want: Stop, word: "DNSSEC"},
		{title: "zone: bad signatures below", records: soa("example.com") + "bogus shop.example.com", resolvers: "validating", look: byZone(shop), want: Stop, word: "DNSSEC"},
		{title: "zone: bad signatures that one looks at", records: soa("example.com") + "bogus example.com", resolvers: "plain,explaining", look: byZone(shop), want: Stop, word: "Signature Expired"},
		{title: "zone: a failure that is over", records: soa("example.com"), resolvers: "failed", look: byZone(shop), want: Warning, word: "may remember a failure"},
		{title: "zone: a failure that is over, and is told", records: soa("example.com"), resolvers: "failed and says so", look: byZone(shop), want: Warning, word: "may remember a failure"},
		{title: "zone: bad signatures, and an error that is remembered", records: soa("example.com") + "bogus example.com", resolvers: "remembering errors", look: byZone(shop), want: Stop, word: "DNSSEC"},
		{title: "zone: one resolver trusts nobody", records: soa("example.com"), resolvers: "distrusting,validating", look: byZone(shop), want: Warning, word: "its trust anchor"},
		{title: "zone: cut off", records: soa("example.com"), resolvers: "cut off", look: byZone(shop), want: Warning, word: "No Reachable Authority"},
		{title: "zone: a moment's failure", records: soa("example.com"), resolvers: "flaky", look: byZone(shop), want: OK},
	}
}

// caaWorlds are about CAA records. The CA is Sectigo.
func caaWorlds() (all []world) {
	for _, c := range []struct {
		title, records, name, method string
		want                         Verdict
		word                         string
	}{
		{"none", a(shop, "203.0.113.1"), shop, "", OK, "may issue"},
		{"ours", `example.com. 60 IN CAA 0 issue "sectigo.com"`, shop, "", OK, ""},
		{"ours by another name", `example.com. 60 IN CAA 0 issue "comodoca.com"`, shop, "", OK, ""},
		{"ours in capitals", `example.com. 60 IN CAA 0 ISSUE "Sectigo.com"`, shop, "", OK, ""},
		{"ours among others", "example.com. 60 IN CAA 0 issue \"letsencrypt.org\"\nexample.com. 60 IN CAA 0 issue \"sectigo.com\"", shop, "", OK, ""},
		{"another CA", `example.com. 60 IN CAA 0 issue "letsencrypt.org"`, shop, "", Stop, "only letsencrypt.org"},
		{"another CA, and what to add", `example.com. 60 IN CAA 0 issue "letsencrypt.org"`, shop, "", Stop, `example.com CAA 0 issue "sectigo.com"`},
		{"no CA at all", `example.com. 60 IN CAA 0 issue ";"`, shop, "", Stop, "no CA at all"},
		{"another CA at the name itself", "shop.example.com. 60 IN CAA 0 issue \"letsencrypt.org\"\nexample.com. 60 IN CAA 0 issue \"sectigo.com\"", shop, "", Stop, "shop.example.com"},
		{"ours at the name itself", "shop.example.com. 60 IN CAA 0 issue \"sectigo.com\"\nexample.com. 60 IN CAA 0 issue \"letsencrypt.org\"", shop, "", OK, ""},
		{"at the top", `com. 60 IN CAA 0 issue "letsencrypt.org"`, shop, "", Stop, "records of com"},
		{"behind an alias", "shop.example.com. 60 IN CNAME web.example.net.\nweb.example.net. 60 IN CAA 0 issue \"letsencrypt.org\"", shop, "", Stop, "letsencrypt.org"},
		{"behind an alias, ours", "shop.example.com. 60 IN CNAME web.example.net.\nweb.example.net. 60 IN CAA 0 issue \"sectigo.com\"\nexample.com. 60 IN CAA 0 issue \"letsencrypt.org\"", shop, "", OK, ""},
		{"above what it is an alias of", "shop.example.com. 60 IN CNAME web.example.net.\nweb.example.net. 60 IN A 203.0.113.1\nexample.net. 60 IN CAA 0 issue \"letsencrypt.org\"", shop, "", OK, ""},
		{"only iodef", `example.com. 60 IN CAA 0 iodef "mailto:a@example.com"`, shop, "", OK, ""},
		{"iodef beside another CA", "example.com. 60 IN CAA 0 iodef \"mailto:a@example.com\"\nexample.com. 60 IN CAA 0 issue \"letsencrypt.org\"", shop, "", Stop, ""},
		{"issuewild for a plain name", `example.com. 60 IN CAA 0 issuewild "letsencrypt.org"`, shop, "", OK, ""},
		{"issuewild for a wildcard", `example.com. 60 IN CAA 0 issuewild "letsencrypt.org"`, "*.example.com", "", Stop, "issuewild"},
		{"issuewild, ours", "example.com. 60 IN CAA 0 issue \"letsencrypt.org\"\nexample.com. 60 IN CAA 0 issuewild \"sectigo.com\"", "*.example.com", "", OK, ""},
		{"issue for a wildcard", `example.com. 60 IN CAA 0 issue "letsencrypt.org"`, "*.example.com", "", Stop, ""},
		{"issuewild forbids", "example.com. 60 IN CAA 0 issue \"sectigo.com\"\nexample.com. 60 IN CAA 0 issuewild \";\"", "*.example.com", "", Stop, "no CA at all"},
		{"the method", `example.com. 60 IN CAA 0 issue "sectigo.com; validationmethods=ca-tbr-18"`, shop, "ca-tbr-18", OK, ""},
		{"another method", `example.com. 60 IN CAA 0 issue "sectigo.com; validationmethods=ca-tbr-7"`, shop, "ca-tbr-18", Stop, "validationmethods"},
		{"a method among several", `example.com. 60 IN CAA 0 issue "sectigo.com; validationmethods=ca-tbr-7,ca-tbr-18"`, shop, "ca-tbr-18", OK, ""},
		{"methods twice", `example.com. 60 IN CAA 0 issue "sectigo.com; validationmethods=ca-tbr-18; validationmethods=ca-tbr-7"`, shop, "ca-tbr-18", Stop, ""},
		{"an account", `example.com. 60 IN CAA 0 issue "sectigo.com; accounturi=https://ca.example/1"`, shop, "", Warning, "https://ca.example/1"},
		{"an account, or any", "example.com. 60 IN CAA 0 issue \"sectigo.com; accounturi=https://ca.example/1\"\nexample.com. 60 IN CAA 0 issue \"sectigo.com\"", shop, "", OK, ""},
		{"a value that is none", `example.com. 60 IN CAA 0 issue "sectigo com"`, shop, "", Stop, ""},
		{"an unknown parameter", `example.com. 60 IN CAA 0 issue "sectigo.com; x=y"`, shop, "", OK, ""},
		{"an unknown property", "example.com. 60 IN CAA 0 tbs \"x\"\nexample.com. 60 IN CAA 0 issue \"sectigo.com\"", shop, "", OK, ""},
		{"an unknown critical property", "example.com. 60 IN CAA 128 tbs \"x\"\nexample.com. 60 IN CAA 0 issue \"sectigo.com\"", shop, "", Stop, "critical"},
		{"a known critical property", `example.com. 60 IN CAA 128 issue "sectigo.com"`, shop, "", OK, ""},
		{"issuemail is for mail", `example.com. 60 IN CAA 0 issuemail "letsencrypt.org"`, shop, "", OK, ""},
	} {
		if c.method == "" {
			c.method = "http-01"
		}
		all = append(all, world{title: "CAA: " + c.title, records: c.records, look: byCAA(c.name, c.method), want: c.want, word: c.word})
	}
	good := `example.com. 60 IN CAA 0 issue "sectigo.com"` + "\n"
	return append(all,
		world{title: "CAA: bad signatures", records: good + "bogus " + shop, resolvers: "validating", look: byCAA(shop, "http-01"), want: Stop, word: "DNSSEC"},
		world{title: "CAA: bad signatures above", records: good + "bogus example.com", resolvers: "validating", look: byCAA(shop, "http-01"), want: Stop, word: "example.com"},
		world{title: "CAA: bad signatures above the records that count", records: "shop.example.com. 60 IN CAA 0 issue \"sectigo.com\"\nbogus example.com. CAA", resolvers: "validating", look: byCAA(shop, "http-01"), want: OK},
		world{title: "CAA: bad signatures of these records only", records: good + a(shop, "203.0.113.1") + "bogus " + shop + ". CAA", resolvers: "validating", look: byCAA(shop, "http-01"), want: Stop, word: "DNSSEC"},
		world{title: "CAA: bad signatures that one looks at", records: good + a(shop, "203.0.113.1") + "bogus " + shop + ". CAA", resolvers: "plain,explaining", look: byCAA(shop, "http-01"), want: Stop, word: "DNSSEC"},
		world{title: "CAA: a failure that is over", records: good, resolvers: "failed", look: byCAA(shop, "http-01"), want: Warning, word: "SERVFAIL"},
		world{title: "CAA: a failure that is over, and another resolver", records: good, resolvers: "failed,plain", look: byCAA(shop, "http-01"), want: OK},
		world{title: "CAA: one resolver believes nobody", records: good, resolvers: "distrusting,plain", look: byCAA(shop, "http-01"), want: OK},
		world{title: "CAA: cannot be found out", records: good, resolvers: "failing", look: byCAA(shop, "http-01"), want: Warning, word: "SERVFAIL"},
		world{title: "CAA: one resolver is dead", records: good, resolvers: "dead,plain", look: byCAA(shop, "http-01"), want: OK},
		world{title: "CAA: all are dead", records: good, resolvers: "dead,dead", look: byCAA(shop, "http-01"), want: Warning},
		world{title: "CAA: cut off", records: good, resolvers: "cut off", look: byCAA(shop, "http-01"), want: Warning},
		world{title: "CAA: a CA that is not known", records: good, want: Warning, word: "not known", look: func(t *testing.T, _ *internet, r Resolvers, _ dcv.Prober) []Result {
			return r.CAA(t.Context(), dcv.CAAQuestion{Name: shop}, false)
		}},
		world{title: "CAA: who probes leniently is warned only", records: `example.com. 60 IN CAA 0 issue "letsencrypt.org"`, want: Warning, word: "as probe says", look: func(t *testing.T, _ *internet, r Resolvers, _ dcv.Prober) []Result {
			return r.CAA(t.Context(), dcv.CAAQuestion{Name: shop, Identities: []string{"sectigo.com"}}, true)
		}},
	)
}

func byPlace(p Place) func(*testing.T, *internet, Resolvers, dcv.Prober) []Result {
	p.Name = cmp.Or(p.Name, shop)
	return func(t *testing.T, _ *internet, r Resolvers, _ dcv.Prober) []Result {
		return r.CheckPlace(t.Context(), p, false)
	}
}

// placeWorlds are about the place where the CA looks for a record.
func placeWorlds() []world {
	const (
		text  = label + "." + shop + `. 60 IN TXT "old"` + "\n"
		old   = label + "." + shop + ". 60 IN CNAME old.example.org.\n"
		alias = label + "." + shop + ". 60 IN CNAME " + proofs + ".\n"
		wild  = "*." + shop + ". 60 IN CNAME web.example.org.\n"
		zone  = "example.com. 60 IN SOA ns1.example.com. h.example.com. 7 3600 600 86400 60\nexample.com. 60 IN NS ns1.example.com.\n" +
			"ns1.example.com. 60 IN A 198.51.100.1\n"
	)
	txt, cname := byPlace(Place{Label: label, Type: "TXT"}), byPlace(Place{Label: label, Type: "CNAME"})
	to := byPlace(Place{Label: label, Type: "TXT", Override: proofs})
	// at a name server that has these records
	at := func(look func(*testing.T, *internet, Resolvers, dcv.Prober) []Result, has ...string) func(*testing.T, *internet, Resolvers, dcv.Prober) []Result {
		return func(t *testing.T, n *internet, r Resolvers, p dcv.Prober) []Result {
			n.nameserver("198.51.100.1:53", "good", has...)
			return look(t, n, r, p)
		}
	}
	return []world{
		{title: "place: nothing is there", records: zone, look: txt, want: OK, word: "can be where"},
		{title: "place: a text beside ours", records: zone + text, look: txt, want: OK},
		{title: "place: a text where a CNAME is to be", records: zone + text, look: cname, want: Stop, word: "TXT old"},
		{title: "place: an alias where a text is to be", records: zone + old, look: txt, want: Stop, word: "set override_domain to that name"},
		{title: "place: it names the record", records: zone + old, look: txt, want: Stop, word: "_dnsauth.shop.example.com, where there is a record CNAME old.example.org"},
		{title: "place: an alias where a CNAME is to be", records: zone + old, look: cname, want: Stop, word: "remove that record"},
		{title: "place: an alias, and a wildcard", records: zone + old, look: byPlace(Place{Name: "*." + shop, Label: label, Type: "TXT"}), want: Stop, word: "for *.shop.example.com"},
		{title: "place: an alias that is a wildcard", records: zone + wild, look: txt, want: OK},
		{title: "place: an alias that is a wildcard, where a CNAME is to be", records: zone + wild, look: cname, want: OK},
		{title: "place: a text that is a wildcard, where a CNAME is to be", records: zone + "*." + shop + `. 60 IN TXT "v=spf1 -all"`, look: cname, want: OK},
		{title: "place: an alias beside a wildcard", records: zone + wild + old, look: txt, want: Warning, word: "a wildcard"},
		{title: "place: an alias of what is not there", records: zone + label + "." + shop + ". 60 IN CNAME gone.example.com.", look: txt, want: Stop, word: "gone.example.com"},
		{title: "place: an alias at the name itself", records: zone + shop + ". 60 IN CNAME web.example.org.", look: txt, want: OK},
		{title: "place: an alias that one resolver does not find", records: zone + old, resolvers: "plain,empty", look: txt, want: Warning, word: "192.0.2.2:53 finds nothing there"},
		{title: "place: an alias, and one resolver is dead", records: zone + old, resolvers: "plain,dead", look: txt, want: Warning, word: "does not tell"},
		{title: "place: no resolver is there", records: zone + old, resolvers: "dead", look: txt, want: OK},
		{title: "place: an alias that is gone by now", records: zone + old, look: at(txt, text), want: Warning, word: "ns1.example.com, a name server of its zone, does not have it"},
		{title: "place: an alias that the name server has", records: zone + old, look: at(txt), want: Stop},
		{title: "place: an alias, and the record is there already", records: zone + old, look: byPlace(Place{Label: label, Type: "CNAME", Taken: true}), want: OK},
		{title: "place: only the order tells it", records: zone + old, look: byPlace(Place{Type: "TXT"}), want: OK},

		{title: "override: the alias", records: zone + alias, look: to, want: OK, word: "finds what is at proofs.example.net"},
		{title: "override: the alias in capitals", records: zone + strings.Replace(alias, "proofs", "Proofs", 1), look: to, want: OK},
		{title: "override: an alias of an alias", records: zone + old + "old.example.org. 60 IN CNAME " + proofs + ".", look: to, want: OK},
		{title: "override: a wildcard is the alias", records: zone + strings.Replace(wild, "web.example.org", proofs, 1), look: to, want: OK},
		{title: "override: the alias of a domain above", records: zone + label + ".example.com. 60 IN CNAME " + proofs + ".", look: to, want: OK},
		{title: "override: the place itself", records: zone, look: byPlace(Place{Label: label, Type: "TXT", Override: label + "." + shop}), want: OK},
		{title: "override: the place above, for a CNAME", records: zone, look: byPlace(Place{Label: label, Type: "CNAME", Override: label + ".example.com"}), want: OK},
		{title: "override: the name itself", records: zone, look: byPlace(Place{Label: label, Type: "TXT", Override: shop}), want: OK},
		{title: "override: the alias of a wildcard's domain", records: zone + alias, look: byPlace(Place{Name: "*." + shop, Label: label, Type: "TXT", Override: proofs}), want: OK},
		{title: "override: no alias", records: zone, look: to, want: Stop, word: "override_domain: _dnsauth.shop.example.com is not an alias (CNAME) of proofs.example.net"},
		{title: "override: no alias, and what to do", records: zone, look: to, want: Stop, word: "create the alias: _dnsauth.shop.example.com CNAME proofs.example.net"},
		{title: "override: another alias", records: zone + old, look: to, want: Stop, word: "not an alias"},
		{title: "override: the alias of a name beside", records: zone + label + ".web.example.com. 60 IN CNAME " + proofs + ".", look: to, want: Stop},
		{title: "override: the alias above the domain", records: zone + label + ".com. 60 IN CNAME " + proofs + ".", look: to, want: Stop},
		{title: "override: no alias, and one resolver is dead", records: zone, resolvers: "plain,dead", look: to, want: Warning, word: "does not return"},
		{title: "override: an alias that one resolver finds", records: zone + alias, resolvers: "empty,plain", look: to, want: OK},
		{title: "override: all resolvers deny it", records: zone + alias, resolvers: "empty,denying", look: to, want: Stop, word: "192.0.2.2:53"},
		{title: "override: a resolver remembers that there was none", records: zone + alias, resolvers: "remembering", look: at(to), want: Warning, word: "ns1.example.com, a name server of its zone, has _dnsauth.shop.example.com CNAME proofs.example.net"},
		{title: "override: neither the resolver nor the name server has it", records: zone, resolvers: "remembering", look: at(to), want: Stop},
		{title: "override: no resolver is there", records: zone, resolvers: "dead", look: to, want: Warning},
		{title: "override: for a CNAME", records: zone + alias, look: byPlace(Place{Label: label, Type: "CNAME", Override: proofs}), want: Stop, word: "dns_record txt"},
		{title: "override: the label is another for each order", records: zone, look: byPlace(Place{Label: "_0718", Type: "CNAME", Override: proofs, Taken: true}), want: Stop, word: "_0718.shop.example.com"},
		{title: "override: only the order tells the label", records: zone, look: byPlace(Place{Type: "TXT", Override: proofs}), want: Warning, word: "known only after the order"},
		{title: "override: who probes leniently is warned only", records: zone, want: Warning, word: "as probe says", look: func(t *testing.T, _ *internet, r Resolvers, _ dcv.Prober) []Result {
			return r.CheckPlace(t.Context(), Place{Name: shop, Label: label, Type: "TXT", Override: proofs}, true)
		}},
	}
}

// serverWorlds are about the name servers of a zone.
func serverWorlds() (all []world) {
	zone := "example.com. 60 IN SOA ns1.example.com. h.example.com. 7 3600 600 86400 60\n" +
		"example.com. 60 IN NS ns1.example.com.\nexample.com. 60 IN NS ns2.example.com.\n" +
		a("ns1.example.com", "198.51.100.1") + a("ns2.example.com", "198.51.100.2") + a(shop, "203.0.113.1")
	for _, c := range []struct {
		title, one, two string
		instead         string // records that the second has
		want            Verdict
		word            string
	}{
		{"agree", "good", "good", "", OK, "all 2 name servers of example.com"},
		{"one is dead", "good", "dead", "", Warning, "ns2.example.com, a name server of example.com, does not answer"},
		{"both are dead", "dead", "dead", "", Warning, "does not answer"},
		{"one is lame", "good", "lame", "", Warning, "does not serve the zone"},
		{"one refuses", "refusing", "good", "", Warning, "REFUSED"},
		{"one is behind", "good", "behind", "", Warning, "no such name"},
		{"one has another address", "good", "good", a(shop, "203.0.113.99"), Warning, "disagree"},
		{"one has an IPv6 address more", "good", "good", a(shop, "203.0.113.1") + a(shop, "2001:db8::1"), Warning, "2001:db8::1"},
		{"one has an alias", "good", "good", shop + ". 60 IN CNAME web.example.net.", Warning, "an alias of web.example.net."},
		{"another serial, and the same addresses", "good", "good", "example.com. 60 IN SOA ns1.example.com. h.example.com. 6 3600 600 86400 60", OK, "say the same"},
	} {
		all = append(all, world{title: "name servers: " + c.title, records: zone, want: c.want, word: c.word, look: func(t *testing.T, n *internet, r Resolvers, _ dcv.Prober) []Result {
			for at, kind := range map[string]string{"198.51.100.1:53": c.one, "198.51.100.2:53": c.two} {
				if kind == "dead" {
					continue
				}
				var instead []string
				if at == "198.51.100.2:53" && c.instead != "" {
					instead = strings.Split(strings.TrimSpace(c.instead), "\n")
				}
				n.nameserver(at, kind, instead...)
			}
			return r.Servers(t.Context(), shop)
		}})
	}
	for _, c := range []struct {
		title, records, kind string
		want                 Verdict
		word                 string
	}{
		{"has the name", zone, "good", Warning, "but ns1.example.com, a name server of example.com, has " + addressOf("ours", false)},
		{"has the name, and leads to nginx", strings.Replace(zone, addressOf("ours", false), addressOf("nginx without it", false), 1), "good", Stop, "nginx"},
		{"does not have it either", zone, "behind", Stop, "create its A or AAAA record"},
		{"is not one", zone, "lame", Stop, "create its A or AAAA record"},
		{"is not there", zone, "dead", Stop, "create its A or AAAA record"},
	} {
		all = append(all, world{title: "a resolver remembers that there was no name, and the name server " + c.title, records: c.records, resolvers: "remembering", want: c.want, word: c.word,
			look: func(t *testing.T, n *internet, r Resolvers, p dcv.Prober) []Result {
				if c.kind != "dead" {
					n.nameserver("198.51.100.1:53", c.kind)
				}
				return bySite(t, n, r, p)
			}})
	}
	return append(all,
		world{title: "name servers: one has no address", records: strings.Replace(zone, a("ns2.example.com", "198.51.100.2"), "", 1), want: Warning, word: "has no address", look: func(t *testing.T, n *internet, r Resolvers, _ dcv.Prober) []Result {
			n.nameserver("198.51.100.1:53", "good")
			return r.Servers(t.Context(), shop)
		}},
		world{title: "name servers: nobody tells", records: a(shop, "203.0.113.1"), want: Warning, word: "not known", look: func(t *testing.T, _ *internet, r Resolvers, _ dcv.Prober) []Result {
			return r.Servers(t.Context(), shop)
		}},
	)
}
