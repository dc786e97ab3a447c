package issuer

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-commercial/caddy-commercial/dcv"
	digicertca "github.com/caddy-commercial/caddy-commercial/internal/sandboxca/digicert"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	racentca "github.com/caddy-commercial/caddy-commercial/internal/sandboxca/racent"
	"github.com/caddy-commercial/caddy-commercial/issuer/proof"
	"github.com/caddy-commercial/caddy-commercial/operator"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

var (
	forecastN    = flag.Int("forecast.n", 4, "how many configs are forecast and lived through")
	forecastSeed = flag.Uint64("forecast.seed", 1, "what they are made from")
	forecastOnly = flag.Int("forecast.only", -1, "which of them alone")
)

func on(text string) time.Time {
	at, err := time.Parse(time.DateOnly, text)
	if err != nil {
		panic(err)
	}
	return at
}

// forecastEnds is the date until which a forecast must be true.
var forecastEnds = on("2029-12-01")

// shorter makes the CA issue certificates for as long as vendors do, now and from each date on which
// that changes.
func (w *world) shorter() {
	set := func(days int) {
		if err := w.ca.Update(func(c *hostile.Config) { c.Lifetime = time.Duration(days) * day }); err != nil {
			w.tb.Error(err)
		}
	}
	set(199)
	for from, days := range map[string]int{"2027-03-15": 99, "2029-03-15": 46} {
		if wait := time.Until(on(from)); wait > 0 {
			timer := time.AfterFunc(wait, func() { set(days) })
			w.tb.Cleanup(func() { timer.Stop() })
		} else if days == 99 || time.Until(on("2029-03-15")) <= 0 {
			set(days)
		}
	}
}

// asDue is maintain for long periods: it checks certificates only when one may be due.
func (p *process) asDue() (stop func()) {
	const every, rarely = 10 * time.Minute, 2 * time.Hour
	ctx, cancel := context.WithCancel(p.w.ctx)
	m := &maintenance{p: p, paused: make(map[string]time.Time), failed: make(map[string]int), busy: make(map[string]bool), done: make(chan string, 100)}
	ended := make(chan struct{})
	next := func() time.Duration {
		p.site.mu.Lock()
		defer p.site.mu.Unlock()
		wait := rarely
		for _, got := range p.site.served {
			leaf := got.leaf()
			wait = min(wait, time.Until(leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore)/3)))
		}
		return max(wait, 0).Truncate(every) + every
	}
	go func() {
		defer close(ended)
		timer := time.NewTimer(every)
		defer timer.Stop()
		for ctx.Err() == nil {
			select {
			case <-timer.C:
				m.look(ctx)
				timer.Reset(next())
			case name := <-m.done:
				m.note(name)
			case <-ctx.Done():
			}
		}
		for len(m.busy) > 0 {
			m.note(<-m.done)
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}

// bet is a config whose charges are forecast.
type bet struct {
	kind   int
	start  time.Time
	before time.Duration // how long the first names have been there already
	first  int           // how many those are
	names  []string
	groups [][]string
	late   bool // whether the groups were not configured before
	years  int
	margin time.Duration
	spend  int
}

func newBet(r *rand.Rand) bet {
	b := bet{kind: r.IntN(len(vendorKinds)), start: on("2026-12-01").Add(time.Duration(r.IntN(750*24*60)) * time.Minute), years: 1 + r.IntN(3)}
	pool := []string{"example.com", "www.example.com", "example.net", "example.org", "shop.example.com", "www.example.org", "a.b.example.net", "example.info"}
	r.Shuffle(len(pool), func(i, j int) { pool[i], pool[j] = pool[j], pool[i] })
	b.names = pool[:1+r.IntN(6)]
	v := vendorKinds[b.kind]
	if v.name == "howssl" && len(b.names) > 4 {
		b.names = b.names[:4]
	}
	if v.group != "" && len(b.names) > 1 && r.IntN(2) == 0 {
		n := 2 + r.IntN(len(b.names)-1)
		b.groups = append(b.groups, slices.Clone(b.names[:n]))
		if rest := b.names[n:]; len(rest) > 1 {
			b.groups = append(b.groups, slices.Clone(rest))
		}
		if v.name == "racent" && splitsTwin(b.names, n) {
			b.groups = nil // whether the order of one leaves out the other is a matter of seconds
		}
	}
	if r.IntN(2) == 0 {
		b.before = time.Duration(r.IntN(500*24*60)) * time.Minute
		b.first, b.late = 1+r.IntN(len(b.names)), r.IntN(3) == 0
	}
	if r.IntN(2) == 0 {
		b.margin = time.Duration(1+r.IntN(170*24)) * time.Hour
	}
	b.spend = defaultSpendOrders
	if r.IntN(5) == 0 {
		b.spend = 1 + r.IntN(3)
	}
	return b
}

// splitsTwin reports whether a name is among the first n, and its twin among the others.
func splitsTwin(names []string, n int) bool {
	return slices.ContainsFunc(names[:n], func(name string) bool { return slices.Contains(names[n:], dcv.Twin(name)) })
}

func (b bet) String() string {
	return fmt.Sprintf("%s from %s, %d of %v since %s before, groups %v (late: %v), %d years, margin %s, limit %d",
		vendorKinds[b.kind].name, b.start.Format(time.RFC3339), b.first, b.names, b.before, b.groups, b.late, b.years, b.margin, b.spend)
}

func (b bet) config(groups bool) func(*flow) {
	return func(f *flow) {
		// The sandbox has no leap years.
		f.order.Term = vendors.Term{Days: 365 * b.years}
		f.rules.renewMargin = b.margin
		f.rules.spend = SpendLimit{b.spend, caddy.Duration(day)}
		if b.groups != nil {
			f.order.Product = vendorKinds[b.kind].group
		}
		if groups {
			f.rules.groups = b.groups
		}
		f.prove = &layers{Prover: f.prove, up: make(map[string]proof.Proof)}
	}
}

// layers is a prover that serves a file again when one that replaced it is removed, as real provers
// do: DigiCert's files have the same name for all orders.
type layers struct {
	proof.Prover
	mu sync.Mutex
	up map[string]proof.Proof
}

func (l *layers) Present(ctx context.Context, p proof.Proof) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.up[p.ID] = p
	return l.Prover.Present(ctx, p)
}

func (l *layers) CleanUp(ctx context.Context, p proof.Proof) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.up, p.ID)
	for _, other := range l.up {
		_ = l.Prover.Present(ctx, other)
	}
}

// bill is a list of charges: when and for which names, without the "www." of twins.
type bill []charge

type charge struct {
	names string
	at    time.Time
}

func (b *bill) add(at time.Time, names []string) {
	var bare []string
	for _, name := range names {
		bare = append(bare, strings.TrimPrefix(name, "www."))
	}
	slices.Sort(bare)
	*b = append(*b, charge{strings.Join(slices.Compact(bare), " "), at.UTC()})
}

// differs describes where two bills differ by a name, or by more than a day.
func (b bill) differs(other bill, limited bool) string {
	byName := func(c, d charge) int { return cmp.Or(strings.Compare(c.names, d.names), c.at.Compare(d.at)) }
	slices.SortFunc(b, byName)
	slices.SortFunc(other, byName)
	same := slices.EqualFunc(b, other, func(c, d charge) bool { return c.names == d.names && c.at.Sub(d.at).Abs() <= day })
	if same {
		return ""
	}
	if limited {
		// Nobody can predict which of the names waits and is bought later.
		sums := func(b bill) (names []string, at bill) {
			for _, c := range b {
				names, at = append(names, c.names), append(at, charge{"", c.at})
			}
			return slices.Compact(names), at
		}
		names, at := sums(b)
		otherNames, otherAt := sums(other)
		if slices.Equal(names, otherNames) && at.differs(otherAt, false) == "" {
			return ""
		}
	}
	var text strings.Builder
	for i := range max(len(b), len(other)) {
		line := [2]string{"-", "-"}
		for j, list := range []bill{b, other} {
			if i < len(list) {
				line[j] = list[i].at.Format("2006-01-02 15:04 ") + list[i].names
			}
		}
		fmt.Fprintf(&text, "%-50s %s\n", line[0], line[1])
	}
	return text.String()
}

// TestForecastIsTrue: configs are charged what was forecast for them.
func TestForecastIsTrue(t *testing.T) {
	tooSlowForRaces(t)
	for i := range *forecastN {
		if *forecastOnly >= 0 && i != *forecastOnly {
			continue
		}
		b := newBet(rand.New(rand.NewPCG(*forecastSeed, uint64(i))))
		inBubble(t, fmt.Sprint(i), func(t *testing.T) {
			time.Sleep(time.Until(b.start.Add(-b.before)))
			w := newWorld(t, func(c *hostile.Config) { // the rest of the catalogue would only take time
				c.Products = slices.DeleteFunc(slices.Concat(racentca.Products(), digicertca.Products()), func(p hostile.Product) bool {
					return !slices.Contains([]string{"comodo-positivessl", "comodo-positive-multi-domain", "ssl_dv_rapidssl"}, p.Code)
				})
			})
			w.shorter()
			v := vendorKinds[b.kind]
			p := v.start(w, nil, b.config(!b.late))
			stop := p.asDue()
			p.configure(b.names[:b.first]...)
			time.Sleep(time.Until(b.start))
			stop()
			p.stop()
			p = v.start(w, nil, b.config(true))
			for _, name := range b.names {
				p.site.manage(name)
			}
			f, err := p.desk(true).Forecast(t.Context(), operator.Outlook{Days: int(time.Until(forecastEnds) / day)})
			if err != nil {
				t.Fatal(err)
			}
			before := w.charges()
			reissued := w.events.count(eventReissued)
			p.configure(b.names...)
			stop = p.asDue()
			time.Sleep(time.Until(f.Until))
			stop()
			reissued = w.events.count(eventReissued) - reissued
			p.untilServed(0, b.names...)
			var told, real bill
			for _, s := range f.Steps {
				if s.What == operator.StepOrder {
					told.add(s.Time, s.Names)
				}
			}
			for _, c := range w.ca.Charges()[before:] {
				real.add(c.Time, c.Names)
			}
			if diff := told.differs(real, b.spend < len(b.names)); diff != "" {
				t.Errorf("%d: %s\nforecast, and charged:\n%s", i, b, diff)
			}
			if n := f.Totals[0].Reissues; n != reissued {
				t.Logf("%d: %d reissues forecast, %d seen: %s", i, n, reissued, b)
			}
		})
	}
}
