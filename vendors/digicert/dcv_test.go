package digicert

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// TestAnswersOfCheckDCV: the answers are those of the documentation, one for each method that an
// order can have.
func TestAnswersOfCheckDCV(t *testing.T) {
	const check, change = "PUT /order/certificate/123/check-dcv", "PUT /order/certificate/123/dcv-method"
	for file, tt := range map[string]struct {
		method  vendors.Method
		is      error // nil means success
		code    string
		changes int // of the method
	}{
		"200.json":               {vendors.MethodHTTP, nil, "", 0},
		"400-dns-txt-token.json": {vendors.MethodDNS, vendors.ErrStillIssuing, "invalid_dns_txt", 0},
		"400-http-token.json":    {vendors.MethodHTTP, vendors.ErrStillIssuing, "file_random_value_not_found", 0},
		"400-email.json":         {vendors.MethodHTTP, vendors.ErrStillIssuing, "", 1},
	} {
		body, err := os.ReadFile(filepath.Join("testdata", "check-dcv", file))
		if err != nil {
			t.Fatal(err)
		}
		status, err := strconv.Atoi(file[:3])
		if err != nil {
			t.Fatal(err)
		}
		f := newFake(t)
		f.expect(check, "", status, string(body))
		f.expect(change, `{"dcv_method":"http-token"}`, 200, `{"dcv_random_value":"abc"}`)
		err = f.orders.Recheck(t.Context(), "123", nil, tt.method)
		if !errors.Is(err, tt.is) || f.calls[check] != 1 || f.calls[change] != tt.changes {
			t.Errorf("%s: %v after %v", file, err, f.calls)
		}
		if e, ok := errors.AsType[*vendors.Error](err); ok && (e.Code != tt.code || e.Message == "" || e.Verdict != vendors.Retryable) {
			t.Errorf("%s: %+v", file, e)
		}
	}
}

func TestRecheck(t *testing.T) {
	const check = "PUT /order/certificate/123/check-dcv"
	names := []string{"example.com"}
	for _, tt := range []struct {
		status  int
		body    string
		verdict vendors.Verdict // -1 means success
		is      error
	}{
		{200, `{"order_status":"pending","certificate_id":1,"dcv_status":"valid"}`, -1, nil},
		{200, `{"order_status":"issued","dns_name_validations":[{"dns_name":"a","status":"approved"}]}`, -1, nil},
		{400, refusal("file_random_value_not_found"), vendors.Retryable, vendors.ErrStillIssuing},
		{400, refusal("invalid_dns_txt"), vendors.Retryable, vendors.ErrStillIssuing},
		{400, refusal(" invalid_dns_cname"), vendors.Retryable, vendors.ErrStillIssuing},
		{400, refusal("something_else"), vendors.Permanent, nil},
		{404, refusal("not_found|order"), vendors.Permanent, vendors.ErrNotFound},
	} {
		f := newFake(t)
		f.expect(check, "", tt.status, tt.body)
		err := f.orders.Recheck(t.Context(), "123", names, vendors.MethodHTTP)
		if (err == nil) != (tt.verdict < 0) || err != nil && vendors.VerdictOf(err) != tt.verdict || tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("HTTP %d %s: %v", tt.status, tt.body, err)
		}
		if !errors.Is(tt.is, vendors.ErrStillIssuing) && errors.Is(err, vendors.ErrStillIssuing) {
			t.Errorf("HTTP %d %s: mistaken for not yet issued", tt.status, tt.body)
		}
	}

	f := newFake(t)
	f.expect(check, "", 400, refusal("invalid_dns_method"))
	f.expect("PUT /order/certificate/123/dcv-method", `{"dcv_method":"dns-txt-token"}`, 200, `{"dcv_random_value":"abc","expiration_date":"2036-02-24T16:25:52+00:00"}`)
	if err := f.orders.Recheck(t.Context(), "123", names, vendors.MethodDNS); !errors.Is(err, vendors.ErrStillIssuing) {
		t.Errorf("wrong method: %v", err)
	}
	f.expect("PUT /order/certificate/123/dcv-method", "*", 204, "")
	if err := f.orders.Recheck(t.Context(), "123", names, vendors.MethodDNS); !errors.Is(err, vendors.ErrStillIssuing) {
		t.Errorf("wrong method, no answer: %v", err)
	}
	f.expect("PUT /order/certificate/123/dcv-method", "*", 400, refusal("invalid_wildcard_dcv_method"))
	if err := f.orders.Recheck(t.Context(), "123", names, vendors.MethodHTTP); vendors.VerdictOf(err) != vendors.Permanent {
		t.Errorf("impossible method: %v", err)
	}
}

func TestRandomValuesThatCannotBeServed(t *testing.T) {
	for _, value := range []string{"", "a b", "a/b", "a.b", "ä", "\u212a", strings.Repeat("a", maxValue+1), "a\n"} {
		if ch, ok := proofOf(methodFile, value); ok {
			t.Errorf("%q: %+v", value, ch)
		}
	}
	if _, ok := proofOf("email", "abc"); ok {
		t.Error("email has a proof to serve")
	}
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
