package digicert

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
)

// pendingFake answers the requests about a pending order other than that for its status.
func pendingFake(t *testing.T, info string) *fake {
	f := newFake(t)
	f.expect("GET /order/certificate/123", "", 200, info)
	f.expect("GET /order/certificate/123/validation", "", 200, `{"order_id":"123"}`)
	f.expect("PUT /order/certificate/123/dcv-random-value", "", 200, `{"dcv_random_value":"abc","expiration_date":"2036-02-24T16:25:52+00:00"}`)
	f.expect("GET /certificate/77/download/format/pem_all", "", 200, testPEM("leaf", "intermediate", "root"))
	return f
}

func TestStatusWords(t *testing.T) {
	for word, want := range map[string]vendors.Status{
		"needs_approval": vendors.StatusPending, "pending": vendors.StatusPending, "processing": vendors.StatusPending,
		"reissue_pending": vendors.StatusPending, "waiting_pickup": vendors.StatusPending, "needs_csr": vendors.StatusPending,
		"issued": vendors.StatusIssued, "ISSUED": vendors.StatusIssued, "rejected": vendors.StatusRejected, "canceled": vendors.StatusCancelled,
		"revoked": vendors.StatusRevoked, "expired": vendors.StatusExpired, "hibernating": vendors.StatusUnknown,
	} {
		f := pendingFake(t, `{"id":123,"status":"`+word+`","certificate":{"id":77},"organization":[],"dcv_method":"http-token"}`)
		got, err := f.orders.Status(t.Context(), "123")
		if err != nil || got.Status != want || got.RawStatus != strings.ToLower(word) || got.ID != "123" {
			t.Errorf("%s: %+v, %v", word, got, err)
		}
		if (len(got.Certificates) > 0) != (want == vendors.StatusIssued) {
			t.Errorf("%s: %d certificates", word, len(got.Certificates))
		}
		if f.calls["GET /certificate/77/download/format/pem_all"] > 0 && want != vendors.StatusIssued {
			t.Errorf("%s: downloaded the previous certificate", word)
		}
		wantsProof := (want == vendors.StatusPending || want == vendors.StatusUnknown) && word != "needs_approval"
		if (len(got.Challenges) > 0) != wantsProof {
			t.Errorf("%s: challenges %v", word, got.Challenges)
		}
	}
}

func TestStatusErrors(t *testing.T) {
	for _, tt := range []struct {
		status  int
		body    string
		verdict vendors.Verdict
		is      error
	}{
		{404, refusal("not_found|order"), vendors.Permanent, vendors.ErrNotFound},
		{404, refusal("not_found|route"), vendors.Permanent, nil},
		{404, `<html>`, vendors.Retryable, nil},
		{403, refusal("access_denied|access_denied_invalid_key"), vendors.Permanent, vendors.ErrCredential},
		{403, `<html>`, vendors.Retryable, nil},
		{200, `{}`, vendors.Retryable, nil},
		{200, `[]`, vendors.Retryable, nil},
	} {
		f := newFake(t)
		f.expect("GET /order/certificate/123", "", tt.status, tt.body)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err := f.orders.Status(ctx, "123")
		cancel()
		if err == nil || vendors.VerdictOf(err) != tt.verdict || tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("HTTP %d %s: %v", tt.status, tt.body, err)
		}
		if !errors.Is(tt.is, vendors.ErrNotFound) && errors.Is(err, vendors.ErrNotFound) {
			t.Errorf("HTTP %d %s: mistaken for an unknown order", tt.status, tt.body)
		}
	}
}

func TestIssuedOrder(t *testing.T) {
	f := pendingFake(t, `{"id":"123","status":"issued","certificate":{"id":"77","status":"issued"},"order_valid_till":"2027-03-20","organization":[],"container":[]}`)
	f.expect("GET /certificate/77/download/format/pem_all", "", 200, strings.ReplaceAll(testPEM("leaf", "intermediate", "root"), "\n", "\r\n"))
	got, err := f.orders.Status(t.Context(), "123")
	want := vendors.Order{
		ID: "123", Status: vendors.StatusIssued, RawStatus: "issued", TermEnds: time.Date(2027, 3, 20, 0, 0, 0, 0, time.UTC),
		Certificates: [][]byte{[]byte("leaf"), []byte("intermediate"), []byte("root")},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
}

func TestRevokedCertificateOfLivingOrder(t *testing.T) {
	f := pendingFake(t, `{"id":123,"status":"issued","certificate":{"id":77,"status":"revoked"}}`)
	if got, err := f.orders.Status(t.Context(), "123"); err != nil || got.Status != vendors.StatusIssued || !got.CertificateRevoked || len(got.Certificates) != 3 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestRevokedCertificateThatIsGone: a certificate that can no longer be downloaded still counts as
// revoked.
func TestRevokedCertificateThatIsGone(t *testing.T) {
	f := pendingFake(t, `{"id":123,"status":"issued","certificate":{"id":77,"status":"Revoked"}}`)
	f.expect("GET /certificate/77/download/format/pem_all", "", 404, refusal("not_found|certificate"))
	got, err := f.orders.Status(t.Context(), "123")
	if err != nil || got.Status != vendors.StatusIssued || !got.CertificateRevoked || len(got.Certificates) > 0 || got.Detail == "" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestDownload(t *testing.T) {
	for name, tt := range map[string]struct {
		status int
		body   string
		certs  int
		detail string
		err    error
		fails  bool
	}{
		"good":      {200, testPEM("leaf", "above"), 2, "", nil, false},
		"not ready": {400, refusal("not_yet"), 0, "cannot be downloaded so far: digicert download: HTTP 400: code not_yet", nil, false},
		"garbage":   {200, "subject=CN\n" + testPEM("leaf"), 0, "text between or around the PEM blocks", nil, false},
		"empty":     {200, "", 0, "issued, but without a certificate so far", nil, false},
		"bad key":   {403, refusal("access_denied"), 0, "", vendors.ErrCredential, true},
		"html 502":  {502, "<html>", 0, "", nil, true},
	} {
		f := pendingFake(t, `{"id":123,"status":"issued","certificate":{"id":77}}`)
		f.expect("GET /certificate/77/download/format/pem_all", "", tt.status, tt.body)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		got, err := f.orders.Status(ctx, "123")
		cancel()
		if (err != nil) != tt.fails || tt.err != nil && !errors.Is(err, tt.err) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if tt.fails {
			continue
		}
		wantStatus := vendors.StatusIssued
		if tt.certs == 0 {
			wantStatus = vendors.StatusPending
		}
		if got.Status != wantStatus || len(got.Certificates) != tt.certs || !strings.Contains(got.Detail, tt.detail) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	f := pendingFake(t, `{"id":123,"status":"issued"}`)
	if got, err := f.orders.Status(t.Context(), "123"); err != nil || got.Status != vendors.StatusPending || got.Detail == "" {
		t.Errorf("without a certificate's ID: %+v, %v", got, err)
	}
}

func TestWhatAPendingOrderWaitsFor(t *testing.T) {
	f := pendingFake(t, `{"id":123,"status":"pending","dcv_method":"dns-txt-token","requests":[{"id":1,"type":"new_request","status":"approved"}]}`)
	f.expect("GET /order/certificate/123/validation", "", 200, `{"order_id":"123",
		"organization_validations":[{"name":"OV","status":"active"},{"name":"EV","status":"pending"}],
		"dns_name_validations":[{"name_scope":"Example.com","status":"approved","dns_names":["Example.com","www.example.com"]},
		                       {"name_scope":"b.example","status":"pending","dns_names":[]}]}`)
	got, err := f.orders.Status(t.Context(), "123")
	want := vendors.Order{
		ID: "123", Status: vendors.StatusPending, RawStatus: "pending", Detail: "organization: EV pending",
		Challenges: []vendors.Challenge{{Method: vendors.MethodDNS, RecordName: "_dnsauth", RecordType: "TXT", RecordValue: "abc"}},
		Names:      []vendors.NameStatus{{Name: "example.com", Verified: true}, {Name: "www.example.com", Verified: true}, {Name: "b.example"}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}

	f = pendingFake(t, `{"id":123,"status":"needs_approval","dcv_method":"http-token","requests":[{"id":"9","type":"new_request","status":"pending"}]}`)
	got, err = f.orders.Status(t.Context(), "123")
	if err != nil || got.Status != vendors.StatusPending || !strings.Contains(got.Describe(), "approval of an administrator of the account, request 9 new_request; an API key with the administrator role needs none") {
		t.Errorf("%s, %v", got.Describe(), err)
	}
	if len(f.calls) != 1 {
		t.Errorf("asked %v", f.calls)
	}
}

// TestReissueForgetsOldValidations: a reissue is validated anew, so approved names are those of the
// previous certificate, and nothing may keep the issuer from requesting a check.
func TestReissueForgetsOldValidations(t *testing.T) {
	for status, want := range map[string]int{"pending": 1, "reissue_pending": 0} {
		f := pendingFake(t, `{"id":123,"status":"`+status+`","dcv_method":"http-token"}`)
		f.expect("GET /order/certificate/123/validation", "", 200, `{"dns_name_validations":[{"name_scope":"a.example","status":"approved"}]}`)
		if got, err := f.orders.Status(t.Context(), "123"); err != nil || len(got.Names) != want || len(got.Challenges) != 1 {
			t.Errorf("%s: %+v, %v", status, got, err)
		}
	}
}

// TestStatusWithoutItsSideDishes: the order's status counts, even if nothing else can be found out.
func TestStatusWithoutItsSideDishes(t *testing.T) {
	for _, status := range []int{400, 403, 404} {
		f := pendingFake(t, `{"id":123,"status":"pending","dcv_method":"http-token"}`)
		f.expect("GET /order/certificate/123/validation", "", status, refusal("x"))
		f.expect("PUT /order/certificate/123/dcv-random-value", "", status, refusal("nothing_left"))
		got, err := f.orders.Status(t.Context(), "123")
		if err != nil || got.Status != vendors.StatusPending || len(got.Challenges) != 0 {
			t.Errorf("HTTP %d: %+v, %v", status, got, err)
		}
	}
}

func TestMessagesAreShort(t *testing.T) {
	f := newFake(t)
	f.expect("GET /order/certificate/123", "", 400, fmt.Sprintf(`{"errors":[{"code":"x","message":%q}]}`, strings.Repeat("ä\n", 1000)))
	_, err := f.orders.Status(t.Context(), "123")
	e, ok := errors.AsType[*vendors.Error](err)
	if !ok || len(e.Message) > kit.MaxMessage+len("…") || strings.Contains(e.Message, "\n") || e.Message == "" {
		t.Errorf("%v", err)
	}
}

// TestMethodOfAPendingOrder: the method of a pending order is reported in one of two places, or nowhere.
func TestMethodOfAPendingOrder(t *testing.T) {
	file := vendors.Challenge{Method: vendors.MethodHTTP, FileName: "fileauth.txt", FileContent: "abc"}
	record := vendors.Challenge{Method: vendors.MethodDNS, RecordName: "_dnsauth", RecordType: "TXT", RecordValue: "abc"}
	for name, tt := range map[string]struct {
		info, validation string
		want             []vendors.Challenge
	}{
		"in the order":           {`,"dcv_method":"http-token"`, `{"order_dcv_method":"dns-txt-token"}`, []vendors.Challenge{file}},
		"in the validation":      {``, `{"order_dcv_method":"dns-txt-token"}`, []vendors.Challenge{record}},
		"nowhere":                {``, `{}`, []vendors.Challenge{file, record}},
		"empty":                  {`,"dcv_method":""`, `{"order_dcv_method":null}`, []vendors.Challenge{file, record}},
		"no validation at all":   {``, `<html>`, []vendors.Challenge{file, record}},
		"by mail, as a person's": {`,"dcv_method":"email"`, `{}`, nil},
	} {
		f := pendingFake(t, `{"id":123,"status":"pending"`+tt.info+`}`)
		f.expect("GET /order/certificate/123/validation", "", 200, tt.validation)
		got, err := f.orders.Status(t.Context(), "123")
		if err != nil || !reflect.DeepEqual(got.Challenges, tt.want) {
			t.Errorf("%s: %+v, %v", name, got.Challenges, err)
		}
	}
}

// TestAnswerAboutAnotherOrder says nothing about the one that was asked for.
func TestAnswerAboutAnotherOrder(t *testing.T) {
	f := newFake(t)
	f.expect("GET /order/certificate/123", "", 200, `{"id":124,"status":"revoked"}`)
	for name, look := range map[string]func(context.Context, string) (vendors.Order, error){"look": f.orders.Look, "status": f.orders.Status} {
		if order, err := look(t.Context(), "123"); err == nil || vendors.VerdictOf(err) == vendors.Permanent {
			t.Errorf("%s: %+v, %v", name, order, err)
		}
	}
}
