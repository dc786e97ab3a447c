package kit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// transportFunc is a vendor within the process.
type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return nil, err
		}
	}
	return f(r)
}

func answered(status int) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(`{}`))}
}

func limitedClient(t *testing.T, l *Limiter, vendor transportFunc) *Client {
	t.Helper()
	c, err := NewClient(Config{
		Description: vendors.Description{Name: "tester"}, Endpoint: "https://127.0.0.1", Limiter: l, Transport: vendor, Timeout: 30 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// countingVendor counts requests as vendors do, at some moment between their beginning and their
// end, and complains about those beyond a limit.
type countingVendor struct {
	mu     sync.Mutex
	limits []Limit
	at     []time.Time
	over   int
	inside int
	most   int // requests at a time
}

func (v *countingVendor) answer(*http.Request) (*http.Response, error) {
	v.mu.Lock()
	v.inside++
	v.most = max(v.most, v.inside)
	v.mu.Unlock()
	time.Sleep(rand.N(40 * time.Millisecond))
	v.mu.Lock()
	v.at = append(v.at, time.Now())
	for _, limit := range v.limits {
		n := 0
		for _, at := range v.at {
			if time.Since(at) < limit.Per {
				n++
			}
		}
		if n > limit.Requests {
			v.over++
		}
	}
	v.mu.Unlock()
	time.Sleep(rand.N(40 * time.Millisecond))
	v.mu.Lock()
	v.inside--
	v.mu.Unlock()
	return answered(200), nil
}

// TestLimitsAreKept: the vendor counts for itself. In the end it sees all requests of two clients,
// never too many within any span, and each as soon as the limits allow.
func TestLimitsAreKept(t *testing.T) {
	limits := []Limit{{10, time.Second}, {40, 30 * time.Second}}
	for _, atOnce := range []int{1, 4, 20} {
		synctest.Test(t, func(t *testing.T) {
			vendor := &countingVendor{limits: limits}
			l := NewLimiter(Limits{atOnce, limits})
			clients := []*Client{limitedClient(t, l, vendor.answer), limitedClient(t, l, vendor.answer)}
			begin := time.Now()
			var calls sync.WaitGroup
			for i := range 200 {
				calls.Go(func() {
					req := []Request{read(), read(), effect(), effect()}[i%4]
					if i%4 == 3 {
						req.Class = Once
					}
					if _, err := clients[i%2].Do(t.Context(), req); err != nil {
						t.Error(err)
					}
				})
			}
			calls.Wait()
			if vendor.over > 0 || vendor.most > atOnce || vendor.most < min(atOnce, 4) || len(vendor.at) != 200 {
				t.Errorf("%d at once: %d requests, %d at a time, %d over the limit", atOnce, len(vendor.at), vendor.most, vendor.over)
			}
			if took := time.Since(begin); took < 120*time.Second || took > 170*time.Second {
				t.Errorf("%d at once: took %s", atOnce, took)
			}
		})
	}
}

func TestFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		c := limitedClient(t, NewLimiter(Limits{AtOnce: 1}), func(r *http.Request) (*http.Response, error) {
			got = append(got, r.URL.Path)
			time.Sleep(time.Second)
			return answered(200), nil
		})
		var calls sync.WaitGroup
		for i := range 10 {
			calls.Go(func() {
				req := read()
				req.Path = fmt.Sprint("/", i)
				if _, err := c.Do(t.Context(), req); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		calls.Wait()
		if all := strings.Join(got, ""); all != "/0/1/2/3/4/5/6/7/8/9" {
			t.Error(all)
		}
	})
}

// TestLimitsAndDeadlines: what cannot be sent before the deadline is not sent at all, and the error
// says so: at once if that is known, or when the deadline comes.
func TestLimitsAndDeadlines(t *testing.T) {
	for name, tt := range map[string]struct {
		before int // requests
		limits []Limit
		slow   time.Duration // how long they take
		took   time.Duration // to be refused
		wish   time.Duration
	}{
		"no room":                 {before: 1, limits: []Limit{{1, time.Minute}}, wish: time.Minute},
		"no room for longer":      {before: 1, limits: []Limit{{1, time.Hour}}, wish: MaxRetryAfter},
		"behind one without room": {before: 2, limits: []Limit{{1, time.Minute}}, wish: time.Minute},
		"behind a slow one":       {before: 1, slow: 20 * time.Second, took: 10 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			sent := 0
			c := limitedClient(t, NewLimiter(Limits{1, tt.limits}), func(*http.Request) (*http.Response, error) {
				sent++
				time.Sleep(tt.slow)
				return answered(200), nil
			})
			var others sync.WaitGroup
			for range tt.before {
				others.Go(func() {
					if _, err := c.Do(t.Context(), read()); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				})
				synctest.Wait()
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			begin := time.Now()
			e := mustFail(t, c, ctx, effect())
			if e.Verdict != vendors.Retryable || !errors.Is(e, errRateLimit) || e.RetryAfter != tt.wish || time.Since(begin) != tt.took {
				t.Errorf("%s: %v, retry after %s, after %s", name, e, e.RetryAfter, time.Since(begin))
			}
			if others.Wait(); sent != tt.before {
				t.Errorf("%s: sent %d", name, sent)
			}
		})
	}
}

// TestEffectsPassReads: an effect does not wait for reads, neither for its turn nor for room in the
// limits.
func TestEffectsPassReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := limitedClient(t, NewLimiter(Limits{1, []Limit{{20, time.Hour}}}), func(*http.Request) (*http.Response, error) {
			time.Sleep(time.Second)
			return answered(200), nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		var reads sync.WaitGroup
		for range 100 {
			reads.Go(func() { _, _ = c.Do(ctx, read()) })
		}
		synctest.Wait()
		for _, want := range []time.Duration{3 * time.Second, time.Second, time.Second} {
			begin := time.Now()
			if _, err := c.Do(t.Context(), effect()); err != nil || time.Since(begin) > want {
				t.Errorf("%v after %s", err, time.Since(begin))
			}
			time.Sleep(30 * time.Second) // the reads take the room that is left for them
		}
		short, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		if e := mustFail(t, c, short, effect()); !errors.Is(e, errRateLimit) {
			t.Error(e)
		}
		cancel()
		reads.Wait()
	})
}

// TestQueueDoesNotOutlastTheLastCheck: a paid request that waited in the queue for too long is not
// sent when its turn comes.
func TestQueueDoesNotOutlastTheLastCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		paid := 0
		c := limitedClient(t, NewLimiter(Limits{AtOnce: 1}), func(r *http.Request) (*http.Response, error) {
			if r.URL.Path == "/paid" {
				paid++
			} else {
				time.Sleep(29 * time.Second)
			}
			return answered(200), nil
		})
		for range 3 {
			go func() { _, _ = c.Do(t.Context(), effect()) }()
		}
		synctest.Wait()
		tooLate, since := errors.New("too late"), time.Now()
		check := func() error {
			if time.Since(since) > time.Minute {
				return tooLate
			}
			return nil
		}
		req := effect()
		req.Path = "/paid"
		ctx, cancel := context.WithTimeout(vendors.BeforeSending(t.Context(), check), 2*time.Minute)
		defer cancel()
		if e := mustFail(t, c, ctx, req); e.Verdict != vendors.Retryable || !errors.Is(e, tooLate) || paid > 0 {
			t.Errorf("%v, paid %d", e, paid)
		}
		since = time.Now()
		if _, err := c.Do(ctx, req); err != nil || paid != 1 {
			t.Errorf("in time: %v, paid %d", err, paid)
		}
	})
}

// TestTooManyRequestsPausesAll: HTTP 429 pauses all clients of the credential, longer each time in a
// row.
func TestTooManyRequestsPausesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var status atomic.Int32
		wish := ""
		vendor := func(*http.Request) (*http.Response, error) {
			resp := answered(int(status.Load()))
			resp.Header.Set("Retry-After", wish)
			return resp, nil
		}
		l := NewLimiter(Limits{AtOnce: 1})
		first, second := limitedClient(t, l, vendor), limitedClient(t, l, vendor)
		took := func(c *Client) time.Duration {
			begin := time.Now()
			_, _ = c.Do(t.Context(), effect())
			return time.Since(begin)
		}
		status.Store(200)
		if got := took(first); got != 0 {
			t.Errorf("waited %s", got)
		}
		status.Store(429)
		for i, seconds := range []int{0, 5, 10, 20, 40, 80, 160, 300, 300} {
			want := time.Duration(seconds) * time.Second
			if got := took([]*Client{first, second}[i%2]); got != want {
				t.Errorf("request %d waited %s, want %s", i, got, want)
			}
		}
		status.Store(200)
		took(second)
		status.Store(429)
		wish = "42"
		took(first)
		if got := took(second); got != 42*time.Second {
			t.Errorf("waited %s, want 42s", got)
		}
	})
}

func TestSharedLimiter(t *testing.T) {
	one, two := Config{Endpoint: "https://a", Secret: "x"}, Config{Endpoint: "https://a", Secret: "y"}
	l, release := SharedLimiter(one, Limits{1, []Limit{{1, time.Hour}}})
	again, releaseAgain := SharedLimiter(one, Limits{1, []Limit{{2, time.Hour}}})
	other, releaseOther := SharedLimiter(two, Limits{AtOnce: 1})
	if l != again || l == other || l.limits[0].Requests != 2 {
		t.Errorf("%p %p %p: %v", l, again, other, l.limits)
	}
	release()
	if l, release := SharedLimiter(one, Limits{AtOnce: 1}); l != again {
		t.Error("the limiter was dropped while in use")
	} else {
		release()
	}
	releaseAgain()
	releaseOther()
	limiters.Range(func(any, any) bool { t.Error("not all released"); return false })
}

// TestPanicsHoldNobodyUp: a panic in a request passes its turn to the next one, because the rounds
// of the issuer survive panics.
func TestPanicsHoldNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := true
		c := limitedClient(t, NewLimiter(Limits{AtOnce: 1}), func(*http.Request) (*http.Response, error) {
			if broken {
				broken = false
				panic("broken")
			}
			return answered(200), nil
		})
		for range 2 {
			func() {
				defer func() { _ = recover() }()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if _, err := c.Do(ctx, Request{Call: Call{Name: "call", Class: Read}}); err != nil {
					t.Error(err)
				}
			}()
		}
	})
}
