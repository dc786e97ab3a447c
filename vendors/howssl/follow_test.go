package howssl

import (
	"encoding/pem"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/caddy-commercial/caddy-commercial/internal/csrtest"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

func TestStatusCodes(t *testing.T) {
	for status, want := range map[string]vendors.Status{
		"0": vendors.StatusUnknown, "3": vendors.StatusIssued, `"3"`: vendors.StatusIssued,
		"4": vendors.StatusRejected, "5": vendors.StatusCancelled, "7": vendors.StatusRevoked, "8": vendors.StatusRevoked,
		"9": vendors.StatusExpired, "11": vendors.StatusPending, `" 11 "`: vendors.StatusPending, "13": vendors.StatusRejected,
		"1": vendors.StatusUnknown, "2": vendors.StatusUnknown, "10": vendors.StatusUnknown, "-3": vendors.StatusUnknown,
		"true": vendors.StatusUnknown, "3.0": vendors.StatusUnknown, `"completed"`: vendors.StatusUnknown,
		`"` + strings.Repeat("s3cr3t", 3) + `"`: vendors.StatusUnknown,
	} {
		f := newFake(t)
		f.expect("Order/getOrderInfo", map[string]string{"order_id": "id"}, infoOf(status))
		f.expect("Order/refreshOrder", nil, refusal) // affects only how recent the status is
		f.expect("Order/getValidity_info", nil, data(`{"valid_info":`+workedInfo+`}`))
		f.expect("Reissue/orderReissue", nil, noReissues)
		f.expect("Order/getCertificate", nil, data(`{"ca_order_id":480111210,"certificate":{"cert":`+quotedPEM("leaf")+`,"ca_cert":`+quotedPEM("ca")+`}}`))
		got, err := f.orders.Status(t.Context(), "id")
		if err != nil || got.Status != want || got.ID != "id" || got.RawStatus == "" || strings.Contains(got.RawStatus, "s3cr") {
			t.Errorf("%s: %+v, %v", status, got, err)
		}
		switch want {
		case vendors.StatusPending:
			if !reflect.DeepEqual(got.Challenges, workedChallenges()) || got.Detail != "1 of 2 names validated" || f.calls["Order/refreshOrder"] != 1 {
				t.Errorf("%s: %+v", status, got)
			}
		case vendors.StatusIssued:
			if len(got.Certificates) != 2 || string(got.Certificates[0]) != "leaf" || got.CAOrderID != "480111210" {
				t.Errorf("%s: %+v", status, got)
			}
		default:
		}
	}
}

func quotedPEM(content string) string {
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(content)}))
	return `"` + strings.ReplaceAll(text, "\n", `\n`) + `"`
}

func TestStatusOfUnknownOrder(t *testing.T) {
	f := newFake(t)
	f.expect("Order/getOrderInfo", nil, refusal)
	if _, err := f.orders.Status(t.Context(), "id"); !errors.Is(err, vendors.ErrNotFound) {
		t.Errorf("err = %v", err)
	}
	f.expect("Order/getOrderInfo", nil, data(`{}`))
	if _, err := f.orders.Status(t.Context(), "id"); err == nil || errors.Is(err, vendors.ErrNotFound) || vendors.VerdictOf(err) != vendors.Retryable {
		t.Errorf("without a status: %v", err)
	}
}

func TestCompletedWithoutUsableCertificate(t *testing.T) {
	for _, body := range []string{`{}`, `{"certificate":null}`, `{"certificate":{"cert":""}}`, `{"certificate":{"cert":"soon"}}`,
		`{"certificate":{"cert":` + quotedPEM("leaf") + `,"ca_cert":"-"}}`, `[]`} {
		f := newFake(t)
		f.expect("Order/getOrderInfo", nil, infoOf("3"))
		f.expect("Reissue/orderReissue", nil, refusal)
		f.expect("Order/getCertificate", nil, data(body))
		got, err := f.orders.Status(t.Context(), "id")
		if err != nil || got.Status != vendors.StatusPending || got.Detail == "" || got.Certificates != nil {
			t.Errorf("%s: %+v, %v", body, got, err)
		}
	}
}

// TestPrivateKeyIsNotTaken: a key that HowSSL has made stays where it is.
func TestPrivateKeyIsNotTaken(t *testing.T) {
	const secret = "MIIEvQIBADANBgkq"
	f := newFake(t)
	f.expect("Order/getOrderInfo", nil, infoOf("3"))
	f.expect("Reissue/orderReissue", nil, noReissues)
	f.expect("Order/getCertificate", nil, data(`{"certificate":{"cert":"x","private_key":"-----BEGIN PRIVATE KEY-----`+secret+`"}}`))
	got, err := f.orders.Status(t.Context(), "id")
	if err != nil || strings.Contains(got.Describe(), secret) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, entry := range f.logs.All() {
		for _, v := range entry.ContextMap() {
			if text, ok := v.(string); ok && strings.Contains(text, secret) {
				t.Errorf("log: %s %s", entry.Message, text)
			}
		}
	}
}

func TestStatusDuringReissue(t *testing.T) {
	record := func(json string) string {
		return strings.Replace(reissueOf("1", csrtest.Worked), `"validity_record":null`, `"validity_record":`+json, 1)
	}
	named := func(ch vendors.Challenge) vendors.Challenge { ch.Name = "a.example"; return ch }
	for name, tt := range map[string]struct {
		list string
		want []vendors.Challenge
	}{
		"to be reviewed":    {reissueOf("0", csrtest.Worked), workedChallenges()},
		"to be validated":   {reissueOf(`"1"`, csrtest.Worked), workedChallenges()},
		"csr in one line":   {reissueOf("0", strings.ReplaceAll(csrtest.Worked, "\n", `\n`)), workedChallenges()},
		"csr with crlf":     {reissueOf("0", strings.ReplaceAll(csrtest.Worked, "\n", "\r\n")), workedChallenges()},
		"behind an old one": {reissueOf("2", "") + "," + reissueOf("0", csrtest.Worked), workedChallenges()},
		"no csr":            {reissueOf("0", ""), nil},
		"record of a file": {record(`[{"domain":"A.example","name":"f.txt","value":"v","type":"file"}]`),
			[]vendors.Challenge{named(vendors.Challenge{Method: vendors.MethodHTTP, FileName: "f.txt", FileContent: "v"})}},
		"record with a label": {record(`[{"label":"_l","value":"v"},{"value":"x"},{"label":"y"}]`),
			[]vendors.Challenge{{Method: vendors.MethodDNS, RecordName: "_l", RecordType: "CNAME", RecordValue: "v"}}},
		"record of txt": {record(`[{"name":"_l","value":"v","type":"txt"}]`),
			[]vendors.Challenge{{Method: vendors.MethodDNS, RecordName: "_l", RecordType: "TXT", RecordValue: "v"}}},
		"useless record": {record(`{}`), workedChallenges()},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.expect("Order/getOrderInfo", nil, infoOf("3"))
			f.expect("Order/refreshOrder", nil, ok)
			f.expect("Reissue/orderReissue", map[string]string{"order_id": "id"}, `{"status":true,"data":[`+tt.list+`]}`)
			got, err := f.orders.Status(t.Context(), "id")
			if err != nil || got.Status != vendors.StatusPending || !reflect.DeepEqual(got.Challenges, tt.want) {
				t.Errorf("got %+v, %v\nwant %+v", got, err, tt.want)
			}
		})
	}
}

func TestReissue(t *testing.T) {
	list := func(items string) string { return `{"status":true,"data":[` + items + `]}` }
	const asPrinted = `{"status":false,"msg":"Reissue information obtained successfully!","data":{"reissue_id":"r1"}}`
	ours, others := reissueOf("0", csrtest.Worked), reissueOf("2", "")
	type reply struct{ before, submit, after string }
	for name, tt := range map[string]struct {
		reply
		sent    int
		verdict vendors.Verdict // if it fails
		fails   bool
	}{
		"accepted":                       {reply{list(""), `{"status":true,"data":{"reissue_id":"r1"}}`, list(ours)}, 1, 0, false},
		"accepted, not listed yet":       {reply{list(others), ok, list(others)}, 1, 0, false},
		"accepted, list broken":          {reply{list(""), ok, `<html>`}, 1, 0, false},
		"as printed":                     {reply{list(""), asPrinted, list(ours)}, 1, 0, false},
		"as printed, not listed":         {reply{list(""), asPrinted, list("")}, 1, vendors.Uncertain, true},
		"refused":                        {reply{list(""), refusal, list("")}, 1, vendors.Permanent, true},
		"refused, list broken":           {reply{list(""), refusal, `<html>`}, 1, vendors.Uncertain, true},
		"refused, but listed":            {reply{list(""), refusal, list(others + "," + ours)}, 1, 0, false},
		"answer lost":                    {reply{list(""), `<html>`, list(ours)}, 1, vendors.Uncertain, true},
		"submitted before":               {reply{list(ours), "", ""}, 0, 0, false},
		"another in progress":            {reply{list(reissueOf("1", "")), "", ""}, 0, vendors.Permanent, true},
		"list broken":                    {reply{`<html>`, "", ""}, 0, vendors.Retryable, true},
		"no list, refusal says as much":  {reply{refusal, `{"status":true,"data":{"reissue_id":"r1"}}`, refusal}, 1, 0, false},
		"accepted, no list and no proof": {reply{refusal, ok, refusal}, 1, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.expect("Order/getOrderInfo", nil, infoOf("3"))
			f.expect("Reissue/orderReissue", nil, tt.before)
			f.expect("Reissue/submit", map[string]string{
				"order_id": "id", "reissue_type": "1", "csr_type": "2", "csr_content": csrtest.Worked, "check_type": "2",
			}, tt.submit)
			f.after("Reissue/submit", func() { f.expect("Reissue/orderReissue", nil, tt.after) })
			got, err := f.orders.Reissue(t.Context(), "id", workedReissue())
			if f.calls["Reissue/submit"] != tt.sent {
				t.Errorf("sent %d times", f.calls["Reissue/submit"])
			}
			if tt.fails {
				if err == nil || vendors.VerdictOf(err) != tt.verdict {
					t.Errorf("%+v, %v", got, err)
				}
				return
			}
			want := vendors.Order{ID: "id", Status: vendors.StatusPending, Challenges: workedChallenges()}
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
			}
		})
	}
}

func TestReissueOfOrdersThatAreNotCompleted(t *testing.T) {
	for _, status := range []string{"0", "11", "5", "9", "2"} {
		f := newFake(t)
		f.expect("Order/getOrderInfo", nil, infoOf(status))
		if _, err := f.orders.Reissue(t.Context(), "id", workedReissue()); !errors.Is(err, vendors.ErrWrongState) || vendors.VerdictOf(err) != vendors.Permanent {
			t.Errorf("order_status %s: %v", status, err)
		}
	}
}

// TestReissueOfRevokedOrders: the service decides whether a revoked order can be reissued.
func TestReissueOfRevokedOrders(t *testing.T) {
	for _, status := range []string{"7", "8"} {
		for answer, want := range map[string]error{ok: nil, refusal: errRefused} {
			f := newFake(t)
			f.expect("Order/getOrderInfo", nil, infoOf(status))
			f.expect("Reissue/orderReissue", nil, noReissues)
			f.expect("Reissue/submit", nil, answer)
			_, err := f.orders.Reissue(t.Context(), "id", workedReissue())
			if !errors.Is(err, want) || want != nil && vendors.VerdictOf(err) != vendors.Permanent || f.calls["Reissue/submit"] != 1 {
				t.Errorf("order_status %s: %v", status, err)
			}
		}
	}
}
