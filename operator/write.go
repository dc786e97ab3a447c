package operator

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Format is how a list is written.
type Format string

// The formats.
const (
	Table Format = "table" // for people
	JSON  Format = "json"  // an array of rows
	CSV   Format = "csv"   // with the names of JSON's fields as header
)

// Writer writes rows one after the other, so that a list may be long.
type Writer struct {
	w      io.Writer
	format Format
	table  *tabwriter.Writer
	csv    *csv.Writer
	kind   listKind
	rows   int
}

// listKind is what a list is of.
type listKind struct {
	header []string // of CSV
	head   string   // of a table
	none   string   // instead of an empty one
}

// NewWriter returns a Writer of the format. End must be called after the last row.
func NewWriter(w io.Writer, format Format) *Writer {
	out := &Writer{w: w, format: format, kind: rowList}
	switch format {
	case CSV:
		out.csv = csv.NewWriter(w)
	case Table:
		out.table = tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	case JSON:
	}
	return out
}

// tablePage is how many rows of a table have common widths.
const tablePage = 500

// Row writes a row.
func (w *Writer) Row(r Row) error { return w.write(r, r.cells, r.line) }

// step writes a step.
func (w *Writer) step(s Step) error { return w.write(s, s.cells, s.line) }

func (w *Writer) write(r any, cells func() []string, line func() string) error {
	first := w.rows == 0
	w.rows++
	switch w.format {
	case CSV:
		if first {
			if err := w.csv.Write(w.kind.header); err != nil {
				return err
			}
		}
		return w.csv.Write(harmless(cells()))
	case JSON:
		data, err := json.Marshal(r)
		if err != nil {
			return err
		}
		before := ",\n"
		if first {
			before = "[\n"
		}
		_, err = fmt.Fprintf(w.w, "%s%s", before, data)
		return err
	case Table:
	}
	if first {
		fmt.Fprintln(w.table, w.kind.head)
	}
	fmt.Fprintln(w.table, line())
	if w.rows%tablePage == 0 {
		return w.table.Flush()
	}
	return nil
}

// End writes what is left.
func (w *Writer) End() error {
	switch w.format {
	case CSV:
		if w.rows == 0 {
			if err := w.csv.Write(w.kind.header); err != nil {
				return err
			}
		}
		w.csv.Flush()
		return w.csv.Error()
	case JSON:
		text := "\n]\n"
		if w.rows == 0 {
			text = "[]\n"
		}
		_, err := io.WriteString(w.w, text)
		return err
	case Table:
	}
	if w.rows == 0 {
		fmt.Fprintln(w.table, w.kind.none)
	}
	return w.table.Flush()
}

var csvHeader = []string{
	"name", "names", "vendor", "account", "product", "order_id", "entry", "state", "certificate_not_after",
	"next_renewal", "term_ends", "next_charge", "flag", "problem",
}

var rowList = listKind{csvHeader, "NAME\tVENDOR\tORDER\tSTATE\tCERTIFICATE ENDS\tNEXT RENEWAL\tTERM ENDS\tNEXT CHARGE\tPROBLEM", "no orders"}

func (r Row) line() string {
	state, problem := Word(r.State), r.Problem
	if r.Flag != "" {
		state, problem = state+", flagged", r.Flag
	}
	return strings.Join([]string{
		nameAndMore(r.Name, len(r.Names)), Word(r.Vendor), Word(r.OrderID), state,
		dayOf(r.CertificateNotAfter), dayOf(r.NextRenewal), dayOf(r.TermEnds), dayOf(r.NextCharge), Word(problem),
	}, "\t")
}

// nameAndMore is the first name, and how many more there are.
func nameAndMore(name string, n int) string {
	if n > 1 {
		return fmt.Sprintf("%s (+%d)", Word(name), n-1)
	}
	return Word(name)
}

func (r Row) cells() []string {
	return []string{
		r.Name, strings.Join(r.Names, " "), r.Vendor, r.Account, r.Product, r.OrderID, r.Entry, r.State, timeOf(r.CertificateNotAfter),
		timeOf(r.NextRenewal), timeOf(r.TermEnds), timeOf(r.NextCharge), r.Flag, r.Problem,
	}
}

var stepList = listKind{
	[]string{"time", "what", "names", "vendor", "account", "product", "term", "order_id", "certificates", "validations", "price", "note"},
	"DAY\tWHAT\tNAME\tVENDOR\tACCOUNT\tPRODUCT\tTERM\tVALIDATIONS\tPRICE\tNOTE", "nothing is needed",
}

func (s Step) line() string {
	return strings.Join([]string{
		dayOf(s.Time), s.What, nameAndMore(s.Names[0], len(s.Names)), Word(s.Vendor), Word(s.Account), Word(s.Product), Word(s.Term),
		strconv.Itoa(s.Validations), Word(s.Price), Word(s.Note),
	}, "\t")
}

func (s Step) cells() []string {
	return []string{
		timeOf(s.Time), s.What, strings.Join(s.Names, " "), s.Vendor, s.Account, s.Product, s.Term, s.OrderID,
		strconv.Itoa(s.Certificates), strconv.Itoa(s.Validations), s.Price, s.Note,
	}
}

// harmless makes the cells of a row, some of which are a vendor's text, safe for spreadsheets and
// terminals.
func harmless(cells []string) []string {
	for i, cell := range cells {
		if cell == "" {
			continue
		}
		if cells[i] = Word(cell); strings.ContainsRune("=+-@", rune(cells[i][0])) { // spreadsheets take these for a formula
			cells[i] = "'" + cells[i]
		}
	}
	return cells
}

func timeOf(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func dayOf(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.DateOnly)
}

// Word is a text, maybe a vendor's, as a cell of a table: in one line, and never empty.
func Word(text string) string {
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r < ' ' || r == ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 }), " ")
	if text == "" {
		return "-"
	}
	return text
}

// WriteStory writes all that is known of an order, for people.
func WriteStory(w io.Writer, s Story) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(what, text string) {
		if text != "" {
			fmt.Fprintf(table, "%s\t%s\n", what, Word(text))
		}
	}
	line("names", strings.Join(s.Names, ", "))
	line("vendor", s.Vendor+", account "+s.Account)
	line("order", s.OrderID)
	line("paid for as", s.RootID)
	line("order at the CA", s.CAOrderID)
	line("product", s.Product)
	line("state", s.State)
	line("needs a decision", s.Flag)
	line("problem", s.Problem)
	what := "paid"
	if s.Adopted {
		what = "adopted" // it was bought elsewhere
	}
	line(what, timeOf(s.Paid))
	line("term", s.Term)
	line("term ends", timeOf(s.TermEnds))
	if c := s.Certificate; c != nil {
		text := fmt.Sprintf("serial number %s, from %s to %s", c.Serial, timeOf(c.NotBefore), timeOf(c.NotAfter))
		if c.Lost {
			text += "; it can no longer be used"
		}
		line("certificate", text)
	}
	line("next renewal", timeOf(s.NextRenewal))
	line("next charge", timeOf(s.NextCharge))
	if s.State == "asked" || s.State == "open" {
		line("request", fmt.Sprintf("%s, reference %s, sent %s", s.Request.Kind, s.Request.Reference, timeOf(s.Request.Started)))
	}
	for _, where := range s.Request.Proofs {
		line("proof at", where)
	}
	if d := s.Doing; d != nil {
		if d.Said != "" {
			line("the vendor said", d.Said+" ("+timeOf(d.At)+")")
		}
		if d.Waits != s.Problem {
			line("waits", d.Waits)
		}
		line("next poll", timeOf(d.Next))
	}
	line("next", s.Next)
	line("portal", s.Portal)
	line("entry", s.Entry)
	list := func(head string, lines []string) {
		for _, text := range lines {
			fmt.Fprintf(table, "%s\t%s\n", head, text)
			head = ""
		}
	}
	visits := make([]string, 0, len(s.Visits))
	for _, v := range s.Visits {
		visits = append(visits, fmt.Sprintf("%s  %s from %s at %s: %d  %s", timeOf(v.Time), Word(v.Host), Word(v.From), Word(v.Server), v.Status, Word(v.UserAgent)))
	}
	list("visits", visits)
	events := make([]string, 0, len(s.Events))
	for _, e := range s.Events {
		events = append(events, fmt.Sprintf("%s  %-9s  %s", timeOf(e.Time), e.What, Word(e.Words)))
	}
	list("story", events)
	return table.Flush()
}
