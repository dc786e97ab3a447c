package app

import (
	"maps"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/internal/metrics"
	"github.com/caddy-commercial/caddy-commercial/ledger"
)

// measured is an issuer's ledger, and how the metrics report it.
type measured struct {
	vendor  string
	memory  *ledger.Memory
	perName bool
}

// Measure adds an issuer's ledger to the metrics of the config. With perName, these report when
// the certificate and the term of each name end, otherwise only the earliest of these. Calling it
// again does no harm.
func (a *App) Measure(m Member, vendor string, memory *ledger.Memory, perName bool) {
	metrics.Charges.WithLabelValues(vendor) // so that the first charge is an increase
	a.mu.Lock()
	defer a.mu.Unlock()
	a.measured[m] = measured{vendor, memory, perName}
}

// teller collects the metrics that are computed when they are scraped, from memory alone.
type teller struct{ app *App }

// Describe implements prometheus.Collector.
func (teller) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range metrics.Descs() {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (t teller) Collect(ch chan<- prometheus.Metric) {
	tell := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	tell(metrics.SchedulerWaiting, float64(Process.Waiting()))
	t.app.mu.Lock()
	ledgers := maps.Clone(t.app.measured)
	t.app.mu.Unlock()
	now := time.Now()
	tellOrders(ledgers, now, tell)
	t.tellEnds(ledgers, now, tell)
}

// tellOrders counts the orders of each vendor. Issuers that share an account share its ledger.
func tellOrders(ledgers map[Member]measured, now time.Time, tell func(*prometheus.Desc, float64, ...string)) {
	seen := make(map[*ledger.Memory]bool)
	orders := make(map[string]map[string]int)
	oldest := make(map[string]time.Duration)
	for _, l := range ledgers {
		if seen[l.memory] {
			continue
		}
		seen[l.memory] = true
		tally := l.memory.Tally()
		if orders[l.vendor] == nil {
			orders[l.vendor] = make(map[string]int)
		}
		for _, state := range []ledger.State{ledger.Asked, ledger.Open, ledger.Issued, ledger.Gone} {
			orders[l.vendor][string(state)] += tally.States[state]
		}
		orders[l.vendor]["flagged"] += tally.Flagged
		age := time.Duration(0)
		if !tally.Oldest.IsZero() {
			age = now.Sub(tally.Oldest)
		}
		oldest[l.vendor] = max(oldest[l.vendor], age)
	}
	for vendor, states := range orders {
		for state, n := range states {
			tell(metrics.Orders, float64(n), vendor, state)
		}
		tell(metrics.OldestOrderSeconds, oldest[vendor].Seconds(), vendor)
	}
}

// tellEnds tells when certificates and terms end. Of a name with several issuers, those that last
// longest count.
func (t teller) tellEnds(ledgers map[Member]measured, now time.Time, tell func(*prometheus.Desc, float64, ...string)) {
	h := t.app.hosts.Load()
	type labels struct{ vendor, name string }
	certificates, terms := make(map[labels]time.Time), make(map[labels]time.Time)
	note := func(ends map[labels]time.Time, of measured, name string, end time.Time) {
		if end.IsZero() {
			return
		}
		key := labels{vendor: of.vendor}
		if of.perName {
			key.name = name
		}
		if first, noted := ends[key]; !noted || end.Before(first) {
			ends[key] = end
		}
	}
	for _, name := range t.app.Names() {
		name = dcv.NormalizeHost(name)
		var certificate, term time.Time
		var certifies, lasts measured
		for _, m := range h.membersFor(name) {
			l, ok := ledgers[m]
			if !ok {
				continue
			}
			c, e := l.memory.Lasts(name)
			if c.After(certificate) {
				certificate, certifies = c, l
			}
			if e.After(term) {
				term, lasts = e, l
			}
		}
		note(certificates, certifies, name, certificate)
		note(terms, lasts, name, term)
	}
	for of, end := range certificates {
		tell(metrics.CertificateExpirySeconds, end.Sub(now).Seconds(), of.vendor, of.name)
	}
	for of, end := range terms {
		tell(metrics.TermEndSeconds, end.Sub(now).Seconds(), of.vendor, of.name)
	}
}

// Waiting returns how many names wait for their next round.
func (s *Scheduler) Waiting() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lines {
		n += len(l.tasks) - l.running
	}
	return n
}

// Interface guard
var _ prometheus.Collector = teller{}
