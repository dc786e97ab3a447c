package issuer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/bundle"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/operator"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// importWorld has a certificate that somebody bought at one of the vendors without Caddy.
type importWorld struct {
	*world
	start func(w *world, f *fuse, change func(*flow)) *process
	kind  string
	name  string
	id    string // of the order
	takeover
}

// boughtElsewhere places an order at a vendor with a ledger and a key that are not ours.
func boughtElsewhere(t *testing.T, kind int, name string, config func(*hostile.Config)) *importWorld {
	t.Helper()
	v := vendorKinds[kind]
	iw := &importWorld{world: newWorld(t, config), start: v.start, kind: v.name, name: name}
	iw.buy()
	return iw
}

// buy places an order elsewhere, and selects its certificate for the import.
func (iw *importWorld) buy() {
	iw.tb.Helper()
	elsewhere := newMemStorage()
	p := iw.start(iw.world, nil, func(f *flow) {
		f.ledger = &ledger.Ledger{Storage: elsewhere, Prefix: f.ledger.Prefix, Memory: f.ledger.Memory}
	})
	p.site.storage = elsewhere
	p.mustObtain(iw.name)
	p.stop()
	got, key, err := p.site.load(context.Background(), iw.name)
	if err != nil {
		iw.tb.Fatal(err)
	}
	list := &ledger.Ledger{Storage: elsewhere, Prefix: p.ledger.Prefix, Memory: new(ledger.Memory)}
	if err := list.Refresh(context.Background()); err != nil {
		iw.tb.Fatal(err)
	}
	about, err := list.About(context.Background(), iw.name)
	if err != nil || len(about) != 1 {
		iw.tb.Fatal(about, err)
	}
	iw.id = about[0].OrderID
	read := &bundle.Contents{Keys: []bundle.Key{{Signer: key, File: "key.pem"}}}
	for _, cert := range got {
		read.Certificates = append(read.Certificates, bundle.Certificate{Certificate: cert, File: "cert.pem"})
	}
	bought, err := choose(read, time.Now())
	if err != nil {
		iw.tb.Fatal(err)
	}
	iw.takeover = takeover{purchased: bought, names: []string{iw.name}, orderID: iw.id}
	if iw.kind == "howssl" {
		iw.ends = about[0].Ends
	}
}

// command returns what the command works with: a flow that is attached to nothing.
func (iw *importWorld) command(change func(*flow)) *process {
	p := iw.start(iw.world, nil, change)
	p.stop()
	return p
}

// importIt does what the command does, and returns its output.
func (iw *importWorld) importIt(change func(*flow)) (string, error) {
	iw.tb.Helper()
	var said strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&said, format+"\n", args...) }
	f := iw.command(change).flow
	before := maps.Clone(iw.storage.snapshot())
	calls := iw.money()
	plan, err := f.examine(context.Background(), iw.takeover, say)
	if !maps.Equal(before, iw.storage.snapshot()) || iw.money() != calls {
		iw.tb.Error("something was changed before the import was carried out")
	}
	if err == nil {
		err = f.carryOut(context.Background(), plan, say)
	}
	if err == nil {
		f.prospects(plan, 0, say)
	}
	if iw.money() != calls {
		iw.tb.Error("the import made a call that changes something")
	}
	return said.String(), err
}

// mustImport imports and returns the output.
func (iw *importWorld) mustImport() string {
	iw.tb.Helper()
	said, err := iw.importIt(nil)
	if err != nil {
		iw.tb.Fatalf("%v\n%s", err, said)
	}
	iw.noKeysLeft()
	return said
}

// money counts the calls that have an effect.
func (iw *importWorld) money() int {
	n := 0
	for _, v := range vendorKinds {
		n += iw.ca.Calls(v.pay) + iw.ca.Calls(v.reissue)
	}
	return n + iw.ca.Calls("cancel") + iw.ca.Calls("revoke") + iw.ca.Calls("renew")
}

// reissues counts the reissues at all vendors.
func (iw *importWorld) reissues() int {
	n := 0
	for _, v := range vendorKinds {
		n += iw.ca.Calls(v.reissue)
	}
	return n
}

// serve starts a server that finds what is stored, as certmagic does, and renews it when it is due.
func (iw *importWorld) serve(change func(*flow)) *process {
	iw.tb.Helper()
	p := iw.start(iw.world, nil, change)
	p.site.manage(iw.name)
	if err := p.site.Reload(context.Background(), iw.name); err != nil {
		iw.tb.Fatal(err)
	}
	return p
}

// unbroken lets time pass, and has certmagic renew the name on each day on which it is due, if the
// process of its server is given. The name must be served all the time.
func (iw *importWorld) unbroken(p *process, d time.Duration) {
	iw.tb.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(day)
		got := p.site.serving(iw.name)
		if !time.Now().Before(got.leaf().NotAfter) {
			iw.tb.Fatalf("on %s, an expired certificate is served", time.Now().Format(time.DateOnly))
		}
		if p.site.Due(got.leaf()) {
			p.mustObtain(iw.name)
		}
	}
}

// TestImportedOrderCountsAsPaid runs two years with an order that was bought elsewhere, at all
// vendors: nothing happens on the first days, it is reissued when it is due, and the next order is
// placed at the end of the term.
func TestImportedOrderCountsAsPaid(t *testing.T) {
	tooSlowForRaces(t)
	for kind, v := range vendorKinds {
		t.Run(v.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				iw := boughtElsewhere(t, kind, "example.com", nil)
				time.Sleep(20 * day)
				said := iw.mustImport()
				for _, want := range []string{"asking " + v.name, "entered order " + iw.id, "stored certificate and private key for example.com", "reissued, free of charge", "No order is placed for its names before"} {
					if !strings.Contains(said, want) {
						t.Errorf("it does not say %q:\n%s", want, said)
					}
				}
				p := iw.serve(nil)
				bought := p.site.serving("example.com")
				time.Sleep(2 * day)
				if now := p.site.serving("example.com"); !now.leaf().Equal(bought.leaf()) || iw.reissues() != 0 || iw.charges() != 1 {
					t.Fatalf("after two days: %d charges, %d reissues", iw.charges(), iw.reissues())
				}
				iw.verify(bought, "example.com")
				due := ledger.RenewalBegins(bought.leaf().NotBefore, bought.leaf().NotAfter, 0)
				iw.unbroken(p, time.Until(due)-day)
				if iw.reissues() != 0 || iw.charges() != 1 {
					t.Fatalf("before it is due: %d charges, %d reissues", iw.charges(), iw.reissues())
				}
				iw.unbroken(p, 3*day)
				if iw.reissues() != 1 || iw.charges() != 1 {
					t.Fatalf("when it is due: %d charges, %d reissues", iw.charges(), iw.reissues())
				}
				e := iw.entry("example.com")
				if want := iw.ca.Charges()[0].Time.AddDate(1, 0, 0); e.Ends.Sub(want).Abs() > 2*day {
					t.Errorf("the term ends on %s, want about %s", e.Ends, want)
				}
				if !e.Adopted || e.RootID != iw.id || e.Issued != 2 {
					t.Errorf("entry = %+v", e)
				}
				// Until the margin of the term begins, there are only reissues.
				iw.unbroken(p, time.Until(e.Ends)-32*day)
				iw.wantCharges(1)
				iw.unbroken(p, 300*day)
				iw.wantCharges(2)
				iw.noSecrets()
				iw.noKeysLeft()
			})
		})
	}
}

// TestImportFindsTheOrder: without an ID, the order is found among others for the same name, if the
// vendor has a list of orders.
func TestImportFindsTheOrder(t *testing.T) {
	for kind, v := range vendorKinds {
		t.Run(v.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				iw := boughtElsewhere(t, kind, "example.com", nil)
				mine := iw.takeover
				id := iw.id
				time.Sleep(time.Hour)
				iw.buy() // a newer one for the same name
				iw.takeover = mine
				iw.orderID = ""
				said := iw.mustImport()
				if v.name == "howssl" {
					if !strings.Contains(said, "has no list of orders") || !strings.Contains(said, "a new one is placed and paid for") || iw.entry("example.com") != nil {
						t.Error(said)
					}
					return
				}
				if e := iw.entry("example.com"); e == nil || e.OrderID != id || !strings.Contains(said, "its orders for example.com") {
					t.Errorf("entry %+v\n%s", e, said)
				}
			})
		})
	}
}

// TestImportWithoutOrder: a certificate whose order is not known is served until it is due, and only
// then another one is bought.
func TestImportWithoutOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iw := boughtElsewhere(t, 0, "example.com", nil)
		iw.orderID, iw.noOrder = "", true
		if said := iw.mustImport(); !strings.Contains(said, "a new one is placed and paid for") || !strings.Contains(said, "--order") {
			t.Error(said)
		}
		p := iw.serve(nil)
		leaf := p.site.serving("example.com").leaf()
		iw.unbroken(p, time.Until(ledger.RenewalBegins(leaf.NotBefore, leaf.NotAfter, 0))-day)
		iw.wantCharges(1)
		iw.unbroken(p, 3*day)
		iw.wantCharges(2)
	})
}

// TestImportOfOrderLater: the order can be entered after the certificate has been stored.
func TestImportOfOrderLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iw := boughtElsewhere(t, 1, "example.com", nil)
		iw.orderID, iw.noOrder = "", true
		iw.mustImport()
		iw.orderID, iw.noOrder = iw.id, false
		if said := iw.mustImport(); !strings.Contains(said, "is stored for example.com already") || !strings.Contains(said, "entered order") {
			t.Error(said)
		}
		before := iw.storage.snapshot()
		// The second time, there is nothing to do, with and without the ID.
		for _, id := range []string{iw.id, ""} {
			iw.orderID = id
			if said := iw.mustImport(); !strings.Contains(said, "is in the ledger with this certificate") {
				t.Error(said)
			}
			if !maps.Equal(before, iw.storage.snapshot()) {
				t.Error("a second import changed something")
			}
		}
		if n := len(iw.entries("example.com")); n != 1 {
			t.Errorf("there are %d entries", n)
		}
	})
}

// TestImportIsRefused covers everything that prevents an import. Nothing is changed then.
func TestImportIsRefused(t *testing.T) {
	buyOurs := func(iw *importWorld) {
		p := iw.start(iw.world, nil, nil)
		p.mustObtain("example.com")
		p.stop()
	}
	for title, tt := range map[string]struct {
		kind int
		with func(iw *importWorld)
		flow func(*flow)
		want string
	}{
		"unknown order": {with: func(iw *importWorld) { iw.orderID = "nosuchorder" }, want: "does not know order nosuchorder"},
		"order of other names": {with: func(iw *importWorld) {
			mine := iw.takeover
			iw.name = "other.example.org"
			iw.buy()
			iw.takeover, mine.orderID = mine, iw.id
			iw.orderID = iw.id
		}, want: "has another certificate than cert.pem: for other.example.org"},
		"reissued since, same ID": {kind: 1, with: func(iw *importWorld) { iw.reissueElsewhere() }, want: "If the order was reissued since, import the newer certificate"},
		"reissued since, new ID":  {kind: 0, with: func(iw *importWorld) { iw.reissueElsewhere() }, want: "under another ID"},
		"cancelled": {with: func(iw *importWorld) {
			if err := iw.command(nil).vendor.(vendors.Canceler).Cancel(iw.ctx, iw.id, "test"); err != nil {
				iw.tb.Fatal(err)
			}
		}, want: "cannot be used: it is"},
		"revoked": {kind: 1, with: func(iw *importWorld) {
			if err := iw.command(nil).vendor.(vendors.Revoker).Revoke(iw.ctx, iw.id, "test"); err != nil {
				iw.tb.Fatal(err)
			}
		}, want: "revoked"},
		"pending": {with: func(iw *importWorld) {
			mine := iw.takeover
			iw.update(func(c *hostile.Config) { c.IssueDelay = day })
			p := iw.start(iw.world, nil, func(f *flow) {
				f.ledger = &ledger.Ledger{Storage: newMemStorage(), Prefix: f.ledger.Prefix, Memory: f.ledger.Memory}
				f.rules.maxWait = time.Second
			})
			p.site.storage = newMemStorage()
			if _, err := p.attempt(iw.ctx, "example.com"); !waits(err) {
				iw.tb.Fatal(err)
			}
			time.Sleep(time.Minute)
			p.stop()
			iw.takeover = mine
			iw.orderID = iw.ca.Orders()[1].ID
		}, want: "is not done: it is"},
		"the end is not told":  {kind: 2, with: func(iw *importWorld) { iw.ends = time.Time{} }, want: "--ends 2027-01-31"},
		"the end is too early": {kind: 2, with: func(iw *importWorld) { iw.ends = time.Now().Add(10 * day) }, want: "a term does not end before its certificates"},
		"the end is another":   {with: func(iw *importWorld) { iw.ends = time.Now().AddDate(3, 0, 0) }, want: "leave --ends out"},
		"ours blocks":          {with: buyOurs, want: "of the ledger is for example.com until"},
		"ours blocks, order not named": {with: func(iw *importWorld) {
			buyOurs(iw)
			iw.orderID = ""
		}, want: "of the ledger is for example.com until"},
		"ours blocks, no order": {with: func(iw *importWorld) {
			buyOurs(iw)
			iw.orderID, iw.noOrder = "", true
		}, want: "of the ledger is for example.com until"},
		"ours is asked for": {with: func(iw *importWorld) {
			iw.ca.Inject(hostile.Fault{Endpoint: "place", Phase: hostile.AfterEffect, Kind: hostile.Reset, Times: 1})
			iw.ca.Inject(hostile.Fault{Endpoint: "certIdByrefId", Kind: hostile.HTML})
			p := iw.start(iw.world, nil, func(f *flow) { f.rules.maxWait = time.Second })
			if _, err := p.attempt(iw.ctx, "example.com"); err == nil {
				iw.tb.Fatal("no error")
			}
			time.Sleep(2 * time.Second)
			p.stop()
			if iw.state("example.com") != ledger.Asked {
				iw.tb.Fatal(iw.state("example.com"))
			}
		}, want: "of the ledger is for example.com until"},
		"adopted already": {with: func(iw *importWorld) {
			p := iw.start(iw.world, nil, adopting(iw.id, "example.com"))
			p.mustObtain("example.com")
			p.stop()
			// The vendor shows an order that Caddy has reissued under another ID.
		}, want: "is in the ledger"},
		"given up": {with: func(iw *importWorld) {
			iw.mustImport()
			iw.resolve(operator.Action{About: "example.com", None: true})
		}, want: "it was given up"},
		"another in the config": {flow: adopting("someother", "example.com"), want: "the option order of the config gives order someother for example.com"},
		"in the ledger for another order": {with: func(iw *importWorld) {
			iw.mustImport()
			iw.orderID = "someother"
		}, want: "has this certificate as that of order"},
		"the list fails": {with: func(iw *importWorld) {
			iw.orderID = ""
			iw.ca.Inject(hostile.Fault{Endpoint: "list", Kind: hostile.HTML})
		}, want: "--no-order to go without"},
		"due, order not known": {with: func(iw *importWorld) {
			iw.orderID = ""
			iw.ca.Inject(hostile.Fault{Endpoint: "list", Kind: hostile.HTML})
			time.Sleep(170 * day)
		}, want: "--no-order"},
		"due, the vendor has no list": {kind: 2, with: func(iw *importWorld) {
			iw.orderID = ""
			time.Sleep(170 * day)
		}, want: "is due for renewal, so Caddy would place a new order at once"},
		"ours ends soon, no order": {with: func(iw *importWorld) {
			buyOurs(iw)
			time.Sleep(350 * day) // within the margin of its term
			iw.buy()
			iw.orderID, iw.noOrder = "", true
		}, want: "its certificate would take the place of the imported one"},
		"its entry has other names": {with: func(iw *importWorld) {
			iw.mustImport()
			e := *iw.entry("example.com")
			e.Names, e.Covered = []string{"other.example.org"}, []string{"other.example.org"}
			if err := iw.command(nil).ledger.Create(iw.ctx, &e); err != nil {
				iw.tb.Fatal(err)
			}
		}, want: "is in the ledger"},
		"its certificate was revoked since": {kind: 1, with: func(iw *importWorld) {
			iw.mustImport()
			_, err := iw.command(nil).ledger.Write(iw.ctx, iw.entry("example.com"), func(e *ledger.Entry) { e.Certificate.Lost = true })
			if err != nil {
				iw.tb.Fatal(err)
			}
		}, want: "is being reissued; there is nothing to import"},
		"a stored one lasts longer": {with: func(iw *importWorld) {
			mine := iw.takeover
			time.Sleep(30 * day)
			iw.buy()
			iw.orderID, iw.noOrder = "", true
			iw.mustImport()
			iw.takeover = mine
		}, want: "--force replaces it"},
	} {
		t.Run(title, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				iw := boughtElsewhere(t, tt.kind, "example.com", nil)
				if tt.with != nil {
					tt.with(iw)
				}
				before := iw.storage.snapshot()
				said, err := iw.importIt(tt.flow)
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error = %v, want one with %q\n%s", err, tt.want, said)
				}
				if !maps.Equal(before, iw.storage.snapshot()) {
					t.Error("something was changed")
				}
			})
		})
	}
}

// update changes the CA.
func (iw *importWorld) update(change func(*hostile.Config)) {
	iw.tb.Helper()
	if err := iw.ca.Update(change); err != nil {
		iw.tb.Fatal(err)
	}
}

// reissueElsewhere lets somebody else reissue the order.
func (iw *importWorld) reissueElsewhere() {
	iw.tb.Helper()
	p := iw.start(iw.world, nil, all(adopting(iw.id, iw.name), func(f *flow) {
		f.ledger = &ledger.Ledger{Storage: newMemStorage(), Prefix: f.ledger.Prefix, Memory: f.ledger.Memory}
	}))
	p.site.storage = newMemStorage()
	p.mustObtain(iw.name)
	p.stop()
}

// TestImportForced: a stored certificate that lasts longer is replaced on demand.
func TestImportForced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iw := boughtElsewhere(t, 0, "example.com", nil)
		mine := iw.takeover
		time.Sleep(30 * day)
		iw.buy()
		iw.orderID, iw.noOrder = "", true
		iw.mustImport()
		iw.takeover = mine
		iw.force = true
		iw.mustImport()
		if got := iw.serve(nil).site.serving("example.com"); !got.leaf().Equal(mine.chain.leaf()) {
			t.Error("it was not replaced")
		}
	})
}

// TestImportBrokenOff interrupts an import at each contact with the storage, and starts a server, or
// imports once more. Nothing is bought or reissued in either case.
func TestImportBrokenOff(t *testing.T) {
	for _, again := range []bool{true, false} {
		for left := 1; ; left++ {
			done := false
			synctest.Test(t, func(t *testing.T) {
				iw := boughtElsewhere(t, 1, "example.com", nil)
				f := &fuse{left: left}
				p := iw.start(iw.world, nil, nil)
				p.stop()
				p.ledger.Storage = &fusedStorage{iw.storage, f}
				p.site.storage = p.ledger.Storage
				say := func(string, ...any) {}
				plan, err := p.examine(iw.ctx, iw.takeover, say)
				if err == nil {
					err = p.carryOut(iw.ctx, plan, say)
				}
				if done = err == nil; done != !f.burnt() {
					t.Errorf("at %d: error = %v", left, err)
				}
				if again || iw.entry("example.com") == nil {
					iw.mustImport()
				}
				server := iw.start(iw.world, nil, nil)
				server.site.manage("example.com")
				if err := server.site.Reload(iw.ctx, "example.com"); err != nil {
					_, _ = server.attempt(iw.ctx, "example.com") // as certmagic does where nothing is stored
				}
				server.untilServed(time.Hour, "example.com")
				time.Sleep(day)
				if got := server.site.serving("example.com"); !got.leaf().Equal(iw.chain.leaf()) || iw.reissues() != 0 || iw.charges() != 1 {
					t.Errorf("at %d, again %t: %d charges, %d reissues, serial number %s", left, again, iw.charges(), iw.reissues(), serialOf(got.leaf()))
				}
			})
			if done {
				break
			}
			if left > 100 {
				t.Fatal("it never ends")
			}
		}
	}
}

// TestImportBesideARunningServer imports while a server wants to order for the name and is held back
// by the spending limit.
func TestImportBesideARunningServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iw := boughtElsewhere(t, 0, "example.com", nil)
		p := iw.start(iw.world, nil, func(f *flow) { f.rules.spend.Orders, f.rules.maxWait = 0, time.Minute })
		if _, err := p.attempt(iw.ctx, "example.com"); err == nil {
			t.Fatal("the server has bought")
		}
		iw.mustImport()
		p.untilServed(2*time.Hour, "example.com")
		p.reload(func(f *flow) { f.rules.spend.Orders = 20 })
		time.Sleep(3 * day)
		if got := p.site.serving("example.com"); !got.leaf().Equal(iw.chain.leaf()) || iw.reissues() != 0 {
			t.Errorf("%d reissues", iw.reissues())
		}
		iw.wantCharges(1)
	})
}

// TestImportRacesWithAServer has a server order for the name while the vendor is asked, or after the
// import has checked the ledger for the last time.
func TestImportRacesWithAServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iw := boughtElsewhere(t, 1, "example.com", nil)
		var said strings.Builder
		say := func(format string, args ...any) { fmt.Fprintf(&said, format+"\n", args...) }
		f := iw.command(nil).flow
		plan, err := f.examine(iw.ctx, iw.takeover, say)
		if err != nil {
			t.Fatal(err)
		}
		server := iw.start(iw.world, nil, nil)
		server.mustObtain("example.com")
		server.stop()
		before := iw.storage.snapshot()
		if err := f.carryOut(iw.ctx, plan, say); err == nil || !strings.Contains(err.Error(), "of the ledger is for example.com until") {
			t.Errorf("error = %v", err)
		}
		if !maps.Equal(before, iw.storage.snapshot()) {
			t.Error("something was changed")
		}
		if err := f.ledger.Create(iw.ctx, plan.entry); err != nil {
			t.Fatal(err)
		}
		said.Reset()
		if err := f.meanwhile(iw.ctx, plan, say); err != nil || !strings.Contains(said.String(), "warning: a server has ordered for example.com meanwhile") {
			t.Errorf("%v\n%s", err, said.String())
		}
	})
}

// TestImportOfTwins: a certificate that the CA issued for www, too, without being asked, is used for
// both names. Nothing is bought for the second one, and one reissue renews both.
func TestImportOfTwins(t *testing.T) {
	for kind, v := range vendorKinds {
		if v.name == "digicert" {
			continue // its CA adds no names
		}
		inBubble(t, v.name, func(t *testing.T) {
			iw := boughtElsewhere(t, kind, "example.com", nil)
			iw.names = []string{"example.com", "www.example.com"}
			iw.mustImport()
			e := iw.entry("www.example.com")
			if e == nil || !slices.Equal(e.Names, []string{"example.com"}) || !slices.Equal(e.Covered, iw.names) {
				t.Fatalf("entry = %+v", e)
			}
			p := iw.serve(nil)
			p.site.manage("www.example.com")
			if err := p.site.Reload(iw.ctx, "www.example.com"); err != nil {
				t.Fatal(err)
			}
			for range 140 {
				time.Sleep(day)
				for _, name := range iw.names {
					if p.site.Due(p.site.serving(name).leaf()) {
						p.mustObtain(name)
					}
				}
			}
			if iw.reissues() != 1 || p.site.serving("example.com").leaf().Equal(iw.chain.leaf()) || !p.site.serving("www.example.com").leaf().Equal(p.site.serving("example.com").leaf()) {
				t.Errorf("%d reissues", iw.reissues())
			}
			iw.wantCharges(1)
		})
	}
}

// TestImportOfConfiguredOrder: the order is the one that the option "order" names.
func TestImportOfConfiguredOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iw := boughtElsewhere(t, 2, "example.com", nil)
		iw.orderID = ""
		if said, err := iw.importIt(adopting(iw.id, "example.com")); err != nil || !strings.Contains(said, "asking howssl for order "+iw.id) {
			t.Fatalf("%v\n%s", err, said)
		}
		p := iw.serve(adopting(iw.id, "example.com"))
		time.Sleep(3 * day)
		if iw.reissues() != 0 || !p.site.serving("example.com").leaf().Equal(iw.chain.leaf()) {
			t.Errorf("%d reissues", iw.reissues())
		}
		iw.wantCharges(1)
	})
}

// TestImportOfRevokedCertificate: an order may stay active when its certificate was revoked. That
// certificate is not imported.
func TestImportOfRevokedCertificate(t *testing.T) {
	leaf := &x509.Certificate{Raw: []byte("leaf"), SerialNumber: big.NewInt(1)}
	order := vendors.Order{ID: "1", Status: vendors.StatusIssued, Certificates: [][]byte{leaf.Raw}}
	f, give := new(flow), takeover{purchased: &purchased{chain: chain{leaf}}}
	if err := f.usable("1", order, give); err != nil {
		t.Error(err)
	}
	order.CertificateRevoked = true
	if err := f.usable("1", order, give); err == nil || !strings.Contains(err.Error(), "was revoked") {
		t.Errorf("error = %v", err)
	}
}

// TestImportEndOfTerm: the end of what was paid for is reported by the vendor or given by the user,
// and never computed.
func TestImportEndOfTerm(t *testing.T) {
	now := time.Now().UTC()
	leaf := &x509.Certificate{NotAfter: now.Add(100 * day)}
	f := &flow{ledger: &ledger.Ledger{}}
	for _, c := range []struct {
		told, given int // days from now; zero: unknown
		want        int
		err         string
	}{
		{told: 300, want: 300}, {given: 300, want: 300}, {told: 300, given: 301, want: 300},
		{err: "does not show until when"}, {told: 300, given: 330, err: "leave --ends out"},
		{given: 90, err: "does not end before its certificates"}, {told: -3, err: "has ended on"},
	} {
		order, give := vendors.Order{ID: "1"}, takeover{purchased: &purchased{chain: chain{leaf}}}
		if c.told != 0 {
			order.TermEnds = now.Add(time.Duration(c.told) * day)
		}
		if c.given != 0 {
			give.ends = now.Add(time.Duration(c.given) * day)
		}
		got, err := f.endOfTerm(order, give)
		switch {
		case c.err == "" && (err != nil || !got.Equal(now.Add(time.Duration(c.want)*day))):
			t.Errorf("%+v: %s, %v", c, got, err)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%+v: error = %v", c, err)
		}
	}
}

// TestImportNames: a reissue asks for the right names.
func TestImportNames(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		twin                  bool
		told, has, conf, want []string
	}{
		{true, nil, []string{"example.com", "www.example.com"}, []string{"example.com"}, []string{"example.com"}},
		{true, nil, []string{"example.com", "www.example.com"}, []string{"example.com", "www.example.com"}, []string{"example.com"}},
		{true, nil, []string{"shop.example", "www.shop.example"}, []string{"shop.example"}, []string{"shop.example", "www.shop.example"}}, // a group
		{false, nil, []string{"example.com", "www.example.com"}, []string{"example.com"}, []string{"example.com", "www.example.com"}},
		{true, []string{"b.example", "EXAMPLE.com"}, []string{"example.com", "b.example"}, nil, []string{"example.com", "b.example"}},
		{true, nil, []string{"z.example", "a.example", "www.z.example"}, nil, []string{"z.example", "a.example", "www.z.example"}},
	} {
		f := &flow{about: vendors.Description{CoversTwin: c.twin}, rules: rules{groups: [][]string{{"www.shop.example", "shop.example"}}}}
		var order vendors.Order
		for _, name := range c.told {
			order.Names = append(order.Names, vendors.NameStatus{Name: name})
		}
		got := f.namesToReissue(order, selfSigned(t, key, c.has...))
		if !slices.Equal(got, c.want) {
			t.Errorf("%+v: got %q", c, got)
		}
	}
}

// selfSigned makes a certificate for names, the first of which is its common name.
func selfSigned(t *testing.T, key *ecdsa.PrivateKey, names ...string) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// TestImportEndOption: the end of the term must be a day on which a term can end.
func TestImportEndOption(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"2027-01-31": "", "2032-03-01": "",
		"2032-03-02": "--ends: no term is paid", "2062-01-31": "--ends: no term is paid", "9999-12-31": "--ends: no term is paid",
		"tomorrow": "--ends: must be a day", "2027-02-30": "--ends: must be a day",
	} {
		got, err := endOption(text, now)
		if want == "" && (err != nil || got.Format(time.DateOnly) != text) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
}

// TestImportWritesNoEntryOver: what a server entered for the order while the vendor was asked is not
// overwritten.
func TestImportWritesNoEntryOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iw := boughtElsewhere(t, 0, "example.com", nil)
		f := iw.command(nil).flow
		plan, err := f.examine(t.Context(), iw.takeover, t.Logf)
		if err != nil {
			t.Fatal(err)
		}
		e := *plan.entry
		e.Names, e.Covered, e.Attempt.Reference = []string{"other.example.org"}, []string{"other.example.org"}, "another"
		if err := iw.command(nil).ledger.Create(iw.ctx, &e); err != nil {
			t.Fatal(err)
		}
		before := iw.storage.snapshot()
		if err := f.carryOut(t.Context(), plan, t.Logf); err == nil || !strings.Contains(err.Error(), "is in the ledger") {
			t.Errorf("error = %v", err)
		}
		if !maps.Equal(before, iw.storage.snapshot()) {
			t.Error("something was changed")
		}
	})
}
