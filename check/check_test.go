package check

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// TestRun: all tasks run at the same time, with results in their order, and a task that takes too
// long becomes a warning that says so.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tasks := []Task{
			{Check: "slow", Name: "a", Do: func(context.Context) []Result {
				time.Sleep(2 * time.Second)
				return []Result{stop("mend it", "broken")}
			}},
			{Check: "endless", Name: "b", Do: func(ctx context.Context) []Result {
				time.Sleep(time.Hour)
				return []Result{ok("at last")}
			}},
			{Check: "obedient", Name: "c", Do: func(ctx context.Context) []Result {
				<-ctx.Done()
				return []Result{{Name: "d", Verdict: Warning, Message: "half of it"}, ok("fine")}
			}},
			{Check: "nothing", Do: func(context.Context) []Result { return nil }},
		}
		began := time.Now()
		results := Run(t.Context(), 5*time.Second, tasks)
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("it took %s", took)
		}
		if len(results) != 4 || !Stops(results) {
			t.Fatalf("%+v", results)
		}
		for i, want := range []Result{
			{Check: "slow", Name: "a", Verdict: Stop, Message: "broken", Advice: "mend it", Took: 2 * time.Second},
			{Check: "endless", Name: "b", Verdict: Warning, Message: "not finished within 5s", Advice: results[1].Advice, Took: 5 * time.Second},
			{Check: "obedient", Name: "d", Verdict: Warning, Message: "half of it", Took: 5 * time.Second},
			{Check: "obedient", Name: "c", Verdict: OK, Message: "fine", Took: 5 * time.Second},
		} {
			if results[i] != want {
				t.Errorf("%+v, want %+v", results[i], want)
			}
		}
		time.Sleep(2 * time.Hour) // the result of the one that is still running is dropped
	})
}

// TestRunOutlivesAPanic: what the others have begun, such as a record in a zone, is ended by them.
func TestRunOutlivesAPanic(t *testing.T) {
	results := Run(t.Context(), time.Minute, []Task{
		{Check: "broken", Name: "a", Do: func(context.Context) []Result { panic("out of order") }},
		{Check: "fine", Do: func(context.Context) []Result { return []Result{ok("fine")} }},
	})
	if len(results) != 2 || results[0].Check != "broken" || results[0].Name != "a" || results[0].Verdict != Warning ||
		!strings.Contains(results[0].Message, "out of order") || results[1].Verdict != OK {
		t.Errorf("%+v", results)
	}
}

// TestRunMany: there are more tasks than run at once.
func TestRunMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tasks []Task
		for range 3 * atOnce {
			tasks = append(tasks, Task{Check: "x", Do: func(context.Context) []Result {
				time.Sleep(time.Second)
				return []Result{ok("done")}
			}})
		}
		if results := Run(t.Context(), 2500*time.Millisecond, tasks); len(results) != len(tasks) || results[0].Verdict != OK || worst(results) != Warning {
			t.Errorf("%d results, %s", len(results), worst(results))
		}
		if results := Run(t.Context(), 4*time.Second, tasks); worst(results) != OK {
			t.Errorf("%+v", results)
		}
	})
}

func TestLegal(t *testing.T) {
	for name, want := range map[string]string{
		"shop.example.com":                 "",
		"*.example.com":                    "",
		"xn--bcher-kva.example.com":        "",
		"me.github.io":                     "",
		"www.example.co.uk":                "",
		"co.uk":                            "is a public suffix",
		"*.co.uk":                          "is a public suffix, and CAs must refuse",
		"ab--cd.example.com":               "third and fourth",
		"xn--99999999999.example.com":      "not Punycode",
		"*.com":                            "below a public suffix",
		"com":                              "below a public suffix",
		"192.0.2.7":                        "IP address",
		"2001:db8::1":                      "IP address",
		"intranet":                         "below a public suffix",
		"shop.local":                       "no public registry",
		"shop.internal":                    "no public registry",
		"my_shop.example.com":              "underscore",
		"-shop.example.com":                "hyphens",
		"shop..example.com":                "1 to 63 bytes",
		"a.*.example.com":                  "wildcard",
		strings.Repeat("a", 64) + ".com":   "1 to 63 bytes",
		strings.Repeat("abc.", 70) + "com": "253",
	} {
		r := Legal(name)
		if (r.Verdict != OK) != (want != "") || (r.Verdict == Warning) != (want == "no public registry" || want == "is a public suffix") || !strings.Contains(r.Message, want) {
			t.Errorf("%s: %+v, want %q", name, r, want)
		}
	}
}

func TestFits(t *testing.T) {
	single := vendors.Product{Code: "single", MaxNames: 1}
	wild := vendors.Product{Code: "wild", Wildcard: true}
	for _, c := range []struct {
		p     vendors.Product
		names []string
		want  Verdict
	}{
		{single, []string{"a.example.com"}, OK},
		{single, []string{"a.example.com", "b.example.com"}, Stop},
		{single, []string{"*.example.com"}, Stop},
		{wild, []string{"*.example.com", "example.com"}, OK},
	} {
		if r := Fits(c.p, c.names); r.Verdict != c.want {
			t.Errorf("%v: %+v", c.names, r)
		}
	}
}

// TestTerm: the rules change within terms that are sold today.
func TestTerm(t *testing.T) {
	day := func(text string) time.Time {
		at, err := time.Parse(time.DateOnly, text)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	for _, c := range []struct {
		term vendors.Term
		now  string
		want Verdict
		word string
	}{
		{vendors.Term{Days: 90}, "2026-11-29", OK, "at most 200 days today"},
		{vendors.Term{Years: 1}, "2027-03-14", OK, "at most 200 days today, 100 at the end of the term"},
		{vendors.Term{Years: 1}, "2026-11-29", OK, "at least 3"},
		{vendors.Term{Years: 1}, "2029-03-15", OK, "at least 8"},
		{vendors.Term{Years: 3}, "2026-11-29", Warning, "47 at the end of the term"},
	} {
		if r := Term(c.term, day(c.now)); r.Verdict != c.want || !strings.Contains(r.Message, c.word) {
			t.Errorf("%v at %s: %+v", c.term, c.now, r)
		}
	}
}

func TestSkew(t *testing.T) {
	for ahead, want := range map[time.Duration]Verdict{
		0: OK, 30 * time.Second: OK, -2 * time.Minute: Warning, time.Hour: Warning, 24 * time.Hour: Stop, -400 * 24 * time.Hour: Stop,
	} {
		if r := skewed(ahead, "racent"); r.Verdict != want {
			t.Errorf("%s: %+v", ahead, r)
		}
	}
	if r := skewed(-2*time.Minute, "racent"); !strings.Contains(r.Message, "2m0s behind that of racent") {
		t.Error(r.Message)
	}
}

// fakeVendor answers as the test says.
type fakeVendor struct {
	vendors.Vendor
	err      error
	products []vendors.Product
	now      time.Time
}

func (v fakeVendor) Validate(context.Context, vendors.OrderRequest) error { return v.err }
func (v fakeVendor) Balance(context.Context) (string, error)              { return "12.00 USD", v.err }
func (v fakeVendor) Time(context.Context) (time.Time, error)              { return v.now, v.err }
func (v fakeVendor) CheckConfig(vendors.OrderConfig) error                { return v.err }
func (v fakeVendor) Products(context.Context) ([]vendors.Product, error)  { return v.products, v.err }

// TestAccount: a refusal by the vendor stops an order, and a missing answer does not.
func TestAccount(t *testing.T) {
	account := func(err error, products ...vendors.Product) Account {
		about := vendors.Description{Name: "racent", Portal: "https://portal.example", Methods: []vendors.Method{vendors.MethodHTTP}}
		order := vendors.OrderConfig{Product: "dv", Method: vendors.MethodHTTP, Term: vendors.Term{Years: 1}}
		return Account{fakeVendor{err: err, products: products, now: time.Now()}, about, order}
	}
	refused := &vendors.Error{Vendor: "racent", Verdict: vendors.Permanent, Err: vendors.ErrCredential}
	for _, c := range []struct {
		what string
		err  error
		want Verdict
		word string
	}{
		{"fine", nil, OK, "accepts the credential"},
		{"credential", refused, Stop, "refused"},
		{"balance", &vendors.Error{Verdict: vendors.Permanent, Err: vendors.ErrBalance}, Stop, "too low"},
		{"other", &vendors.Error{Verdict: vendors.Permanent, Message: "no such product"}, Stop, "no such product"},
		{"down", &vendors.Error{Verdict: vendors.Retryable}, Warning, "could not be asked"},
		{"lost", errors.New("connection reset"), Warning, "could not be asked"},
	} {
		r := account(c.err).Credentials(t.Context(), vendors.OrderRequest{Names: []string{"a.example.com"}})
		if r.Verdict != c.want || !strings.Contains(r.Message, c.word) {
			t.Errorf("%s: %+v", c.what, r)
		}
	}
	// A credential that may not read the balance may still order.
	if r := account(refused).Balance(t.Context()); r.Verdict != Warning {
		t.Errorf("%+v", r)
	}
	if r := account(nil).Balance(t.Context()); r.Verdict != OK || !strings.Contains(r.Message, "12.00 USD") {
		t.Errorf("%+v", r)
	}
	if r := account(nil).Clock(t.Context()); r.Verdict != OK {
		t.Errorf("%+v", r)
	}
	if r := account(errors.New("contact: email is missing\nterm: too long")).Fields(); r.Verdict != Stop || strings.Contains(r.Message, "\n") {
		t.Errorf("%+v", r)
	}
	orders := [][]string{{"a.example.com"}, {"*.example.com"}}
	dv := vendors.Product{Code: "dv", Prices: map[int]string{12: "5.00"}}
	for _, c := range []struct {
		products []vendors.Product
		want     Verdict
		word     string
	}{
		{[]vendors.Product{dv}, Stop, "does not cover wildcards"},
		{nil, Stop, "does not sell"},
		{[]vendors.Product{{Code: "dv", Wildcard: true, Prices: map[int]string{24: "9.00"}}}, Warning, "no price for 1 year"},
		{[]vendors.Product{{Code: "dv", Wildcard: true, Validation: "ov"}}, Warning, "names an organization"},
		{[]vendors.Product{{Code: "dv", Wildcard: true}}, OK, "sells dv"},
	} {
		results := account(nil, c.products...).Product(t.Context(), orders)
		last := results[len(results)-1]
		if worst(results) != c.want || !strings.Contains(last.Message, c.word) {
			t.Errorf("%+v: %+v", c, results)
		}
	}
}

// TestPort distinguishes who listens.
func TestPort(t *testing.T) {
	for _, c := range []struct {
		server string
		runs   bool
		want   Verdict
		word   string
	}{
		{"Caddy", true, OK, "Caddy listens"},
		{"Caddy", false, Warning, "not with this config"},
		{"nginx", true, Warning, "nginx"},
		{"nginx", false, Warning, "pass /.well-known"},
		{"", false, Warning, "does not identify itself"},
	} {
		ln := listen(t)
		left := make(chan struct{})
		srv := &httptest.Server{Listener: ln, Config: &http.Server{
			Handler: say(200, "", "Server", c.server),
			ConnState: func(_ net.Conn, state http.ConnState) {
				if state == http.StateClosed {
					close(left)
				}
			},
		}}
		srv.Start()
		r := Port(t.Context(), ln.Addr().(*net.TCPAddr).Port, c.runs)
		select {
		case <-left:
		case <-time.After(10 * time.Second):
			t.Error("the connection is kept")
		}
		srv.Close()
		if r.Verdict != c.want || !strings.Contains(r.Message+r.Advice, c.word) {
			t.Errorf("%+v: %+v", c, r)
		}
	}
}

// TestServe: one file is served under any name, and nothing afterwards.
func TestServe(t *testing.T) {
	ln := listen(t)
	port := ln.Addr().(*net.TCPAddr).Port
	_ = ln.Close()
	end, err := Serve(t.Context(), []string{"127.0.0.1"}, port, trial)
	if err != nil {
		t.Fatal(err)
	}
	prober := dcv.Prober{Port: port}
	if err := prober.Probe(t.Context(), "shop.localhost", trial); err != nil {
		t.Error(err)
	}
	other := trial
	other.Path += "x"
	if err := prober.Probe(t.Context(), "shop.localhost", other); err == nil {
		t.Error("another file was served")
	}
	if _, err := Serve(t.Context(), []string{"127.0.0.1"}, port, trial); err == nil {
		t.Error("it listened twice")
	}
	end()
	if err := prober.Probe(t.Context(), "shop.localhost", trial); err == nil {
		t.Error("it is still served")
	}
}
