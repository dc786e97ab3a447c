package operator

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

const day = 24 * time.Hour

var today = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

// office is a desk on a storage of its own.
type office struct {
	*Desk
	t       *testing.T
	storage *certmagic.FileStorage
	now     time.Time
}

func newOffice(t *testing.T) *office {
	o := &office{t: t, storage: &certmagic.FileStorage{Path: t.TempDir()}, now: today}
	o.Desk = NewDesk([]Account{o.account("racent", "portal.example"), o.account("digicert", "api.example/Shop_1")})
	o.Now = func() time.Time { return o.now }
	return o
}

func (o *office) ledger(vendor, account string) *ledger.Ledger {
	return &ledger.Ledger{
		Storage: o.storage, Prefix: ledger.Prefix(vendor, account), Memory: new(ledger.Memory), Now: func() time.Time { return o.now },
	}
}

func (o *office) account(vendor, account string) Account {
	return Account{
		Ledger: o.ledger(vendor, account), About: vendors.Description{Name: vendor, Account: account, Portal: "https://" + account},
		Margin:  func(*ledger.Entry) time.Duration { return 30 * day },
		Manages: func(name string) bool { return !strings.HasPrefix(name, "old.") },
		Order: func(string) vendors.OrderConfig {
			return vendors.OrderConfig{Product: "dv", Term: vendors.Term{Years: 1}}
		},
	}
}

// enter stores an order for a year, issued with a certificate for 199 days unless change alters that.
func (o *office) enter(vendor, account, name string, change func(*ledger.Entry)) *ledger.Entry {
	o.t.Helper()
	l := o.ledger(vendor, account)
	e := &ledger.Entry{
		ID: l.NewID(), Names: []string{name}, State: ledger.Asked, Product: "dv", Term: vendors.Term{Years: 1}, Method: vendors.MethodHTTP,
		Paid: o.now, Ends: o.now.AddDate(1, 0, 0),
		Attempt: ledger.Attempt{Kind: ledger.KindOrder, Reference: "r-" + name, Started: o.now, AbsenceAge: 10 * time.Minute, Challenges: []vendors.Challenge{
			{Method: vendors.MethodHTTP, FileName: "a.txt", FileContent: "secret"},
		}},
	}
	if err := l.Create(o.t.Context(), e); err != nil {
		o.t.Fatal(err)
	}
	next, err := l.Write(o.t.Context(), e, func(e *ledger.Entry) {
		e.State, e.OrderID, e.Covered, e.Issued = ledger.Issued, "o-"+name, []string{name, "www." + name}, 1
		e.Certificate = &ledger.Certificate{Serial: "0abc", NotBefore: o.now, NotAfter: o.now.Add(199 * day)}
		if change != nil {
			change(e)
		}
	})
	if err != nil {
		o.t.Fatal(err)
	}
	return next
}

func (o *office) rows(q Query) (rows []Row) {
	o.t.Helper()
	if err := o.List(o.t.Context(), q, func(r Row) error { rows = append(rows, r); return nil }); err != nil {
		o.t.Fatal(err)
	}
	return rows
}

func namesIn(rows []Row) (names []string) {
	for _, r := range rows {
		names = append(names, r.Name)
	}
	return names
}

func TestList(t *testing.T) {
	o := newOffice(t)
	o.enter("racent", "portal.example", "good.example", nil)
	o.enter("racent", "portal.example", "asks.example", func(e *ledger.Entry) {
		e.State, e.Flag = ledger.Open, &ledger.Flag{Since: o.now, Reason: "who knows"}
	})
	o.enter("digicert", "api.example/Shop_1", "soon.example", func(e *ledger.Entry) { e.Certificate.NotAfter = o.now.Add(9 * day) })
	o.enter("digicert", "api.example/Shop_1", "over.example", func(e *ledger.Entry) { e.Ends = o.now.Add(-time.Hour) })
	o.enter("howssl", "elsewhere.example", "gone.example", func(e *ledger.Entry) { e.State = ledger.Gone })
	for _, tc := range []struct {
		q    Query
		want string
	}{
		{Query{}, "soon gone asks good"},
		{Query{Past: true}, "over soon gone asks good"},
		{Query{State: "issued"}, "soon good"},
		{Query{State: "open"}, "asks"},
		{Query{State: "flagged"}, "asks"},
		{Query{State: "gone"}, "gone"},
		{Query{State: "over"}, "over"},
		{Query{Vendor: "digicert"}, "soon"},
		{Query{Vendor: "digicert/api.example/Shop_1"}, "soon"},
		{Query{Vendor: "digicert/other"}, ""},
		{Query{Expiring: 10 * day}, "soon"},
		{Query{About: "WWW.good.example"}, "good"},
		{Query{About: "o-asks.example"}, "asks"},
		{Query{Limit: 2}, "soon gone"},
	} {
		got := strings.ReplaceAll(strings.Join(slices.Sorted(slices.Values(namesIn(o.rows(tc.q)))), " "), ".example", "")
		if want := strings.Join(slices.Sorted(slices.Values(strings.Fields(tc.want))), " "); got != want {
			t.Errorf("%+v: %q, want %q", tc.q, got, want)
		}
	}
	for _, bad := range []Query{{State: "fine"}, {Expiring: -1}, {Limit: -1}} {
		if err := o.List(t.Context(), bad, nil); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

// TestPages: pages follow each other without a gap, although entries come and go meanwhile.
func TestPages(t *testing.T) {
	o := newOffice(t)
	var want []string
	for i := range 60 {
		name := fmt.Sprintf("n%d.example", i)
		o.now = today.Add(time.Duration(i) * time.Minute)
		o.enter("racent", "portal.example", name, nil)
		want = append(want, name)
	}
	var got []string
	for q := (Query{Limit: 7}); ; {
		rows := o.rows(q)
		if len(rows) == 0 {
			break
		}
		got = append(got, namesIn(rows)...)
		q.After = rows[len(rows)-1].Cursor
		o.enter("digicert", "api.example/Shop_1", fmt.Sprintf("before%d.example", len(got)), nil)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d of %d, in this order: %v", len(got), len(want), got)
	}
}

// loads counts what is read from a storage.
type loads struct {
	certmagic.Storage
	n atomic.Int64
}

func (l *loads) Load(ctx context.Context, key string) ([]byte, error) {
	l.n.Add(1)
	return l.Storage.Load(ctx, key)
}

// TestListReadsAPage: however many entries there are, a list reads no more than one page of them ahead.
func TestListReadsAPage(t *testing.T) {
	o := newOffice(t)
	e := *o.enter("racent", "portal.example", "n.example", nil)
	const all = 2*pageSize + 10
	for i := range all - 1 {
		e.ID = fmt.Sprintf("20270101t000000-%06d", i)
		data, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(o.storage.Path, filepath.FromSlash(ledger.Prefix("racent", "portal.example")), "entries", e.ID+".json")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	storage := &loads{Storage: o.storage}
	o.Storages[0] = storage
	told, last := 0, ""
	err := o.List(t.Context(), Query{}, func(r Row) error {
		if ahead := int(storage.n.Load()) - told; ahead > pageSize || r.Problem != "" || r.Entry <= last {
			t.Fatalf("%d entries were read but not listed, and %+v comes after %s", ahead, r, last)
		}
		told, last = told+1, r.Entry
		return nil
	})
	if err != nil || told != all || storage.n.Load() != all {
		t.Errorf("%d rows of %d entries, %d of them read, %v", told, all, storage.n.Load(), err)
	}
}

// TestDamaged: an entry that cannot be read is reported, and hides no others.
func TestDamaged(t *testing.T) {
	o := newOffice(t)
	e := o.enter("racent", "portal.example", "good.example", nil)
	key := ledger.Prefix("racent", "portal.example") + "/entries/20260101t000000-aa.json"
	if err := o.storage.Store(t.Context(), key, []byte("{")); err != nil {
		t.Fatal(err)
	}
	rows := o.rows(Query{})
	if len(rows) != 2 || rows[1].Entry != e.ID || !strings.Contains(rows[0].Problem, key) {
		t.Errorf("%+v", rows)
	}
	stories, err := o.Show(t.Context(), "20260101t000000-aa")
	if err != nil || len(stories) != 1 || !strings.Contains(stories[0].Next, "cannot be read") {
		t.Errorf("%+v, %v", stories, err)
	}
}

// TestPlan: the next steps follow from the certificate, the term and the margin.
func TestPlan(t *testing.T) {
	o := newOffice(t)
	o.now = today.AddDate(0, 0, 1)
	for _, tc := range []struct {
		what            string
		life, term      int // days
		change          func(*ledger.Entry)
		renewal, charge int // days from now; 0 for none
	}{
		{"one certificate for all of the term", 90, 90, nil, 60, 60},
		{"the margin has begun before it is due", 90, 80, nil, 60, 60},
		// Reissued on days 132, 198, 264 and 330, for 99 days from 2027-03-15 on.
		{"reissues until the margin", 199, 365, nil, 132, 396},
		{"lost", 90, 365, func(e *ledger.Entry) { e.Certificate.Lost = true }, 0, 360},
		{"nobody needs it", 90, 90, func(e *ledger.Entry) { e.Covered = []string{"old.example"}; e.Names = []string{"old.example"} }, -1, -1},
		{"a person is asked", 90, 90, func(e *ledger.Entry) { e.Flag = &ledger.Flag{} }, -1, -1},
	} {
		e := &ledger.Entry{
			Names: []string{"a.example"}, State: ledger.Issued, Paid: o.now, Term: vendors.Term{Days: tc.term}, Ends: o.now.Add(time.Duration(tc.term) * day),
			Certificate: &ledger.Certificate{NotBefore: o.now, NotAfter: o.now.Add(time.Duration(tc.life) * day)},
		}
		if tc.change != nil {
			tc.change(e)
		}
		account := o.account("racent", "portal.example")
		row := known{entry: e, account: &account}.row(o.now)
		days := func(at time.Time) int {
			if at.IsZero() {
				return -1
			}
			return int(at.Sub(o.now).Hours() / 24)
		}
		if renewal, charge := days(row.NextRenewal), days(row.NextCharge); renewal != tc.renewal || charge != tc.charge {
			t.Errorf("%s: renewed after %d days, paid for after %d, want %d and %d", tc.what, renewal, charge, tc.renewal, tc.charge)
		}
	}
}

func TestShow(t *testing.T) {
	o := newOffice(t)
	e := o.enter("racent", "portal.example", "shop.example", func(e *ledger.Entry) {
		e.State, e.Certificate, e.Issued, e.Flag = ledger.Open, nil, 0, &ledger.Flag{Reason: "it was rejected\x1b[31m"}
	})
	for _, word := range []string{"shop.example", "o-shop.example", "r-shop.example", e.ID} {
		stories, err := o.Show(t.Context(), word)
		if err != nil || len(stories) != 1 {
			t.Fatal(word, stories, err)
		}
		var out bytes.Buffer
		if err := WriteStory(&out, stories[0]); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"it was rejected", "http://shop.example/.well-known/pki-validation/a.txt", "caddy commercial resolve shop.example",
			"https://portal.example", "requested", "flagged", "placed",
		} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: %q is missing in\n%s", word, want, out.String())
			}
		}
		if strings.ContainsAny(out.String(), "\x1b") || strings.Contains(out.String(), "secret") {
			t.Errorf("%q", out.String())
		}
	}
	if _, err := o.Show(t.Context(), "old.example"); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	if _, err := o.Show(t.Context(), " "); err == nil {
		t.Error("an empty name was accepted")
	}
}

// TestUnordered: names without an order come last, with what a running server reports about them.
func TestUnordered(t *testing.T) {
	o := newOffice(t)
	o.enter("racent", "portal.example", "good.example", nil)
	for i := range o.Accounts {
		a := &o.Accounts[i]
		a.Unordered = func() []string { return []string{"a." + a.About.Name + ".example", "b." + a.About.Name + ".example"} }
		a.Doing = func(name string, _ *ledger.Entry) Doing { return Doing{Waits: name + " waits", Next: today} }
	}
	all := "good.example a.racent.example b.racent.example a.digicert.example b.digicert.example"
	for q, want := range map[Query]string{
		{}:                          all,
		{State: StateNone}:          strings.TrimPrefix(all, "good.example "),
		{Vendor: "digicert"}:        "a.digicert.example b.digicert.example",
		{State: "issued"}:           "good.example",
		{Expiring: 400 * day}:       "good.example",
		{About: "b.racent.example"}: "b.racent.example",
		{State: StateNone, Vendor: "digicert/other"}: "",
	} {
		if got := strings.Join(namesIn(o.rows(q)), " "); got != want {
			t.Errorf("%+v: %s", q, got)
		}
	}
	var paged []string
	for q := (Query{Limit: 2}); ; {
		rows := o.rows(q)
		paged = append(paged, namesIn(rows)...)
		if len(rows) < q.Limit {
			break
		}
		q.After = rows[1].Cursor
	}
	if got := strings.Join(paged, " "); got != all {
		t.Errorf("in pages: %s", got)
	}
	stories, err := o.Show(t.Context(), "A.racent.example")
	if err != nil || len(stories) != 2 || stories[0].Doing.Waits != "a.racent.example waits" {
		t.Errorf("%+v, %v", stories, err) // this config has each name for both accounts
	}
	var next []string
	if err := o.Stories(t.Context(), Query{Vendor: "racent"}, func(s Story) error { next = append(next, s.Name+": "+s.Next); return nil }); err != nil {
		t.Error(err)
	}
	if len(next) != 3 || !strings.HasPrefix(next[0], "good.example: the certificate is reissued") || !strings.HasPrefix(next[2], "b.racent.example: an order is placed") {
		t.Errorf("%q", next)
	}
}

// TestFormats: what scripts read has the documented fields.
func TestFormats(t *testing.T) {
	o := newOffice(t)
	o.enter("racent", "portal.example", "shop.example", func(e *ledger.Entry) { e.Problem = "=cmd()" })
	rows := o.rows(Query{})
	write := func(format Format, rows []Row) string {
		var out bytes.Buffer
		w := NewWriter(&out, format)
		for _, r := range rows {
			if err := w.Row(r); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.End(); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	var list []map[string]any
	if err := json.Unmarshal([]byte(write(JSON, append(rows, rows...))), &list); err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	for _, field := range []string{
		"name", "names", "vendor", "account", "product", "order_id", "state", "certificate_not_after", "next_renewal", "term_ends", "next_charge", "problem",
	} {
		if list[0][field] == nil {
			t.Errorf("field %s is missing in %v", field, list[0])
		}
	}
	if _, there := list[0]["flag"]; there {
		t.Error("there is a flag, although the order has none")
	}
	cells, err := csv.NewReader(strings.NewReader(write(CSV, rows))).ReadAll()
	if err != nil || len(cells) != 2 || len(cells[0]) != len(cells[1]) || cells[1][len(cells[1])-1] != "'=cmd()" {
		t.Error(cells, err)
	}
	for i := range reflect.TypeFor[Row]().NumField() {
		name, _, _ := strings.Cut(reflect.TypeFor[Row]().Field(i).Tag.Get("json"), ",")
		if name != "-" && !slices.Contains(csvHeader, name) {
			t.Errorf("CSV has no %s", name)
		}
	}
	if got := write(JSON, nil); got != "[]\n" {
		t.Errorf("%q", got)
	}
	if got := write(Table, nil); got != "no orders\n" {
		t.Errorf("%q", got)
	}
	if got := write(CSV, nil); !strings.HasPrefix(got, "name,") {
		t.Errorf("%q", got)
	}
}

// Neither a spreadsheet nor a terminal may take a vendor's text for a command.
func TestCSVIsHarmless(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(&out, CSV)
	if err := w.Row(Row{Name: "a.example", OrderID: "\x1b=cmd()", Product: "\x1b]0;x\x07\u009b3m\r\n\ttext", Problem: "line\nline"}); err != nil {
		t.Fatal(err)
	}
	if err := w.End(); err != nil {
		t.Fatal(err)
	}
	cells, err := csv.NewReader(&out).ReadAll()
	if err != nil || len(cells) != 2 {
		t.Fatal(cells, err)
	}
	for column, want := range map[string]string{"order_id": "'=cmd()", "product": "]0;x 3m text", "problem": "line line", "flag": ""} {
		if got := cells[1][slices.Index(cells[0], column)]; got != want {
			t.Errorf("%s: %q, want %q", column, got, want)
		}
	}
}

func TestQueryValues(t *testing.T) {
	q := Query{State: "open", Vendor: "racent/a", Expiring: 30 * day, About: "x", Past: true, After: "000/k", Limit: 7}
	if got, err := ParseQuery(q.Values()); err != nil || got != q {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"state=x", "limit=x", "limit=-1", "past=x", "expiring=x", "expiring=-1h", "other=1"} {
		key, value, _ := strings.Cut(bad, "=")
		if _, err := ParseQuery(map[string][]string{key: {value}}); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// TestListEnds: a listing ends when nobody wants it any more.
func TestListEnds(t *testing.T) {
	o := newOffice(t)
	o.enter("racent", "portal.example", "a.example", nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := o.List(ctx, Query{}, func(Row) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := o.storage.Delete(t.Context(), filepath.Dir(ledger.Prefix("racent", "x"))); err != nil {
		t.Fatal(err)
	}
	if got := o.rows(Query{}); len(got) != 0 {
		t.Error(got)
	}
}

// TestRowTellsWhatIsUnproven: what is unproven is shown only for an open order, because a person may
// have settled another one.
func TestRowTellsWhatIsUnproven(t *testing.T) {
	now := time.Now()
	for state, want := range map[ledger.State]string{ledger.Open: "it is cut off", ledger.Issued: "", ledger.Gone: ""} {
		e := &ledger.Entry{Names: []string{"shop.example"}, State: state, Ends: now.Add(time.Hour)}
		e.Attempt.Unproven = &ledger.Unproven{Cause: "no_visit", Name: "shop.example", Reason: "it is cut off"}
		if row := (known{entry: e}).row(now); row.Problem != want {
			t.Errorf("%s: problem %q, want %q", state, row.Problem, want)
		}
	}
}
