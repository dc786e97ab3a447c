// Package metricstest reads metrics, for tests of any layer.
package metricstest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-commercial/caddy-commercial/internal/metrics"
)

// Read returns the values of a registry by their names and labels, as in
// `orders{state="open",vendor="racent"}`, without the prefix of the plugin. A histogram has its
// count and its sum. What is not the plugin's is left out.
func Read(tb testing.TB, from prometheus.Gatherer) map[string]float64 {
	tb.Helper()
	families, err := from.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	values := make(map[string]float64)
	for _, family := range families {
		name, ours := strings.CutPrefix(family.GetName(), "caddy_commercial_")
		if !ours {
			continue
		}
		for _, m := range family.GetMetric() {
			labels := make([]string, 0, len(m.GetLabel()))
			for _, label := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", label.GetName(), label.GetValue()))
			}
			of := ""
			if len(labels) > 0 {
				of = "{" + strings.Join(labels, ",") + "}"
			}
			if h := m.GetHistogram(); h != nil {
				values[name+"_count"+of], values[name+"_sum"+of] = float64(h.GetSampleCount()), h.GetSampleSum()
				continue
			}
			values[name+of] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return values
}

// Since returns a function that tells how much a value of the collector has grown since this
// call. Collectors are those of the process, and other tests use them, too.
func Since(tb testing.TB, c prometheus.Collector) (grown func(series string) float64) {
	tb.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(c); err != nil {
		tb.Fatal(err)
	}
	before := Read(tb, registry)
	return func(series string) float64 {
		tb.Helper()
		return Read(tb, registry)[series] - before[series]
	}
}

// Metric is what is known of a metric before it has a value.
type Metric struct {
	Name   string // with the prefix
	Type   string // counter, gauge or histogram
	Labels []string
}

// All returns the metrics of the plugin, by name.
func All(tb testing.TB) []Metric {
	tb.Helper()
	var list lister
	if err := metrics.Register(&list, told{}); err != nil {
		tb.Fatal(err)
	}
	slices.SortFunc(list.metrics, func(a, b Metric) int { return strings.Compare(a.Name, b.Name) })
	return list.metrics
}

// told stands in for the app's collector: it has the descriptions, and no values.
type told struct{}

func (told) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range metrics.Descs() {
		ch <- d
	}
}

func (told) Collect(chan<- prometheus.Metric) {}

// lister is a registry that only notes what it is given.
type lister struct{ metrics []Metric }

// inDesc finds name and labels in the text of a description, which alone shows them.
var inDesc = regexp.MustCompile(`fqName: "([^"]+)".* variableLabels: \{([^}]*)\}`)

func (l *lister) Register(c prometheus.Collector) error {
	kind := "gauge"
	switch c.(type) {
	case *prometheus.CounterVec:
		kind = "counter"
	case *prometheus.HistogramVec:
		kind = "histogram"
	}
	ch := make(chan *prometheus.Desc)
	go func() {
		defer close(ch)
		c.Describe(ch)
	}()
	for d := range ch {
		m := inDesc.FindStringSubmatch(d.String())
		if m == nil {
			return fmt.Errorf("unknown description %s", d)
		}
		l.metrics = append(l.metrics, Metric{m[1], kind, strings.FieldsFunc(m[2], func(r rune) bool { return r == ',' })})
	}
	return nil
}

func (l *lister) MustRegister(...prometheus.Collector) { panic("not used") }

func (l *lister) Unregister(prometheus.Collector) bool { return false }
