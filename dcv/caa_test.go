package dcv

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// caaServer answers CAA queries from a table of zone-file lines by name.
func caaServer(t *testing.T, zones map[string][]string) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		answer := new(dns.Msg)
		answer.SetReply(q)
		lines, ok := zones[strings.TrimSuffix(q.Question[0].Name, ".")]
		if !ok {
			answer.Rcode = dns.RcodeNameError
		}
		for _, line := range lines {
			if line == "SERVFAIL" {
				answer.Rcode = dns.RcodeServerFailure
				break
			}
			rr, err := dns.NewRR(q.Question[0].Name + " 60 IN " + line)
			if err != nil {
				t.Error(err)
			}
			answer.Answer = append(answer.Answer, rr)
		}
		if err := w.WriteMsg(answer); err != nil {
			t.Error(err)
		}
	})}
	done := make(chan struct{})
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	go func() {
		defer close(done)
		if err := server.ActivateAndServe(); err != nil {
			t.Error(err)
		}
	}()
	<-started
	t.Cleanup(func() {
		_ = server.Shutdown()
		<-done
	})
	return conn.LocalAddr().String()
}

func TestCAA(t *testing.T) {
	resolver := caaServer(t, map[string][]string{
		"example.com":       {`CAA 0 issue "letsencrypt.org"`, `CAA 0 issue "digicert.com; cansignhttpexchanges=yes"`},
		"both.example.com":  {`CAA 0 issue "letsencrypt.org"`, `CAA 128 issue "Sectigo.com"`},
		"none.example.com":  {`CAA 0 issue ";"`},
		"iodef.example.com": {`CAA 0 iodef "mailto:ada@example.com"`},
		"wild.example.com":  {`CAA 0 issue "sectigo.com"`, `CAA 0 issuewild "letsencrypt.org"`},
		"alias.example.com": {`CNAME elsewhere.example.net.`, `CAA 0 issue "sectigo.com"`},
		"example.org":       {},
		"broken.example":    {"SERVFAIL"},
	})
	checker := &CAAChecker{Resolvers: []string{resolver}}
	for _, c := range []struct {
		name, zone string // zone is where the CA is forbidden
		tag        string
		allowed    string
	}{
		{"www.example.com", "example.com", "issue", "letsencrypt.org digicert.com"},
		{"both.example.com", "", "", ""},
		{"deep.below.both.example.com", "", "", ""},
		{"none.example.com", "none.example.com", "issue", ""},
		{"iodef.example.com", "", "", ""},
		{"wild.example.com", "", "", ""},
		{"*.wild.example.com", "wild.example.com", "issuewild", "letsencrypt.org"},
		{"*.both.example.com", "", "", ""},
		{"alias.example.com", "", "", ""},
		{"www.example.org", "", "", ""},
	} {
		err := checker.Check(t.Context(), CAAQuestion{Name: c.name, Identities: []string{"sectigo.com", "usertrust.com"}})
		forbidden, ok := errors.AsType[*CAAError](err)
		switch {
		case c.zone == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.zone != "" && !ok:
			t.Errorf("%s: error = %v, want a *CAAError", c.name, err)
		case c.zone != "" && (forbidden.Zone != c.zone || strings.Join(forbidden.Allowed, " ") != c.allowed):
			t.Errorf("%s: %+v", c.name, forbidden)
		case c.zone != "" && !strings.Contains(err.Error(), "CAA 0 "+c.tag+` "sectigo.com"`):
			t.Errorf("%s: the error does not say what to add: %v", c.name, err)
		}
	}
	if err := checker.Check(t.Context(), CAAQuestion{Name: "www.example.com"}); err != nil {
		t.Errorf("a decision about an unknown CA: %v", err)
	}
	err := checker.Check(t.Context(), CAAQuestion{Name: "www.broken.example", Identities: []string{"sectigo.com"}})
	if _, forbidden := errors.AsType[*CAAError](err); err == nil || forbidden {
		t.Errorf("a resolver that fails: %v", err)
	} else if !strings.Contains(err.Error(), "broken.example: "+resolver+" answered SERVFAIL") || !strings.Contains(err.Error(), "DNSSEC") {
		t.Errorf("the error does not say what it may mean: %v", err)
	}
}

// TestCAAParameters: what follows the name of the CA counts, too (RFC 8657, RFC 8659
// section 4.2).
func TestCAAParameters(t *testing.T) {
	const allowed, forbidden, unsettled = "allowed", "forbidden", "unsettled"
	for _, c := range []struct {
		values []string
		want   string
		tells  string
	}{
		{[]string{`sectigo.com`}, allowed, ""},
		{[]string{`sectigo.com;`}, allowed, ""},
		{[]string{` Sectigo.COM ; policy=ev`}, allowed, ""},
		{[]string{`sectigo.com; validationmethods=ca-tbr-18`}, allowed, ""},
		{[]string{`sectigo.com; validationmethods=dns-01,CA-TBR-18`}, allowed, ""},
		{[]string{`sectigo.com;validationmethods=http-01;policy=ev`}, allowed, ""},
		{[]string{`sectigo.com; ValidationMethods = ca-tbr-18`}, allowed, ""},
		{[]string{`sectigo.com; validationmethods=dns-01`, `usertrust.com`}, allowed, ""},
		{[]string{`;`, `sectigo.com`}, allowed, ""},

		{[]string{``}, forbidden, "no CA at all"},
		{[]string{`;`}, forbidden, "no CA at all"},
		{[]string{`; policy=ev`}, forbidden, "no CA at all"},
		{[]string{`sectigo.com.evil.example`}, forbidden, "only sectigo.com.evil.example"},
		{[]string{`sectigo.com; validationmethods=dns-01`}, forbidden, `CAA 0 issue "sectigo.com; validationmethods=ca-tbr-18"`},
		{[]string{`sectigo.com; validationmethods=ca-tbr-1`}, forbidden, "method ca-tbr-18"},
		{[]string{`sectigo.com; validationmethods=`}, forbidden, "method ca-tbr-18"},
		{[]string{`sectigo.com; validationmethods=ca-tbr-18; validationmethods=ca-tbr-18`}, forbidden, "method ca-tbr-18"},
		{[]string{`sectigo.com; validationmethods=ca-tbr-7; accounturi=https://ca.example/1`}, forbidden, "method ca-tbr-18"},
		{[]string{`sectigo.com; nonsense`}, forbidden, "no CA at all"},
		{[]string{`sectigo.com policy=ev`}, forbidden, "no CA at all"},
		{[]string{`sectigo.com; policy=e v`}, forbidden, "no CA at all"},

		{[]string{`sectigo.com; accounturi=https://ca.example/acct/1`}, unsettled, `"https://ca.example/acct/1" only`},
		{[]string{`sectigo.com; accounturi=https://ca.example/acct/1; validationmethods=ca-tbr-18`}, unsettled, "accounturi"},
		{[]string{`sectigo.com; accounturi=https://ca.example/acct/1`, `usertrust.com`}, allowed, ""},
	} {
		var records []*dns.CAA
		for _, value := range c.values {
			records = append(records, &dns.CAA{Tag: "issue", Value: value})
		}
		q := CAAQuestion{Name: "www.example.com", Identities: []string{"sectigo.com", "usertrust.com"}, Methods: []string{"ca-tbr-18", "http-01"}}
		err := q.judge("example.com", records)
		got := allowed
		if _, ok := errors.AsType[*CAAError](err); ok {
			got = forbidden
		} else if err != nil {
			got = unsettled
		}
		if got != c.want || err != nil && !strings.Contains(err.Error(), c.tells) {
			t.Errorf("%q: %s, want %s; error %v", c.values, got, c.want, err)
		}
	}
	q := CAAQuestion{Name: "example.com", Identities: []string{"sectigo.com"}}
	if err := q.judge("example.com", []*dns.CAA{{Tag: "issue", Value: "sectigo.com; validationmethods=dns-01"}}); err != nil {
		t.Errorf("a decision about an unknown method: %v", err)
	}
}

// TestCAAAsksTheNextResolver: if one resolver fails, the next one is asked.
func TestCAAAsksTheNextResolver(t *testing.T) {
	failing := caaServer(t, map[string][]string{"next.example": {"SERVFAIL"}})
	good := caaServer(t, map[string][]string{"next.example": {`CAA 0 issue "letsencrypt.org"`}})
	checker := &CAAChecker{Resolvers: []string{failing, good}}
	err := checker.Check(t.Context(), CAAQuestion{Name: "next.example", Identities: []string{"sectigo.com"}})
	if _, forbidden := errors.AsType[*CAAError](err); !forbidden {
		t.Errorf("error = %v", err)
	}
}
