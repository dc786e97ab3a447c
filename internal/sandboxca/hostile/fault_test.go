package hostile

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/fault"
)

// post makes a raw call and returns what a client sees of it.
func post(ctx context.Context, rt http.RoundTripper, base, endpoint string, form map[string]string) (*http.Response, string, error) {
	values := url.Values{"api_token": {testToken}}
	for k, v := range form {
		values.Set(k, v)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/ssl/"+endpoint, strings.NewReader(values.Encode()))
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

// TestFaults tries every kind over a real connection and in-process, in both
// phases; what the client sees is the same, whether it was charged is not.
func TestFaults(t *testing.T) {
	type seen struct {
		resp *http.Response
		body string
		err  error
	}
	tests := map[string]struct {
		fault Fault
		check func(seen) bool
	}{
		"status": {Fault{Kind: HTTPStatus, Status: 503, RetryAfter: "7", Body: []byte("later")}, func(s seen) bool {
			return s.err == nil && s.resp.StatusCode == 503 && s.resp.Header.Get("Retry-After") == "7" && s.body == "later"
		}},
		"html": {Fault{Kind: HTML}, func(s seen) bool {
			return s.err == nil && s.resp.StatusCode == 502 && s.resp.Header.Get("Content-Type") == "text/html" && strings.HasPrefix(s.body, "<html>")
		}},
		"empty":   {Fault{Kind: Empty}, func(s seen) bool { return s.err == nil && s.resp.StatusCode == 200 && s.body == "" }},
		"cut off": {Fault{Kind: CutOff}, func(s seen) bool { return errors.Is(s.err, io.ErrUnexpectedEOF) && strings.HasPrefix(s.body, "{") }},
		"bad json": {Fault{Kind: BadJSON}, func(s seen) bool {
			return s.err == nil && strings.HasPrefix(s.body, "{") && !strings.HasSuffix(s.body, "}")
		}},
		"reset": {Fault{Kind: Reset}, func(s seen) bool { return errors.Is(s.err, syscall.ECONNRESET) }},
		"huge":  {Fault{Kind: Huge}, func(s seen) bool { return s.err == nil && len(s.body) > fault.HugeBytes }},
		"api code": {Fault{Kind: APICode, Code: -2, Errors: "unexpected"}, func(s seen) bool {
			return s.err == nil && s.resp.StatusCode == 200 && s.body == `{"code":-2,"errors":"unexpected"}`
		}},
		"redirect": {Fault{Kind: Redirect, Status: 307, Body: []byte("https://127.0.0.1:1/")}, func(s seen) bool {
			return s.err == nil && s.resp.StatusCode == 307 && s.resp.Header.Get("Location") == "https://127.0.0.1:1/"
		}},
	}
	for name, tt := range tests {
		for _, phase := range []Phase{BeforeEffect, AfterEffect} {
			b := newBench(t, nil)
			srv := httptest.NewServer(b.CA)
			transports := map[string]http.RoundTripper{srv.URL: srv.Client().Transport, "http://sandbox": b.Transport()}
			for base, rt := range transports {
				before := len(b.Charges())
				f := tt.fault
				f.Endpoint, f.Phase = "place", phase
				remove := b.Inject(f)
				var s seen
				s.resp, s.body, s.err = post(t.Context(), rt, base, "place", orderForm(t, "comodo-positivessl", "", "a.example.com"))
				if !tt.check(s) {
					t.Errorf("%s, phase %d, %s: %v, %.80q, %v", name, phase, base, s.resp, s.body, s.err)
				}
				if charged := len(b.Charges()) > before; charged != (phase == AfterEffect) {
					t.Errorf("%s, phase %d, %s: charged %v", name, phase, base, charged)
				}
				remove()
				b.want(b.call("place", orderForm(t, "comodo-positivessl", "", "a.example.com")), 1)
			}
			srv.Close()
		}
	}
}

func TestFaultSelection(t *testing.T) {
	b := newBench(t, nil)
	b.Inject(Fault{Endpoint: "list", Kind: APICode, Code: -2, Skip: 1, Times: 2})
	var got []int
	for range 5 {
		got = append(got, b.call("list", nil).Code)
	}
	if want := []int{1, -2, -2, 1, 1}; !equal(got, want) {
		t.Errorf("codes %v, want %v", got, want)
	}
	remove := b.Inject(Fault{Kind: APICode, Code: 400})
	b.want(b.call("productList", map[string]string{"vendor": "Sectigo"}), 400)
	remove()
	b.want(b.call("productList", map[string]string{"vendor": "Sectigo"}), 1)
}

func equal(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestExtraFields(t *testing.T) {
	b := newBench(t, nil)
	defer b.Inject(Fault{Kind: ExtraFields})()
	id := b.placed("comodo-positivessl", "", "a.example.com")
	r := b.want(b.call("collect", map[string]string{"certId": id}), 1)
	if strings.Count(r.raw, "sandboxExtra") != 2 || r.field("certId") != id {
		t.Errorf("answer %s", r.raw)
	}
}

// TestHang gives up on a call that never answers; the charge stays.
func TestHang(t *testing.T) {
	b := newBench(t, nil)
	srv := httptest.NewServer(b.CA)
	defer srv.Close()
	for base, rt := range map[string]http.RoundTripper{srv.URL: srv.Client().Transport, "http://sandbox": b.Transport()} {
		before := len(b.Charges())
		ctx, cancel := context.WithCancel(t.Context())
		b.OnCall(func(_ string, phase Phase) {
			if phase == AfterEffect {
				cancel()
			}
		})
		remove := b.Inject(Fault{Endpoint: "place", Phase: AfterEffect, Kind: Hang})
		_, _, err := post(ctx, rt, base, "place", orderForm(t, "comodo-positivessl", "", "a.example.com"))
		remove()
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", base, err)
		}
		if len(b.Charges()) != before+1 {
			t.Errorf("%s: %d charges", base, len(b.Charges()))
		}
	}
}

// TestCloseEndsHanging closes the CA during a hanging and a delayed call.
func TestCloseEndsHanging(t *testing.T) {
	for _, f := range []Fault{{Kind: Hang}, {Kind: Delay, Delay: time.Hour}, {Kind: Delay, Until: make(chan struct{})}} {
		b := newBench(t, nil)
		arrived := make(chan struct{})
		b.OnCall(func(string, Phase) { close(arrived) })
		b.Inject(f)
		result := make(chan error, 1)
		go func() {
			_, _, err := post(context.WithoutCancel(t.Context()), b.Transport(), "http://sandbox", "list", nil)
			result <- err
		}()
		<-arrived
		b.Close()
		if err := <-result; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%+v: %v", f, err)
		}
		if _, _, err := post(t.Context(), b.Transport(), "http://sandbox", "list", nil); err == nil {
			t.Error("a closed CA answers")
		}
	}
}

// TestLateCharge shows a call whose client gave up before it was processed.
func TestLateCharge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.Inject(Fault{Endpoint: "place", Kind: Delay, Delay: time.Minute})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err := post(ctx, b.Transport(), "http://sandbox", "place", orderForm(t, "comodo-positivessl", "late", "a.example.com"))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("error %v", err)
		}
		b.want(b.call("certIdByrefId", map[string]string{"refId": "late"}), -1)
		if len(b.Charges()) != 0 {
			t.Fatal("charged too early")
		}
		<-time.After(time.Minute)
		synctest.Wait()
		b.want(b.call("certIdByrefId", map[string]string{"refId": "late"}), 1)
		if len(b.Charges()) != 1 {
			t.Error("not charged")
		}
	})
}

func TestOnCall(t *testing.T) {
	b := newBench(t, nil)
	var seen []string
	b.OnCall(func(endpoint string, phase Phase) {
		seen = append(seen, endpoint+[]string{"<", ">"}[phase])
		if want := int(phase); endpoint == "place" && len(b.Charges()) != want {
			t.Errorf("phase %d with %d charges", phase, len(b.Charges()))
		}
	})
	b.placed("comodo-positivessl", "", "a.example.com")
	b.call("list", nil)
	if got := strings.Join(seen, " "); got != "place< place> list< list>" {
		t.Errorf("calls %s", got)
	}
	b.OnCall(nil)
	b.call("list", nil)
	if len(seen) != 4 {
		t.Error("the hook is still called")
	}
}
