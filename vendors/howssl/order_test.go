package howssl

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

const (
	workedInfo = `{"DCVdnsHost":"` + workedLabel + `","DCVdnsValue":"` + "d73f0e02451bbf32a61a1ac89a8eba6c.4ae1ed2b71bf65316411ed284de108d2" +
		`.sectigo.com","DCVdnsType":"CNAME","DCVfileName":"` + workedFile + `","DCVfileContent":"` + workedHash + `\nsectigo.com"}`

	lookUpPath = "Order/fromCheck_idToOrder_id"
)

func TestPlacedOrder(t *testing.T) {
	both := workedChallenges()
	for name, tt := range map[string]struct {
		body string
		want vendors.Order
	}{
		"worked":    {`{"order_id":"o1","valid_info":` + workedInfo + `}`, vendors.Order{ID: "o1", Challenges: both}},
		"as text":   {`{"order_id":"o1","valid_info":` + strconv.Quote(workedInfo) + `}`, vendors.Order{ID: "o1", Challenges: both}},
		"bare":      {`{"order_id":"o1"}`, vendors.Order{ID: "o1"}},
		"sentence":  {`{"order_id":"o1","valid_info":"Access email verification to verify email!"}`, vendors.Order{ID: "o1"}},
		"null":      {`{"order_id":"o1","valid_info":null}`, vendors.Order{ID: "o1"}},
		"list":      {`{"order_id":"o1","valid_info":[]}`, vendors.Order{ID: "o1"}},
		"number id": {`{"order_id":12345678901234567890}`, vendors.Order{ID: "12345678901234567890"}},
		"line end escaped twice": {`{"order_id":"o1","valid_info":{"DCVfileName":"f","DCVfileContent":"` + workedHash + `\\ncomodoca.com"}}`,
			vendors.Order{ID: "o1", Challenges: []vendors.Challenge{
				{Method: vendors.MethodHTTP, FileName: "f", FileContent: workedHash + "\ncomodoca.com"}}}},
		"other content escaped twice": {`{"order_id":"o1","valid_info":{"DCVfileName":"f","DCVfileContent":"a\\nb"}}`, vendors.Order{ID: "o1"}},
		"three lines": {`{"order_id":"o1","valid_info":{"DCVfileName":"f","DCVfileContent":"` + workedHash + `\\nsectigo.com\\nu1"}}`,
			vendors.Order{ID: "o1", Challenges: []vendors.Challenge{
				{Method: vendors.MethodHTTP, FileName: "f", FileContent: workedHash + "\nsectigo.com\nu1"}}}},
		"another CA": {`{"order_id":"o1","valid_info":{"DCVfileName":"fileauth.txt","DCVfileContent":"tok","DCVdnsHost":"_dnsauth","DCVdnsValue":"tok","DCVdnsType":"txt"}}`,
			vendors.Order{ID: "o1", Challenges: []vendors.Challenge{
				{Method: vendors.MethodHTTP, FileName: "fileauth.txt", FileContent: "tok"},
				{Method: vendors.MethodDNS, RecordName: "_dnsauth", RecordType: "TXT", RecordValue: "tok"}}}},
		"unknown record type": {`{"order_id":"o1","valid_info":{"DCVdnsHost":"_x","DCVdnsValue":"y","DCVdnsType":"SRV"}}`, vendors.Order{ID: "o1"}},
		// Whether a name is safe to serve is decided where it is served.
		"hostile name passes untouched": {`{"order_id":"o1","valid_info":{"DCVfileName":"../../etc/x","DCVfileContent":" x\r\n"}}`,
			vendors.Order{ID: "o1", Challenges: []vendors.Challenge{
				{Method: vendors.MethodHTTP, FileName: "../../etc/x", FileContent: " x\r\n"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.expect("Order/commitOrder", nil, data(tt.body))
			tt.want.Status = vendors.StatusPending
			got, err := f.orders.Place(t.Context(), workedRequest())
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, tt.want)
			}
		})
	}
}

// TestDocumentedAnswerOfCommitOrder: the example of the documentation, as printed, and with the
// doubled backslash that one of its pages has.
func TestDocumentedAnswerOfCommitOrder(t *testing.T) {
	const hash = "d7fa0361c38eeec20d51779f86fd5ae213bc2cc32e6a58eb47331cf78c6c977e"
	want := vendors.Order{ID: "wcvt0va3wq", Status: vendors.StatusPending, Challenges: []vendors.Challenge{
		{Method: vendors.MethodHTTP, FileName: "2B03BB19C9A8AF1ABE9A33F60E0954A2.txt", FileContent: hash + "\ncomodoca.com"},
		{Method: vendors.MethodDNS, RecordName: "_2b03bb19c9a8af1abe9a33f60e0954a2", RecordType: "CNAME",
			RecordValue: hash[:32] + "." + hash[32:] + ".comodoca.com"},
	}}
	for _, name := range []string{"commit_order.json", "commit_order_escaped.json"} {
		body, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		f := newFake(t)
		f.expect("Order/commitOrder", map[string]string{"check_id": "chk-1"}, string(body))
		if got, err := f.orders.Place(t.Context(), workedRequest()); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %+v, %v\nwant %+v", name, got, err, want)
		}
	}
}

func TestCommittedWithoutOrderID(t *testing.T) {
	for _, body := range []string{ok, data(`{}`), data(`{"order_id":""}`), data(`{"order_id":null}`), data(`"id"`), data(`[{"order_id":"x"}]`)} {
		f := newFake(t)
		f.expect("Order/commitOrder", nil, body)
		order, err := f.orders.Place(t.Context(), workedRequest())
		if err == nil || vendors.VerdictOf(err) != vendors.Uncertain || order.ID != "" {
			t.Errorf("%s: %+v, %v", body, order, err)
		}
	}
}

// TestRefusedCommit: a refusal alone proves nothing: the order's own state must confirm it.
func TestRefusedCommit(t *testing.T) {
	const found = `{"status":true,"data":{"order_id":"o1"}}`
	for name, tt := range map[string]struct {
		lookUp, info, balance string
		want                  vendors.Verdict
		is                    error
		order                 string
	}{
		"not submitted, enough money":  {found, infoOf("0"), "100.00", vendors.Permanent, errRefused, ""},
		"not submitted, no money":      {found, infoOf("0"), "0.00", vendors.Permanent, vendors.ErrBalance, ""},
		"not submitted, little money":  {found, infoOf(`"0"`), "6.94", vendors.Permanent, vendors.ErrBalance, ""},
		"not submitted, perhaps money": {found, infoOf("0"), "10", vendors.Permanent, errRefused, ""},
		"not submitted, odd balance":   {found, infoOf("0"), "plenty", vendors.Permanent, errRefused, ""},
		"submitted after all":          {found, infoOf("11"), "0", 0, nil, "o1"},
		"completed after all":          {found, infoOf(`"3"`), "0", 0, nil, "o1"},
		"unknown status":               {found, infoOf("2"), "0", vendors.Uncertain, errRefused, ""},
		"no status":                    {found, data(`{}`), "0", vendors.Uncertain, errRefused, ""},
		"status refused":               {found, refusal, "0", vendors.Uncertain, errRefused, ""},
		"look-up refused":              {refusal, "", "0", vendors.Uncertain, errRefused, ""},
		"look-up broken":               {`<html>`, "", "0", vendors.Uncertain, errRefused, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.expect("Order/commitOrder", nil, refusal)
			f.expect(lookUpPath, map[string]string{"check_id": "chk-1"}, tt.lookUp)
			f.expect("Order/getOrderInfo", map[string]string{"order_id": "o1"}, tt.info)
			f.expect("User/AccountInfo", nil, data(`{"user_amount":"`+tt.balance+`"}`))
			order, err := f.orders.Place(t.Context(), workedRequest())
			if order.ID != tt.order || (err == nil) != (tt.order != "") {
				t.Fatalf("got %+v, %v", order, err)
			}
			if err != nil && (vendors.VerdictOf(err) != tt.want || !errors.Is(err, tt.is) || !strings.Contains(err.Error(), "余额不足")) {
				t.Errorf("verdict %v: %v", vendors.VerdictOf(err), err)
			}
			if f.calls["Order/commitOrder"] != 1 {
				t.Errorf("committed %d times", f.calls["Order/commitOrder"])
			}
		})
	}
}

func TestCommitIsNeverSentTwice(t *testing.T) {
	for name, body := range map[string]string{"lost": `<html>`, "done": data(`{"order_id":"o1"}`), "bad token": badToken} {
		f := newFake(t)
		f.expect("Order/commitOrder", nil, body)
		_, first := f.orders.Place(t.Context(), workedRequest())
		order, err := f.orders.Place(t.Context(), workedRequest())
		if err == nil || vendors.VerdictOf(err) != vendors.Permanent || order.ID != "" || !strings.Contains(err.Error(), "chk-1") {
			t.Errorf("%s: after %v: %+v, %v", name, first, order, err)
		}
		if f.calls["Order/commitOrder"] != 1 {
			t.Errorf("%s: committed %d times", name, f.calls["Order/commitOrder"])
		}
	}
	f := newFake(t)
	req := workedRequest()
	req.PreparedID = ""
	if _, err := f.orders.Place(t.Context(), req); vendors.VerdictOf(err) != vendors.Permanent {
		t.Errorf("without a check_id: %v", err)
	}
}

func TestCommitThatNeverLeftMayBeSentAgain(t *testing.T) {
	f := newFake(t)
	f.expect("Order/commitOrder", nil, data(`{"order_id":"o1"}`))
	working := f.orders.Client
	f.orders.Client = mustHTTP(t, roundTripFunc(func(*http.Request) (*http.Response, error) {
		return nil, errors.New("connection refused")
	}))
	if _, err := f.orders.Place(t.Context(), workedRequest()); vendors.VerdictOf(err) != vendors.Retryable {
		t.Fatalf("err = %v", err)
	}
	f.orders.Client = working
	if order, err := f.orders.Place(t.Context(), workedRequest()); err != nil || order.ID != "o1" {
		t.Errorf("%+v, %v", order, err)
	}
}

func TestFind(t *testing.T) {
	const found = `{"status":true,"data":{"order_id":"o1"}}`
	for name, tt := range map[string]struct {
		lookUp, info string
		want         []string
		undecidable  bool
	}{
		"under review":    {found, infoOf("11"), []string{"o1"}, false},
		"completed":       {found, infoOf(`"3"`), []string{"o1"}, false},
		"failed":          {found, infoOf("13"), []string{"o1"}, false},
		"cancelled":       {found, infoOf("5"), []string{"o1"}, false},
		"not submitted":   {found, infoOf("0"), nil, true},
		"unknown status":  {found, infoOf("2"), nil, true},
		"status refused":  {found, refusal, nil, true},
		"look-up refused": {refusal, "", nil, true},
		"no order id":     {data(`{}`), "", nil, false},
		"no status":       {found, data(`{}`), nil, false},
		"status broken":   {found, `<html>`, nil, false},
		"bad token":       {badToken, "", nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.expect(lookUpPath, map[string]string{"check_id": "chk-1"}, tt.lookUp)
			f.expect("Order/getOrderInfo", map[string]string{"order_id": "o1"}, tt.info)
			got, err := f.orders.Find(t.Context(), vendors.Lookup{Reference: "r", PreparedID: "chk-1"})
			if !reflect.DeepEqual(got, tt.want) || (err == nil) != (tt.want != nil) || errors.Is(err, vendors.ErrUndecidable) != tt.undecidable {
				t.Errorf("%v, %v", got, err)
			}
			if err != nil && vendors.VerdictOf(err) == vendors.Uncertain {
				t.Errorf("a look-up must never be uncertain: %v", err)
			}
		})
	}
	f := newFake(t)
	if got, err := f.orders.Find(t.Context(), vendors.Lookup{Reference: "r"}); got != nil || err != nil {
		t.Errorf("without a check_id: %v, %v", got, err)
	}
}

// TestFindAsksForTheFinalID: the ID that is reported before the commit is not the final one.
func TestFindAsksForTheFinalID(t *testing.T) {
	s := newService(t, nil)
	o := s.open(s.URL, testToken)
	req := workedRequest()
	req.PreparedID = ""
	prepared, err := o.Prepare(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	before, refusal, err := o.lookUp(t.Context(), prepared.ID)
	if err != nil || refusal != nil {
		t.Fatal(err)
	}
	req.PreparedID = prepared.ID
	order, err := o.Place(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	found, err := o.Find(t.Context(), vendors.Lookup{PreparedID: prepared.ID})
	if err != nil || len(found) != 1 || found[0] != order.ID || before.ID == order.ID {
		t.Errorf("found %v, %v; placed %s, before %s", found, err, order.ID, before.ID)
	}
}

// TestFindSeesTheIDChange: the ID may become final while it is being looked up.
func TestFindSeesTheIDChange(t *testing.T) {
	f := newFake(t)
	f.expect(lookUpPath, nil, data(`{"order_id":"t1"}`))
	f.expect("Order/getOrderInfo", map[string]string{"order_id": "t1"}, infoOf("11"))
	f.after("Order/getOrderInfo", func() {
		f.expect(lookUpPath, nil, data(`{"order_id":"o1"}`))
		f.expect("Order/getOrderInfo", map[string]string{"order_id": "o1"}, infoOf("11"))
	})
	if ids, err := f.orders.Find(t.Context(), vendors.Lookup{PreparedID: "chk-1"}); err != nil || !slices.Equal(ids, []string{"o1"}) {
		t.Errorf("found %v, %v", ids, err)
	}
}

func TestPrepareRefusals(t *testing.T) {
	change := func(f func(*vendors.OrderRequest)) vendors.OrderRequest {
		req := workedRequest()
		f(&req)
		return req
	}
	for name, tt := range map[string]struct {
		req  vendors.OrderRequest
		want string
	}{
		"several names":  {change(func(r *vendors.OrderRequest) { r.Names = []string{"a.example", "b.example"} }), "several names (a.example, b.example)"},
		"unknown method": {change(func(r *vendors.OrderRequest) { r.Method = vendors.MethodHTTPS }), `method "https"`},
		"part of an order": {change(func(r *vendors.OrderRequest) { r.Names = []string{"one.example"} }),
			"check_id chk-2 is for one.example, two.example, but the order to be placed is for one.example"},
	} {
		f := newFake(t, CheckID{ID: "chk-2", Names: []string{"two.example", "one.example"}})
		prepared, err := f.orders.Prepare(t.Context(), tt.req)
		if prepared.ID != "" || err == nil || vendors.VerdictOf(err) != vendors.Permanent || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %q, %v", name, prepared.ID, err)
		}
	}
	f := newFake(t, CheckID{ID: "chk-2", Names: []string{"two.example"}})
	f.orders.fields["domains"] = ""
	if _, err := f.orders.Prepare(t.Context(), workedRequest()); !errors.Is(err, errNoDomainField) || vendors.VerdictOf(err) != vendors.Permanent {
		t.Errorf("without a field for the domain: %v", err)
	}
	for a, want := range map[*answer]vendors.Verdict{
		{body: refusal}: vendors.Permanent, {body: data(`{}`)}: vendors.Retryable, {body: badToken}: vendors.Permanent,
		{body: `<html>`}: vendors.Retryable, {body: `<html>`, status: 502}: vendors.Retryable,
	} {
		f := newFake(t)
		f.answers["Order/createOrder"] = *a
		prepared, err := f.orders.Prepare(t.Context(), workedRequest())
		if prepared.ID != "" || err == nil || vendors.VerdictOf(err) != want {
			t.Errorf("%s: %q, %v", a.body, prepared.ID, err)
		}
		// Each call may have left a draft behind.
		if n := f.calls["Order/createOrder"]; n != 1 {
			t.Errorf("%s: called %d times", a.body, n)
		}
	}
}

func TestPredict(t *testing.T) {
	f := newFake(t, CheckID{ID: "chk-2", Names: []string{"two.example"}})
	if got, err := f.orders.Predict(workedRequest()); err != nil || !reflect.DeepEqual(got, workedChallenges()) {
		t.Errorf("got %+v, %v", got, err)
	}
	other, elsewhere := workedRequest(), workedRequest()
	other.Product, elsewhere.Names = "geotrust-dv", []string{"two.example"}
	for _, req := range []vendors.OrderRequest{other, elsewhere} {
		if got, err := f.orders.Predict(req); err != nil || got != nil {
			t.Errorf("%s %v: %+v, %v", req.Product, req.Names, got, err)
		}
	}
	if f.orders.CAAIdentities(testProduct) == nil || f.orders.CAAIdentities("geotrust-dv") != nil {
		t.Error("wrong CAA identities")
	}
}

func TestCancel(t *testing.T) {
	for status, want := range map[string]error{"5": nil, "3": vendors.ErrWrongState, "8": vendors.ErrWrongState, "2": vendors.ErrWrongState} {
		f := newFake(t)
		f.expect("Order/getOrderInfo", nil, infoOf(status))
		if err := f.orders.Cancel(t.Context(), "id", ""); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("order_status %s: %v", status, err)
		}
	}
	f := newFake(t)
	f.expect("Order/getOrderInfo", nil, infoOf("11"))
	f.expect("Order/cancelOrder", map[string]string{"order_id": "id"}, ok)
	if err := f.orders.Cancel(t.Context(), "id", ""); vendors.VerdictOf(err) != vendors.Uncertain || err == nil {
		t.Errorf("accepted, but not cancelled: %v", err)
	}
}

// TestNoRevocation: HowSSL cannot revoke, and must not appear to be able to.
func TestNoRevocation(t *testing.T) {
	if _, ok := any(newFake(t).orders).(vendors.Revoker); ok {
		t.Error("there is a method Revoke")
	}
}

// TestProducts: control characters are left out.
func TestProducts(t *testing.T) {
	f := newFake(t)
	list := data(`[
		{"product_name":"Positive\u001b\r\nSSL","product_code":"comodo-positivessl-dv","audit_type":"DV","domain_type":"1",
		 "prices_info":"[{\"label\":\"12\",\"currency\":\"USD\",\"real_price\":\"49\",\"price\":\"6.95\\u001b\"},{\"label\":24,\"price\":12.5},{\"label\":\"x\"}]"},
		{"product_code":"multi","audit_type":"OV","domain_type":4,"prices_info":"broken"}]`)
	// The service has smaller pages than requested, and repeats the last one.
	last := data(`[{"product_code":"multi"},{"product_code":"last","domain_type":"3"}]`)
	f.answers["Product_info/lists"] = answer{status: 404, body: "<html>"}
	f.expect("ProductInfo/lists", map[string]string{"page": "1", "size": "100"}, list)
	f.after("ProductInfo/lists", func() {
		page := f.calls["ProductInfo/lists"] + 1
		f.expect("ProductInfo/lists", map[string]string{"page": strconv.Itoa(page), "size": "100"}, last)
	})
	got, err := f.orders.Products(t.Context())
	want := []vendors.Product{
		{Code: "comodo-positivessl-dv", Name: "Positive SSL", Validation: "dv", MaxNames: 1, Prices: map[int]string{12: "6.95", 24: "12.5"}},
		{Code: "multi", Validation: "ov", Wildcard: true, Prices: map[int]string{}},
		{Code: "last", Wildcard: true, MaxNames: 1, Prices: map[int]string{}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	f.expect("Product_info/lists", nil, refusal)
	if _, err := f.orders.Products(t.Context()); !errors.Is(err, errRefused) {
		t.Errorf("err = %v", err)
	}
}
