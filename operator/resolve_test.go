package operator

import (
	"context"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/ledger"
)

// TestResolve: in every state but gone, a person can say which order is to be used, or that there is
// none. The plan says whether another order is paid for after that. It makes no difference whether
// the account is in the config.
func TestResolve(t *testing.T) {
	const used, stands, bought = "is used from now on", "the paid order stands", "another order is placed, and paid for"
	const elsewhere = "a Caddy whose config needs its names places another order, and pays for it"
	placed := func(e *ledger.Entry) {
		e.State, e.OrderID, e.RootID, e.Certificate, e.Issued, e.Problem = ledger.Open, "old", "old", nil, 0, "REJECTED"
		e.Flag = &ledger.Flag{Reason: "REJECTED"}
	}
	lost := func(e *ledger.Entry) {
		placed(e)
		e.State, e.OrderID, e.RootID, e.Flag = ledger.Asked, "", "", nil
		e.Attempt.Started = e.Attempt.Started.Add(-2 * time.Hour)
	}
	issued := func(e *ledger.Entry) { e.OrderID, e.RootID = "old", "old" }
	reissue := func(e *ledger.Entry) {
		issued(e)
		e.State, e.Attempt.Kind, e.Attempt.PreviousID, e.Flag = ledger.Asked, ledger.KindReissue, "old", &ledger.Flag{Reason: "lost"}
		e.Attempt.Started = e.Attempt.Started.Add(-2 * time.Hour)
	}
	ended := func(e *ledger.Entry) { reissue(e); e.Flag.Ended = true }
	none := Action{None: true}
	for name, c := range map[string]struct {
		entry    func(*ledger.Entry)
		how      Action
		plan     string
		want     ledger.State
		id, root string
		adopted  bool // nothing is known about the CSR
	}{
		"lost order, there is none":      {lost, none, bought, ledger.Gone, "", "", false},
		"lost order, it is there":        {lost, Action{Order: "new"}, used, ledger.Open, "new", "new", false},
		"lost reissue, there is none":    {reissue, none, stands, ledger.Issued, "old", "old", false},
		"lost reissue, it is there":      {reissue, Action{Order: "new"}, used, ledger.Open, "new", "old", false},
		"lost reissue of an ended order": {ended, none, bought, ledger.Gone, "old", "old", false},
		"dead order, given up":           {placed, none, bought, ledger.Gone, "old", "old", false},
		"dead order, it is not dead":     {placed, Action{Order: " old "}, used, ledger.Open, "old", "old", false},
		"dead order, another one":        {placed, Action{Order: "new"}, used, ledger.Open, "new", "new", true},
		"issued order, given up":         {issued, none, bought, ledger.Gone, "old", "old", false},
		"issued order, another one":      {issued, Action{Order: "new"}, used, ledger.Open, "new", "new", true},
	} {
		for _, configured := range []bool{true, false} {
			o := newOffice(t)
			o.now = time.Now() // a ledger that is in no config uses the system's clock
			id := o.enter("racent", "portal.example", "a.example", c.entry).ID
			o.selling()
			if !configured {
				o.Accounts = nil
			}
			c.how.About, c.how.Confirm = "A.example", false
			told, err := o.Do(t.Context(), "resolve", c.how)
			want := c.plan
			if want == bought && !configured {
				want = elsewhere
			}
			if plan := told.Plan.Does + "; " + strings.Join(told.Plan.Then, "; "); err != nil || told.Done || !strings.Contains(plan, want) {
				t.Errorf("%s, configured %v: %q, %v", name, configured, plan, err)
			}
			if priced := told.Plan.Price != ""; priced != (want == bought) {
				t.Errorf("%s, configured %v: the price is %q", name, configured, told.Plan.Price)
			}
			c.how.Confirm, c.how.Revision = true, told.Plan.Revision
			if out, err := o.Do(t.Context(), "resolve", c.how); err != nil || !out.Done {
				t.Errorf("%s, configured %v: %+v, %v", name, configured, out, err)
			}
			c.how.Revision = 0
			e, err := o.ledger("racent", "portal.example").Load(t.Context(), id)
			if err != nil || e.State != c.want || e.OrderID != c.id || e.RootID != c.root || e.Problem != "" || e.Flag != nil {
				t.Errorf("%s, configured %v: %+v, %v", name, configured, e, err)
			} else if (e.Attempt.Kind == ledger.KindAdoption) != c.adopted {
				t.Errorf("%s, configured %v: the attempt is %+v", name, configured, e.Attempt)
			}
		}
	}
}

// TestResolveFindsTheRightOrder: if there are several orders, the flagged one is meant.
func TestResolveFindsTheRightOrder(t *testing.T) {
	o := newOffice(t)
	asking := func(e *ledger.Entry) { e.Flag = &ledger.Flag{Reason: "lost"} }
	first := o.enter("racent", "portal.example", "a.example", nil)
	second := o.enter("digicert", "api.example/Shop_1", "a.example", nil)
	resolve := func(a Action) (Plan, error) {
		a.About, a.Confirm = "a.example", true
		out, err := o.Do(t.Context(), "resolve", a)
		return out.Plan, err
	}
	if _, err := resolve(Action{None: true}); err == nil || !strings.Contains(err.Error(), first.ID) || !strings.Contains(err.Error(), second.ID) {
		t.Errorf("error = %v", err)
	}
	third := o.enter("howssl", "elsewhere.example", "a.example", asking)
	if plan, err := resolve(Action{None: true}); err != nil || plan.Entry != third.ID {
		t.Errorf("%+v, %v", plan, err)
	}
	// This does not hold if two of them are flagged.
	third = o.enter("howssl", "elsewhere.example", "a.example", asking)
	fourth := o.enter("howssl", "another.example", "a.example", asking)
	if _, err := resolve(Action{None: true}); err == nil || !strings.Contains(err.Error(), third.ID) {
		t.Errorf("error = %v", err)
	}
	for _, c := range []struct {
		a    Action
		want string
	}{
		{Action{None: true, Vendor: "howssl/another.example"}, fourth.ID},
		{Action{None: true, Vendor: "digicert"}, second.ID},
		{Action{None: true, Entry: third.ID}, third.ID},
		{Action{Order: "7"}, first.ID}, // the one that is left
	} {
		if plan, err := resolve(c.a); err != nil || plan.Entry != c.want {
			t.Errorf("%+v: %+v, %v", c.a, plan, err)
		}
	}
}

// TestResolveBesideADamagedEntry: a damaged entry does not prevent a person from settling another one.
func TestResolveBesideADamagedEntry(t *testing.T) {
	o := newOffice(t)
	o.enter("racent", "portal.example", "a.example", nil)
	if err := o.storage.Store(t.Context(), ledger.Prefix("racent", "portal.example")+"/entries/20260101t000000-aa.json", []byte("{")); err != nil {
		t.Fatal(err)
	}
	if out, err := o.Do(t.Context(), "resolve", Action{About: "a.example", None: true, Confirm: true}); err != nil || !out.Done {
		t.Errorf("%+v, %v", out, err)
	}
}

// What follows after an order is given up is told as the config has it, also where only handshakes ask
// for its names, or where the option order forbids another one.
func TestResolveNoneTellsWhatFollows(t *testing.T) {
	const handshake, bought, given, nothing = "when a TLS handshake asks", "another order is placed, and paid for, when its certificate is due, on 2027-", "as the option order gives one", "nothing: no site"
	for _, c := range []struct {
		name     string
		onDemand bool
		rules    Rules
		want     string
		priced   bool
	}{
		{"a.example", false, Rules{Allowed: true}, bought, true},
		{"a.example", false, Rules{Allowed: true, Adopted: true}, given, false},
		{"old.a.example", true, Rules{Allowed: true}, handshake, true},
		{"old.a.example", false, Rules{Allowed: true}, nothing, false},
		{"old.a.example", true, Rules{}, nothing, false},
	} {
		o := newOffice(t)
		o.enter("racent", "portal.example", c.name, func(e *ledger.Entry) { e.Covered = []string{c.name} })
		o.selling()
		c.rules.Group = []string{c.name}
		o.Accounts[0].OnDemand, o.Accounts[0].Rules = c.onDemand, func(string) Rules { return c.rules }
		out, err := o.Do(t.Context(), "resolve", Action{About: c.name, None: true})
		if then := strings.Join(out.Plan.Then, "; "); err != nil || !strings.Contains(then, c.want) || (out.Plan.Price != "") != c.priced {
			t.Errorf("%+v: %q, price %q, %v", c, then, out.Plan.Price, err)
		}
	}
}

// undeletable is a storage that deletes nothing.
type undeletable struct{ certmagic.Storage }

func (undeletable) Delete(context.Context, string) error { return fs.ErrPermission }

// An order that is given up is told to be, even if its private key stays behind.
func TestResolveNoneLeavesAKeyBehind(t *testing.T) {
	o := newOffice(t)
	o.enter("racent", "portal.example", "a.example", nil)
	o.selling()
	o.Storages[0] = undeletable{o.storage}
	o.Accounts[0].Ledger.Storage = o.Storages[0]
	if out, err := o.Do(t.Context(), "resolve", Action{About: "a.example", None: true, Confirm: true}); err != nil || !out.Done {
		t.Errorf("%+v, %v", out, err)
	}
	if row := o.rows(Query{State: "gone"}); len(row) != 1 {
		t.Errorf("%+v", row)
	}
}

// An order has one entry: one that another entry goes on with cannot be put in the place of a second
// one.
func TestResolveToAnOrderOfTheLedger(t *testing.T) {
	o := newOffice(t)
	first := o.enter("racent", "portal.example", "a.example", func(e *ledger.Entry) { e.Flag = &ledger.Flag{Reason: "REJECTED"} })
	for name, change := range map[string]func(*ledger.Entry){
		"b.example": nil,
		"c.example": func(e *ledger.Entry) { e.State, e.Certificate, e.Issued = ledger.Open, nil, 0 },
		"d.example": func(e *ledger.Entry) { e.RootID, e.OrderID = e.OrderID, "reissued" },
	} {
		o.enter("racent", "portal.example", name, change)
	}
	o.enter("racent", "portal.example", "gone.example", func(e *ledger.Entry) { e.State = ledger.Gone })
	o.enter("racent", "portal.example", "over.example", func(e *ledger.Entry) { e.Ends = today.Add(-day) })
	o.enter("digicert", "api.example/Shop_1", "e.example", nil)
	o.selling()
	for id, free := range map[string]bool{
		"o-b.example": false, "o-c.example": false, "o-d.example": false, "reissued": false,
		"o-gone.example": true, "o-e.example": true, "o-a.example": true, "7": true,
	} {
		_, err := o.Do(t.Context(), "resolve", Action{About: "a.example", Entry: first.ID, Order: id})
		if (err == nil) != free || err != nil && !strings.Contains(err.Error(), "is in the ledger already") {
			t.Errorf("%s: %v", id, err)
		}
	}
}
