package issuer

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
)

// maxReissues limits the reissues of an order that all fail within 20 days: about 15 on the first
// day, and then four a day.
const maxReissues = 100

// TestReissuesOfNoUse: a vendor whose reissues are useless for weeks is not asked for one all the
// time, however many names the order has. Once that is fixed, the names have their certificate
// within hours, and the next reissue is made at once.
func TestReissuesOfNoUse(t *testing.T) {
	tooSlowForRaces(t)
	row := 0
	for _, v := range vendorKinds {
		names, share := []string{"example.com"}, func(*flow) {}
		if v.group != "" {
			names = []string{"a.example.com", "b.example.com", "c.example.com"}
			share = func(f *flow) { f.order.Product, f.rules.groups = v.group, [][]string{names} }
		}
		for kind, change := range map[string]func(q *hostile.Quirks, bad bool){
			"another key":     func(q *hostile.Quirks, bad bool) { q.WrongKey = bad },
			"old certificate": func(q *hostile.Quirks, bad bool) { q.SameCertAgain = bad },
		} {
			if row++; row%raceStride != 1%raceStride {
				continue
			}
			inBubble(t, v.name+" "+kind, func(t *testing.T) {
				w := newWorld(t, nil)
				p := v.start(w, nil, all(quickly, share))
				defer p.maintain(false)()
				p.configure(names...)
				p.untilServed(day, names...)
				old := p.site.serving(names[0]).leaf()
				w.quirk(func(q *hostile.Quirks) { change(q, true) })
				w.until(190*day, "it is reissued", func() bool { return w.ca.Calls(v.reissue) > 0 })
				for days := range 20 {
					time.Sleep(day)
					if n := w.ca.Calls(v.reissue); n > maxReissues {
						t.Fatalf("%d reissues in %d days", n, days+1)
					}
				}
				w.quirk(func(q *hostile.Quirks) { change(q, false) })
				w.until(8*time.Hour, "all names have a new certificate", func() bool {
					return !slices.ContainsFunc(names, func(name string) bool { return p.site.serving(name).leaf().Equal(old) })
				})
				for _, name := range names {
					w.verify(p.site.serving(name), name)
				}
				before := w.ca.Calls(v.reissue)
				p.mustObtainWithin(names[0], 10*time.Minute)
				if n := w.ca.Calls(v.reissue) - before; n != 1 {
					t.Errorf("%d reissues of an order that works again", n)
				}
				if n := len(p.account.reissues); n != 0 {
					t.Errorf("%d orders are remembered", n)
				}
				w.wantCharges(1)
			})
		}
	}
}

// quirk changes what the CA does wrong.
func (w *world) quirk(change func(*hostile.Quirks)) {
	w.tb.Helper()
	if err := w.ca.Update(func(c *hostile.Config) { change(&c.Quirks) }); err != nil {
		w.tb.Fatal(err)
	}
}

// TestRefusedReissueSaysWhatToDo: when a reissue is refused, the entry's problem says so, and what a
// person can do about it.
func TestRefusedReissueSaysWhatToDo(t *testing.T) {
	for _, v := range vendorKinds {
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, nil)
			p := v.start(w, nil, quickly)
			p.mustObtain("example.com")
			status := 0
			if v.name == "digicert" {
				status = 400 // the others refuse with 200
			}
			w.ca.Inject(hostile.Fault{Endpoint: v.reissue, Kind: hostile.APICode, Status: status, Code: 400, Errors: "not any more"})
			_, _ = p.attempt(t.Context(), "example.com") // it does not wait, because there is a certificate
			time.Sleep(time.Hour)
			problem := w.entry("example.com").Problem
			for _, want := range []string{"not any more", "no other order is placed", "caddy commercial resolve example.com --none"} {
				if !strings.Contains(problem, want) {
					t.Errorf("the problem is %q, want one with %q", problem, want)
				}
			}
			w.wantCharges(1)
		})
	}
}
