package resolver

import (
	"net"
	"reflect"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
	"github.com/caddy-commercial/caddy-commercial/internal/test/zonetest"
)

func TestRecords(t *testing.T) {
	zone := zonetest.Start(t, "records.resolver.example.",
		"_x.www CNAME target.example.org.", "www TXT one", "www TXT two",
		`@ CAA 0 issue "sectigo.com; validationmethods=dns-01"`, `@ CAA 128 tbs "x"`)
	r, err := New(zone.Addr)
	if err != nil {
		t.Fatal(err)
	}
	if target, err := r.CNAME(t.Context(), "_x.www.records.resolver.example"); target != "target.example.org." || err != nil {
		t.Errorf("CNAME %q, %v", target, err)
	}
	if target, err := r.CNAME(t.Context(), "www.records.resolver.example"); err == nil {
		t.Errorf("CNAME %q", target)
	}
	if values, err := r.TXT(t.Context(), "www.records.resolver.example."); !reflect.DeepEqual(values, []string{"one", "two"}) || err != nil {
		t.Errorf("TXT %q, %v", values, err)
	}
	if values, err := r.TXT(t.Context(), "none.records.resolver.example"); len(values) > 0 || err != nil {
		t.Errorf("TXT %q, %v", values, err)
	}
	want := []sandboxca.CAA{{Tag: "issue", Value: "sectigo.com; validationmethods=dns-01"}, {Critical: true, Tag: "tbs", Value: "x"}}
	if list, err := r.CAA(t.Context(), "records.resolver.example"); !reflect.DeepEqual(list, want) || err != nil {
		t.Errorf("CAA %v, %v", list, err)
	}
	var cfg sandboxca.Config
	if r.Serve(&cfg); cfg.LookupCAA == nil || cfg.LookupCNAME == nil || cfg.LookupTXT == nil {
		t.Error("the CA does not use the resolver")
	}
}

// serve answers over UDP and TCP on one port.
func serve(t *testing.T, answer func(over string, question *dns.Msg) *dns.Msg) string {
	t.Helper()
	tcp, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for over, server := range map[string]*dns.Server{"udp": {PacketConn: udp}, "tcp": {Listener: tcp}} {
		started, ended := make(chan struct{}), make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		server.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, question *dns.Msg) { _ = w.WriteMsg(answer(over, question)) })
		go func() {
			defer close(ended)
			_ = server.ActivateAndServe()
		}()
		<-started
		t.Cleanup(func() {
			_ = server.Shutdown()
			<-ended
		})
	}
	return tcp.Addr().String()
}

// TestFailures: a validating resolver answers SERVFAIL if signatures are bogus.
func TestFailures(t *testing.T) {
	address := serve(t, func(_ string, question *dns.Msg) *dns.Msg {
		return new(dns.Msg).SetRcode(question, dns.RcodeServerFailure)
	})
	r, err := New(address)
	if err != nil {
		t.Fatal(err)
	}
	_, first := r.CNAME(t.Context(), "a.example")
	_, second := r.TXT(t.Context(), "a.example")
	_, third := r.CAA(t.Context(), "a.example")
	for _, err := range []error{first, second, third} {
		if err == nil || !strings.Contains(err.Error(), "SERVFAIL") {
			t.Errorf("error %v", err)
		}
	}
}

func TestLongAnswers(t *testing.T) {
	address := serve(t, func(over string, question *dns.Msg) *dns.Msg {
		answer := new(dns.Msg).SetReply(question)
		if over == "udp" {
			answer.Truncated = true
			return answer
		}
		rr, err := dns.NewRR(question.Question[0].Name + ` 60 IN TXT "long" "er"`)
		if err != nil {
			t.Error(err)
		}
		answer.Answer = []dns.RR{rr}
		return answer
	})
	r, err := New(address)
	if err != nil {
		t.Fatal(err)
	}
	if values, err := r.TXT(t.Context(), "a.example"); err != nil || !reflect.DeepEqual(values, []string{"longer"}) {
		t.Errorf("TXT %q, %v", values, err)
	}
}

func TestAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1": "127.0.0.1:53", "127.0.0.1:8053": "127.0.0.1:8053", "::1": "[::1]:53", "[::1]:5353": "[::1]:5353",
		"": "", "localhost": "", "dns.example:53": "", "127.0.0.1:x": "",
	} {
		r, err := New(address)
		if want == "" && err == nil || want != "" && (err != nil || r.address != want) {
			t.Errorf("%q: %v, %v, want %q", address, r, err, want)
		}
	}
}
