package racent

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

const contactJSON = `{"job":"Engineer","firstName":"Ada","lastName":"Lovelace","email":"ada@example.com",` +
	`"mobile":"+44.2012345678","country":"GB","state":"London","city":"London","address":"1 Dorset Street",` +
	`"postCode":"W1U 4EG","organation":"Analytical Engines"}`

func orderParamsJSON() string {
	return `{"csr":` + quotedCSR() + `,"server":"other","uniqueValue":"cn20250101a",` +
		`"dcvMethod":"HTTP_CSR_HASH","domainInfo":[{"domainName":"shop.example.com","dcvMethod":"HTTP_CSR_HASH"}],` +
		`"Administrator":` + contactJSON + `,"finance":` + contactJSON + `,"tech":` + contactJSON + `}`
}

func replaceParamsJSON() string {
	return `{"csr":` + quotedCSR() + `,"uniqueValue":"cn20250101a",` +
		`"domainInfo":[{"domainName":"shop.example.com","dcvMethod":"HTTP_CSR_HASH"}]}`
}

// calls lists every call with the exact form it must send and a good answer.
func calls() map[string]struct {
	form map[string]string
	good string
	call func(context.Context, *Orders) error
	paid bool
} {
	type entry = struct {
		form map[string]string
		good string
		call func(context.Context, *Orders) error
		paid bool
	}
	placed := `{"code":1,"data":{"certId":"250101abcdefghij"}}`
	return map[string]entry{
		"validate": {
			map[string]string{"productCode": "comodo-positivessl", "years": "1", "params": orderParamsJSON()},
			`{"code":1}`,
			func(ctx context.Context, o *Orders) error { return o.Validate(ctx, workedRequest()) }, false,
		},
		"place": {
			map[string]string{"productCode": "comodo-positivessl", "years": "1", "refId": "ref-1", "params": orderParamsJSON()},
			placed,
			func(ctx context.Context, o *Orders) error { _, err := o.Place(ctx, workedRequest()); return err }, true,
		},
		"renew": {
			map[string]string{"renewId": "old", "years": "1", "refId": "ref-1", "params": orderParamsJSON()},
			placed,
			func(ctx context.Context, o *Orders) error { _, err := o.Renew(ctx, "old", workedRequest()); return err }, true,
		},
		"replace": {
			map[string]string{"certId": "old", "refId": "ref-1", "params": replaceParamsJSON()},
			placed,
			func(ctx context.Context, o *Orders) error {
				req := workedRequest()
				_, err := o.Reissue(ctx, "old", vendors.OrderRequest{
					OrderConfig: req.OrderConfig, Reference: req.Reference,
					Names: req.Names, CSR: req.CSR, Unique: req.Unique,
				})
				return err
			}, true,
		},
		"collect": {
			map[string]string{"certId": "id"}, `{"code":1,"status":"PENDING","data":{}}`,
			func(ctx context.Context, o *Orders) error { _, err := o.Status(ctx, "id"); return err }, false,
		},
		"certIdByrefId": {
			map[string]string{"refId": "ref-1"}, placed,
			func(ctx context.Context, o *Orders) error {
				_, err := o.Find(ctx, vendors.Lookup{Reference: "ref-1"})
				return err
			}, false,
		},
		"list": {
			map[string]string{}, `{"code":1,"data":[]}`,
			func(ctx context.Context, o *Orders) error { _, err := o.call(ctx, list); return err }, false,
		},
		"updateDCV": {
			map[string]string{"certId": "id", "domainName": "a.example", "dcvMethod": "CNAME_CSR_HASH"}, `{"code":1}`,
			func(ctx context.Context, o *Orders) error {
				return o.Recheck(ctx, "id", []string{"a.example"}, vendors.MethodDNS)
			}, false,
		},
		"cancel": {
			map[string]string{"certId": "id", "reason": "requested by the operator"}, `{"code":1}`,
			func(ctx context.Context, o *Orders) error { return o.Cancel(ctx, "id", " ") }, false,
		},
		"revoke": {
			map[string]string{"certId": "id", "reason": "why"}, `{"code":1}`,
			func(ctx context.Context, o *Orders) error { return o.Revoke(ctx, "id", "why") }, false,
		},
	}
}

func TestFormsOnTheWire(t *testing.T) {
	for endpoint, c := range calls() {
		t.Run(endpoint, func(t *testing.T) {
			f := newFake(t)
			f.expect(endpoint, c.form, 200, c.good)
			if err := c.call(t.Context(), f.orders); err != nil {
				t.Error(err)
			}
			if f.calls != 1 {
				t.Errorf("sent %d times", f.calls)
			}
		})
	}
}

func TestUnusableAnswersOfEveryCall(t *testing.T) {
	for endpoint, c := range calls() {
		for name, answer := range map[string]struct {
			status int
			body   string
		}{
			"html 502": {502, "<html>Bad Gateway</html>"},
			"cut off":  {200, `{"code":1,"data":{"cer`},
			"no code":  {200, `{"data":{"certId":"x"}}`},
			"array":    {200, `[]`},
			"empty":    {200, ``},
		} {
			t.Run(endpoint+"/"+name, func(t *testing.T) {
				f := newFake(t)
				f.expect(endpoint, c.form, answer.status, answer.body)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second) // leaves no time for a second attempt
				defer cancel()
				err := c.call(ctx, f.orders)
				if err == nil {
					t.Fatal("no error")
				}
				verdict := vendors.VerdictOf(err)
				if c.paid && verdict != vendors.Uncertain {
					t.Errorf("verdict is %v: %v", verdict, err)
				}
				if !strings.HasPrefix(err.Error(), "racent "+endpoint+": ") {
					t.Errorf("error is %q", err)
				}
				if f.calls != 1 {
					t.Errorf("sent %d times", f.calls)
				}
			})
		}
	}
}

func TestCodesOfPaidCalls(t *testing.T) {
	for _, tt := range []struct {
		code    string
		verdict vendors.Verdict
		is      error
	}{
		{"-1", vendors.Permanent, nil},
		{`"-1"`, vendors.Permanent, nil},
		{"-3", vendors.Permanent, nil},
		{"-4", vendors.Permanent, vendors.ErrBalance},
		{"400", vendors.Permanent, vendors.ErrCredential},
		{"-2", vendors.Uncertain, nil},
		{"-6", vendors.Uncertain, nil},
		{"0", vendors.Uncertain, nil},
		{"-5", vendors.Uncertain, nil},
		{"-7", vendors.Uncertain, nil},
		{"-99", vendors.Uncertain, nil},
		{"7", vendors.Uncertain, nil},
		{"true", vendors.Uncertain, nil},
		{"1", vendors.Uncertain, nil}, // without an ID
		{"2", vendors.Uncertain, nil},
	} {
		f := newFake(t)
		id := "x" // an ID in a failure must not turn it into an order
		if tt.code == "1" || tt.code == "2" {
			id = ""
		}
		f.expect("place", nil, 200, `{"code":`+tt.code+`,"errors":{"years":["years is required"]},"data":{"certId":"`+id+`"}}`)
		order, err := f.orders.Place(t.Context(), workedRequest())
		if err == nil || vendors.VerdictOf(err) != tt.verdict || order.ID != "" {
			t.Errorf("code %s: %v, order %q", tt.code, err, order.ID)
			continue
		}
		if tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("code %s: %v does not match %v", tt.code, err, tt.is)
		}
		if poor := tt.code == "-2"; poor != strings.Contains(err.Error(), "check the account's balance") {
			t.Errorf("code %s: the error does not say what to do: %v", tt.code, err)
		}
		if errors.Is(err, vendors.ErrNotFound) {
			t.Errorf("code %s: an order that is not made cannot be unknown: %v", tt.code, err)
		}
		if !strings.Contains(err.Error(), "years: years is required") {
			t.Errorf("code %s: the message was lost: %v", tt.code, err)
		}
	}
	f := newFake(t)
	f.expect("renew", nil, 200, `{"code":-2}`)
	if _, err := f.orders.Renew(t.Context(), "old", workedRequest()); vendors.VerdictOf(err) != vendors.Uncertain || !strings.Contains(err.Error(), "check the account's balance") {
		t.Errorf("renew, code -2: %v", err)
	}
	for _, code := range []string{"-5", "-7", "-8"} {
		f := newFake(t)
		f.expect("renew", nil, 200, `{"code":`+code+`}`)
		_, err := f.orders.Renew(t.Context(), "old", workedRequest())
		if vendors.VerdictOf(err) != vendors.Permanent || !errors.Is(err, vendors.ErrWrongState) {
			t.Errorf("renew, code %s: %v", code, err)
		}
	}
}

func TestRefusalWithHTTPStatus(t *testing.T) {
	for _, tt := range []struct {
		status int
		body   string
		want   vendors.Verdict
	}{
		{400, `{"code":-4}`, vendors.Permanent},
		{401, `{"code":400}`, vendors.Permanent},
		{400, `{"code":-2}`, vendors.Uncertain},
		{403, `<html>denied</html>`, vendors.Uncertain},
		{400, `{"code":1,"data":{"certId":"x"}}`, vendors.Uncertain},
		{400, `{"code":2,"data":{"certId":"x"}}`, vendors.Uncertain},
		{500, `{"code":-4}`, vendors.Uncertain},
		{429, `{"code":-4}`, vendors.Permanent},
		{429, ``, vendors.Uncertain},
	} {
		f := newFake(t)
		f.expect("place", nil, tt.status, tt.body)
		order, err := f.orders.Place(t.Context(), workedRequest())
		if err == nil || vendors.VerdictOf(err) != tt.want || order.ID != "" {
			t.Errorf("HTTP %d %s: %v", tt.status, tt.body, err)
		}
	}
}

func TestPlacedOrder(t *testing.T) {
	file := vendors.Challenge{Method: vendors.MethodHTTP, FileName: workedFile, FileContent: workedHash + "\nsectigo.com\n"}
	values := fmt.Sprintf(`"DCVfileName":%q,"DCVfileContent":%q,"DCVdnsHost":%q,"DCVdnsValue":"v.sectigo.com","DCVdnsType":"cname"`,
		file.FileName, file.FileContent, workedLabel)
	named := func(name string) vendors.Challenge { ch := file; ch.Name = name; return ch }
	for _, tt := range []struct {
		name, body string
		want       vendors.Order
	}{
		{"bare", `{"code":1,"data":{"certId":"a1"}}`, vendors.Order{ID: "a1"}},
		{"code 2", `{"code":2,"data":{"certId":"a1"}}`, vendors.Order{ID: "a1"}},
		{"numbers", `{"code":"1","data":{"certId":12345678901234567890,"vendorId":2771240592}}`,
			vendors.Order{ID: "12345678901234567890", CAOrderID: "2771240592"}},
		{"values", `{"code":1,"data":{"certId":"a1",` + values + `}}`,
			vendors.Order{ID: "a1", Challenges: []vendors.Challenge{file}}},
		{"hostile name passes untouched", `{"code":1,"data":{"certId":"a1","DCVfileName":"../../etc/x\u0000","DCVfileContent":" x\r\n"}}`,
			vendors.Order{ID: "a1", Challenges: []vendors.Challenge{
				{Method: vendors.MethodHTTP, FileName: "../../etc/x\x00", FileContent: " x\r\n"}}}},
		{"nested data", `{"code":1,"data":{"certId":"a1","data":{` + values + `}}}`,
			vendors.Order{ID: "a1", Challenges: []vendors.Challenge{file}}},
		{"alike per name", `{"code":1,"data":{"certId":"a1","dcvInfo":{"a.example":{` + values + `},"b.example":{` + values + `}}}}`,
			vendors.Order{ID: "a1", Challenges: []vendors.Challenge{file}}},
		{"differing per name", `{"code":1,"data":{"certId":"a1","dcvInfo":{"A.example":{` + values + `},"b.example":{"DCVfileName":"f","DCVfileContent":"c"}}}}`,
			vendors.Order{ID: "a1", Challenges: []vendors.Challenge{named("a.example"),
				{Name: "b.example", Method: vendors.MethodHTTP, FileName: "f", FileContent: "c"}}}},
		{"other kinds than documented", `{"code":1,"data":{"certId":"a1","dcvInfo":[],"dcvList":{},"vendorId":[],"application":"","applyParams":[],"data":""}}`,
			vendors.Order{ID: "a1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			f.expect("place", nil, 200, tt.body)
			tt.want.Status = vendors.StatusPending
			got, err := f.orders.Place(t.Context(), workedRequest())
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, tt.want)
			}
		})
	}
}

func TestRecheckAndCancelTakeBusyAndDoneForSuccess(t *testing.T) {
	f := newFake(t)
	for _, code := range []string{"2", "-6"} {
		f.expect("updateDCV", nil, 200, `{"code":`+code+`}`)
		if err := f.orders.Recheck(t.Context(), "id", []string{"a.example"}, vendors.MethodHTTP); !errors.Is(err, vendors.ErrStillIssuing) {
			t.Errorf("code %s: %v", code, err)
		}
	}
	f.expect("updateDCV", nil, 200, `{"code":-7}`)
	if err := f.orders.Recheck(t.Context(), "id", []string{"a.example"}, vendors.MethodHTTP); !errors.Is(err, vendors.ErrWrongState) {
		t.Errorf("code -7: %v", err)
	}
	f.expect("cancel", nil, 200, `{"code":-8}`)
	if err := f.orders.Cancel(t.Context(), "id", "x"); err != nil {
		t.Errorf("cancelled already: %v", err)
	}
	f.expect("cancel", nil, 200, `{"code":-7}`)
	if err := f.orders.Cancel(t.Context(), "id", "x"); !errors.Is(err, vendors.ErrWrongState) {
		t.Errorf("code -7: %v", err)
	}
}

func TestValidateIsAdvice(t *testing.T) {
	for _, tt := range []struct {
		status int
		body   string
		pass   bool
	}{
		{200, `{"code":-1,"errors":{"csr":["no"]}}`, true},
		{404, `<html>not here</html>`, true},
		{200, `{"code":-3}`, false},
		{200, `{"code":-4}`, false},
		{200, `{"code":400}`, false},
		{200, `{"code":-2}`, false},
		{200, `<html>maintenance</html>`, false},
		{403, `<html>denied</html>`, false},
	} {
		f := newFake(t)
		f.expect("validate", nil, tt.status, tt.body)
		err := f.orders.Validate(t.Context(), workedRequest())
		warned := f.logs.FilterMessageSnippet("dry run").Len()
		if (err == nil) != tt.pass || tt.pass && warned != 1 {
			t.Errorf("HTTP %d %s: %v, %d warnings", tt.status, tt.body, err, warned)
		}
	}
}

// TestProducts: control characters are left out.
func TestProducts(t *testing.T) {
	f := newFake(t)
	f.expect("productList", nil, 200, `{"code":1,"data":[{"code":"comodo-positivessl","productName":"Positive\u001b\r\nSSL",
		"supportWildcard":"N","validationType":"DV","maxDomain":1,"maxYear":5,
		"price":{"basePrice":{"price012":5.5,"price024":"10.00\u001b\u0007","other":1},"sanPrice":[]}},
		{"code":"x","supportWildcard":"Y","maxDomain":"250","price":[]}]}`)
	got, err := f.orders.Products(t.Context())
	want := []vendors.Product{
		{Code: "comodo-positivessl", Name: "Positive SSL", Validation: "dv", MaxNames: 1, Prices: map[int]string{12: "5.5", 24: "10.00"}},
		{Code: "x", Wildcard: true, MaxNames: 250, Prices: map[int]string{}},
	}
	if err != nil || len(got) != len(brands)*len(want) || !reflect.DeepEqual(got[:2], want) {
		t.Errorf("got %+v, %v", got, err)
	}
	if f.calls != len(brands) {
		t.Errorf("asked %d times", f.calls)
	}
	f.expect("productList", nil, 200, `{"code":-1,"errors":{"vendor":["vendor invalid"]}}`)
	if got, err := f.orders.Products(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
	f.expect("productList", nil, 200, `{"code":400}`)
	if _, err := f.orders.Products(t.Context()); !errors.Is(err, vendors.ErrCredential) {
		t.Errorf("err = %v", err)
	}
}

// TestNumbersOfPersonsAreHidden: whatever the service repeats from an order, nobody's passport
// number is in an error or a log.
func TestNumbersOfPersonsAreHidden(t *testing.T) {
	numbers := []string{"110101190001011237", "110101190001012351", "E12345678"}
	req := documentedOrder()
	req.Contact.IDNumber, req.Tech.IDNumber, req.Billing.IDNumber = numbers[0], numbers[1], numbers[2]
	told := strings.Join(numbers, " and ") + " are wrong"
	f := newFake(t)
	var texts []string
	for _, a := range []struct {
		status int
		body   string
	}{{200, `{"code":-1,"errors":%q}`}, {200, `{"code":1,"errors":%q}`}, {200, `{"errors":%q}`}, {400, `{"code":-1,"errors":%q}`}, {500, "%q"}} {
		body := fmt.Sprintf(a.body, told)
		f.expect("place", nil, a.status, body)
		_, placed := f.orders.Place(t.Context(), req)
		f.expect("renew", nil, a.status, body)
		_, renewed := f.orders.Renew(t.Context(), "1", req)
		texts = append(texts, fmt.Sprintf("%+v %#v", placed, renewed))
	}
	f.expect("validate", nil, 200, fmt.Sprintf(`{"code":-1,"errors":%q}`, told))
	if err := f.orders.Validate(t.Context(), req); err != nil {
		t.Error(err)
	}
	for _, entry := range f.logs.All() {
		texts = append(texts, fmt.Sprint(entry.Message, entry.ContextMap()))
	}
	for _, text := range texts {
		for _, number := range numbers {
			if strings.Contains(text, number) {
				t.Errorf("%s is in %s", number, text)
			}
		}
	}
}
