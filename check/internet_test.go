package check

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"github.com/caddy-commercial/caddy-commercial/dcv"
)

// internet is a DNS and hosts with public addresses, which lead to loopback addresses.
type internet struct {
	tb      testing.TB
	records map[string][]dns.RR // by name, in lower case, with a dot at the end

	bogus     map[string]bool // zones whose signatures do not verify
	bogusType map[string]bool // records whose signatures have expired, "name TYPE"

	mu      sync.Mutex
	answers map[string]string // from the address and port of a server to where it is on this machine
}

// newInternet takes records as in a zone file, with absolute names.
func newInternet(tb testing.TB, records ...string) *internet {
	tb.Helper()
	n := &internet{tb: tb, records: make(map[string][]dns.RR), bogus: make(map[string]bool), bogusType: make(map[string]bool), answers: make(map[string]string)}
	for _, line := range records {
		if name, found := strings.CutPrefix(line, "bogus "); found {
			if strings.Contains(name, " ") {
				n.bogusType[name] = true
			} else {
				n.bogus[dns.Fqdn(name)] = true
			}
			continue
		}
		rr, err := dns.NewRR(line)
		if err != nil || rr == nil {
			tb.Fatalf("%s: %v", line, err)
		}
		name := strings.ToLower(rr.Header().Name)
		n.records[name] = append(n.records[name], rr)
	}
	return n
}

// serve starts a name server at an address of this internet.
func (n *internet) serve(at string, handler dns.HandlerFunc) {
	n.tb.Helper()
	conn, err := new(net.ListenConfig).ListenPacket(n.tb.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		n.tb.Fatal(err)
	}
	started, ended := make(chan struct{}), make(chan struct{})
	server := &dns.Server{PacketConn: conn, Handler: handler, NotifyStartedFunc: func() { close(started) }}
	go func() {
		defer close(ended)
		if err := server.ActivateAndServe(); err != nil {
			n.tb.Error(err)
		}
	}()
	<-started
	n.tb.Cleanup(func() {
		_ = server.Shutdown()
		<-ended
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answers[at] = conn.LocalAddr().String()
}

// exchange asks a server of this internet. One that does not exist refuses the connection.
func (n *internet) exchange(ctx context.Context, question *dns.Msg, server string) (*dns.Msg, error) {
	n.mu.Lock()
	at := n.answers[server]
	n.mu.Unlock()
	if at == "" {
		return nil, fmt.Errorf("dialing %s: connection refused", server)
	}
	return dcv.Exchange(ctx, question, at)
}

// answer returns what is known about a question.
func (n *internet) answer(q *dns.Msg) *dns.Msg {
	a := new(dns.Msg)
	a.SetReply(q)
	name, kind := strings.ToLower(q.Question[0].Name), q.Question[0].Qtype
	for range 8 {
		list, exists := n.records[name]
		if !exists && !n.above(name) {
			list, exists = n.wildcard(name)
		}
		alias := ""
		for _, rr := range list {
			switch {
			case rr.Header().Rrtype == kind:
				a.Answer = append(a.Answer, rr)
			case rr.Header().Rrtype == dns.TypeCNAME:
				a.Answer = append(a.Answer, rr)
				alias = strings.ToLower(rr.(*dns.CNAME).Target)
			}
		}
		if alias != "" {
			name = alias
			continue
		}
		if !exists && !n.above(name) {
			a.Rcode = dns.RcodeNameError
		}
		return a
	}
	a.Answer, a.Rcode = nil, dns.RcodeServerFailure // a loop
	return a
}

// wildcard returns what a wildcard record next to a name that does not exist makes of it.
func (n *internet) wildcard(name string) (list []dns.RR, exists bool) {
	_, parent, _ := strings.Cut(name, ".")
	for _, rr := range n.records["*."+parent] {
		rr = dns.Copy(rr)
		rr.Header().Name = name
		list = append(list, rr)
	}
	return list, list != nil
}

// isBogus reports whether a name is in a zone whose signatures do not verify.
func (n *internet) isBogus(name string) bool {
	for ; name != ""; _, name, _ = strings.Cut(name, ".") {
		if n.bogus[name] {
			return true
		}
	}
	return false
}

// above reports whether there are names below this one.
func (n *internet) above(name string) bool {
	for have := range n.records {
		if strings.HasSuffix(have, "."+name) {
			return true
		}
	}
	return false
}

// resolver starts a resolver of the given kind.
func (n *internet) resolver(at, kind string) {
	var mu sync.Mutex
	failed := make(map[string]bool)
	n.serve(at, func(w dns.ResponseWriter, q *dns.Msg) {
		a := n.answer(q)
		name := strings.ToLower(q.Question[0].Name)
		key := fmt.Sprint(name, " ", dns.TypeToString[q.Question[0].Qtype])
		fresh := len(name) > 28 && name[0] == '_' && name[27] == '.' // a name made up to be asked for once
		bad := n.isBogus(name) || n.bogusType[key]
		for _, rr := range a.Answer {
			if cname, is := rr.(*dns.CNAME); is && q.Question[0].Qtype != dns.TypeCNAME {
				bad = bad || n.isBogus(strings.ToLower(cname.Target))
			}
		}
		if opt := q.IsEdns0(); n.bogusType[key] && opt != nil && opt.Do() {
			a.Answer = append(a.Answer, &dns.RRSIG{
				Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeRRSIG, Class: dns.ClassINET, Ttl: 60}, TypeCovered: q.Question[0].Qtype,
				Algorithm: dns.ED25519, Inception: 1, Expiration: 2, SignerName: name, Signature: "AAAA",
			})
		}
		fail := func() { a.Answer, a.Rcode = nil, dns.RcodeServerFailure }
		say := func(code uint16) {
			if a.IsEdns0() == nil {
				a.SetEdns0(1232, false)
			}
			a.IsEdns0().Option = append(a.IsEdns0().Option, &dns.EDNS0_EDE{InfoCode: code})
		}
		switch kind {
		case "validating":
			if bad && !q.CheckingDisabled {
				fail()
			} else {
				a.AuthenticatedData = !bad && q.AuthenticatedData
			}
		case "explaining":
			if bad && !q.CheckingDisabled {
				fail()
				say(dns.ExtendedErrorCodeSignatureExpired)
			}
		case "plain":
		case "explaining too much":
			if bad && !q.CheckingDisabled {
				fail()
				say(dns.ExtendedErrorCodeNetworkError)
				say(dns.ExtendedErrorCodeDNSBogus)
			}
		case "remembering errors": // and rejecting what is bogus
			if bad && !q.CheckingDisabled {
				fail()
				say(dns.ExtendedErrorCodeCachedError)
			}
		case "failed", "failed and says so", "failed and guesses", "failing often": // a moment ago
			mu.Lock()
			again := kind == "failing often" && !failed["fresh"]
			if fresh && !q.CheckingDisabled {
				failed["fresh"] = true
			}
			mu.Unlock()
			if !q.CheckingDisabled && (bad || !fresh || again) {
				fail()
				switch kind {
				case "failed and says so":
					say(dns.ExtendedErrorCodeCachedError)
				case "failed and guesses":
					say(dns.ExtendedErrorCodeNoReachableAuthority)
					say(dns.ExtendedErrorCodeDNSKEYMissing)
				}
			}
		case "denying":
			a.Answer, a.Rcode = nil, dns.RcodeNameError
		case "empty":
			a.Answer, a.Rcode = nil, dns.RcodeSuccess
		case "refusing":
			a.Answer, a.Rcode = nil, dns.RcodeRefused
		case "failing":
			fail()
		case "distrusting": // as with a wrong trust anchor
			if !q.CheckingDisabled {
				fail()
			}
		case "strict": // as if the zone were bogus
			if strings.HasSuffix(q.Question[0].Name, "example.com.") && !q.CheckingDisabled {
				fail()
			}
		case "flaky": // fails once
			mu.Lock()
			if !failed[key] && !q.CheckingDisabled {
				failed[key] = true
				fail()
			}
			mu.Unlock()
		case "cut off": // from the zone's servers; only its cache works
			if !q.CheckingDisabled {
				fail()
				say(dns.ExtendedErrorCodeNoReachableAuthority)
			}
		case "denies AAAA": // as broken load balancers do
			if q.Question[0].Qtype == dns.TypeAAAA {
				a.Answer, a.Rcode = nil, dns.RcodeNameError
			}
		case "remembering": // that there was no such name
			if strings.EqualFold(q.Question[0].Name, shop+".") || strings.EqualFold(q.Question[0].Name, label+"."+shop+".") {
				a.Answer, a.Rcode = nil, dns.RcodeNameError
			}
		case "fails AAAA":
			if q.Question[0].Qtype == dns.TypeAAAA {
				fail()
			}
		default:
			n.tb.Errorf("there is no kind of resolver %q", kind)
		}
		_ = w.WriteMsg(a)
	})
}

// nameserver starts a name server that answers for all zones, with the given records instead of
// those of their names.
func (n *internet) nameserver(at, kind string, instead ...string) {
	other := newInternet(n.tb, instead...)
	n.serve(at, func(w dns.ResponseWriter, q *dns.Msg) {
		a := n.answer(q)
		if _, changed := other.records[strings.ToLower(q.Question[0].Name)]; changed {
			a = other.answer(q)
		}
		switch kind {
		case "good":
			a.Authoritative = true
		case "lame":
		case "refusing":
			a.Answer, a.Rcode = nil, dns.RcodeRefused
		case "behind":
			a.Authoritative = true
			if q.Question[0].Qtype != dns.TypeSOA {
				a.Answer, a.Rcode = nil, dns.RcodeNameError
			}
		default:
			n.tb.Errorf("there is no kind of name server %q", kind)
		}
		_ = w.WriteMsg(a)
	})
}

// trial is the file to be fetched.
var trial = dcv.Challenge{ID: "trial", Path: dcv.PathPrefix + "trial.txt", Body: []byte("the very file")}

// hosts are what may be behind an address: how it behaves, the verdict on it, and a word that the
// message must contain. Their addresses are 203.0.113.1 and 2001:db8::1, and so on.
var hosts = []struct {
	title string
	want  Verdict
	word  string
	serve http.HandlerFunc // nil for those that do not speak HTTP
}{
	{"ours", OK, "serves the validation file", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(trial.Body) }},
	{"ours behind a proxy", OK, "serves", say(200, string(trial.Body), "Server", "nginx", "Via", "1.1 proxy")},
	{"ours behind a CDN", OK, "serves", say(200, string(trial.Body), "Server", "cloudflare", "CF-RAY", "1")},
	{"nginx without it", Stop, "nginx", say(404, "no", "Server", "nginx")},
	{"an Apache that forbids", Stop, "403", say(403, "no", "Server", "Apache")},
	{"a Caddy without it", Stop, "add the dcv directive", say(404, "", "Server", "Caddy")},
	{"a single-page app", Stop, "instead of the file", say(200, "<!doctype html><title>Welcome</title>", "Server", "nginx")},
	{"a login page", Stop, "401", say(401, "", "WWW-Authenticate", "Basic")},
	{"a CDN without it", Stop, "CDN", say(404, "", "Server", "cloudflare", "CF-RAY", "1")},
	{"a CDN with a challenge", Stop, "cloudflare", say(403, "are you human?", "Server", "cloudflare")},
	{"a cache with an old file", Stop, "X-Cache", say(200, "the old file", "X-Cache", "HIT")},
	{"a redirect to HTTPS", Stop, "https://", redirect("https://")},
	{"a redirect to another host", Stop, "redirect", say(301, "", "Location", "http://parking.example/")},
	{"a redirect by Caddy", Stop, "redirect", say(308, "", "Location", "https://shop.example.com/", "Server", "Caddy")},
	{"a file with a line more", Stop, "instead of the file", say(200, string(trial.Body)+"\n")},
	{"a file with a BOM", Stop, "instead of the file", say(200, "\ufeff"+string(trial.Body))},
	{"an empty file", Stop, "empty", say(200, "")},
	{"a server that is broken", Stop, "500", say(500, "oops")},
	{"a server that is overloaded", Stop, "503", say(503, "later", "Retry-After", "60")},
	{"another method's page", Stop, "405", say(405, "")},
	{"SSH", Stop, "another protocol", nil},
	{"nothing", Warning, "a CA that gets no answer", nil},
	{"silence", Warning, "no answer within", nil},
	{"a connection that breaks", Warning, "no answer", nil},
}

func say(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

func redirect(scheme string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, scheme+r.Host+r.URL.Path, http.StatusMovedPermanently)
	}
}

// addressOf returns the public address of a host, of either family.
func addressOf(title string, six bool) string {
	for i, h := range hosts {
		if h.title != title {
			continue
		}
		if six {
			return fmt.Sprintf("2001:db8::%x", i+1)
		}
		return fmt.Sprintf("203.0.113.%d", i+1)
	}
	panic("there is no host like " + title)
}

// web starts all hosts, and returns a prober that reaches them.
func web(tb testing.TB) dcv.Prober {
	tb.Helper()
	at := make(map[string]string)
	for i, h := range hosts {
		var local string
		switch {
		case h.serve != nil:
			srv := httptest.NewServer(h.serve)
			tb.Cleanup(srv.Close)
			local = srv.Listener.Addr().String()
		case h.title == "nothing":
			ln := listen(tb)
			local = ln.Addr().String()
			_ = ln.Close()
		default:
			ln := listen(tb)
			local = ln.Addr().String()
			go accept(ln, h.title)
		}
		at[fmt.Sprintf("203.0.113.%d", i+1)], at[fmt.Sprintf("2001:db8::%x", i+1)] = local, local
	}
	return dcv.Prober{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		local := at[host]
		if local == "" {
			return nil, fmt.Errorf("there is no host at %s", host)
		}
		return new(net.Dialer).DialContext(ctx, network, local)
	}}
}

func listen(tb testing.TB) net.Listener {
	ln, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = ln.Close() })
	return ln
}

// accept is a host that does not speak HTTP.
func accept(ln net.Listener, how string) {
	var silent []net.Conn
	for {
		conn, err := ln.Accept()
		if err != nil {
			break
		}
		switch how {
		case "SSH":
			_, _ = conn.Write([]byte("SSH-2.0-OpenSSH_9.6\r\n"))
			_ = conn.Close()
		case "a connection that breaks":
			_ = conn.Close()
		default:
			silent = append(silent, conn)
		}
	}
	for _, conn := range silent {
		_ = conn.Close()
	}
}

// worst returns the most severe of the verdicts.
func worst(results []Result) Verdict {
	order := []Verdict{OK, Warning, Stop}
	verdict := OK
	for _, r := range results {
		if slices.Index(order, r.Verdict) > slices.Index(order, verdict) {
			verdict = r.Verdict
		}
	}
	return verdict
}
