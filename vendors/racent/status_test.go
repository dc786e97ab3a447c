package racent

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

func testPEM(contents ...string) string {
	var b bytes.Buffer
	for _, c := range contents {
		pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: []byte(c)})
	}
	return b.String()
}

func status(t *testing.T, body string) (vendors.Order, error) {
	t.Helper()
	f := newFake(t)
	f.expect("collect", map[string]string{"certId": "id"}, 200, body)
	return f.orders.Status(t.Context(), "id")
}

func TestStatusWords(t *testing.T) {
	issued := fmt.Sprintf(`{"certificate":%q}`, testPEM("leaf"))
	for _, tt := range []struct {
		code, word, data string
		want             vendors.Status
	}{
		{"1", "PENDING", "{}", vendors.StatusPending},
		{"1", "pending", "{}", vendors.StatusPending},
		{"1", "processing", "null", vendors.StatusPending},
		{"1", "COMPLETE", issued, vendors.StatusIssued},
		{"1", "Complete", issued, vendors.StatusIssued},
		{"1", "COMPLETE", "{}", vendors.StatusPending},
		{"1", "COMPLETE", `{"certificate":""}`, vendors.StatusPending},
		{"1", "COMPLETE", `{"certificate":"garbage"}`, vendors.StatusPending},
		{"1", "CANCELLED", "{}", vendors.StatusCancelled},
		{"1", "FAILED", "{}", vendors.StatusRejected},
		{"1", "REISSUED", issued, vendors.StatusReplaced},
		{"1", "REVOKED", issued, vendors.StatusRevoked},
		{"1", "EXPIRED", "{}", vendors.StatusExpired},
		{"1", "HIBERNATING", "{}", vendors.StatusUnknown},
		{"1", "", "{}", vendors.StatusUnknown},
		{"2", "", "null", vendors.StatusPending},
		{"2", "COMPLETE", issued, vendors.StatusPending},
		{"-8", "", "null", vendors.StatusCancelled},
	} {
		got, err := status(t, fmt.Sprintf(`{"code":%s,"status":%q,"data":%s}`, tt.code, tt.word, tt.data))
		if err != nil || got.Status != tt.want || got.ID != "id" {
			t.Errorf("code %s, %q: %+v, %v", tt.code, tt.word, got, err)
		}
		if tt.want != vendors.StatusIssued && len(got.Certificates) > 0 {
			t.Errorf("code %s, %q: certificates, although it is not issued", tt.code, tt.word)
		}
	}
	got, err := status(t, `{"code":1,"certStatus":"CANCELLED"}`)
	if err != nil || got.Status != vendors.StatusCancelled {
		t.Errorf("certStatus alone: %+v, %v", got, err)
	}
}

func TestStatusErrors(t *testing.T) {
	for code, want := range map[string]struct {
		verdict vendors.Verdict
		is      error
	}{
		"-1":  {vendors.Permanent, vendors.ErrNotFound},
		"400": {vendors.Permanent, vendors.ErrCredential},
		"-2":  {vendors.Retryable, nil},
		"0":   {vendors.Retryable, nil},
		"-99": {vendors.Retryable, nil},
	} {
		_, err := status(t, `{"code":`+code+`}`)
		if vendors.VerdictOf(err) != want.verdict || want.is != nil && !errors.Is(err, want.is) {
			t.Errorf("code %s: %v", code, err)
		}
		if !errors.Is(want.is, vendors.ErrNotFound) && errors.Is(err, vendors.ErrNotFound) {
			t.Errorf("code %s: mistaken for an unknown order", code)
		}
	}
}

func TestCollectedOrder(t *testing.T) {
	leaf, above := testPEM("leaf"), "\r\n"+strings.ReplaceAll(testPEM("intermediate", "root"), "\n", "\r\n")+" \n"
	params := `{"csr":"x","domainInfo":[{"domainName":"a.example","dcvMethod":"CNAME_CSR_HASH"}]}`
	for _, echo := range []string{params, fmt.Sprintf("%q", params), `"not json"`, "[]"} {
		got, err := status(t, fmt.Sprintf(`{"code":1,"status":"COMPLETE","certStatus":"COMPLETE","data":{
			"certPath":"","beginDate":"2026-01-19 08:00:00","endDate":"2027-02-20 07:59:59","dueDate":"2028-01-19 00:00:00",
			"certificate":%q,"caCertificate":%q,"rsaPrivateKey":"","vendorId":2771240592,"vendorCertId":"39831817562",
			"DCVfileName":"148E.txt","DCVfileContent":"f7b3\nsectigo.com","DCVfilePath":"http://a.example/",
			"DCVdnsHost":"_148e","DCVdnsValue":"f7.b3.sectigo.com","DCVdnsType":"CNAME",
			"application":{"status":"done"},"dcv":{"status":"done"},"issued":{"status":"done"},
			"dcvList":[{"dcvEmail":"","dcvMethod":"CNAME_CSR_HASH","is_verify":"verified","domainName":"A.example"},
			           {"dcvMethod":"CNAME_CSR_HASH","is_verify":"","domainName":"b.example"}],
			"applyParams":%s}}`, leaf, above, echo))
		want := vendors.Order{
			ID: "id", Status: vendors.StatusIssued, RawStatus: "COMPLETE", CAOrderID: "2771240592",
			Challenges: []vendors.Challenge{{
				Method: vendors.MethodDNS, RecordName: "_148e", RecordType: "CNAME", RecordValue: "f7.b3.sectigo.com",
			}},
			Names:        []vendors.NameStatus{{Name: "a.example", Verified: true}, {Name: "b.example"}},
			Certificates: [][]byte{[]byte("leaf"), []byte("intermediate"), []byte("root")},
			TermEnds:     time.Date(2028, 1, 18, 16, 0, 0, 0, time.UTC),
			Detail:       "application done, dcv done, issued done",
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("applyParams %s:\ngot  %+v, %v\nwant %+v", echo, got, err, want)
		}
	}
}

func TestNamesFromTheEchoOfTheOrder(t *testing.T) {
	got, err := status(t, `{"code":1,"status":"PENDING","data":{"dcvList":[],
		"DCVfileName":"f","DCVfileContent":"c",
		"applyParams":"{\"domainInfo\":[{\"domainName\":\"a.example\",\"dcvMethod\":\"HTTPS_CSR_HASH\"}]}"}}`)
	want := []vendors.NameStatus{{Name: "a.example"}}
	if err != nil || !reflect.DeepEqual(got.Names, want) || len(got.Challenges) != 1 || got.Challenges[0].Method != vendors.MethodHTTPS {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestRandomRecordOfOtherCAs(t *testing.T) {
	got, err := status(t, `{"code":1,"status":"PENDING","data":{"DCVdnsHost":"_dnsauth","DCVdnsValue":"2026rnd","DCVdnsType":"txt"}}`)
	want := []vendors.Challenge{{Method: vendors.MethodDNS, RecordName: "_dnsauth", RecordType: "TXT", RecordValue: "2026rnd"}}
	if err != nil || !reflect.DeepEqual(got.Challenges, want) {
		t.Errorf("got %+v, %v", got.Challenges, err)
	}
}

func TestParseDate(t *testing.T) {
	for in, want := range map[string]time.Time{
		"2026-08-01 00:00:00": time.Date(2026, 7, 31, 16, 0, 0, 0, time.UTC),
		"2026-08-01":          time.Date(2026, 7, 31, 16, 0, 0, 0, time.UTC),
		"":                    {},
		"0000-00-00 00:00:00": {},
		"soon":                {},
	} {
		if got := parseDate(in); !got.Equal(want) {
			t.Errorf("%q: %v, want %v", in, got, want)
		}
	}
}

// TestMethodsOfNames: if names are proven in different ways, each name gets the proof for its own
// method.
func TestMethodsOfNames(t *testing.T) {
	values := `{"DCVfileName":"f","DCVfileContent":"c","DCVdnsHost":"_h","DCVdnsValue":"v","DCVdnsType":"CNAME"}`
	got, err := status(t, `{"code":1,"status":"PENDING","data":{"dcvInfo":{"a.example":`+values+`,"B.example":`+values+`},
		"dcvList":[{"domainName":"a.example","dcvMethod":"HTTP_CSR_HASH"},{"domainName":"b.example","dcvMethod":"cname_csr_hash"}]}}`)
	want := []vendors.Challenge{
		{Name: "b.example", Method: vendors.MethodDNS, RecordName: "_h", RecordType: "CNAME", RecordValue: "v"},
		{Name: "a.example", Method: vendors.MethodHTTP, FileName: "f", FileContent: "c"},
	}
	if err != nil || !reflect.DeepEqual(got.Challenges, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got.Challenges, err, want)
	}
}

// TestStatusOfRevokedCertificates: a certificate that was revoked while its order stays active,
// whether it is delivered or not, is distinguished from an order that has ended.
func TestStatusOfRevokedCertificates(t *testing.T) {
	issued := fmt.Sprintf(`{"certificate":%q}`, testPEM("leaf"))
	for _, data := range []string{issued, "{}"} {
		for _, word := range []string{"REVOKED", "revoked"} {
			got, err := status(t, fmt.Sprintf(`{"code":1,"status":"COMPLETE","certStatus":%q,"data":%s}`, word, data))
			if err != nil || got.Status != vendors.StatusIssued || !got.CertificateRevoked {
				t.Errorf("%s, %s: %+v, %v", word, data, got, err)
			}
		}
	}
	for _, words := range []string{`"COMPLETE","certStatus":"COMPLETE"`, `"REVOKED","certStatus":"REVOKED"`, `"COMPLETE"`} {
		if got, err := status(t, fmt.Sprintf(`{"code":1,"status":%s,"data":%s}`, words, issued)); err != nil || got.CertificateRevoked {
			t.Errorf("%s: %+v, %v", words, got, err)
		}
	}
}
