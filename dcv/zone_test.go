package dcv

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// looks counts the queries to servers and answers them from a script.
type looks struct {
	t     *testing.T
	start time.Time
	asked []string // servers, in order

	// answer returns the lines of an answer, or an error; since is the time since the test began.
	answer func(server, name string, kind uint16, since time.Duration) ([]string, error)
}

func (l *looks) exchange(_ context.Context, question *dns.Msg, server string) (*dns.Msg, error) {
	l.asked = append(l.asked, server)
	q := question.Question[0]
	lines, err := l.answer(server, q.Name, q.Qtype, time.Since(l.start))
	if err != nil {
		return nil, err
	}
	answer := new(dns.Msg)
	answer.SetReply(question)
	if len(lines) == 0 {
		answer.Rcode = dns.RcodeNameError
	}
	for _, line := range lines {
		if line == "REFUSED" {
			answer.Rcode = dns.RcodeRefused
			continue
		}
		rr, err := dns.NewRR(q.Name + " 60 IN " + line)
		if err != nil {
			l.t.Fatal(err)
		}
		answer.Answer = append(answer.Answer, rr)
	}
	return answer, nil
}

const target = "a.b.sectigo.com"

// TestAwait runs in a bubble of fake time.
func TestAwait(t *testing.T) {
	const one, two = "192.0.2.1:53", "192.0.2.2:53"
	unreachable := errors.New("unreachable")
	type say = func(server string, since time.Duration) ([]string, error)
	there := []string{"CNAME " + target + "."}
	for title, c := range map[string]struct {
		say            say
		delay, timeout time.Duration
		took           [2]time.Duration // at least and at most
		want           string           // in the error; empty is none
		wrong          bool
		looks          int // zero: any number
	}{
		"at once": {say: func(string, time.Duration) ([]string, error) { return there, nil }, looks: 2},
		"other spelling": {say: func(string, time.Duration) ([]string, error) {
			return []string{"CNAME A.b.Sectigo.com."}, nil
		}, looks: 2},
		"the slower server counts": {say: func(server string, since time.Duration) ([]string, error) {
			if server == two && since < 30*time.Second {
				return nil, nil
			}
			return there, nil
		}, took: [2]time.Duration{30 * time.Second, 45 * time.Second}},
		"a dead server does not count": {say: func(server string, _ time.Duration) ([]string, error) {
			if server == two {
				return nil, unreachable
			}
			return there, nil
		}, looks: 2},
		"a server of another zone does not count": {say: func(server string, _ time.Duration) ([]string, error) {
			if server == two {
				return []string{"REFUSED"}, nil
			}
			return there, nil
		}, looks: 2},
		"never": {say: func(string, time.Duration) ([]string, error) { return nil, nil },
			took: [2]time.Duration{2 * time.Minute, 2 * time.Minute},
			want: "192.0.2.1:53 does not have it; 192.0.2.2:53 does not have it", wrong: true},
		"another value": {say: func(string, time.Duration) ([]string, error) { return []string{"CNAME else.where."}, nil },
			timeout: 7 * time.Second, took: [2]time.Duration{7 * time.Second, 7 * time.Second},
			want: "propagation_timeout", wrong: true},
		"another type": {say: func(string, time.Duration) ([]string, error) { return []string{`TXT "` + target + `"`}, nil },
			timeout: time.Second, took: [2]time.Duration{time.Second, time.Second}, want: "does not have it", wrong: true},
		"nobody answers": {say: func(string, time.Duration) ([]string, error) { return nil, unreachable },
			timeout: time.Second, took: [2]time.Duration{time.Second, time.Second}, want: "unreachable"},
		"nobody may answer": {say: func(string, time.Duration) ([]string, error) { return []string{"REFUSED"}, nil },
			timeout: time.Second, took: [2]time.Duration{time.Second, time.Second}, want: "REFUSED"},
		"not at all": {say: func(string, time.Duration) ([]string, error) {
			t.Error("a server was asked")
			return nil, nil
		}, timeout: -1},
		"only the delay": {say: func(string, time.Duration) ([]string, error) {
			t.Error("a server was asked")
			return nil, nil
		}, timeout: -1, delay: time.Hour, took: [2]time.Duration{time.Hour, time.Hour}},
		"after the delay": {say: func(_ string, since time.Duration) ([]string, error) {
			if since < time.Minute {
				t.Errorf("a server was asked after %s", since)
			}
			return there, nil
		}, delay: time.Minute, took: [2]time.Duration{time.Minute, time.Minute}, looks: 2},
	} {
		t.Run(title, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &looks{t: t, start: time.Now(), answer: func(server, _ string, _ uint16, since time.Duration) ([]string, error) {
					return c.say(server, since)
				}}
				d := &DNS{
					Resolvers: []string{"192.0.2.1", two}, PropagationDelay: c.delay, PropagationTimeout: c.timeout, exchange: l.exchange,
				}
				err := d.Await(t.Context(), []Record{record(t, "example.com", "_a", "CNAME", target)})
				took := time.Since(l.start)
				if took < c.took[0] || took > c.took[1] {
					t.Errorf("took %s, want %s", took, c.took)
				}
				if c.looks > 0 && len(l.asked) != c.looks {
					t.Errorf("asked %q", l.asked)
				}
				if c.want == "" {
					if err != nil {
						t.Errorf("error = %v", err)
					}
					return
				}
				problem, ok := errors.AsType[*PropagationError](err)
				if !ok || !strings.Contains(err.Error(), c.want) || problem.Wrong() != c.wrong {
					t.Errorf("error = %v, wrong %t", err, ok && problem.Wrong())
				}
				if !slices.Contains(l.asked, one) || !slices.Contains(l.asked, two) {
					t.Errorf("asked %q only", l.asked)
				}
			})
		})
	}
}

func TestAwaitText(t *testing.T) {
	l := &looks{t: t, start: time.Now(), answer: func(_, name string, kind uint16, _ time.Duration) ([]string, error) {
		if name != "_dnsauth.example.com." || kind != dns.TypeTXT {
			t.Errorf("asked for %s %d", name, kind)
		}
		return []string{`TXT "theirs"`, `TXT "mi" "ne"`}, nil
	}}
	d := &DNS{Resolvers: []string{"192.0.2.1"}, exchange: l.exchange}
	if err := d.Await(t.Context(), []Record{record(t, "*.example.com", "_dnsauth", "TXT", "mine")}); err != nil {
		t.Error(err)
	}
}

func TestAwaitEndsWithItsContext(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			l := &looks{t: t, start: time.Now(), answer: func(string, string, uint16, time.Duration) ([]string, error) { return nil, nil }}
			d := &DNS{Resolvers: []string{"192.0.2.1"}, PropagationDelay: delay, exchange: l.exchange}
			cause := errors.New("config was unloaded")
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(5*time.Second, func() { cancel(cause) })
			err := d.Await(ctx, []Record{record(t, "example.com", "_a", "CNAME", target)})
			if took := time.Since(l.start); !errors.Is(err, cause) || took != 5*time.Second {
				t.Errorf("error %v after %s", err, took)
			}
		})
	}
}

// TestOwnServersAreAsked: without configured resolvers, a record is looked for at all name servers
// of its zone.
func TestOwnServersAreAsked(t *testing.T) {
	l := &looks{t: t, start: time.Now(), answer: func(server, name string, kind uint16, _ time.Duration) ([]string, error) {
		switch {
		case kind == dns.TypeNS && name == "example.com.":
			return []string{"NS ns1.example.net.", "NS ns2.example.net."}, nil
		case kind == dns.TypeCNAME && name == "_a.www.example.com." && strings.HasPrefix(server, "ns"):
			return []string{"CNAME " + target + "."}, nil
		}
		t.Errorf("%s was asked for %s %d", server, name, kind)
		return nil, nil
	}}
	d := &DNS{exchange: l.exchange, findZone: func(_ context.Context, name string) (string, error) {
		if name != "_a.www.example.com" {
			t.Errorf("looked for the zone of %s", name)
		}
		return "example.com.", nil
	}}
	if err := d.Await(t.Context(), []Record{record(t, "www.example.com", "_a", "CNAME", target)}); err != nil {
		t.Fatal(err)
	}
	if got := l.asked[len(l.asked)-2:]; !slices.Equal(got, []string{"ns1.example.net:53", "ns2.example.net:53"}) {
		t.Errorf("asked %q", l.asked)
	}
}

// TestNoServersAreFound: a zone whose servers cannot be found does not count as a wrong answer.
func TestNoServersAreFound(t *testing.T) {
	d := &DNS{
		PropagationTimeout: time.Nanosecond,
		exchange: (&looks{t: t, start: time.Now(), answer: func(string, string, uint16, time.Duration) ([]string, error) {
			return nil, nil
		}}).exchange,
		findZone: func(context.Context, string) (string, error) { return "example.com.", nil },
	}
	err := d.Await(t.Context(), []Record{record(t, "example.com", "_a", "CNAME", target)})
	problem, ok := errors.AsType[*PropagationError](err)
	if !ok || problem.Wrong() || !strings.Contains(err.Error(), "finding the name servers of example.com.") {
		t.Errorf("error = %v", err)
	}
}

func TestCheckResolvers(t *testing.T) {
	if err := CheckResolvers([]string{"192.0.2.1", "192.0.2.1:53", "2001:db8::1", "[2001:db8::1]:53", "ns.example.com", "ns.example.com:5353", "localhost"}); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", ":53", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:dns", "https://ns.example.com/dns-query", "a b", "{env.X}", "[2001:db8::1"} {
		if err := CheckResolvers([]string{"192.0.2.1", bad}); err == nil || !strings.Contains(err.Error(), `"`+bad+`"`) {
			t.Errorf("%q: error = %v", bad, err)
		}
	}
}
