package issuer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// lookLog knows when the vendor was asked about each order.
type lookLog struct {
	mu      sync.Mutex
	times   map[string][]time.Time // by order
	failing func(id string) error
}

func (l *lookLog) look(id string) (*vendors.Order, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failing != nil {
		if err := l.failing(id); err != nil {
			return nil, err
		}
	}
	if l.times == nil {
		l.times = make(map[string][]time.Time)
	}
	l.times[id] = append(l.times[id], time.Now())
	return nil, nil
}

// fail makes looks fail as the function says.
func (l *lookLog) fail(as func(id string) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failing = as
}

// longest is the longest time since then without an answer about an order.
func (l *lookLog) longest(since time.Time) (longest time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, times := range l.times {
		last := since
		for _, at := range append(times, time.Now()) {
			if at.After(since) {
				longest, last = max(longest, at.Sub(last)), at
			}
		}
	}
	return longest
}

func outOfOrder() error {
	return &vendors.Error{Endpoint: "status", Verdict: vendors.Retryable, Err: errors.New("503")}
}

// TestFailedLookIsRepeatedInTime: a vendor that does not answer for a moment does not make an order
// wait for longer than the interval.
func TestFailedLookIsRepeatedInTime(t *testing.T) {
	tooSlowForRaces(t)
	for _, names := range []int{1, 40} {
		inBubble(t, fmt.Sprint(names), func(t *testing.T) {
			w, v, log := newWorld(t, nil), new(erring), new(lookLog)
			p := w.start(nil, all(quickly, spendFreely, watching, v.in))
			p.configure(siteNames(names)...)
			p.untilServed(day, siteNames(names)...)
			v.answers(log.look)
			time.Sleep(day)
			since, failed := time.Now(), make(map[string]bool)
			log.fail(func(id string) error {
				if failed[id] {
					return nil
				}
				failed[id] = true
				return outOfOrder()
			})
			time.Sleep(3 * time.Hour)
			if longest := log.longest(since); longest > time.Hour || len(failed) != names {
				t.Errorf("%s without an answer; %d failed", longest, len(failed))
			}
		})
	}
}

// TestReloadsDoNotDelayLooks: all orders are looked at within the interval, and no part of them is
// begun anew, while the configuration is loaded again and again.
func TestReloadsDoNotDelayLooks(t *testing.T) {
	tooSlowForRaces(t)
	for _, every := range []time.Duration{20 * time.Second, time.Minute, 4 * time.Minute} {
		inBubble(t, every.String(), func(t *testing.T) {
			const names = 320
			w, v, log := newWorld(t, nil), new(erring), new(lookLog)
			p := w.start(nil, all(quickly, spendFreely, watching, v.in))
			p.configure(siteNames(names)...)
			p.untilServed(day, siteNames(names)...)
			v.answers(log.look)
			time.Sleep(3 * time.Hour)
			since := time.Now()
			for time.Since(since) < 6*time.Hour {
				p.reload(func(*flow) {})
				time.Sleep(every)
			}
			looks := 0
			for _, times := range log.times {
				for _, at := range times {
					if at.After(since) {
						looks++
					}
				}
			}
			if longest := log.longest(since); longest > time.Hour || looks > names*6*3/2 {
				t.Errorf("%s without an answer, %d looks", longest, looks)
			}
		})
	}
}

// TestClocksApartShareNoChanges: with clocks that are apart, each server asks once per interval which
// orders have changed.
func TestClocksApartShareNoChanges(t *testing.T) {
	tooSlowForRaces(t)
	for _, skew := range []time.Duration{0, 10 * time.Minute, time.Hour, 3 * time.Hour} {
		inBubble(t, skew.String(), func(t *testing.T) {
			w := newWorld(t, nil)
			for i := range 2 {
				p := w.startDigiCert(nil, all(quickly, watching, ahead(skew*time.Duration(i))))
				p.configure("example.com")
				p.untilServed(day, "example.com")
			}
			time.Sleep(6 * time.Hour)
			before := w.ca.Calls("status-changes")
			time.Sleep(20 * time.Hour)
			if calls := w.ca.Calls("status-changes") - before; calls < 20 || calls > 2*20*3/2 {
				t.Errorf("%d calls in 20 hours", calls)
			}
		})
	}
}

// TestEarlierEndThatIsPast is not asked for ever more often.
func TestEarlierEndThatIsPast(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w, v := newWorld(t, nil), new(erring)
		p := w.start(nil, all(quickly, watching, v.in))
		p.configure("example.com")
		p.untilServed(day, "example.com")
		time.Sleep(2 * day)
		ends := time.Now().Add(12 * time.Hour)
		var looks atomic.Int32
		serial := w.entry("example.com").Certificate.Serial
		v.answers(func(id string) (*vendors.Order, error) {
			looks.Add(1)
			return &vendors.Order{ID: id, Status: vendors.StatusIssued, Serial: serial, TermEnds: ends}, nil
		})
		time.Sleep(2 * day)
		looks.Store(0)
		time.Sleep(10 * time.Hour)
		if n := looks.Load(); n < 10 || n > 15 {
			t.Errorf("%d looks in 10 hours", n)
		}
	})
}

// changesOf is a vendor whose list of changes is what a test says.
type changesOf struct {
	*erring
	changed func() ([]string, error)
}

func (l changesOf) Changed(context.Context, time.Time) ([]string, error) { return l.changed() }

// TestPanicInChangesDelaysNoLook: what goes wrong with the list of changes does not keep orders from
// being looked at.
func TestPanicInChangesDelaysNoLook(t *testing.T) {
	tooSlowForRaces(t)
	inBubble(t, "", func(t *testing.T) {
		const names = 64
		w, v, log := newWorld(t, nil), new(erring), new(lookLog)
		p := w.start(nil, all(quickly, spendFreely, watching, v.in, func(f *flow) {
			f.vendor = changesOf{v, func() ([]string, error) { panic("out of order") }}
		}))
		p.configure(siteNames(names)...)
		p.untilServed(day, siteNames(names)...)
		v.answers(log.look)
		time.Sleep(3 * time.Hour)
		since := time.Now()
		time.Sleep(12 * time.Hour)
		if longest := log.longest(since); longest > time.Hour {
			t.Errorf("%s without an answer", longest)
		}
	})
}

// unreadable is a storage that cannot read some keys.
type unreadable struct {
	certmagic.Storage
	part atomic.Pointer[string]
}

func (u *unreadable) Load(ctx context.Context, key string) ([]byte, error) {
	if part := u.part.Load(); part != nil && strings.Contains(key, *part) {
		return nil, fs.ErrPermission
	}
	return u.Storage.Load(ctx, key)
}

// TestUnreadableEntryDelaysNoLook: an entry that cannot be read, such as one whose file belongs to
// another user, does not keep the other orders from being looked at.
func TestUnreadableEntryDelaysNoLook(t *testing.T) {
	tooSlowForRaces(t)
	inBubble(t, "", func(t *testing.T) {
		const names = 32
		w, v, log := newWorld(t, nil), new(erring), new(lookLog)
		u := new(unreadable)
		p := w.start(nil, all(quickly, spendFreely, watching, v.in, func(f *flow) { u.Storage, f.ledger.Storage = f.ledger.Storage, u }))
		p.configure(siteNames(names)...)
		p.untilServed(day, siteNames(names)...)
		bad := w.entry(siteNames(names)[0])
		v.answers(func(id string) (*vendors.Order, error) {
			if id == bad.OrderID {
				return nil, nil
			}
			return log.look(id)
		})
		time.Sleep(3 * time.Hour)
		u.part.Store(&bad.ID)
		since := time.Now()
		time.Sleep(12 * time.Hour)
		if longest := log.longest(since); longest > time.Hour {
			t.Errorf("%s without an answer", longest)
		}
	})
}

// TestReissueIsNotGivenUpByAWrongClock: a vendor that shows the old certificate for a few minutes
// after a reissue was asked for is waited for, by a server whose clock is ahead, too.
func TestReissueIsNotGivenUpByAWrongClock(t *testing.T) {
	for _, skew := range []time.Duration{0, time.Hour} {
		inBubble(t, skew.String(), func(t *testing.T) {
			w := newWorld(t, nil)
			var list []*erring
			var servers []*process
			for i := range 2 {
				v := new(erring)
				p := w.start(nil, all(quickly, watching, v.in, ahead(skew*time.Duration(i))))
				p.configure("example.com")
				p.untilServed(day, "example.com")
				list, servers = append(list, v), append(servers, p)
			}
			time.Sleep(day)
			old, err := list[0].Vendor.Status(t.Context(), w.entry("example.com").OrderID)
			if err != nil {
				t.Fatal(err)
			}
			var asked atomic.Pointer[time.Time]
			for _, v := range list {
				v.answers(func(string) (*vendors.Order, error) {
					if now := time.Now(); w.reissued() == 1 && asked.CompareAndSwap(nil, &now) || asked.Load() == nil {
						return nil, nil
					}
					if time.Since(*asked.Load()) < 8*time.Minute {
						return &old, nil
					}
					return nil, nil
				})
			}
			w.revoke("example.com")
			if err := servers[0].inspect(t.Context(), w.entry("example.com").ID); err != nil {
				t.Fatal(err)
			}
			w.until(2*time.Hour, "it is asked for", func() bool { return w.reissued() == 1 })
			servers[1].wake("example.com")
			w.until(6*time.Hour, "it is replaced", func() bool { return servers[0].good("example.com") && servers[1].good("example.com") })
			time.Sleep(6 * time.Hour)
			if n := w.reissued(); n != 1 {
				t.Errorf("%d reissues", n)
			}
		})
	}
}

// TestRestartsDoNotDelayLooks: all orders are looked at within the interval, though the server ends
// again and again, as it should or by a power cut.
func TestRestartsDoNotDelayLooks(t *testing.T) {
	tooSlowForRaces(t)
	for _, every := range []time.Duration{10 * time.Minute, 20 * time.Minute, 50 * time.Minute, 2*time.Hour + 7*time.Minute} {
		for _, killed := range []bool{false, true} {
			if killed && every < 20*time.Minute {
				continue // what was begun is left to others for a while
			}
			inBubble(t, fmt.Sprintf("%s, killed %t", every, killed), func(t *testing.T) {
				const names = 64
				w, log := newWorld(t, nil), new(lookLog)
				start := func() *process {
					v := new(erring)
					p := w.start(&fuse{left: -1}, all(quickly, spendFreely, watching, v.in))
					p.configure(siteNames(names)...)
					v.answers(log.look)
					return p
				}
				p := start()
				p.untilServed(day, siteNames(names)...)
				time.Sleep(3 * time.Hour)
				since := time.Now()
				for time.Since(since) < 8*time.Hour {
					if killed {
						p.fuse.mu.Lock()
						p.fuse.left = p.fuse.seen
						p.fuse.mu.Unlock()
					}
					p.stop()
					p = start()
					time.Sleep(every)
				}
				if longest := log.longest(since); longest > time.Hour {
					t.Errorf("%s without an answer", longest)
				}
			})
		}
	}
}
