package proof

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/caddy-commercial/caddy-commercial/check"
	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/internal/test/zonetest"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

func nobody(string) []check.Visit { return nil }

// wantDiagnosis explains one name of a proof.
func wantDiagnosis(t *testing.T, m *ByMethod, p Proof, visits func(string) []check.Visit, want check.Cause, word string) {
	t.Helper()
	list := m.Explain(t.Context(), p, p.Names[:1], visits)
	if len(list) != 1 || list[0].Cause != want || !strings.Contains(list[0].Message, word) || list[0].Name != p.Names[0] {
		t.Errorf("got %+v, want %s with %q", list, want, word)
	}
}

func TestExplainRecord(t *testing.T) {
	zone := zonetest.Start(t, "explain.example.")
	r, _ := newRecords(zone, true, ModeStrict)
	m := New(Config{About: vendors.Description{AnyName: true}, DNS: r.dns})
	p := textProof("1", "mine", "shop.explain.example")
	wantDiagnosis(t, m, p, nobody, check.CauseRecord, "is not everywhere")
	if err := m.Present(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	wantDiagnosis(t, m, p, nobody, check.CauseUndecided, "as far as can be seen")
	p.Challenges[0].Name = "shop.explain.example"
	p.Challenges = append(p.Challenges, vendors.Challenge{
		Method: vendors.MethodDNS, Name: "blog.explain.example", RecordName: "_dnsauth", RecordType: "TXT", RecordValue: "other",
	})
	wantDiagnosis(t, m, p, nobody, check.CauseUndecided, "as far as can be seen") // that record belongs to another name
	m.CleanUp(t.Context(), p)
	p.Challenges[0].Name = "example"
	wantDiagnosis(t, m, p, nobody, check.CauseUndecided, "for no DNS record") // a record of a parent name does not count either
	p.Challenges[0].Name, r.dns.PropagationTimeout = "", -1
	wantDiagnosis(t, m, p, nobody, check.CauseUndecided, "could not be looked for")
	wantDiagnosis(t, New(Config{}), p, nobody, check.CauseRecord, "no DNS provider")
}

// TestExplainOverride: a record that exists does not help if nothing leads to it.
func TestExplainOverride(t *testing.T) {
	for _, c := range []struct {
		alias string
		want  check.Cause
		word  string
	}{
		{"", check.CauseRecord, "_dnsauth.shop.example.com is not an alias (CNAME) of proofs.override.example"},
		{"_dnsauth.shop.example.com. 60 IN CNAME other.override.example.", check.CauseRecord, "not an alias"},
		{"_dnsauth.shop.example.com. 60 IN CNAME Proofs.override.example.", check.CauseUndecided, "as far as can be seen"},
		{"_dnsauth.example.com. 60 IN CNAME proofs.override.example.", check.CauseUndecided, "as far as can be seen"},
	} {
		zone := zonetest.Start(t, "override.example.")
		r, _ := newRecords(zone, true, ModeStrict)
		m, _ := newProver(t, func(config *Config) {
			elsewhere(t, "example.com. 60 IN SOA ns1.example.com. h.example.com. 7 3600 600 86400 60", "shop.example.com. 60 IN A 203.0.113.1",
				cmp.Or(c.alias, "x.example.com. 60 IN A 203.0.113.1"))(config)
			config.Exchange = following(config.Exchange)
			config.DNS, config.Override = r.dns, "proofs.override.example"
		})
		p := textProof("override-1", "mine", "shop.example.com")
		if err := m.Present(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		wantDiagnosis(t, m, p, nobody, c.want, c.word)
		m.CleanUp(t.Context(), p)
	}
}

// TestExplainPort: a port that cannot be listened on is the cause only if something else, or
// nothing, answers there.
func TestExplainPort(t *testing.T) {
	deaf := &dcv.ListenError{Addr: ":80", Err: errors.New("the port is taken")}
	port := serveFiles(t)
	for _, c := range []struct {
		port int
		want check.Cause
	}{{closedPort(t), check.CausePort}, {port, check.CauseNoVisit}} {
		m, _ := newProver(t, func(config *Config) {
			config.Port, config.Listen = at(c.port), func(context.Context) (func(), error) { return nil, deaf }
		})
		p := fileProof("explain-1", "x", "explain.localhost")
		if err := m.Present(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		word := "the port is taken"
		if c.want != check.CausePort {
			word = "from here"
		}
		wantDiagnosis(t, m, p, nobody, c.want, word)
		m.CleanUp(t.Context(), p)
	}
}

// TestExplainTrustsLateVisits: a recent visit of the CA counts for more than what this machine gets,
// because routers may keep it from reaching itself from inside; an old visit does not.
func TestExplainTrustsLateVisits(t *testing.T) {
	m, _ := newProver(t, func(c *Config) { c.Port = at(closedPort(t)) })
	p := fileProof("explain-2", "x", "late.localhost")
	for age, want := range map[time.Duration]check.Cause{time.Minute: check.CauseKeptOut, 2 * time.Hour: check.CauseUnanswered} {
		wantDiagnosis(t, m, p, func(string) []check.Visit {
			return []check.Visit{{From: "192.0.2.1", Server: "one", Status: 200, Time: time.Now().Add(-age)}}
		}, want, "1 address")
	}
	// A visitor that got the file in the end is not counted among those that did not.
	wantDiagnosis(t, m, p, func(string) []check.Visit {
		now := time.Now()
		return []check.Visit{{From: "192.0.2.1", Server: "one", Status: 200, Time: now}, {From: "192.0.2.1", Server: "one", Status: 404, Time: now.Add(-time.Second)}}
	}, check.CauseKeptOut, "1 address")
}

// outlook is what this machine can see of an internet, and who came to our servers.
type outlook struct {
	title   string
	records string            // of DNS, one per line
	silent  bool              // whether another resolver, the first, does not answer
	second  string            // the address that the second name server has instead of the first
	hosts   map[string]string // what is at an address; if nothing is, it refuses
	deaf    bool
	came    []string      // the addresses that the file was fetched from
	ago     time.Duration // when

	want check.Cause
	word string
}

func outlooks() []outlook {
	const one, two, six = "203.0.113.1", "203.0.113.2", "2001:db8::1"
	a := func(addr string) string { return "shop.example.com. 60 IN A " + addr + "\n" }
	aaaa := func(addr string) string { return "shop.example.com. 60 IN AAAA " + addr + "\n" }
	ours := map[string]string{one: "file"}
	const days = 72 * time.Hour
	perspectives := []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"}
	return []outlook{
		{title: "another server since enough have come", records: a(one), hosts: map[string]string{one: "nginx"}, came: perspectives, ago: days, want: check.CauseOther, word: "nginx"},
		{title: "no answer to this machine, and enough came long ago", records: a(one), came: perspectives, ago: days, want: check.CauseUndecided, word: "cannot be seen"},
		{title: "enough came long ago, and all is well", records: a(one), hosts: ours, came: perspectives, ago: days, want: check.CauseUndecided},
		{title: "another view of the zone without the name", records: "example.com. 60 IN A " + one + "\n", came: perspectives[:3], want: check.CauseKeptOut},
		{title: "the name is gone since they came", records: "example.com. 60 IN A " + one + "\n", came: perspectives, ago: days, want: check.CauseDNS},
		{title: "another view of the zone with private addresses", records: a("10.0.0.7"), came: perspectives[:3], want: check.CauseKeptOut},
		{title: "a private address beside ours", records: a("10.0.0.7") + a(one), hosts: ours, came: perspectives[:3], want: check.CausePrivate},
		{title: "a resolver that does not answer", records: a(one), silent: true, hosts: ours, want: check.CauseNoVisit},
		{title: "a resolver that does not answer, and silence", records: a(one), silent: true, hosts: map[string]string{one: "silence"}, want: check.CauseUnanswered, word: "no answer within"},
		{title: "no way to IPv6, and the port is taken by what has the file", records: a(one) + aaaa(six), hosts: map[string]string{one: "file", six: "no route"}, deaf: true, want: check.CauseNoVisit, word: "but for IPv6"},
		{title: "no way to IPv6, over which nobody comes", records: a(one) + aaaa(six), hosts: map[string]string{one: "file", six: "no route"}, came: perspectives[:2], want: check.CauseUnanswered, word: "without IPv6"},
		{title: "no way to IPv6, and nothing else", records: aaaa(six), hosts: map[string]string{six: "no route"}, want: check.CauseNoVisit, word: "cannot be seen"},
		{title: "name servers that share the load", records: a(one), second: two, hosts: map[string]string{one: "file", two: "file"}, want: check.CauseNoVisit},
		{title: "a name server that is behind", records: a(one), second: two, hosts: map[string]string{one: "file", two: "nginx"}, want: check.CauseServers},
		{title: "a server that gives advice", records: a(one), hosts: map[string]string{one: "x; call 555"}, want: check.CauseOther, word: "call 555"},
		{title: "all through a proxy", records: a(one), hosts: ours, came: []string{"10.0.0.9"}, want: check.CauseUndecided, word: "hides"},
		{title: "a proxy that makes IPv4 of IPv6", records: a(one) + aaaa(six), hosts: ours, came: []string{"172.17.0.1"}, want: check.CauseUndecided, word: "hides"},
		{title: "a try of our own beside the CA", records: a(one) + aaaa(six), hosts: ours, came: append([]string{"::1", "127.0.0.1"}, perspectives[:3]...), want: check.CauseUnanswered, word: "fetched from 3 addresses, over IPv4 only"},
	}
}

// TestExplainSeesOnlyFromHere: this machine does not get everything that the CA gets.
func TestExplainSeesOnlyFromHere(t *testing.T) {
	for _, o := range outlooks() {
		t.Run(o.title, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { o.try(t) })
		})
	}
}

func (o outlook) try(t *testing.T) {
	const zone = "example.com. 60 IN SOA ns1.example.com. h.example.com. 7 3600 600 86400 60\nexample.com. 60 IN NS ns1.example.com.\n" +
		"example.com. 60 IN NS ns2.example.com.\nns1.example.com. 60 IN A 198.51.100.1\nns2.example.com. 60 IN A 198.51.100.2"
	var own string
	m, _ := newProver(t, func(c *Config) {
		elsewhere(t, strings.Split(o.records+zone, "\n")...)(c)
		first, second := c.Exchange, c.Exchange
		if o.second != "" {
			behind := &Config{}
			elsewhere(t, strings.Split("shop.example.com. 60 IN A "+o.second+"\n"+zone, "\n")...)(behind)
			second = behind.Exchange
		}
		if o.silent {
			c.Resolvers = []string{"192.0.2.54:53", "192.0.2.53:53"}
		}
		c.Exchange = func(ctx context.Context, q *dns.Msg, server string) (*dns.Msg, error) {
			answer := first
			switch server {
			case "192.0.2.54:53":
				<-ctx.Done()
				return nil, ctx.Err()
			case "198.51.100.2:53":
				answer = second
			}
			m, err := answer(ctx, q, server)
			if m != nil {
				m.Authoritative = strings.HasPrefix(server, "198.51.100.")
			}
			return m, err
		}
		c.Dial = func(_ context.Context, network, at string) (net.Conn, error) {
			addr, _, err := net.SplitHostPort(at)
			if err != nil {
				return nil, err
			}
			switch what := o.hosts[addr]; what {
			case "":
				return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("connection refused")}
			case "no route":
				return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ENETUNREACH}
			default:
				near, far := net.Pipe()
				go answerAs(far, what, own)
				return near, nil
			}
		}
		if o.deaf {
			c.Listen = func(context.Context) (func(), error) { return nil, errors.New("the port is taken") }
		}
	})
	p := fileProof("outlook-1", "x", "shop.example.com")
	own = p.Challenges[0].FileContent
	if err := m.Present(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	defer m.CleanUp(t.Context(), p)
	var visits []check.Visit
	for _, addr := range o.came {
		visits = append(visits, check.Visit{From: addr, Server: "one", Status: 200, Time: time.Now().Add(-o.ago)})
	}
	list := m.Explain(t.Context(), p, p.Names, func(string) []check.Visit { return visits })
	if d := list[0]; d.Cause != o.want || !strings.Contains(d.Message, o.word) {
		t.Errorf("%s, want %s with %q: %s; %s", d.Cause, o.want, o.word, d.Message, d.Advice)
	}
}

// TestExplainManyNames: an order for hundreds of names, none of which answers, gets an explanation
// before long.
func TestExplainManyNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var names, records []string
		for i := range 250 {
			names = append(names, fmt.Sprintf("shop-%d.example.com", i))
			records = append(records, names[i]+". 60 IN A 203.0.113.1")
		}
		m, _ := newProver(t, func(c *Config) {
			elsewhere(t, records...)(c)
			c.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
		})
		began := time.Now()
		list := m.Explain(t.Context(), fileProof("many-1", "x", names...), names, nobody)
		if took := time.Since(began); took > explainAllWithin || len(list) < atATime || list[0].Cause != check.CauseUnanswered {
			t.Errorf("%d diagnoses after %s", len(list), took)
		}
	})
}

// answerAs answers a request on a connection as a host in a world does.
func answerAs(conn net.Conn, what, file string) {
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	if _, err := http.ReadRequest(in); err != nil {
		return
	}
	w := httptest.NewRecorder()
	switch what {
	case "silence":
		_, _ = in.ReadByte() // until it is closed
		return
	case "file":
		_, _ = w.WriteString(file)
	default:
		w.Header().Set("Server", what)
		w.WriteHeader(http.StatusNotFound)
	}
	_ = w.Result().Write(conn)
}
