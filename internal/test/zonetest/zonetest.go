// Package zonetest is a DNS zone in memory for tests: a name server on the loopback
// address that answers for it, and libdns providers that change it.
package zonetest

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/libdns/libdns"
	"github.com/miekg/dns"
)

// Zone is a zone and its name server. Records are written "name type data", where the
// name is relative to the zone.
type Zone struct {
	// Name ends with a dot.
	Name string

	// Addr is the address and port of the server.
	Addr string

	tb testing.TB

	mu      sync.Mutex
	records []libdns.RR
	hidden  bool
	asked   func(name string)
	fail    func(ctx context.Context, call string, list []libdns.Record) error
	calls   []string
}

// Start serves a zone until the end of the test. The name ends with a dot, and should be
// different in each test, because certmagic remembers where zones begin.
func Start(tb testing.TB, name string, records ...string) *Zone {
	tb.Helper()
	conn, err := new(net.ListenConfig).ListenPacket(tb.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	z := &Zone{Name: name, Addr: conn.LocalAddr().String(), tb: tb}
	for _, line := range records {
		fields := strings.SplitN(line, " ", 3)
		z.records = append(z.records, libdns.RR{Name: fields[0], Type: fields[1], Data: fields[2]})
	}
	started, ended := make(chan struct{}), make(chan struct{})
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(z.serve), NotifyStartedFunc: func() { close(started) }}
	go func() {
		defer close(ended)
		if err := server.ActivateAndServe(); err != nil {
			tb.Error(err)
		}
	}()
	<-started
	tb.Cleanup(func() {
		if err := server.Shutdown(); err != nil {
			tb.Error(err)
		}
		<-ended
	})
	return z
}

func (z *Zone) serve(w dns.ResponseWriter, question *dns.Msg) {
	answer := new(dns.Msg)
	answer.SetReply(question)
	answer.Authoritative = true
	q := question.Question[0]
	name := strings.ToLower(q.Name)
	if name == z.Name && q.Qtype == dns.TypeSOA {
		z.add(answer, z.Name+" 60 IN SOA ns."+z.Name+" hostmaster."+z.Name+" 1 3600 600 86400 1")
	}
	z.mu.Lock()
	records := slices.Clone(z.records)
	if z.hidden {
		records = nil
	}
	asked := z.asked
	z.mu.Unlock()
	if asked != nil {
		asked(name)
	}
	for _, rr := range records {
		if libdns.AbsoluteName(rr.Name, z.Name) != name || dns.StringToType[rr.Type] != q.Qtype {
			continue
		}
		data := rr.Data
		if rr.Type == "TXT" {
			data = `"` + data + `"`
		}
		z.add(answer, q.Name+" 60 IN "+rr.Type+" "+data)
	}
	if len(answer.Answer) == 0 {
		answer.Rcode = dns.RcodeNameError
	}
	if err := w.WriteMsg(answer); err != nil {
		z.tb.Error(err)
	}
}

func (z *Zone) add(answer *dns.Msg, line string) {
	rr, err := dns.NewRR(line)
	if err != nil {
		z.tb.Error(err)
		return
	}
	answer.Answer = append(answer.Answer, rr)
}

// Hide makes the server deny all records, like a secondary server that lags behind.
func (z *Zone) Hide(hidden bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.hidden = hidden
}

// OnQuestion makes the server call f with the name of each question.
func (z *Zone) OnQuestion(f func(name string)) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked = f
}

// OnCall makes a provider's call fail, before it has an effect, if f returns an error.
// Calls are get, append and delete.
func (z *Zone) OnCall(f func(ctx context.Context, call string, list []libdns.Record) error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.fail = f
}

// Records lists what is in the zone.
func (z *Zone) Records() []string {
	z.mu.Lock()
	defer z.mu.Unlock()
	lines := make([]string, 0, len(z.records))
	for _, rr := range z.records {
		lines = append(lines, rr.Name+" "+rr.Type+" "+rr.Data)
	}
	slices.Sort(lines)
	return lines
}

// Calls counts the provider's calls of a kind.
func (z *Zone) Calls(call string) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	n := 0
	for _, c := range z.calls {
		if c == call {
			n++
		}
	}
	return n
}

// begin is called with the mutex free, and returns with it held if there is no error.
func (z *Zone) begin(ctx context.Context, call, zone string, list []libdns.Record) error {
	z.mu.Lock()
	fail := z.fail
	z.calls = append(z.calls, call)
	z.mu.Unlock()
	if zone != z.Name {
		z.tb.Errorf("%s in the zone %s, want %s", call, zone, z.Name)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if fail != nil {
		if err := fail(ctx, call, list); err != nil {
			return err
		}
	}
	z.mu.Lock()
	return nil
}

// Provider can change the zone, but not list it.
type Provider struct{ *Zone }

// AppendRecords implements libdns.RecordAppender. Like many providers, it adds what it
// already has a second time.
func (p Provider) AppendRecords(ctx context.Context, zone string, list []libdns.Record) ([]libdns.Record, error) {
	if err := p.begin(ctx, "append", zone, list); err != nil {
		return nil, err
	}
	defer p.mu.Unlock()
	for _, record := range list {
		p.records = append(p.records, record.RR())
	}
	return list, nil
}

// DeleteRecords implements libdns.RecordDeleter to the letter: a field that is empty
// matches everything.
func (p Provider) DeleteRecords(ctx context.Context, zone string, list []libdns.Record) ([]libdns.Record, error) {
	if err := p.begin(ctx, "delete", zone, list); err != nil {
		return nil, err
	}
	defer p.mu.Unlock()
	var gone []libdns.Record
	for _, record := range list {
		want := record.RR()
		p.records = slices.DeleteFunc(p.records, func(rr libdns.RR) bool {
			match := rr.Name == want.Name && (want.Type == "" || rr.Type == want.Type) &&
				(want.TTL == 0 || rr.TTL == want.TTL) && (want.Data == "" || rr.Data == want.Data)
			if match {
				gone = append(gone, rr)
			}
			return match
		})
	}
	return gone, nil
}

// Lister is a provider that can list the zone, too.
type Lister struct{ Provider }

// GetRecords implements libdns.RecordGetter.
func (p Lister) GetRecords(ctx context.Context, zone string) ([]libdns.Record, error) {
	if err := p.begin(ctx, "get", zone, nil); err != nil {
		return nil, err
	}
	defer p.mu.Unlock()
	var list []libdns.Record
	for _, rr := range p.records {
		list = append(list, rr)
	}
	return list, nil
}

// Interface guards
var (
	_ libdns.RecordAppender = Provider{}
	_ libdns.RecordDeleter  = Provider{}
	_ libdns.RecordGetter   = Lister{}
)
