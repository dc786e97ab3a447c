package statuspage

import (
	"fmt"
	"strconv"
	"time"

	"github.com/caddy-commercial/caddy-commercial/operator"
)

// planDays is how far a plan looks ahead.
const planDays = 400

// planWeeks is how many weeks planDays may touch, today being in the first.
const planWeeks = (planDays + 6 + 6) / 7

// plan counts what comes next for each order, by the week.
type plan struct {
	Weeks    []week
	Renewals int // free of charge
	Charges  int
	Later    int // orders for which nothing comes before the end
}

// week is what happens in the seven days from a Monday on.
type week struct {
	Begins            time.Time
	Renewals, Charges int
}

func newPlan(now time.Time) plan {
	day := now.UTC().Truncate(24 * time.Hour)
	monday := day.AddDate(0, 0, -(int(day.Weekday())+6)%7)
	p := plan{Weeks: make([]week, planWeeks)}
	for i := range p.Weeks {
		p.Weeks[i].Begins = monday.AddDate(0, 0, 7*i)
	}
	return p
}

// add counts the next renewal and the next charge of an order. Where both are the same, that is a
// charge.
func (p *plan) add(row operator.Row) {
	renewal, charge := p.week(row.NextRenewal), p.week(row.NextCharge)
	if row.NextRenewal.Equal(row.NextCharge) {
		renewal = nil
	}
	if renewal != nil {
		renewal.Renewals++
		p.Renewals++
	}
	if charge != nil {
		charge.Charges++
		p.Charges++
	}
	if renewal == nil && charge == nil && !row.NextRenewal.IsZero() {
		p.Later++
	}
}

// week is the one of a time; nil if there is none.
func (p *plan) week(t time.Time) *week {
	if t.IsZero() {
		return nil
	}
	if i := int(t.Sub(p.Weeks[0].Begins) / (7 * 24 * time.Hour)); i >= 0 && i < len(p.Weeks) {
		return &p.Weeks[i]
	}
	return nil
}

// Busy are the weeks in which something happens.
func (p *plan) Busy() (list []week) {
	for _, w := range p.Weeks {
		if w.Renewals+w.Charges > 0 {
			list = append(list, w)
		}
	}
	return list
}

// The measures of the chart, in units of its view box: charges stand above the line of months,
// renewals hang below.
const (
	weekWidth = 20
	barWidth  = 14
	barRoom   = 70 // the highest bar
	numberGap = 4
	lineSize  = 14 // of a number
	axisSize  = 22
	axisTop   = barRoom + lineSize + numberGap
	axisEnd   = axisTop + axisSize
)

// ChartWidth and ChartHeight are the size of the chart.
func (p *plan) ChartWidth() int { return len(p.Weeks) * weekWidth }

// ChartHeight is described at ChartWidth.
func (p *plan) ChartHeight() int { return axisEnd + axisTop }

// AxisTop and AxisEnd are where the months stand in between.
func (p *plan) AxisTop() int { return axisTop }

// AxisEnd is described at AxisTop.
func (p *plan) AxisEnd() int { return axisEnd }

// bar is a bar of the chart, with the place of its number.
type bar struct {
	Kind                string
	X, Y, Width, Height int
	Middle, Baseline    int
	Number, Title       string
}

// Bars are the bars of the chart.
func (p *plan) Bars() (bars []bar) {
	most := 1
	for _, w := range p.Weeks {
		most = max(most, w.Charges, w.Renewals)
	}
	for i, w := range p.Weeks {
		x := i*weekWidth + (weekWidth-barWidth)/2
		add := func(kind string, n int) {
			if n == 0 {
				return
			}
			height := max(2, n*barRoom/most)
			b := bar{Kind: kind, X: x, Width: barWidth, Height: height, Middle: x + barWidth/2, Number: short(n)}
			b.Y, b.Baseline = axisTop-height, axisTop-height-numberGap
			if kind == "renewal" {
				b.Y, b.Baseline = axisEnd, axisEnd+height+lineSize-numberGap/2
			}
			what := kind
			if n > 1 {
				what += "s"
			}
			b.Title = fmt.Sprintf("week of %s: %d %s", w.Begins.Format(time.DateOnly), n, what)
			bars = append(bars, b)
		}
		add("charge", w.Charges)
		add("renewal", w.Renewals)
	}
	return bars
}

// short is a number of at most four characters, as wide as a bar has room for.
func short(n int) string {
	if n < 10_000 {
		return strconv.Itoa(n)
	}
	return strconv.Itoa(n/1000) + "k"
}

// month is a name at the axis of the chart.
type month struct {
	X    int
	Name string
}

// Months are the months that begin in the plan, where there is room for a name.
func (p *plan) Months() (list []month) {
	for i, w := range p.Weeks[:len(p.Weeks)-2] {
		last := w.Begins.AddDate(0, 0, 6)
		if w.Begins.Day() != 1 && w.Begins.Month() == last.Month() {
			continue
		}
		name := last.Format("Jan")
		if last.Month() == time.January {
			name = last.Format("Jan 2006")
		}
		list = append(list, month{i * weekWidth, name})
	}
	return list
}
