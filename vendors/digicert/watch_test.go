package digicert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// books are the orders of an account, and the calls of its client.
type books struct {
	mu     sync.Mutex
	status map[string]string // by ID
	list   func() (status int, body string)
	calls  map[string]int
	pem    string
}

func (b *books) RoundTrip(r *http.Request) (*http.Response, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	code := http.StatusOK
	var body string
	switch call := path.Base(r.URL.Path); {
	case call == "status-changes":
		b.calls["list"]++
		code, body = b.list()
	case call == "validation" || call == "check-dcv" || call == "reissue":
		b.calls[call]++
		body = `{"id":1}`
	case call == "status":
		code, body = http.StatusNoContent, ""
	case call == "dcv-random-value":
		body = `{"dcv_random_value":"abc"}`
	case strings.HasPrefix(call, "pem_"):
		body = b.pem
	default:
		b.calls["info"]++
		b.calls["info "+call]++
		body = fmt.Sprintf(`{"id":%s,"status":%q,"dcv_method":"http-token","certificate":{"id":7}}`, call, b.status[call])
	}
	return &http.Response{StatusCode: code, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
}

// change gives an order another status, and lists the change, as the service would.
func (b *books) change(id, status string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status[id] = status
	b.list = func() (int, string) {
		return 200, fmt.Sprintf(`{"orders":[{"order_id":%s,"certificate_id":7,"status":%q}]}`, id, status)
	}
}

// took returns how often a call was made, and resets that.
func (b *books) took(call string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.calls[call]
	delete(b.calls, call)
	return n
}

// watched opens an account with the given number of pending orders, all of which were polled and
// have been pending for four hours.
func watched(t *testing.T, orders int) (*books, *Orders, []string) {
	t.Helper()
	b := &books{pem: testPEM("leaf", "above"), status: make(map[string]string), calls: make(map[string]int), list: func() (int, string) { return 200, `{}` }}
	o, err := New(Config{Secret: testKey, Endpoint: "https://127.0.0.1", Transport: b, Description: vendors.Description{Name: "digicert"}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for i := range orders {
		ids = append(ids, fmt.Sprint(1000+i))
		b.status[ids[i]] = "pending"
	}
	for range 2 {
		round(t, o, ids, vendors.StatusPending)
		time.Sleep(2*time.Hour - time.Minute)
	}
	round(t, o, ids, vendors.StatusPending)
	clear(b.calls)
	return b, o, ids
}

// round asks for the status of each order.
func round(t *testing.T, o *Orders, ids []string, want vendors.Status) {
	t.Helper()
	for _, id := range ids {
		order, err := o.Status(t.Context(), id)
		if err != nil || order.Status != want || order.ID != id {
			t.Fatalf("order %s: %+v, %v", id, order, err)
		}
	}
}

// TestManyPendingOrdersCostOneCall: a thousand pending orders cost one call per round, and a poll of
// each order once an hour.
func TestManyPendingOrdersCostOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, o, ids := watched(t, 1000)
		for minute := 10; minute <= 60; minute += 10 {
			time.Sleep(10 * time.Minute)
			round(t, o, ids, vendors.StatusPending)
			if lists, looks := b.took("list"), b.took("info"); lists != 1 || looks != 0 {
				t.Errorf("after %d minutes: %d lists, %d polls", minute, lists, looks)
			}
		}
		time.Sleep(10 * time.Minute)
		round(t, o, ids, vendors.StatusPending)
		if looks := b.took("info"); looks != len(ids) {
			t.Errorf("%d polls after more than an hour", looks)
		}
	})
}

// TestLooksAtPendingOrders: new orders are polled every minute, older ones less often.
func TestLooksAtPendingOrders(t *testing.T) {
	for _, tt := range []struct {
		orders         int
		pending, bound time.Duration
	}{
		{10, time.Second, minLook}, {10, 2 * time.Minute, minLook}, {10, 10 * time.Minute, 5 * time.Minute}, {10, time.Hour, 30 * time.Minute}, {10, 9 * time.Hour, maxLook},
		{30, time.Second, minLook}, {1800, 9 * time.Hour, maxLook}, {3600, 9 * time.Hour, 2 * maxLook}, {3600, time.Second, 2 * maxLook},
	} {
		now := time.Now()
		for last, known := range map[time.Duration]bool{tt.bound - 10*time.Second: true, tt.bound + 10*time.Second: false} {
			if p := (&pendingOrder{first: now.Add(-tt.pending), at: now.Add(-last), until: now}); p.known(tt.orders) != known {
				t.Errorf("pending for %s, polled %s ago: %v", tt.pending, last, !known)
			}
		}
	}
	if (*pendingOrder)(nil).known(10) {
		t.Error("an order that was never seen is known")
	}
	now := time.Now()
	if p := (&pendingOrder{first: now.Add(-24 * time.Hour), at: now.Add(-2 * maxLook), until: now.Add(-maxLook - time.Minute)}); p.known(10_000) {
		t.Error("an order is known, although no list reaches back to the last one")
	}
}

// TestPendingOrdersThatAreLookedAt: an order that is listed with another status is polled, and so is
// one for which the list proves nothing.
func TestPendingOrdersThatAreLookedAt(t *testing.T) {
	full := `{"orders":[` + strings.Repeat(`{"order_id":9,"status":"issued"},`, listMost-1) + `{"order_id":9,"status":"issued"}]}`
	for name, tt := range map[string]struct {
		do   func(b *books, o *Orders, id string)
		want vendors.Status
	}{
		"issued":      {func(b *books, _ *Orders, id string) { b.change(id, "issued") }, vendors.StatusIssued},
		"rejected":    {func(b *books, _ *Orders, id string) { b.change(id, "rejected") }, vendors.StatusRejected},
		"IN CAPITALS": {func(b *books, _ *Orders, id string) { b.change(id, "ISSUED") }, vendors.StatusIssued},
		"rechecked": {func(_ *books, o *Orders, id string) {
			_ = o.Recheck(context.Background(), id, nil, vendors.MethodHTTP)
		}, vendors.StatusPending},
		"cancelled": {func(_ *books, o *Orders, id string) { _ = o.Cancel(context.Background(), id, "") }, vendors.StatusPending},
		"list fails": {func(b *books, _ *Orders, _ string) {
			b.list = func() (int, string) { return 403, refusal("access_denied|missing_permission") }
		}, vendors.StatusPending},
		"list refused": {func(b *books, _ *Orders, _ string) {
			b.list = func() (int, string) { return 400, refusal("time_frame_too_long") }
		}, vendors.StatusPending},
		"no list":        {func(b *books, _ *Orders, _ string) { b.list = func() (int, string) { return 200, `{"status":"busy"}` } }, vendors.StatusPending},
		"row without ID": {func(b *books, _ *Orders, _ string) { b.list = func() (int, string) { return 200, `{"orders":[{}]}` } }, vendors.StatusPending},
		"list is cut":    {func(b *books, _ *Orders, _ string) { b.list = func() (int, string) { return 200, full } }, vendors.StatusPending},
		"list says total": {func(b *books, _ *Orders, _ string) {
			b.list = func() (int, string) { return 200, `{"page":{"total":3}}` }
		}, vendors.StatusPending},
	} {
		synctest.Test(t, func(t *testing.T) {
			b, o, ids := watched(t, 10)
			time.Sleep(10 * time.Minute)
			tt.do(b, o, ids[3])
			b.took("info " + ids[3])
			round(t, o, ids[3:4], tt.want)
			if looks := b.took("info " + ids[3]); looks != 1 {
				t.Errorf("%s: %d polls", name, looks)
			}
		})
	}
}

// TestPendingOrdersThatStand: these lists change nothing: the result of the last poll still holds.
func TestPendingOrdersThatStand(t *testing.T) {
	for name, list := range map[string]string{
		"none": `{}`, "empty": `{"orders":[]}`, "bare": `[]`, "page": `{"page":{"total":0}}`,
		"others":                     `{"orders":[{"order_id":9,"status":"issued"}]}`,
		"listed as what it is":       `{"orders":[{"order_id":1003,"status":"pending"}]}`,
		"listed as what it is, text": `{"orders":[{"order_id":"1003","status":"Pending"}]}`,
	} {
		synctest.Test(t, func(t *testing.T) {
			b, o, ids := watched(t, 10)
			time.Sleep(10 * time.Minute)
			before, err := o.look(t.Context(), ids[3])
			if err != nil {
				t.Fatal(err)
			}
			b.took("info")
			b.list = func() (int, string) { return 200, list }
			got, err := o.Status(t.Context(), ids[3])
			if err != nil || !reflect.DeepEqual(got, before) || b.took("info") != 0 {
				t.Errorf("%s: %+v, %v", name, got, err)
			}
		})
	}
}

// TestIssuedOrdersAreNotWatched: an issued order without a certificate waits for the download, which
// no list shows.
func TestIssuedOrdersAreNotWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, o, ids := watched(t, 10)
		b.change(ids[0], "issued")
		b.pem = "not yet"
		for range 3 {
			time.Sleep(time.Second)
			round(t, o, ids[:1], vendors.StatusPending)
			if looks := b.took("info " + ids[0]); looks != 1 {
				t.Errorf("%d polls", looks)
			}
		}
	})
}

// TestListsAreFew: after a useless list, no other one is requested for a while, and a good one
// serves all that ask at the same time.
func TestListsAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, o, ids := watched(t, 10)
		b.list = func() (int, string) { return 500, `{}` }
		time.Sleep(10 * time.Minute)
		round(t, o, ids, vendors.StatusPending)
		round(t, o, ids, vendors.StatusPending)
		if lists := b.took("list"); lists != 3 { // three attempts of one call
			t.Errorf("%d lists that failed", lists)
		}
		b.list = func() (int, string) { return 200, `{}` }
		time.Sleep(10 * time.Minute)
		var all sync.WaitGroup
		for _, id := range ids {
			all.Go(func() {
				if _, err := o.Status(t.Context(), id); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if lists := b.took("list"); lists != 1 {
			t.Errorf("%d lists at the same time", lists)
		}
		b.took("info")
		b.list = func() (int, string) { return 500, `{}` }
		time.Sleep(10 * time.Minute)
		round(t, o, ids, vendors.StatusPending)
		if looks := b.took("info"); looks != len(ids) {
			t.Errorf("%d polls after a list that failed", looks)
		}
	})
}

// TestFewPendingOrders: a few orders are polled one by one, and so is an unknown one, always.
func TestFewPendingOrders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, o, ids := watched(t, fewOrders)
		time.Sleep(10 * time.Minute)
		round(t, o, ids, vendors.StatusPending)
		if lists, looks := b.took("list"), b.took("info"); lists != 0 || looks != fewOrders {
			t.Errorf("%d lists, %d polls", lists, looks)
		}
		b.status["77"] = "pending"
		round(t, o, []string{"77"}, vendors.StatusPending)
		if looks := b.took("info"); looks != 1 {
			t.Errorf("%d polls of a new order", looks)
		}
	})
}

// TestWatchForgets: orders that nobody asks for any more are forgotten, and ended ones at once.
func TestWatchForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, o, ids := watched(t, 20)
		b.change(ids[0], "issued")
		time.Sleep(10 * time.Minute)
		round(t, o, ids[:1], vendors.StatusIssued)
		if o.watch.orders[ids[0]] != nil || len(o.watch.orders) != 19 {
			t.Errorf("%d orders", len(o.watch.orders))
		}
		for range 30 {
			time.Sleep(10 * time.Minute)
			round(t, o, ids[10:], vendors.StatusPending)
		}
		if len(o.watch.orders) != 10 {
			t.Errorf("%d orders", len(o.watch.orders))
		}
	})
}

// TestListOfAnotherIsWaitedFor: a wait for somebody else's list ends with the context.
func TestListOfAnotherIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, o, ids := watched(t, 10)
		time.Sleep(10 * time.Minute)
		o.watch.turn <- struct{}{}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		if _, err := o.Status(ctx, ids[0]); err != nil || time.Since(begin) != time.Second {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
	})
}

// TestChangesInTheSandbox: the same holds for the sandbox, which lists changes as documented.
func TestChangesInTheSandbox(t *testing.T) {
	s, v := life(t, func(cfg *hostile.Config) { cfg.Quirks.DigiCert.NoMethod = true })
	var orders []vendors.Order
	for i := range fewOrders + 1 {
		req := s.request(fmt.Sprintf("n%d.example.com", i))
		req.Reference = fmt.Sprint("ref", i)
		orders = append(orders, s.must(v.Place(t.Context(), req)))
		s.must(v.Status(t.Context(), orders[i].ID))
	}
	asked := s.CA.Calls("info")
	for _, order := range orders {
		if got := s.must(v.Status(t.Context(), order.ID)); got.Status != vendors.StatusPending || len(got.Challenges) != 2 {
			t.Errorf("%+v", got)
		}
	}
	if n, lists := s.CA.Calls("info"), s.CA.Calls("status-changes"); n != asked || lists != 1 {
		t.Errorf("%d polls, %d lists", n-asked, lists)
	}
	s.Prove(orders[0])
	v.watch.until = time.Time{} // ten seconds later
	if got := s.must(v.Status(t.Context(), orders[0].ID)); got.Status != vendors.StatusIssued {
		t.Errorf("%s", got.Describe())
	}
	if !slices.ContainsFunc(orders[1:], func(order vendors.Order) bool { return v.watch.orders[order.ID] != nil }) {
		t.Error("the other orders were forgotten")
	}
	s.charged(fewOrders + 1)
}

// TestTenThousandPendingOrders: ten thousand pending orders are polled no more often than the limits
// of calls allow, and one that changes is noticed nevertheless.
func TestTenThousandPendingOrders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, o, ids := watched(t, 10_000)
		looks, lists := 0, 0
		const span = 12 * time.Hour
		for range span / (15 * time.Minute) {
			time.Sleep(15 * time.Minute)
			round(t, o, ids, vendors.StatusPending)
			looks, lists = looks+b.took("info"), lists+b.took("list")
		}
		if most := int(span / lookEvery); looks > most || looks < most/2 || lists > int(span/(15*time.Minute)) {
			t.Errorf("%d polls and %d lists in %s", looks, lists, span)
		}
		b.change(ids[7], "issued")
		time.Sleep(15 * time.Minute)
		round(t, o, ids[7:8], vendors.StatusIssued)
		round(t, o, ids[8:9], vendors.StatusPending)
	})
}

// TestChanged: a revoked certificate shows in a check of its order, and a list shows which orders
// have changed, unless it reaches too far back or is too long.
func TestChanged(t *testing.T) {
	s, v := life(t, nil)
	order := s.must(v.Place(t.Context(), s.request("example.com")))
	s.issue(v, order)
	if err := s.CA.RevokeCertificate(order.ID); err != nil {
		t.Fatal(err)
	}
	if got := s.must(v.Look(t.Context(), order.ID)); got.Status != vendors.StatusIssued || !got.CertificateRevoked || got.Serial != s.CA.Orders()[0].Serial {
		t.Errorf("%+v", got)
	}
	for since, want := range map[time.Duration]int{0: 1, time.Hour: 1, -time.Hour: 1, 167 * time.Hour: 1, 169 * time.Hour: -1} {
		ids, err := v.Changed(t.Context(), time.Now().Add(-since))
		if want < 0 {
			if !errors.Is(err, vendors.ErrUndecidable) {
				t.Errorf("since %s ago: %v", since, err)
			}
		} else if err != nil || !slices.Equal(ids, []string{order.ID}) {
			t.Errorf("since %s ago: %v, %v", since, ids, err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		b, o, _ := watched(t, 1)
		for n, want := range map[int]error{listMost - 1: nil, listMost: vendors.ErrUndecidable} {
			b.list = func() (int, string) {
				return 200, `{"orders":[` + strings.Repeat(`{"order_id":9,"status":"issued"},`, n-1) + `{"order_id":9,"status":"issued"}]}`
			}
			if ids, err := o.Changed(t.Context(), time.Now()); !errors.Is(err, want) || want == nil && len(ids) != n {
				t.Errorf("%d changes: %d, %v", n, len(ids), err)
			}
		}
		b.list = func() (int, string) { return 500, `{}` }
		if _, err := o.Changed(t.Context(), time.Now()); err == nil || errors.Is(err, vendors.ErrUndecidable) {
			t.Errorf("a list that fails: %v", err)
		}
	})
}
