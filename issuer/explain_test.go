package issuer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/miekg/dns"
	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/check"
	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/issuer/proof"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Names and addresses of these worlds.
const (
	shopName  = "shop.example.com"
	ourFour   = "203.0.113.1"
	ourSix    = "2001:db8::1"
	resolver  = "192.0.2.53:53"
	otherFour = "203.0.113.2"
	otherSix  = "2001:db8::2"
)

// cutWorld is an internet in which a CA with six perspectives, of which four must agree, is to
// validate shop.example.com by a file.
type cutWorld struct {
	title string
	want  check.Cause // empty: the order is issued
	words string      // of the reason

	records string            // in DNS, one per line; if empty, an A record for our address
	hosts   map[string]string // what is at an address, see answerOf; ours is at 203.0.113.1 and 2001:db8::1
	caa     string            // the value of an issue record of example.com
	bogus   bool              // whether signatures do not verify

	// sees returns the records that a perspective gets instead of these, and at what it gets from an
	// address instead of what is there. Empty means no difference.
	sees func(perspective int) string
	at   func(perspective int, addr string) string

	second string                   // records of the second name server, in place of those
	here   func(addr string) string // likewise, what this machine gets
	mode   proof.Mode               // empty stands for warn, and "default" for the default
}

func a4(addr string) string { return shopName + ". 60 IN A " + addr + "\n" }
func a6(addr string) string { return shopName + ". 60 IN AAAA " + addr + "\n" }

// from selects perspectives of the CA.
func from(list ...int) func(int) bool {
	return func(p int) bool { return slices.Contains(list, p) }
}

func gets(who func(int) bool, what string) func(int, string) string {
	return func(p int, _ string) string {
		if who(p) {
			return what
		}
		return ""
	}
}

func at(address, what string) func(int, string) string {
	return func(_ int, addr string) string { return only(address, what)(addr) }
}

func halfAt(address, what string) func(int, string) string {
	return func(p int, addr string) string {
		if half(p) {
			return only(address, what)(addr)
		}
		return ""
	}
}

var (
	everybody = from(1, 2, 3, 4, 5, 6)
	half      = from(1, 2, 3)
	allButOne = from(1, 2, 3, 4, 5)
)

func cutWorlds() []cutWorld {
	both := a4(ourFour) + a6(ourSix)
	other := map[string]string{otherFour: "nginx", otherSix: "nginx"}
	return []cutWorld{
		// Nothing to explain.
		{title: "all is well"},
		{title: "all is well with both families", records: both},
		{title: "two perspectives are cut off", at: gets(from(2, 5), "silence")},
		{title: "an alias of ours", records: shopName + ". 60 IN CNAME web.example.net.\nweb.example.net. 60 IN A " + ourFour},
		{title: "this machine does not get back inside", here: always("silence")},
		{title: "two servers of a cluster", records: a4(ourFour) + a4(otherFour), hosts: map[string]string{otherFour: "shared"}},

		// A firewall, or something else in front of Caddy, that keeps out only strangers.
		{title: "a firewall drops all", at: gets(everybody, "silence"), want: check.CauseNoVisit, words: "nobody has requested"},
		{title: "a firewall refuses all", at: gets(everybody, "closed"), want: check.CauseNoVisit, words: "firewall"},
		{title: "a firewall drops half", at: gets(half, "silence"), want: check.CauseKeptOut, words: "fetched from 3 addresses"},
		{title: "a firewall refuses half", at: gets(half, "closed"), want: check.CauseKeptOut, words: "only some of"},
		{title: "a firewall drops all but one", at: gets(allButOne, "silence"), want: check.CauseKeptOut, words: "fetched from 1 address"},
		{title: "a country is blocked with 403", at: gets(half, "forbids"), want: check.CauseKeptOut, words: "blocks by country"},
		{title: "data centers are blocked with 403", at: gets(everybody, "forbids"), want: check.CauseNoVisit, words: "data center"},
		{title: "bots have to solve a puzzle", at: gets(everybody, "puzzle"), want: check.CauseNoVisit, words: "CDN"},
		{title: "requests are limited", at: gets(from(3, 4, 5, 6), "limits"), want: check.CauseKeptOut, words: "limits requests"},
		{title: "strangers are sent to HTTPS", at: gets(everybody, "redirect"), want: check.CauseNoVisit},
		{title: "half of a CDN has an old file", at: gets(half, "old"), want: check.CauseKeptOut},
		{title: "connections of half break", at: gets(half, "breaks"), want: check.CauseKeptOut},

		// What is at the addresses.
		{title: "another server", records: a4(otherFour), hosts: other, want: check.CauseOther, words: "nginx"},
		{title: "another server at the second address", records: a4(ourFour) + a4(otherFour), hosts: other, want: check.CauseOther, words: otherFour},
		{title: "another server over IPv6", records: a4(ourFour) + a6(otherSix), hosts: other, want: check.CauseOther, words: otherSix},
		{title: "a redirect by another server", records: a4(otherFour), hosts: map[string]string{otherFour: "redirect"}, want: check.CauseOther, words: "redirect"},
		{title: "a page in its place", records: a4(otherFour), hosts: map[string]string{otherFour: "page"}, want: check.CauseOther, words: "instead of the file"},
		{title: "a cache with an old file", records: a4(otherFour), hosts: map[string]string{otherFour: "old"}, want: check.CauseOther, words: "X-Cache"},
		{title: "SSH", records: a4(otherFour), hosts: map[string]string{otherFour: "SSH"}, want: check.CauseOther, words: "another protocol"},
		{title: "nobody", records: a4(otherFour), want: check.CauseUnanswered, words: otherFour + " does not answer"},
		{title: "silence", records: a4(otherFour), hosts: map[string]string{otherFour: "silence"}, want: check.CauseUnanswered, words: "no answer within"},
		{title: "nobody at the second address", records: a4(ourFour) + a6(otherSix), want: check.CauseUnanswered, words: otherSix},
		{title: "IPv6 that nobody answers", records: both, hosts: map[string]string{ourSix: "closed"}, want: check.CauseUnanswered, words: "over IPv4 only"},
		{title: "IPv6 that is silent", records: both, hosts: map[string]string{ourSix: "silence"}, want: check.CauseUnanswered, words: ourSix},
		{title: "IPv6 that is closed, and this machine has none", records: both, hosts: map[string]string{ourSix: "closed"}, here: only(ourSix, "no route"), want: check.CauseUnanswered, words: "which this machine cannot try"},
		{title: "IPv4 that nobody answers", records: both, hosts: map[string]string{ourFour: "closed"}, want: check.CauseUnanswered, words: "over IPv6 only"},
		{title: "a private address", records: a4("10.0.0.7"), want: check.CausePrivate, words: "10.0.0.7"},
		{title: "a unique local address beside ours", records: a4(ourFour) + a6("fd00::7"), want: check.CausePrivate, words: "fd00::7"},

		// Our own servers.
		{title: "a server with another storage", records: a4(ourFour) + a6(otherSix), hosts: map[string]string{otherSix: "alone"}, want: check.CauseOther, words: "dcv directive"},
		{title: "a proxy that changes the path for strangers", at: gets(everybody, "rewrites"), want: check.CauseServer, words: "got 404 without the file from server one"},
		{title: "a proxy that changes the path, before pages for all paths", at: gets(everybody, "rewrites to a page"), want: check.CauseServer, words: "got 200 without the file"},
		{title: "a proxy that changes the path for half of them", at: gets(half, "rewrites"), want: check.CauseServer, words: "changes paths"},

		{title: "a firewall before two servers", records: a4(ourFour) + a4(otherFour), hosts: map[string]string{otherFour: "shared"}, at: gets(half, "silence"), want: check.CauseKeptOut, words: "fetched from 3 addresses"},
		{title: "a firewall before the server that has placed the order", records: a4(ourFour) + a4(otherFour), hosts: map[string]string{otherFour: "shared"}, at: at(ourFour, "silence"), want: check.CauseKeptOut, words: "fetched from 3 addresses"},

		// The twin that the CA adds is looked at by itself, and counts for nothing.
		{title: "a firewall drops all, but not for the twin", records: a4(ourFour) + "www." + a4(otherFour), hosts: map[string]string{otherFour: "shared"}, at: at(ourFour, "silence"), want: check.CauseNoVisit, words: "nobody has requested"},
		{title: "a firewall drops half, but not for the twin", records: a4(ourFour) + "www." + a4(otherFour), hosts: map[string]string{otherFour: "shared"}, at: halfAt(ourFour, "silence"), want: check.CauseKeptOut, words: "fetched from 3 addresses"},

		// DNS.
		{title: "the name is gone", records: "example.com. 60 IN A " + ourFour, want: check.CauseDNS, words: "NXDOMAIN"},
		{title: "the name has no address", records: shopName + ". 60 IN MX 10 mail.example.com.", want: check.CauseDNS, words: "neither an A nor an AAAA"},
		{title: "a dangling alias", records: shopName + ". 60 IN CNAME gone.example.net.\nexample.net. 60 IN A " + ourFour, want: check.CauseDNS, words: "gone.example.net"},
		{title: "bad signatures", bogus: true, want: check.CauseDNSSEC, words: "DNSSEC"},
		{title: "another CA in the CAA record", caa: "letsencrypt.org", want: check.CauseCAA, words: `issue "sectigo.com"`},
		{title: "no CA in the CAA record", caa: ";", want: check.CauseCAA, words: "no CA at all"},
		{title: "a method in the CAA record", caa: "sectigo.com; validationmethods=ca-tbr-7", want: check.CauseCAA, words: "validationmethods"},
		{title: "a name server that is behind", second: a4(otherFour), hosts: other, sees: seenBy(half, a4(otherFour)), want: check.CauseServers, words: "disagree"},
		{title: "a name server that does not have the name", second: "example.com. 60 IN TXT x", sees: seenBy(half, "example.com. 60 IN TXT x"), want: check.CauseServers, words: "no such name"},
		{title: "another country gets another address", hosts: other, sees: seenBy(half, a4(otherFour)), want: check.CauseKeptOut, words: "3 addresses"},
		{title: "strangers get another address", hosts: other, sees: seenBy(everybody, a4(otherFour)), want: check.CauseNoVisit},

		// Where probing is off.
		{title: "who does not probe gets to know who came", mode: proof.ModeOff, at: gets(half, "silence"), want: check.CauseKeptOut, words: "3 addresses"},
		{title: "who does not probe, and another server", mode: proof.ModeOff, records: a4(otherFour), hosts: other, want: check.CauseNoVisit, words: "see probe"},
	}
}

func always(what string) func(string) string { return func(string) string { return what } }

func only(addr, what string) func(string) string {
	return func(at string) string {
		if at == addr {
			return what
		}
		return ""
	}
}

func seenBy(who func(int) bool, records string) func(int) string {
	return func(p int) string {
		if who(p) {
			return records
		}
		return ""
	}
}

// cutOff is a cutWorld that runs.
type cutOff struct {
	cutWorld
	tb      testing.TB
	zone    zone
	ours    *server
	handler map[string]*dcv.Handler // those of our servers, by their names in hosts
}

// zone holds the records of DNS.
type zone []dns.RR

func parseZone(tb testing.TB, text string) (z zone) {
	tb.Helper()
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		rr, err := dns.NewRR(line)
		if err != nil || rr == nil {
			tb.Fatalf("%s: %v", line, err)
		}
		z = append(z, rr)
	}
	return z
}

func (z zone) answer(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	name, kind := q.Question[0].Name, q.Question[0].Qtype
	exists := false
	for range 3 {
		next := ""
		exists = false
		for _, rr := range z {
			h := rr.Header()
			exists = exists || dns.IsSubDomain(name, h.Name)
			if !strings.EqualFold(h.Name, name) {
				continue
			}
			switch h.Rrtype {
			case kind:
				m.Answer = append(m.Answer, rr)
			case dns.TypeCNAME:
				m.Answer, next = append(m.Answer, rr), rr.(*dns.CNAME).Target
			}
		}
		if next == "" {
			break
		}
		name = next
	}
	if !exists {
		m.Rcode = dns.RcodeNameError
	}
	return m
}

func (z zone) addresses(name string) (four, six []string) {
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		for _, rr := range z.answer(new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)).Answer {
			switch rr := rr.(type) {
			case *dns.A:
				four = append(four, rr.A.String())
			case *dns.AAAA:
				six = append(six, rr.AAAA.String())
			}
		}
	}
	return four, six
}

// exchange answers the DNS queries of this machine, as a resolver and as the name servers of the zone.
func (c *cutOff) exchange(_ context.Context, q *dns.Msg, server string) (*dns.Msg, error) {
	z := slices.Concat(c.zone, parseZone(c.tb, "example.com. 60 IN SOA ns1.example.com. h.example.com. 7 3600 600 86400 60\n"+
		"example.com. 60 IN NS ns1.example.com.\nexample.com. 60 IN NS ns2.example.com.\n"+
		"ns1.example.com. 60 IN A 198.51.100.1\nns2.example.com. 60 IN A 198.51.100.2"))
	if c.caa != "" {
		z = append(z, parseZone(c.tb, fmt.Sprintf("example.com. 60 IN CAA 0 issue %q", c.caa))...)
	}
	switch {
	case server == "198.51.100.2:53" && c.second != "":
		z = slices.DeleteFunc(z, func(rr dns.RR) bool { return rr.Header().Name == shopName+"." })
		z = append(z, parseZone(c.tb, c.second)...)
	case server != resolver && server != "198.51.100.1:53" && server != "198.51.100.2:53":
		return nil, errors.New("connection refused")
	}
	m := z.answer(q)
	m.Authoritative = server != resolver
	if c.bogus && server == resolver && !q.CheckingDisabled && strings.HasSuffix(q.Question[0].Name, shopName+".") {
		m.Answer, m.Rcode = nil, dns.RcodeServerFailure
	}
	return m, nil
}

// what returns what is at an address, for a perspective or, with 0, for this machine.
func (c *cutOff) what(perspective int, addr string) string {
	if perspective > 0 && c.at != nil {
		if what := c.at(perspective, addr); what != "" {
			return what
		}
	}
	if perspective == 0 && c.here != nil {
		if what := c.here(addr); what != "" {
			return what
		}
	}
	if what := c.hosts[addr]; what != "" {
		return what
	}
	if addr == ourFour || addr == ourSix {
		return "ours"
	}
	return "closed"
}

var errNoAnswer = errors.New("i/o timeout")

// answerOf returns the answer of a host to a request, or why there is none.
func (c *cutOff) answerOf(what string, r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	by := func(server string, status int, body string, header ...string) (*http.Response, error) {
		w.Header().Set("Server", server)
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = w.WriteString(body)
		return w.Result(), nil
	}
	next := "" // the page that the next handler serves
	switch what {
	case "closed":
		return nil, errors.New("connection refused")
	case "silence":
		return nil, errNoAnswer
	case "breaks", "SSH":
		return nil, errors.New("malformed HTTP response")
	case "nginx":
		return by("nginx", 404, "no")
	case "forbids":
		return by("nginx", 403, "no")
	case "puzzle":
		return by("cloudflare", 403, "are you human?", "CF-RAY", "1")
	case "limits":
		return by("nginx", 429, "later")
	case "redirect":
		return by("nginx", 301, "", "Location", "https://"+shopName+r.URL.Path)
	case "page":
		return by("nginx", 200, "<!doctype html><title>Welcome</title>")
	case "old":
		return by("nginx", 200, "the old file", "X-Cache", "HIT")
	case "rewrites", "rewrites to a page":
		next = map[string]string{"rewrites to a page": "<!doctype html>"}[what]
		r.URL.Path, what = dcv.PathPrefix+strings.ToUpper(strings.TrimPrefix(r.URL.Path, dcv.PathPrefix)), "ours"
	}
	handler := c.handler[what]
	if handler == nil {
		c.tb.Errorf("there is no host like %q", what)
		return by("", 500, "")
	}
	w.Header().Set("Server", "Caddy")
	err := handler.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		if next != "" {
			_, err := io.WriteString(w, next)
			return err
		}
		http.NotFound(w, r)
		return nil
	}))
	return w.Result(), err
}

// RoundTrip sends a request from a perspective of the CA. Every second one prefers IPv6, and none
// tries another address.
func (c *cutOff) RoundTrip(r *http.Request) (*http.Response, error) {
	_, number, _ := strings.Cut(r.UserAgent(), "perspective-")
	perspective, err := strconv.Atoi(number)
	if err != nil {
		c.tb.Errorf("who is %s?", r.UserAgent())
	}
	z := c.zone
	if c.sees != nil {
		if records := c.sees(perspective); records != "" {
			z = parseZone(c.tb, records)
		}
	}
	four, six := z.addresses(r.URL.Hostname())
	list := four
	if len(six) > 0 && (perspective%2 == 0 || len(four) == 0) {
		list = six
	}
	if c.bogus || len(list) == 0 {
		return nil, errors.New("the name cannot be looked up")
	}
	addr := list[perspective/2%len(list)]
	in := httptest.NewRequest(r.Method, r.URL.String(), nil)
	in.Header = r.Header
	in.RemoteAddr = fmt.Sprintf("192.0.2.%d:4711", perspective)
	if strings.Contains(addr, ":") {
		in.RemoteAddr = fmt.Sprintf("[2001:db8:f::%x]:4711", perspective)
	}
	return c.answerOf(c.what(perspective, addr), in)
}

// dial connects from this machine.
func (c *cutOff) dial(ctx context.Context, network, at string) (net.Conn, error) {
	addr, _, err := net.SplitHostPort(at)
	if err != nil {
		return nil, err
	}
	what := c.what(0, addr)
	switch what {
	case "closed":
		return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("connection refused")}
	case "no route":
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ENETUNREACH}
	}
	near, far := net.Pipe()
	go func() {
		defer func() { _ = far.Close() }()
		if what == "SSH" {
			_, _ = far.Write([]byte("SSH-2.0-OpenSSH_9.6\r\n"))
			return
		}
		in := bufio.NewReader(far)
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if what == "silence" {
			_, _ = in.ReadByte() // until it is closed
			return
		}
		r.RemoteAddr = "203.0.113.1:4711"
		answer, err := c.answerOf(what, r)
		if err == nil {
			_ = answer.Write(far)
		}
	}()
	return near, nil
}

func newCutOff(tb testing.TB, cut cutWorld) *cutOff {
	c := &cutOff{cutWorld: cut, tb: tb}
	if c.records == "" {
		c.records = a4(ourFour)
	}
	c.zone = parseZone(tb, c.records)
	w := newWorld(tb, func(cfg *hostile.Config) {
		cfg.Transport, cfg.Perspectives, cfg.Quorum = c, 6, 4
		cfg.LookupCAA = func(_ context.Context, host string) ([]sandboxca.CAA, error) {
			if host != "example.com" || c.caa == "" {
				return nil, nil
			}
			return []sandboxca.CAA{{Tag: "issue", Value: c.caa}}, nil
		}
	})
	c.ours = w.startServer("one")
	second := w.startServer("two") // shares the storage
	c.handler = map[string]*dcv.Handler{
		"ours": c.ours.handler, "shared": second.handler, "alone": dcv.NewHandler(dcv.NewStore(), zap.NewNop()),
	}
	mode := c.mode
	if meant, ok := map[proof.Mode]proof.Mode{"": proof.ModeWarn, "default": proof.ModeDefault}[mode]; ok {
		mode = meant
	}
	for _, server := range []*server{c.ours, second} {
		server.reload(func(f *flow) {
			f.rules.pace = defaultPace
			f.prove = proof.New(proof.Config{
				Mode: mode, About: vendors.Description{}, Identities: []string{"sectigo.com"}, Resolvers: []string{resolver},
				Storage: server.writes, Store: f.files, Group: f.ledger.Prefix, Dial: c.dial, Exchange: c.exchange, Logger: zap.NewNop(),
			})
		})
	}
	return c
}

// TestFailedValidationIsExplained: when a CA is cut off, in all ways that can be told apart and some
// that cannot, people are told the right cause.
func TestFailedValidationIsExplained(t *testing.T) {
	tooSlowForRaces(t)
	var mu sync.Mutex
	cut, right := 0, 0
	for _, world := range cutWorlds() {
		inBubble(t, world.title, func(t *testing.T) {
			c := newCutOff(t, world)
			w, p := c.ours.w, c.ours.process
			ctx, cancel := context.WithTimeout(w.ctx, 3*time.Hour)
			defer cancel()
			_, err := p.attempt(ctx, shopName)
			e := w.entry(shopName)
			if world.want == "" {
				if err != nil || e.Attempt.Unproven != nil || w.events.last(eventValidationDelayed) != nil {
					t.Errorf("%v, %+v", err, e.Attempt.Unproven)
				}
				return
			}
			mu.Lock()
			defer mu.Unlock()
			cut++
			why := e.Attempt.Unproven
			switch {
			case why == nil:
				t.Errorf("no cause is reported; %v; %s", err, e.State)
			case why.Cause != string(world.want) || !strings.Contains(why.Reason, world.words):
				t.Errorf("%s, want %s with %q:\n%s", why.Cause, world.want, world.words, why.Reason)
			default:
				right++
				t.Log(why.Reason)
			}
			if told := w.events.last(eventValidationDelayed); why != nil && told["cause"] != why.Cause {
				t.Errorf("the event has %v", told)
			}
			if w.charges() != 1 {
				t.Errorf("%d charges", w.charges())
			}
			if pending, ok := errors.AsType[*PendingError](err); why != nil && (!ok || !strings.Contains(pending.Detail, why.Reason)) {
				t.Errorf("certmagic gets %v", err)
			}
			if _, err := w.ca.EndAll(hostile.StatusCancelled); err != nil {
				t.Fatal(err)
			}
			w.until(2*day, "the entry is flagged", func() bool { return w.entry(shopName).Flag != nil })
			if flag := w.entry(shopName).Flag.Reason; why != nil && !strings.Contains(flag, "is not validated: ") {
				t.Errorf("the flag says %s", flag)
			}
		})
	}
	t.Logf("the CA was cut off in %d ways; the cause was right in %d", cut, right)
	if cut < 30 || right*100 < cut*95 {
		t.Errorf("the cause was right in %d of %d", right, cut)
	}
}

// explainer is a prover that always has the same explanation, and takes its time for it.
type explainer struct {
	proof.Prover
	found check.Diagnosis
	takes time.Duration
	now   atomic.Int32
	most  *atomic.Int32
}

func (x *explainer) Explain(_ context.Context, _ proof.Proof, names []string, _ func(string) []check.Visit) []check.Diagnosis {
	x.most.Store(max(x.most.Load(), x.now.Add(1)))
	time.Sleep(x.takes)
	x.now.Add(-1)
	d := x.found
	d.Name = names[0]
	return []check.Diagnosis{d} // there was no time for others
}

// explaining returns a flow that can only explain why its order is not validated, and the order's entry.
func explaining(tb testing.TB, l *ledger.Ledger, x *explainer) (f *flow, e *ledger.Entry) {
	tb.Helper()
	x.most = new(atomic.Int32)
	f = &flow{ledger: l, account: newAccount(), files: dcv.NewStore(), prove: x}
	f.rules.pace = defaultPace
	e = &ledger.Entry{ID: l.NewID(), Names: []string{shopName}, State: ledger.Open, OrderID: "1", Term: vendors.Term{Years: 1}, Paid: l.Time(), Ends: l.Time().Add(365 * day)}
	e.Attempt = ledger.Attempt{Reference: e.ID, Challenges: []vendors.Challenge{{Method: vendors.MethodHTTP, FileName: "a.txt", FileContent: "b"}}}
	if err := l.Create(tb.Context(), e); err != nil {
		tb.Fatal(err)
	}
	return f, e
}

// TestServersThatSeeItOtherwise: servers that find different causes do not overwrite each other's
// again and again.
func TestServersThatSeeItOtherwise(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		l := &ledger.Ledger{Storage: newMemStorage(), Prefix: "commercial/a/b", Memory: new(ledger.Memory)}
		one, e := explaining(t, l, &explainer{found: check.Diagnosis{Cause: check.CauseNoVisit, Message: "nobody"}})
		other := &explainer{found: check.Diagnosis{Cause: check.CauseOther, Message: "nginx"}, most: new(atomic.Int32)}
		two := &flow{ledger: l, account: newAccount(), files: dcv.NewStore(), prove: other, rules: one.rules}
		looks, writes := []*look{{}, {}}, 0
		explain := func(i int) {
			why, changed := []*flow{one, two}[i].explain(t.Context(), &errand{log: zap.NewNop()}, e, looks[i], vendors.Order{})
			if !changed {
				return
			}
			writes++
			next, err := l.Write(t.Context(), e, func(e *ledger.Entry) { e.Attempt.Unproven = why })
			if err != nil {
				t.Fatal(err)
			}
			e = next
		}
		for range 50 {
			explain(0)
			explain(1)
			time.Sleep(7 * time.Hour)
		}
		if why := e.Attempt.Unproven; writes != 2 || why == nil || why.Cause != string(check.CauseOther) || len(e.Story) != 3 {
			t.Errorf("%d writes; %+v; %+v", writes, why, e.Story)
		}
		other.found.Cause = check.CauseKeptOut // it has changed
		explain(1)
		if writes != 3 || e.Attempt.Unproven.Cause != string(check.CauseKeptOut) {
			t.Errorf("%d writes; %+v", writes, e.Attempt.Unproven)
		}
	})
}

// TestFewExplainAtATime: thousands of stuck orders leave workers free for other names, and each is
// explained in the end.
func TestFewExplainAtATime(t *testing.T) {
	tooSlowForRaces(t)
	inBubble(t, "", func(t *testing.T) {
		l := &ledger.Ledger{Storage: newMemStorage(), Prefix: "commercial/a/b", Memory: new(ledger.Memory)}
		x := &explainer{found: check.Diagnosis{Cause: check.CauseUnanswered}, takes: 10 * time.Second}
		f, e := explaining(t, l, x)
		var explained atomic.Int32
		var orders sync.WaitGroup
		const n = 100
		for range n {
			orders.Go(func() {
				own := new(look)
				for {
					if _, changed := f.explain(t.Context(), &errand{log: zap.NewNop()}, e, own, vendors.Order{}); changed {
						explained.Add(1)
						return
					}
					time.Sleep(time.Minute)
				}
			})
		}
		orders.Wait()
		if explained.Load() != n || x.most.Load() > maxExplaining {
			t.Errorf("%d explained, %d at a time", explained.Load(), x.most.Load())
		}
	})
}

// TestExplanationIsShort, whatever hosts and name servers have said.
func TestExplanationIsShort(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		l := &ledger.Ledger{Storage: newMemStorage(), Prefix: "commercial/a/b", Memory: new(ledger.Memory)}
		hostile := "\x1b[2Jgone\r\nlevel=error \xff" + strings.Repeat("ä", 60_000)
		f, e := explaining(t, l, &explainer{found: check.Diagnosis{Cause: check.CauseOther, Message: hostile, Advice: "look there"}})
		own := new(look)
		if why, _ := f.explain(t.Context(), &errand{log: zap.NewNop()}, e, own, vendors.Order{}); why != nil {
			t.Errorf("explained at once: %+v", why)
		}
		time.Sleep(time.Hour)
		if why, _ := f.explain(t.Context(), &errand{log: zap.NewNop()}, e, own, vendors.Order{Held: true}); why != nil {
			t.Errorf("explained for an order that waits for a person: %+v", why)
		}
		why, _ := f.explain(t.Context(), &errand{log: zap.NewNop()}, e, own, vendors.Order{})
		if why == nil || len(why.Reason) > 2*maxExplained || !utf8.ValidString(why.Reason) || strings.ContainsFunc(why.Reason, unicode.IsControl) ||
			!strings.HasSuffix(why.Reason, "; look there") {
			t.Errorf("explained as %+.200v", why)
		}
	})
}

// shows reports whether the fault can be seen from Caddy's machine before the order. A single
// address that does not answer may be one that this machine cannot reach from inside.
func (c cutWorld) shows() bool {
	seen := []check.Cause{check.CauseDNS, check.CauseDNSSEC, check.CauseCAA, check.CauseOther}
	return slices.Contains(seen, c.want) && c.mode == "" || c.want == check.CauseUnanswered && strings.Count(c.records, "\n") > 1 && c.here == nil
}

// TestDoomedOrdersAreNotPaid: in the same worlds, with the default of probe, an order is not paid
// for if its fault can be seen beforehand.
func TestDoomedOrdersAreNotPaid(t *testing.T) {
	tooSlowForRaces(t)
	doomed, paid, good, stopped := 0, 0, 0, 0
	for _, world := range cutWorlds() {
		inBubble(t, world.title, func(t *testing.T) {
			shows := world.shows()
			if world.mode == "" {
				world.mode = "default"
			}
			c := newCutOff(t, world)
			ctx, cancel := context.WithTimeout(c.ours.w.ctx, time.Hour)
			defer cancel()
			_, err := c.ours.attempt(ctx, shopName)
			charges := c.ours.w.charges()
			switch {
			case shows:
				doomed++
				paid += charges
			case world.want == "":
				if good++; err != nil {
					stopped++
				}
			}
			if charges != 0 == shows {
				t.Errorf("%d charges; %v", charges, err)
			}
			if shows && !strings.Contains(err.Error(), "checking that the CA can validate") {
				t.Errorf("error = %v", err)
			}
		})
	}
	t.Logf("of %d visibly doomed orders, %d were paid for; of %d good ones, %d were stopped", doomed, paid, good, stopped)
	if doomed < 15 || good < 6 {
		t.Errorf("%d doomed, %d good", doomed, good)
	}
}

// countedExplainer records when it is asked.
type countedExplainer struct {
	proof.Prover
	mu    sync.Mutex
	asked []time.Time
}

func (p *countedExplainer) Explain(_ context.Context, _ proof.Proof, names []string, _ func(string) []check.Visit) []check.Diagnosis {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, time.Now())
	return []check.Diagnosis{{Cause: check.CauseNoVisit, Name: names[0], Message: "nobody has come"}}
}

// TestVendorsWordsAreTold: what the vendor says of an order that is not validated is in the event, and
// what it answered when asked to check again is in the reason, also when it has ended the order.
func TestVendorsWordsAreTold(t *testing.T) {
	says := map[string]string{
		"racent":   "PENDING; application done, dcv processing, issued notdone; not validated yet: example.com",
		"digicert": "pending; not validated yet: example.com",
		"howssl":   "11 (under review); 0 of 1 names validated",
	}
	answers := map[string]string{
		"digicert": "; asked to check again, digicert says: Could not find the random value at the expected file location for one or more domains.",
	}
	for _, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, func(c *hostile.Config) { c.Quirks.MissPerspectives = 3 })
			p := v.start(w, nil, func(f *flow) { f.prove = &countedExplainer{Prover: f.prove} })
			p.configure("example.com")
			time.Sleep(time.Hour)
			reason := "example.com is not validated: nobody has come" + answers[v.name]
			if told := w.events.last(eventValidationDelayed); told["said"] != says[v.name] || told["reason"] != reason {
				t.Errorf("the event has %q", told)
			}
			if doing := p.account.doing("example.com"); !strings.HasSuffix(doing.Waits, ": "+says[v.name]+"; "+reason) {
				t.Errorf("the error is %q", doing.Waits)
			}
			if _, err := w.ca.EndAll(hostile.StatusCancelled); err != nil {
				t.Fatal(err)
			}
			w.until(2*day, "the entry is flagged", func() bool { return w.entry("example.com").Flag != nil })
			if told := w.events.last(eventValidationFailed); !strings.HasSuffix(fmt.Sprint(told["reason"]), "; "+reason) {
				t.Errorf("the event has %q", told)
			}
			w.events.check(w)
		})
	}
}

// TestExplanationsGrowApart: an order that is pending for weeks costs a few checks a day, and one write.
func TestExplanationsGrowApart(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, func(c *hostile.Config) { c.Quirks.MissPerspectives = 3 })
		by := new(countedExplainer)
		p := w.start(nil, func(f *flow) { by.Prover, f.prove = f.prove, by })
		p.configure("example.com")
		began := time.Now()
		time.Sleep(14 * day)
		if len(by.asked) < 14 || len(by.asked) > 14*4+8 {
			t.Errorf("asked %d times in two weeks", len(by.asked))
		}
		if first := by.asked[0].Sub(began); first < 5*time.Minute || first > 30*time.Minute {
			t.Errorf("first after %s", first)
		}
		if e := w.entry("example.com"); e.Attempt.Unproven == nil || w.events.count(eventValidationDelayed) != 1 {
			t.Errorf("%+v, %d events", e.Attempt.Unproven, w.events.count(eventValidationDelayed))
		}
		if err := w.ca.Update(func(c *hostile.Config) { c.Quirks.MissPerspectives = 0 }); err != nil {
			t.Fatal(err)
		}
		w.until(2*day, "it is issued", func() bool { return w.state("example.com") == ledger.Issued })
		if e := w.entry("example.com"); e.Attempt.Unproven != nil {
			t.Errorf("%+v", e.Attempt.Unproven)
		}
	})
}
