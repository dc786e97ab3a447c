package app

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-commercial/caddy-commercial/internal/metrics"
	"github.com/caddy-commercial/caddy-commercial/internal/metrics/metricstest"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// enter makes entries of a ledger.
func enter(t *testing.T, entries ...*ledger.Entry) *ledger.Memory {
	t.Helper()
	l := &ledger.Ledger{Storage: &certmagic.FileStorage{Path: t.TempDir()}, Prefix: "commercial/a/b", Memory: new(ledger.Memory)}
	for i, e := range entries {
		e.ID = fmt.Sprint(i)
		if err := l.Create(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	return l.Memory
}

// paid returns an entry of an order whose certificate and term end in the given numbers of days; 0
// means no certificate.
func paid(state ledger.State, expires, ends int, names ...string) *ledger.Entry {
	now := time.Now().UTC()
	e := &ledger.Entry{Names: names, State: state, Paid: now.Add(-time.Hour), Ends: now.AddDate(0, 0, ends), OrderID: "1", Term: vendors.Term{Years: 1}}
	if expires != 0 {
		e.Certificate, e.Issued, e.Covered = &ledger.Certificate{Serial: "1", NotAfter: now.AddDate(0, 0, expires)}, 1, names
	}
	return e
}

func TestMetricsOfLedgers(t *testing.T) {
	s := newSite(t)
	const a, b, c = "a.example.com", "b.example.com", "c.example.com"
	config := s.config(true, object{"tls": tlsApp([]string{a, b, c},
		policy("apptest", a, b),
		object{"subjects": []string{c}, "issuers": []object{{"module": "apptest", "no_files": true}, {"module": "apptest"}}}),
	})
	running := s.load(config)
	members := running.hosts.Load().members
	first, second, third := members[0][0], members[1][0], members[1][1]
	flagged := paid(ledger.Open, 0, 200, "old.example.com")
	flagged.Flag = new(ledger.Flag)
	shared := enter(t,
		paid(ledger.Issued, 10, 40, a), paid(ledger.Issued, 20, 300, a), paid(ledger.Gone, 0, 300, b), paid(ledger.Issued, 30, 60, b),
		paid(ledger.Open, 0, 365, b), flagged, paid(ledger.Issued, 1, 1, "old.example.com", c))
	other := enter(t, paid(ledger.Issued, 5, 50, c), paid(ledger.Asked, 0, 365, "new.example.com"))
	read := func(a *App) map[string]float64 { return metricstest.Read(t, a.ctx.GetMetricsRegistry()) }
	want := func(values map[string]float64) {
		t.Helper()
		got := read(running)
		maps.DeleteFunc(got, func(series string, _ float64) bool {
			name, _, _ := strings.Cut(series, "{")
			return !slices.Contains([]string{"orders", "oldest_order_seconds", "certificate_expiry_seconds", "term_end_seconds"}, name)
		})
		for series, value := range got {
			if !strings.HasPrefix(series, "orders") { // some seconds have passed
				got[series] = math.Round(value/600) * 600
			}
		}
		if !maps.Equal(got, values) {
			t.Errorf("got %v, want %v", got, values)
		}
	}
	day := (24 * time.Hour).Seconds()

	running.Measure(first, "x", shared, false)
	running.Measure(second, "y", other, false)
	running.Measure(third, "x", shared, false)
	orders := map[string]float64{
		`orders{state="asked",vendor="x"}`: 0, `orders{state="open",vendor="x"}`: 1, `orders{state="issued",vendor="x"}`: 4,
		`orders{state="gone",vendor="x"}`: 1, `orders{state="flagged",vendor="x"}`: 1, `oldest_order_seconds{vendor="x"}`: 3600,
		`orders{state="asked",vendor="y"}`: 1, `orders{state="open",vendor="y"}`: 0, `orders{state="issued",vendor="y"}`: 1,
		`orders{state="gone",vendor="y"}`: 0, `orders{state="flagged",vendor="y"}`: 0, `oldest_order_seconds{vendor="y"}`: 3600,
	}
	values := maps.Clone(orders)
	values[`certificate_expiry_seconds{name="",vendor="x"}`] = 20 * day
	values[`term_end_seconds{name="",vendor="x"}`] = 300 * day
	values[`certificate_expiry_seconds{name="",vendor="y"}`] = 5 * day
	values[`term_end_seconds{name="",vendor="y"}`] = 50 * day
	want(values)

	running.Measure(first, "x", shared, true)
	values = maps.Clone(orders)
	values[`certificate_expiry_seconds{name="a.example.com",vendor="x"}`] = 20 * day
	values[`certificate_expiry_seconds{name="b.example.com",vendor="x"}`] = 30 * day
	values[`certificate_expiry_seconds{name="",vendor="y"}`] = 5 * day
	values[`term_end_seconds{name="a.example.com",vendor="x"}`] = 300 * day
	values[`term_end_seconds{name="b.example.com",vendor="x"}`] = 365 * day
	values[`term_end_seconds{name="",vendor="y"}`] = 50 * day
	want(values)

	// Counters and histograms outlive configs.
	metrics.Charges.WithLabelValues("x").Inc()
	metrics.OrderSeconds.WithLabelValues("x").Observe(60)
	before := read(running)
	running = s.load(config)
	after := read(running)
	for _, series := range []string{`charges_total{vendor="x"}`, `order_seconds_count{vendor="x"}`, `order_seconds_sum{vendor="x"}`} {
		if after[series] != before[series] || after[series] == 0 {
			t.Errorf("%s is %v, and was %v before the reload", series, after[series], before[series])
		}
	}
}

func TestSchedulerWaiting(t *testing.T) {
	s := NewScheduler()
	l := s.Line("a", nil)
	defer l.Release()
	l.Wake("one")
	l.WakeAt("two", time.Now().Add(time.Hour))
	if n := s.Waiting(); n != 2 {
		t.Errorf("%d are waiting", n)
	}
	busy, end := make(chan struct{}), make(chan struct{})
	detach := l.Attach(t.Context(), workerFunc(func(context.Context, string) (time.Duration, bool) {
		close(busy)
		<-end
		return 0, false
	}))
	<-busy
	if n := s.Waiting(); n != 1 {
		t.Errorf("%d are waiting while one is worked on", n)
	}
	close(end)
	detach()
}

// noStorage accepts everything and keeps nothing.
type noStorage struct{ certmagic.Storage }

func (noStorage) Store(context.Context, string, []byte) error { return nil }

// BenchmarkScrape100000 measures gathering the metrics with 100,000 orders and names.
func BenchmarkScrape100000(b *testing.B) {
	m := new(testIssuer)
	a := &App{listening: make(chan struct{}), measured: make(map[Member]measured)}
	h := &hosts{ours: []bool{true}, members: [][]Member{{m}}, subjects: map[string]int{"*.example.com": 0}, catchAll: 1}
	l := &ledger.Ledger{Storage: noStorage{}, Prefix: "commercial/a/b", Memory: new(ledger.Memory)}
	for i := range 100_000 {
		e := paid(ledger.Issued, 100, 300, fmt.Sprintf("shop-%06d.example.com", i))
		e.ID = fmt.Sprint(i)
		a.names = append(a.names, e.Names...)
		if err := l.Create(b.Context(), e); err != nil {
			b.Fatal(err)
		}
	}
	a.hosts.Store(h)
	close(a.listening)
	a.Measure(m, "x", l.Memory, false)
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(teller{a}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := registry.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}
