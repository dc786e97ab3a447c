package dcv

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// caaServer answers CAA questions from a table of zone-file lines by name.
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
		name, zone string // zone is where it is forbidden
		allowed    string
	}{
		{"www.example.com", "example.com", "letsencrypt.org digicert.com"},
		{"both.example.com", "", ""},
		{"deep.below.both.example.com", "", ""},
		{"none.example.com", "none.example.com", ""},
		{"iodef.example.com", "", ""},
		{"wild.example.com", "", ""},
		{"*.wild.example.com", "wild.example.com", "letsencrypt.org"},
		{"*.both.example.com", "", ""},
		{"alias.example.com", "", ""},
		{"www.example.org", "", ""},
	} {
		err := checker.Check(t.Context(), c.name, []string{"sectigo.com", "usertrust.com"})
		forbidden, ok := errors.AsType[*CAAError](err)
		switch {
		case c.zone == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.zone != "" && !ok:
			t.Errorf("%s: error = %v, want a *CAAError", c.name, err)
		case c.zone != "" && (forbidden.Zone != c.zone || strings.Join(forbidden.Allowed, " ") != c.allowed):
			t.Errorf("%s: %+v", c.name, forbidden)
		case c.zone != "" && !strings.Contains(err.Error(), `CAA 0 issue "sectigo.com"`):
			t.Errorf("%s: the error does not say what to add: %v", c.name, err)
		}
	}
	if err := checker.Check(t.Context(), "www.example.com", nil); err != nil {
		t.Errorf("an unknown CA is judged: %v", err)
	}
	err := checker.Check(t.Context(), "www.broken.example", []string{"sectigo.com"})
	if _, forbidden := errors.AsType[*CAAError](err); err == nil || forbidden {
		t.Errorf("a resolver that fails: %v", err)
	}
}
