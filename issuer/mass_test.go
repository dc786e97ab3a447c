package issuer

import (
	"flag"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
)

var flagRevoked = flag.Int("watch.n", 300, "how many certificates are revoked at once in the test of that")

// callLimits are the limits that vendors document. Racent documents none.
var callLimits = map[string]map[time.Duration]int{
	"digicert": {5 * time.Second: 100, 3 * time.Minute: 1000},
	"howssl":   {time.Second: 50},
}

// meter counts the calls to a vendor.
type meter struct {
	next http.RoundTripper
	log  *callTally
}

type callTally struct {
	mu    sync.Mutex
	times []time.Time
}

func (m meter) RoundTrip(r *http.Request) (*http.Response, error) {
	time.Sleep(100 * time.Millisecond) // on the way
	m.log.mu.Lock()
	m.log.times = append(m.log.times, time.Now())
	m.log.mu.Unlock()
	return m.next.RoundTrip(r)
}

func (c *callTally) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.times)
}

// most is the largest number of calls within a span.
func (c *callTally) most(span time.Duration) (most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := 0
	for i, at := range c.times {
		for at.Sub(c.times[first]) > span {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// TestMassRevocation: all certificates of an account are revoked at once, and one of two servers
// dies while they replace them. All revocations are noticed within about the interval, all
// certificates are replaced, nothing is paid for, no name is ever without a certificate, calls keep
// to the vendor's limits, and a purchase in the middle of it does not wait.
func TestMassRevocation(t *testing.T) {
	tooSlowForRaces(t)
	n := *flagRevoked
	if raceEnabled {
		n = min(n, 40)
	}
	for _, v := range vendorKinds {
		wall := time.Now()
		inBubble(t, v.name, func(t *testing.T) {
			w := newWorld(t, func(c *hostile.Config) { c.Accounts[0].Balance = int64(n) * 1_000_000 })
			names := siteNames(n)
			change := all(quickly, watching, func(f *flow) { f.rules.spend.Orders = 2 * n })
			buyer := v.start(w, nil, change)
			buyer.configure(names...)
			buyer.untilServed(30*day, names[n-1])
			w.until(day, "all are bought", func() bool {
				for _, name := range names {
					if buyer.site.serving(name) == nil {
						return false
					}
				}
				return true
			})
			buyer.stop()

			tally := new(callTally)
			w.share, w.through = 2, func(next http.RoundTripper) http.RoundTripper { return meter{next, tally} }
			if err := w.ca.Update(func(c *hostile.Config) { c.IssueDelay = 2 * time.Minute }); err != nil {
				t.Fatal(err)
			}
			fuses := map[*process]*fuse{}
			startOne := func() *process {
				fuse := &fuse{left: -1}
				p := v.start(w, fuse, change)
				fuses[p] = fuse
				return p
			}
			mortal, other := startOne(), startOne()
			mortal.configure(names...)
			other.configure(names...)
			time.Sleep(3 * time.Hour)

			revoked := make(map[string]bool)
			for _, o := range w.ca.Orders() {
				revoked[o.Serial] = true
			}
			if got, err := w.ca.RevokeAll(); got != n || err != nil {
				t.Fatal(got, err)
			}
			begin := time.Now()
			replaced := func(p *process) (good int) {
				for _, name := range names {
					got := p.site.serving(name)
					if got == nil || !time.Now().Before(got.leaf().NotAfter) {
						t.Fatalf("%s is not served", name)
					}
					if !revoked[serialOf(got.leaf())] {
						good++
					}
				}
				return good
			}
			died, bought := false, time.Duration(0)
			for replaced(other) < n {
				if time.Since(begin) > 60*day {
					t.Fatalf("%d of %d after %s", replaced(other), n, time.Since(begin))
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if !died && replaced(other) > n/4 {
					mortal, other = other, mortal // the one that does more of the work is the one to die
				}
				if !died && replaced(mortal) > n/4 {
					died = true
					fuse := fuses[mortal]
					fuse.mu.Lock()
					fuse.left = fuse.seen
					fuse.mu.Unlock()
					other.configure("new.example.com")
					since := time.Now()
					go func() {
						for other.site.serving("new.example.com") == nil {
							time.Sleep(10 * time.Second)
						}
						bought = time.Since(since)
					}()
				}
				if fuses[mortal].burnt() {
					mortal.stop()
				}
			}
			all := time.Since(begin)
			time.Sleep(3 * time.Hour)
			var noticed time.Duration
			seen := make(map[string]bool)
			for _, entry := range w.logs.FilterMessageSnippet("clients that check revocation refuse it").All() {
				seen[entry.ContextMap()["order_id"].(string)] = true
				noticed = max(noticed, entry.Time.Sub(begin))
			}
			t.Logf("%d certificates: noticed within %s, replaced within %s, %d reissues, a purchase took %s, at most %d calls in 5s and %d in 3m, %d in all",
				n, noticed.Round(time.Minute), all.Round(time.Minute), w.reissued(), bought, tally.most(5*time.Second), tally.most(3*time.Minute), len(tally.times))
			if len(seen) != n || noticed > 2*time.Hour && n < 1000 {
				t.Errorf("%d noticed within %s", len(seen), noticed)
			}
			if !died || !fuses[mortal].burnt() || bought == 0 || bought > 30*time.Minute {
				t.Errorf("died: %v, %v, a purchase took %s", died, fuses[mortal].burnt(), bought)
			}
			if w.reissued() != n {
				t.Errorf("%d reissues of %d", w.reissued(), n)
			}
			for span, limit := range callLimits[v.name] {
				if got := tally.most(span); got > limit {
					t.Errorf("%d calls in %s, but the vendor allows %d", got, span, limit)
				}
			}
			w.wantCharges(n + 1)
		})
		t.Logf("%s: %s of real time", v.name, time.Since(wall).Round(time.Second))
	}
}
