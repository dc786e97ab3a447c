package howssl

import (
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/csrtest"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// request returns a good order and the key of its CSR.
func request(t *testing.T, names ...string) (vendors.OrderRequest, *ecdsa.PrivateKey) {
	t.Helper()
	key := csrtest.Key(t)
	return vendors.OrderRequest{
		OrderConfig: goodConfig(), Reference: "ref", Names: names, CSR: csrtest.Sign(t, key, names[0], names...),
	}, key
}

// issue proves an order and returns its leaf.
func (s *service) issue(o *Orders, order vendors.Order) *x509.Certificate {
	s.T.Helper()
	s.Prove(order)
	got, err := o.Status(s.T.Context(), order.ID)
	if err != nil || got.Status != vendors.StatusIssued || len(got.Certificates) != 2 {
		s.T.Fatalf("%+v, %v", got, err)
	}
	leaf, err := x509.ParseCertificate(got.Certificates[0])
	if err != nil {
		s.T.Fatal(err)
	}
	return leaf
}

// TestOrderCreatedAtHowSSL: an order that was created at HowSSL is paid for once, issued for
// HowSSL's key, and reissued for ours, without createOrder and without names for its fields.
func TestOrderCreatedAtHowSSL(t *testing.T) {
	s := newService(t, nil)
	s.fields = nil
	names := []string{"a.example.com", "b.example.com"}
	id, err := s.CA.CreateAtHowSSL(testToken, "comodo-multi-dv", 1, names...)
	if err != nil {
		t.Fatal(err)
	}
	o := s.open(s.URL, testToken, CheckID{ID: id, Names: []string{"B.example.com", "a.example.com"}})
	req, key := request(t, names...)
	prepared, err := o.Prepare(t.Context(), req)
	req.PreparedID = prepared.ID
	if err != nil || req.PreparedID != id || !prepared.Foreign {
		t.Fatalf("prepared %q, %v", req.PreparedID, err)
	}
	if n := s.Charges(); n != 0 {
		t.Fatalf("charged %d times before the commit", n)
	}
	order, err := o.Place(t.Context(), req)
	if err != nil || len(order.Challenges) != 2 {
		t.Fatalf("%+v, %v", order, err)
	}
	if leaf := s.issue(o, order); key.PublicKey.Equal(leaf.PublicKey) {
		t.Fatal("the first certificate is for our key")
	}
	next, err := o.Reissue(t.Context(), order.ID, vendors.OrderRequest{
		OrderConfig: req.OrderConfig, Names: names, CSR: req.CSR,
	})
	if err != nil || next.ID != order.ID {
		t.Fatalf("%+v, %v", next, err)
	}
	leaf := s.issue(o, next)
	if !key.PublicKey.Equal(leaf.PublicKey) || leaf.VerifyHostname(names[1]) != nil {
		t.Errorf("the certificate is for another key, or for %v", leaf.DNSNames)
	}
	if n := s.Charges(); n != 1 {
		t.Errorf("charged %d times", n)
	}
	if n := s.CA.Calls("Order/createOrder"); n != 0 {
		t.Errorf("created %d orders", n)
	}

	// Once it is paid for, it cannot lead to another order.
	_, err = o.Prepare(t.Context(), req)
	if vendors.VerdictOf(err) != vendors.Permanent || err == nil || !strings.Contains(err.Error(), "use it with: order "+order.ID+" a.example.com b.example.com") {
		t.Errorf("preparing again: %v", err)
	}
}

func TestUnusableCheckIDs(t *testing.T) {
	for name, quirks := range map[string]hostile.HowSSLQuirks{
		"unknown": {}, "state not told": {RefuseDraftInfo: true},
	} {
		s := newService(t, &quirks)
		id, err := s.CA.CreateAtHowSSL(testToken, testProduct, 1, "a.example.com")
		if err != nil {
			t.Fatal(err)
		}
		if name == "unknown" {
			id += "x"
		}
		req, _ := request(t, "a.example.com")
		o := s.open(s.URL, testToken, CheckID{ID: id, Names: req.Names})
		if _, err := o.Prepare(t.Context(), req); vendors.VerdictOf(err) != vendors.Permanent || !errors.Is(err, errRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCommitInAQueue: a commit that waits in a queue is neither repeated nor considered absent.
func TestCommitInAQueue(t *testing.T) {
	s := newService(t, &hostile.HowSSLQuirks{CommitQueue: time.Hour})
	o := s.open(s.URL, testToken)
	req, _ := request(t, "a.example.com")
	var err error
	prepared, err := o.Prepare(t.Context(), req)
	req.PreparedID = prepared.ID
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.Place(t.Context(), req); vendors.VerdictOf(err) != vendors.Uncertain || err == nil {
		t.Fatalf("placing: %v", err)
	}
	lookup := vendors.Lookup{PreparedID: req.PreparedID}
	s.Pass(59 * time.Minute)
	if ids, err := o.Find(t.Context(), lookup); ids != nil || !errors.Is(err, vendors.ErrUndecidable) {
		t.Errorf("in the queue: %v, %v", ids, err)
	}
	s.Pass(time.Minute)
	if ids, err := o.Find(t.Context(), lookup); len(ids) != 1 || err != nil {
		t.Errorf("after the queue: %v, %v", ids, err)
	}
	if n := s.Charges(); n != 1 {
		t.Errorf("charged %d times", n)
	}
}

func TestCheckIDsInTheConfig(t *testing.T) {
	for want, list := range map[string][]CheckID{
		"check_id: the ID is missing":                 {{Names: []string{"a.example"}}},
		"check_id: x has no names":                    {{ID: "x"}},
		"check_id: x is given twice":                  {{ID: "x", Names: []string{"a.example"}}, {ID: "x", Names: []string{"b.example"}}},
		"check_id: a.example is a name of both x and": {{ID: "x", Names: []string{"a.example"}}, {ID: "y", Names: []string{"b.example", "A.example"}}},
		`check_id: "" is not a name`:                  {{ID: "x", Names: []string{""}}},
	} {
		if _, err := newCheckIDs(list); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %s", list, err, want)
		}
	}
	ids, err := newCheckIDs([]CheckID{{ID: "x", Names: []string{"Bücher.example", "*.a.example"}}})
	if err != nil {
		t.Fatal(err)
	}
	if id, err := ids.find([]string{"xn--bcher-kva.example", "*.a.example"}); id != "x" || err != nil {
		t.Errorf("found %q, %v", id, err)
	}
	if id, err := ids.find([]string{"other.example"}); id != "" || err != nil {
		t.Errorf("found %q, %v", id, err)
	}
}

// draft makes the fake create an order and report this about it.
func (f *fake) draft(info string) {
	f.expect("Order/createOrder", nil, data(`{"check_id":"chk-1"}`))
	f.expect(lookUpPath, map[string]string{"check_id": "chk-1"}, data(`{"order_id":"t1"}`))
	f.expect("Order/getOrderInfo", map[string]string{"order_id": "t1"}, info)
}

// validity returns the data of getOrderInfo for a draft with these texts.
func validity(texts ...string) string {
	var list []string
	for _, text := range texts {
		list = append(list, fmt.Sprintf(`{"value":%q,"status":"2"}`, text))
	}
	return data(`{"order_status":0,"validity_status":` + strconv.Quote("["+strings.Join(list, ",")+"]") + `}`)
}

// TestDraftIsComparedBeforeItIsPaidFor: what is about to be paid for is compared with what is
// wanted, as far as HowSSL reports it.
func TestDraftIsComparedBeforeItIsPaidFor(t *testing.T) {
	chinese := func(name string) string { return "域名:" + name + "<br>验证方式: 文件验证<br>" }
	for name, tt := range map[string]struct {
		info string
		want string // of the error; empty if the order may be paid for
	}{
		"its name":               {validity(chinese("shop.example.com")), ""},
		"as in the English book": {validity("domain name:Shop.Example.com<br>verification method: mailbox<br>"), ""},
		"wide colon":             {validity(" 域名： shop.example.com <BR/>"), ""},
		"without a label":        {validity("shop.example.com"), ""},
		"its twin":               {validity(chinese("www.shop.example.com")), ""},
		"both":                   {validity(chinese("shop.example.com"), chinese("www.shop.example.com")), ""},
		"as a list":              {data(`{"order_status":"0","validity_status":[{"value":"域名:shop.example.com<br>"}]}`), ""},
		"no names":               {validity(), ""},
		"no text":                {validity("", "<br>", "域名:<br>", "待提交"), ""},
		"no validity":            {data(`{"order_status":0}`), ""},
		"broken validity":        {data(`{"order_status":0,"validity_status":"[{"}`), ""},
		"a mail address":         {validity("邮箱:admin@example.com<br>"), ""},
		"a name in another line": {validity("验证方式: 文件验证<br>文件:ABC.txt<br>"), ""},
		"no status":              {data(`{"order_status":""}`), ""},
		"not told":               {refusal, ""},
		"another name":           {validity(chinese("other.example.com")), "is for other.example.com, but the order is for shop.example.com"},
		"another name as a list": {data(`{"order_status":0,"validity_status":[{"value":"域名:other.example.com<br>"}]}`),
			"is for other.example.com, but"},
		"another name, wide colon": {validity("域名：other.example.com<br>"), "is for other.example.com, but"},
		"another name in Unicode":  {validity(chinese("bücher.example")), "is for xn--bcher-kva.example, but"},
		"one more":                 {validity(chinese("shop.example.com"), chinese("b.example.com")), "is for shop.example.com, b.example.com, but the order"},
		"a wildcard":               {validity(chinese("*.shop.example.com")), "is for *.shop.example.com, but"},
		"its product and term":     {data(`{"order_status":0,"product_code":"` + testProduct + `","validity_period":12}`), ""},
		"another product": {data(`{"order_status":0,"product_code":"comodo-ev"}`),
			`is for the product "comodo-ev", but the order is for ` + testProduct},
		"another term":           {data(`{"order_status":0,"validity_period":"24"}`), "is for 24 months, but the order is for 12"},
		"a term of another kind": {data(`{"order_status":0,"validity_period":"1"}`), ""},
		"no draft": {infoOf("13"), "check_id chk-1 is not waiting for payment: its order t1 is 13 (failed); " +
			"if that is a good order, use it with: order t1 shop.example.com"},
		"a status that is not known": {infoOf("2"), `check_id chk-1 is not waiting for payment: its order t1 is "2" (unknown)`},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.draft(tt.info)
			prepared, err := f.orders.Prepare(t.Context(), workedRequest())
			if tt.want == "" {
				if err != nil || prepared != (vendors.Prepared{ID: "chk-1"}) {
					t.Errorf("%+v, %v", prepared, err)
				}
				return
			}
			if err == nil || prepared.ID != "" || vendors.VerdictOf(err) != vendors.Permanent || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%+v, %v, want %s", prepared, err, tt.want)
			}
		})
	}
}

// TestErrorsAboutDraftsAreBounded: the length of what errors repeat from HowSSL is limited.
func TestErrorsAboutDraftsAreBounded(t *testing.T) {
	f := newFake(t)
	f.draft(validity("域名:" + strings.Repeat("a.", 2000) + "example<br>"))
	_, err := f.orders.Prepare(t.Context(), workedRequest())
	if err == nil || len(err.Error()) > 700 || !strings.Contains(err.Error(), "a.a.a") || !strings.Contains(err.Error(), "for shop.example.com") {
		t.Errorf("err = %v", err)
	}
}

// TestDraftThatCannotBeLookedUp: a draft that was just created here may be paid for even if the
// service knows nothing about it. A look-up that failed is repeated first.
func TestDraftThatCannotBeLookedUp(t *testing.T) {
	for body, pays := range map[string]bool{refusal: true, data(`{}`): true, badToken: false, `<html>`: false} {
		f := newFake(t)
		f.draft(infoOf("0"))
		f.expect(lookUpPath, nil, body)
		prepared, err := f.orders.Prepare(t.Context(), workedRequest())
		if (err == nil) != pays || (prepared.ID != "") != pays || vendors.VerdictOf(err) == vendors.Uncertain && err != nil {
			t.Errorf("%s: %+v, %v", body, prepared, err)
		}
	}
}

// TestForeignDraftIsCompared: orders that were created at HowSSL are compared, too. They have a
// product of their own.
func TestForeignDraftIsCompared(t *testing.T) {
	names := []string{"a.example", "*.b.example"}
	for want, info := range map[string]string{
		"":                       validity("域名:b.example<br>", "域名:a.example<br>"),
		" ":                      data(`{"order_status":0,"product_code":"comodo-multi-dv"}`),
		"is for a.example, but":  validity("域名:a.example<br>"),
		"is for a.example, b.e":  validity("域名:a.example<br>", "域名:b.example<br>", "域名:c.example<br>"),
		"www.a.example, but the": validity("域名:*.b.example<br>", "域名:www.a.example<br>"),
		"24 months, but":         data(`{"order_status":0,"validity_period":24}`),
		"howssl getOrderInfo":    refusal,
		"no order_status":        data(`{}`),
	} {
		f := newFake(t, CheckID{ID: "chk-1", Names: names})
		f.draft(info)
		req := workedRequest()
		req.Names = names
		prepared, err := f.orders.Prepare(t.Context(), req)
		if strings.TrimSpace(want) == "" {
			if err != nil || prepared != (vendors.Prepared{ID: "chk-1", Foreign: true}) {
				t.Errorf("%s: %+v, %v", info, prepared, err)
			}
		} else if err == nil || prepared.ID != "" || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v, want %s", info, prepared, err, want)
		}
	}
}

// TestCreateOrderThatBuysIsNotCalledAgain: if createOrder buys after all, it does so only once, and
// what it bought is used.
func TestCreateOrderThatBuysIsNotCalledAgain(t *testing.T) {
	for status, good := range map[string]bool{"11": true, "3": true, "13": false} {
		f := newFake(t)
		f.draft(infoOf(status))
		req := workedRequest()
		for i := range 3 {
			draft, err := f.orders.Prepare(t.Context(), req)
			if i == 0 && good {
				req.PreparedID = draft.ID
				// There is no answer to commitOrder, so calling it fails the test.
				if order, placing := f.orders.Place(t.Context(), req); err != nil || placing != nil || order.ID != "t1" {
					t.Errorf("%s: %v, %+v, %v", status, err, order, placing)
				}
				if _, again := f.orders.Place(t.Context(), req); again == nil {
					t.Errorf("%s: placed twice", status)
				}
				continue
			}
			if err == nil || !strings.Contains(err.Error(), "createOrder is not called again") || !strings.Contains(err.Error(), "order t1 shop.example.com") {
				t.Errorf("%s: %v", status, err)
			}
		}
		if n := f.calls["Order/createOrder"]; n != 1 {
			t.Errorf("%s: called %d times", status, n)
		}
	}
}

// TestDraftWhereNothingLooksItUp: a service without the look-up, which only one version of the
// documentation has, still takes orders: a draft that was just created is not compared with
// anything. One from the config is not paid for.
func TestDraftWhereNothingLooksItUp(t *testing.T) {
	req, _ := request(t, "shop.example.com")
	for _, status := range []int{http.StatusNotFound, http.StatusMethodNotAllowed} {
		f := newFake(t)
		f.draft("")
		f.answers[lookUpPath] = answer{status: status, body: "<html>"}
		if draft, err := f.orders.Prepare(t.Context(), req); draft.ID != "chk-1" || err != nil {
			t.Errorf("%+v, %v", draft, err)
		}
		f = newFake(t, CheckID{ID: "chk-2", Names: req.Names})
		f.answers[lookUpPath] = answer{status: status, body: "<html>"}
		if draft, err := f.orders.Prepare(t.Context(), req); draft.ID != "" || err == nil {
			t.Errorf("a draft of the config was prepared: %+v", draft)
		}
	}
}
