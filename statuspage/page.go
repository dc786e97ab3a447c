package statuspage

import (
	"cmp"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/operator"
)

var (
	//go:embed style.css
	style string

	//go:embed page.html
	pages string

	// The style sheet is a part of the template, and must be what its hash says. So it has no
	// comments: html/template removes them.
	templates = template.Must(template.New("").Funcs(template.FuncMap{
		"day": dayOf, "time": timeOf, "word": operator.Word, "more": func(n int) int { return n - 1 }, "key": keyOf,
	}).Parse(`{{define "style"}}<style>` + style + `</style>{{end}}` + pages))

	contentSecurityPolicy = "default-src 'none'; style-src '" + hashOf(style) + "'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// page is what the templates show.
type page struct {
	template string

	Title   string
	Message string // what is wrong, or missing
	Now     time.Time

	*overview // of the list

	// Filter is what the list was asked for, as it was typed. Whole is whether nothing was asked
	// for, so that it is the start of the whole list.
	Filter struct {
		State, Vendor, Expiring, About string
		Past                           bool
	}
	Whole bool

	Rows []operator.Row
	Next string // the query of the next page; empty if there is none

	Stories []operator.Story
}

// AsOf is when the orders were read; the rows of a list may be younger.
func (p *page) AsOf() time.Time {
	if p.overview != nil {
		return p.Read
	}
	return p.Now
}

// pageRows is how many orders a page has.
const pageRows = 200

// invalidError is a mistake in a request.
type invalidError struct{ err error }

func (e *invalidError) Error() string { return e.err.Error() }

// list reads a page of the list. Unknown parameters are left to others: gateways add some.
func (p *page) list(ctx context.Context, desk *operator.Desk, orders *reader, values url.Values) (err error) {
	if p.overview, err = orders.overview(ctx, desk); err != nil {
		return err
	}
	wanted := make(url.Values)
	for _, name := range []string{"state", "vendor", "expiring", "about", "past", "after"} {
		if text := strings.TrimSpace(values.Get(name)); text != "" {
			wanted.Set(name, text)
		}
	}
	p.Filter.State, p.Filter.Vendor, p.Filter.Expiring, p.Filter.About = wanted.Get("state"), wanted.Get("vendor"), wanted.Get("expiring"), wanted.Get("about")
	p.Whole = len(wanted) == 0
	q, err := operator.ParseQuery(wanted)
	if err != nil {
		return &invalidError{err}
	}
	p.Filter.Past = q.Past
	q.Limit = pageRows + 1
	if err := desk.List(ctx, q, func(row operator.Row) error {
		p.Rows = append(p.Rows, row)
		return nil
	}); err != nil {
		return err
	}
	if len(p.Rows) > pageRows {
		p.Rows = p.Rows[:pageRows]
		wanted.Set("after", p.Rows[pageRows-1].Cursor)
		p.Next = "?" + wanted.Encode()
	}
	return nil
}

// show reads the stories of a name or an order.
func (p *page) show(ctx context.Context, desk *operator.Desk, about string) (err error) {
	if p.Stories, err = desk.Show(ctx, about); err != nil {
		return err
	}
	p.template, p.Title = "stories", "Order "+about
	if name := p.Stories[0].Name; name != "" {
		p.Title = name
	}
	return nil
}

// States are what the list can be asked for.
func (p *page) States() []choice {
	return p.choices(p.Filter.State, []choice{
		{"", "all current"},
		{operator.StateFlagged, "flagged"},
		{"asked", "asked"},
		{"open", "open"},
		{"issued", "issued"},
		{operator.StateNone, "none"},
		{"gone", "gone"},
		{operator.StateOver, "over"},
	})
}

// Vendors are those that there are orders of.
func (p *page) Vendors() []choice {
	list := append(make([]choice, 0, len(p.Sellers)+1), choice{"", "all"})
	for _, seller := range p.Sellers {
		list = append(list, choice{seller, seller})
	}
	return p.choices(p.Filter.Vendor, list)
}

// Spans are the times within which certificates end.
func (p *page) Spans() []choice {
	return p.choices(p.Filter.Expiring, []choice{{"", "any time"}, {"7d", "7 days"}, {"14d", "14 days"}, {"30d", "30 days"}, {"90d", "90 days"}})
}

// choice is an option of a form.
type choice struct{ Value, Text string }

// choices are those of a list, and what was asked for if it is none of them.
func (p *page) choices(asked string, list []choice) []choice {
	if !slices.ContainsFunc(list, func(c choice) bool { return c.Value == asked }) {
		list = append(list, choice{asked, asked})
	}
	return list
}

// Badge is how an order stands, in a word and for the style.
func (p *page) Badge(row operator.Row) choice {
	switch {
	case row.State == "":
		return choice{"asks", "unreadable"}
	case row.Flag != "":
		return choice{"asks", row.State + ", flagged"}
	case slices.Contains([]string{"asked", "open", operator.StateNone}, row.State):
		return choice{"pending", row.State}
	case row.State == "issued":
		return choice{"issued", row.State}
	}
	return choice{"past", row.State}
}

// soon is how long before the end of a certificate it is shown how long it still lasts.
const soon = 30 * 24 * time.Hour

// Left tells how long a certificate lasts, if that is not long.
func (p *page) Left(end time.Time) string {
	left := end.Sub(p.Now)
	switch days := int(left / (24 * time.Hour)); {
	case end.IsZero() || left > soon:
		return ""
	case left <= 0:
		return "expired"
	case days == 0:
		return "in a day"
	default:
		return fmt.Sprintf("in %d days", days+1)
	}
}

// keyOf is what an order is asked for by.
func keyOf(row operator.Row) string { return cmp.Or(row.Entry, row.Name) }

func first(values url.Values, name string) string { return strings.TrimSpace(values.Get(name)) }

func dayOf(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.DateOnly)
}

func timeOf(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05") + " UTC"
}
