package proof

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/check"
	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/internal/test/zonetest"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// TestProofsByMethod: each proof is handled by its method, and an order that was placed with records
// is not forgotten when the provider is gone from the config.
func TestProofsByMethod(t *testing.T) {
	m, logs := newProver(t, func(c *Config) { c.Mode = ModeOff })
	p := hashProof("1", "gone.example")
	if err := m.Present(t.Context(), p); !errors.Is(err, errNoProvider) {
		t.Errorf("presenting gives %v", err)
	}
	if err := m.Wait(t.Context(), p); !errors.Is(err, errNoProvider) {
		t.Errorf("waiting gives %v", err)
	}
	m.CleanUp(t.Context(), p)
	if logs.FilterMessageSnippet("DNS records of an order are left behind").Len() != 1 {
		t.Error("the records that stay are not reported")
	}
	p.Method = vendors.MethodHTTP
	if err := m.Wait(t.Context(), p); err != nil {
		t.Errorf("waiting for a file gives %v", err)
	}

	zone := zonetest.Start(t, "method.example.")
	m, _ = newProver(t, func(c *Config) {
		c.DNS = &dcv.DNS{Provider: zonetest.Provider{Zone: zone}, Resolvers: []string{zone.Addr}}
	})
	p = hashProof("1", "method.example")
	if err := m.Present(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	expectZone(t, zone, "_0718 CNAME a.b.sectigo.com.")
	if err := m.Wait(t.Context(), p); err != nil {
		t.Error(err)
	}
	m.CleanUp(t.Context(), p)
	expectZone(t, zone)
}

// TestTrials: a trial depends only on its arguments, and fits wherever the CA's own proof would.
func TestTrials(t *testing.T) {
	for _, id := range []string{"cc" + strings.Repeat("0f", 12), "2026-11-25T10:00:00Z-ab/..\\ \n", "", strings.Repeat("x", 500)} {
		for method, about := range map[vendors.Method]vendors.Description{
			vendors.MethodHTTP: {}, vendors.MethodHTTPS: {}, vendors.MethodDNS: {RecordType: "CNAME"},
		} {
			trial := Trial(id, method, about)
			if again := Trial(id, method, about); !slices.Equal(trial, again) {
				t.Errorf("%q %s: %v, then %v", id, method, trial, again)
			}
			if other := Trial(id+"1", method, about); slices.Equal(trial, other) {
				t.Errorf("%q %s: another ID has the same: %v", id, method, trial)
			}
			if len(trial) != 1 || trial[0].Method != method {
				t.Fatalf("%q %s: %v", id, method, trial)
			}
			if err := Check(Proof{ID: "1", Names: []string{"www.trial.example"}, Method: method, Challenges: trial}); err != nil {
				t.Errorf("%q %s: %v", id, method, err)
			}
		}
	}
	if got := Trial("1", vendors.MethodDNS, vendors.Description{})[0]; got.RecordType != "TXT" || strings.Contains(got.RecordValue, ".") {
		t.Errorf("the trial is %+v", got)
	}
	if got := Trial("1", vendors.MethodDNS, vendors.Description{RecordType: "CNAME"})[0]; got.RecordType != "CNAME" || !strings.HasSuffix(got.RecordValue, ".invalid") {
		t.Errorf("the trial is %+v", got)
	}
	if got := Trial("1", "email", vendors.Description{}); got != nil {
		t.Errorf("email has the trial %v", got)
	}
}

// caaResolver answers all CAA queries with one record, or fails if there is none, and reports for
// which names it was asked. All names exist.
func caaResolver(t *testing.T, value string) (addr string, asked func() []string) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var names []string
	started, ended := make(chan struct{}), make(chan struct{})
	server := &dns.Server{PacketConn: conn, NotifyStartedFunc: func() { close(started) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		answer := new(dns.Msg)
		answer.SetReply(q)
		name := q.Question[0].Name
		if q.Question[0].Qtype != dns.TypeCAA {
			answer.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(127, 0, 0, 1)}}
			if err := w.WriteMsg(answer); err != nil {
				t.Error(err)
			}
			return
		}
		mu.Lock()
		names = append(names, name)
		mu.Unlock()
		if value == "" {
			answer.Rcode = dns.RcodeServerFailure
		} else {
			answer.Answer = []dns.RR{&dns.CAA{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeCAA, Class: dns.ClassINET}, Tag: "issue", Value: value}}
		}
		if err := w.WriteMsg(answer); err != nil {
			t.Error(err)
		}
	})}
	go func() {
		defer close(ended)
		if err := server.ActivateAndServe(); err != nil {
			t.Error(err)
		}
	}()
	<-started
	t.Cleanup(func() {
		_ = server.Shutdown()
		<-ended
	})
	return conn.LocalAddr().String(), func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(names)
	}
}

// TestWaitChecksCAA: the configured resolvers are asked, for files and records alike, and the mode
// decides what their answer means.
func TestWaitChecksCAA(t *testing.T) {
	for _, c := range []struct {
		value      string
		method     vendors.Method
		mode       Mode
		stops, log bool
	}{
		{"sectigo.com", vendors.MethodHTTP, ModeDefault, false, false},
		{"sectigo.com", vendors.MethodDNS, ModeDefault, false, false},
		{"letsencrypt.org", vendors.MethodHTTP, ModeDefault, true, false},
		{"letsencrypt.org", vendors.MethodDNS, ModeStrict, true, false},
		{"letsencrypt.org", vendors.MethodDNS, ModeWarn, false, true},
		{"letsencrypt.org", vendors.MethodHTTPS, ModeOff, false, false},
		{"sectigo.com; validationmethods=ca-tbr-18", vendors.MethodHTTP, ModeDefault, false, false},
		{"sectigo.com; validationmethods=ca-tbr-18", vendors.MethodHTTPS, ModeDefault, false, false},
		{"sectigo.com; validationmethods=ca-tbr-18", vendors.MethodDNS, ModeDefault, true, false},
		{"sectigo.com; validationmethods=ca-tbr-7", vendors.MethodHTTP, ModeDefault, true, false},
		{"sectigo.com; validationmethods=ca-tbr-7", vendors.MethodDNS, ModeDefault, false, false},
		{"sectigo.com; accounturi=https://ca.example/1", vendors.MethodDNS, ModeStrict, false, true},
		{"", vendors.MethodDNS, ModeStrict, false, true},
	} {
		addr, asked := caaResolver(t, c.value)
		m, logs := newProver(t, func(config *Config) {
			config.About.AnyName = false
			config.Mode, config.Identities, config.Resolvers = c.mode, []string{"sectigo.com"}, []string{addr}
			config.DNS = new(dcv.DNS)
		})
		// Nothing is presented, so only CAA is checked.
		p := Proof{ID: "caa", Names: []string{"www.caa.example", "*.caa.example"}, Method: c.method}
		err := m.Wait(t.Context(), p)
		if _, forbidden := errors.AsType[*dcv.CAAError](err); forbidden != c.stops || err != nil && !forbidden {
			t.Errorf("%+v: error = %v", c, err)
		}
		if warned := logs.FilterMessageSnippet("let the CA issue").FilterLevelExact(zap.WarnLevel).Len() > 0; warned != c.log {
			t.Errorf("%+v: warned %t", c, warned)
		}
		if got := asked(); (len(got) == 0) != (c.mode == ModeOff) {
			t.Errorf("%+v: asked for %q", c, got)
		}
	}
}

// TestCAAIsNotAskedOfNobody: CAA is not checked if the CA is unknown, or if names need not be in DNS.
func TestCAAIsNotAskedOfNobody(t *testing.T) {
	addr, asked := caaResolver(t, "letsencrypt.org")
	for _, change := range []func(*Config){
		func(c *Config) { c.Identities = nil; c.About.AnyName = false },
		func(c *Config) { c.About.AnyName = true },
	} {
		m, _ := newProver(t, func(c *Config) {
			c.Identities, c.Resolvers = []string{"sectigo.com"}, []string{addr}
			change(c)
		})
		if err := m.Wait(t.Context(), Proof{ID: "caa", Names: []string{"caa.example"}, Method: vendors.MethodHTTP}); err != nil {
			t.Error(err)
		}
	}
	if got := asked(); len(got) > 0 {
		t.Errorf("asked for %q", got)
	}
	m, logs := newProver(t, func(c *Config) {
		c.About.AnyName, c.Identities, c.Resolvers = false, []string{"sectigo.com"}, []string{addr}
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := m.Wait(ctx, Proof{ID: "caa", Names: []string{"caa.example"}, Method: vendors.MethodHTTP})
	if !errors.Is(err, context.Canceled) || logs.FilterLevelExact(zap.WarnLevel).Len() > 0 {
		t.Errorf("the end of the context gives %v", err)
	}
}

// TestWaitLooksNamesUp: names that are not in DNS are not ordered; in the modes warn and off, they
// only cause a warning. Names of test services need not be there.
func TestWaitLooksNamesUp(t *testing.T) {
	zone := zonetest.Start(t, "here.example.", "www A 127.0.0.1", `_x.www TXT "y"`)
	for _, c := range []struct {
		name        string
		method      vendors.Method
		mode        Mode
		anyName     bool
		stops, warn bool
	}{
		{"www.here.example", vendors.MethodHTTP, ModeDefault, false, false, false},
		{"gone.here.example", vendors.MethodHTTP, ModeDefault, false, true, false},
		{"gone.here.example", vendors.MethodHTTP, ModeStrict, false, true, false},
		{"gone.here.example", vendors.MethodHTTP, ModeWarn, false, false, true},
		{"gone.here.example", vendors.MethodHTTP, ModeOff, false, false, true},
		{"gone.here.example", vendors.MethodHTTP, ModeDefault, true, false, false},
		{"gone.here.example", vendors.MethodDNS, ModeDefault, false, false, false},
		{"*.here.example", vendors.MethodDNS, ModeDefault, false, false, false},
		{"www.gone.example", vendors.MethodDNS, ModeDefault, false, true, false},
	} {
		m, logs := newProver(t, func(config *Config) {
			config.About.AnyName, config.Mode, config.Resolvers, config.DNS = c.anyName, c.mode, []string{zone.Addr}, new(dcv.DNS)
		})
		err := m.Wait(t.Context(), Proof{ID: "names", Names: []string{c.name}, Method: c.method})
		if _, gone := errors.AsType[*check.NameError](err); gone != c.stops || err != nil && !gone {
			t.Errorf("%+v: error = %v", c, err)
		} else if gone && (!strings.Contains(err.Error(), c.name) || !strings.Contains(err.Error(), zone.Addr)) {
			t.Errorf("%+v: it does not say which: %v", c, err)
		}
		if warned := logs.FilterMessageSnippet("unlikely to find").Len() > 0; warned != c.warn {
			t.Errorf("%+v: warned %t", c, warned)
		}
	}
}
