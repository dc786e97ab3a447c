package dcv

import (
	"errors"
	"strings"
	"testing"
)

func TestNewRecord(t *testing.T) {
	long := strings.Repeat("a", 64)
	for _, c := range []struct {
		host, label, kind, value string
		want                     string // or the part that is wrong
	}{
		{"shop.example.com", "_0718", "CNAME", "a.b.sectigo.com", "_0718.shop.example.com CNAME a.b.sectigo.com"},
		{"*.example.com", "_0718", "CNAME", "a.b.sectigo.com.", "_0718.example.com CNAME a.b.sectigo.com"},
		{"*.Bücher.example", "_0718", "cname", "a.b.sectigo.com", "_0718.xn--bcher-kva.example CNAME a.b.sectigo.com"},
		{"example.com", "_dnsauth", "TXT", "r4nd0m", "_dnsauth.example.com TXT r4nd0m"},
		{"example.com", "", "TXT", "x", "example.com TXT x"},
		{"example.com", "@", "TXT", "x", "example.com TXT x"},
		{"example.com", "example.com.", "TXT", "x", "example.com TXT x"},
		{"example.com", "_dnsauth.example.com", "TXT", "x", "_dnsauth.example.com TXT x"},
		{"example.com", "_DNSauth.Example.com.", "TXT", "x", "_dnsauth.example.com TXT x"},
		{"shop.example.com", "@", "TXT", "fdy6m0wy5lq063sz4h0r6qmdt722gyfc", "shop.example.com TXT fdy6m0wy5lq063sz4h0r6qmdt722gyfc"},

		{"", "_a", "TXT", "x", "host"},
		{"192.0.2.1", "_a", "TXT", "x", "host"},
		{"exa mple.com", "_a", "TXT", "x", "host"},
		{"example.com", "_" + long, "TXT", "x", "record name"},
		{"example.com", "_a..b", "TXT", "x", "record name"},
		{"example.com", "_a b", "TXT", "x", "record name"},
		{"example.com", "*", "TXT", "x", "record name"},
		{"example.com", "_a", "A", "192.0.2.1", "record type"},
		{"example.com", "_a", "", "x", "record type"},
		{"example.com", "_a", "CNAME", "", "record value"},
		{"example.com", "_a", "CNAME", "plain", "record value"},
		{"example.com", "_a", "CNAME", long + ".example.com", "record value"},
		{"example.com", "_a", "CNAME", "a.example.com\nb", "record value"},
		{"example.com", "_a", "TXT", "", "record value"},
		{"example.com", "_a", "TXT", `x" "y`, "record value"},
		{"example.com", "_a", "TXT", "x\ny", "record value"},
		{"example.com", "_a", "TXT", strings.Repeat("x", 256), "record value"},
	} {
		r, err := NewRecord(c.host, c.label, c.kind, c.value)
		if err == nil {
			if r.String() != c.want {
				t.Errorf("%q %q %s %q: %s, want %s", c.host, c.label, c.kind, c.value, r, c.want)
			}
			continue
		}
		if problem, ok := errors.AsType[*ChallengeError](err); !ok || problem.Part != c.want {
			t.Errorf("%q %q %s %q: error %v, want %s", c.host, c.label, c.kind, c.value, err, c.want)
		}
	}
}

// TestLabelsOfVendors: the only records that are created for a vendor are proofs of control. Anyone
// who can make _acme-challenge lead elsewhere gets certificates from any CA that speaks ACME.
func TestLabelsOfVendors(t *testing.T) {
	for _, label := range []string{
		"_0718", "_07182696bbd74ee89627e3b4d943258a", "_dnsauth", "_globalsign-domain-verification", "_certum", "_x-1",
	} {
		for _, kind := range []string{"CNAME", "TXT"} {
			if _, err := NewRecord("shop.example.com", label, kind, "a.b.example.net"); err != nil {
				t.Errorf("%s %s: %v", label, kind, err)
			}
		}
	}
	for _, label := range []string{
		// other uses
		"_acme-challenge", "_ACME-Challenge", "_acme-challenge.shop.example.com.", "_acme-challenge-2", "_dmarc", "_domainkey",
		"_mta-sts", "_tls", "_smtp", "_tcp", "_udp", "_sip", "_https", "_bimi", "_report", "_atproto", "_dnslink",
		"_validation-persist", "_github-challenge-example-org", "_gitlab-pages-verification-code", "_cf-custom-hostname",
		// below and above other labels
		"_smtp._tls", "_443._tcp", "mail._domainkey", "_x._domainkey", "_x._dmarc", "_x._acme-challenge", "_x.www", "www._x",
		"_dnsauth.example.com", "_dnsauth.other.com", "_a._b", "_x..", "._x",
		// hosts, and nothing
		"www", "mail", "a", "www.shop.example.com", "example.com", "dnsauth", "xn--bcher-kva", "*", "*.shop.example.com",
		"_", "__", "_-", "-_a", " _a", "_a b", "_a\n", "_ä",
	} {
		for _, kind := range []string{"CNAME", "TXT"} {
			r, err := NewRecord("shop.example.com", label, kind, "a.b.example.net")
			if problem, ok := errors.AsType[*ChallengeError](err); !ok || problem.Part != "record name" {
				t.Errorf("%q %s: %v, error %v", label, kind, r, err)
			}
		}
	}
}

// TestRecordsAtTheHost: the name itself accepts a random value in a TXT record, as described in
// DigiCert's documentation, and nothing that would mean something to others.
func TestRecordsAtTheHost(t *testing.T) {
	for _, label := range []string{"", "@", "example.com", "Example.COM."} {
		if r, err := NewRecord("*.example.com", label, "TXT", "r4nd0m-_9"); err != nil || r.Name != "example.com" {
			t.Errorf("%q: %v, error %v", label, r, err)
		}
		for _, value := range []string{"v=spf1 +all", "google-site-verification=x", "MS=ms123", "a b", "a.b", "v=DMARC1;p=none"} {
			_, err := NewRecord("example.com", label, "TXT", value)
			if problem, ok := errors.AsType[*ChallengeError](err); !ok || problem.Part != "record value" {
				t.Errorf("%q TXT %s: %v", label, value, err)
			}
		}
		_, err := NewRecord("example.com", label, "CNAME", "elsewhere.example.net")
		if problem, ok := errors.AsType[*ChallengeError](err); !ok || problem.Part != "record name" {
			t.Errorf("%q CNAME: %v", label, err)
		}
	}
}

// TestNewRecordAt: the operator's name is not checked by its label, but the vendor's value is.
func TestNewRecordAt(t *testing.T) {
	if r, err := NewRecordAt("Proofs.Example.com.", "cname", "a.b.example.net."); err != nil || r.String() != "proofs.example.com CNAME a.b.example.net" {
		t.Errorf("%v, error %v", r, err)
	}
	for _, c := range [][3]string{{"proofs", "TXT", "x"}, {"proofs.example.com", "MX", "x"}, {"proofs.example.com", "TXT", "x\ny"}, {"", "TXT", "x"}} {
		if _, err := NewRecordAt(c[0], c[1], c[2]); err == nil {
			t.Errorf("%q was accepted", c)
		}
	}
}
