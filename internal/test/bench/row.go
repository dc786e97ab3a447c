package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// row is one claim and what was measured about it.
type row struct {
	claim      string
	ours, peer string  // as printed; the peer is "-" where there is none
	value      float64 // what is judged: usually the ratio of the two
	unit       string  // of value and bound, for example "×"
	want       bound
}

// bound is the limit on the value of a row. The zero value is no limit: the row is a
// report, not a claim.
type bound struct {
	kind  boundKind
	limit float64

	// margin is the part of the limit by which noise alone may miss it. What is counted
	// rather than timed has none.
	margin float64
}

type boundKind int

const (
	reportOnly boundKind = iota
	atLeast
	atMost
)

// The verdicts on a row.
const (
	verdictReport = "-"
	verdictOK     = "ok"
	verdictNoise  = "within noise"
	verdictMissed = "MISSED"
)

func (r row) verdict() string {
	limit, slack := r.want.limit, r.want.limit*r.want.margin
	switch r.want.kind {
	case reportOnly:
		return verdictReport
	case atLeast:
		return judge(r.value >= limit, r.value >= limit-slack)
	case atMost:
		return judge(r.value <= limit, r.value <= limit+slack)
	}
	return verdictMissed
}

func judge(kept, nearly bool) string {
	switch {
	case kept:
		return verdictOK
	case nearly:
		return verdictNoise
	}
	return verdictMissed
}

func (b bound) format(unit string) string {
	text := ""
	switch b.kind {
	case reportOnly:
		return "-"
	case atLeast:
		text = "≥ "
	case atMost:
		text = "≤ "
	}
	text += fmt.Sprintf("%g%s", b.limit, unit)
	if b.margin > 0 {
		text += fmt.Sprintf(" (noise %.2g%%)", 100*b.margin)
	}
	return text
}

func printTable(w io.Writer, rows []row) error {
	table := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	fmt.Fprintln(table, "| claim\t| ours\t| peer\t| ratio\t| wanted\t| ok\t|")
	fmt.Fprintln(table, "|---\t|---\t|---\t|---\t|---\t|---\t|")
	for _, r := range rows {
		fmt.Fprintf(table, "| %s\t| %s\t| %s\t| %s\t| %s\t| %s\t|\n",
			r.claim, r.ours, r.peer, number(r.value)+r.unit, r.want.format(r.unit), r.verdict())
	}
	return table.Flush()
}

// number prints three significant digits, or what is before the decimal point.
func number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 10:
		return fmt.Sprintf("%.3g", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// median returns the middle value, the upper one of the two in the middle of an even
// number, and 0 if there is none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(values))[len(values)/2]
}

// medianRatio returns the median of the ratios of values that were measured in the same
// round. What disturbs a round disturbs both, so this varies less than the ratio of the
// medians.
func medianRatio(a, b []float64) float64 {
	ratios := make([]float64, len(a))
	for i := range a {
		ratios[i] = a[i] / b[i]
	}
	return median(ratios)
}
