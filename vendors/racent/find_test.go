package racent

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/csrtest"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
	"github.com/caddy-commercial/caddy-commercial/vendors/vendortest"
)

func TestFindByReference(t *testing.T) {
	for _, tt := range []struct {
		body string
		want []string
		err  bool
	}{
		{`{"code":1,"data":{"certId":"a"}}`, []string{"a"}, false},
		{`{"code":1,"data":{"certId":77}}`, []string{"77"}, false},
		{`{"code":1,"data":[{"certId":"a"},{"certId":"b"}]}`, []string{"a", "b"}, false},
		{`{"code":1,"data":[]}`, nil, false},
		{`{"code":1,"data":null}`, nil, false},
		{`{"code":1}`, nil, false},
		{`{"code":1,"data":{"orderId":"a"}}`, nil, true}, // an answer that is not understood
		{`{"code":1,"data":"a"}`, nil, true},
		{`{"code":-2}`, nil, true},
		{`{"code":0}`, nil, true},
		{`{"code":2}`, nil, true},
		{`{"code":-3}`, nil, true},
		{`{"code":-4}`, nil, true},
		{`{"code":-6}`, nil, true},
		{`{"code":-9}`, nil, true},
		{`{"code":-8}`, nil, true},
		{`{"code":-77}`, nil, true},
		{`{"code":400}`, nil, true},
	} {
		f := newFake(t) // fails on any other request, such as one for a list
		f.expect("certIdByrefId", map[string]string{"refId": "ref-1"}, 200, tt.body)
		got, err := f.orders.Find(t.Context(), vendors.Lookup{Reference: "ref-1"})
		if !reflect.DeepEqual(got, tt.want) || (err != nil) != tt.err || errors.Is(err, vendors.ErrUndecidable) {
			t.Errorf("%s: %v, %v", tt.body, got, err)
		}
		if err != nil && vendors.VerdictOf(err) == vendors.Uncertain {
			t.Errorf("%s: a look-up must never be uncertain: %v", tt.body, err)
		}
	}
}

// TestSecondWitness is about what the list of orders shows if the look-up by reference is answered
// with a code that proves nothing.
func TestSecondWitness(t *testing.T) {
	sent := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	csr, foreign := csrtest.DER(t, "shop.example.com"), csrtest.DER(t, "shop.example.com")
	at := func(d time.Duration) string { return sent.Add(d).In(chinaTime).Format(time.DateTime) }
	row := func(id, created, rest string) string {
		return fmt.Sprintf(`{"certId":%q,"orderNum":"undefined","created":%q%s}`, id, created, rest)
	}
	const (
		ours      = `,"commonName":"Example.com","domains":["example.com"]`
		inDomains = `,"commonName":"other.example","domains":["other.example","example.com"]`
		others    = `,"commonName":"other.example","domains":["other.example"]`
		untold    = `,"commonName":"","domains":[]`
	)
	many := func(n int, created func(i int) string) string {
		var rows []string
		for i := range n {
			rows = append(rows, row(fmt.Sprint("z", i), created(i), others))
		}
		return "[" + strings.Join(rows, ",") + "]"
	}
	hours := func(step int) func(int) string {
		return func(i int) string { return at(time.Duration(step*i-1000) * time.Hour) }
	}
	echo := func(der []byte) string {
		return fmt.Sprintf(`{"code":1,"status":"PENDING","data":{"applyParams":{"csr":%q}}}`, pemOf(der))
	}
	for name, tt := range map[string]struct {
		data        string // of the list, if code is 1
		collect     string
		want        []string
		undecidable bool
	}{
		"no orders":              {`[]`, ``, nil, false},
		"other names":            {"[" + row("a", at(time.Minute), others) + "]", ``, nil, false},
		"long before":            {"[" + row("a", at(-240*time.Hour), ours) + "]", ``, nil, false},
		"began long before":      {`[{"certId":"a","commonName":"example.com","beginDate":"2025-08-01 00:00:00"}]`, ``, nil, false},
		"ours":                   {"[" + row("a", at(time.Minute), ours) + "]", echo(csr), []string{"a"}, false},
		"ours, by another name":  {"[" + row("a", at(time.Minute), inDomains) + "]", echo(csr), []string{"a"}, false},
		"ours, names not told":   {"[" + row("a", at(time.Minute), untold) + "]", echo(csr), []string{"a"}, false},
		"ours, no date":          {"[" + row("a", "soon", ours) + "]", echo(csr), []string{"a"}, false},
		"ours, in another zone":  {"[" + row("a", at(-9*time.Hour), ours) + "]", echo(csr), []string{"a"}, false},
		"ours, as JSON text":     {"[" + row("a", at(0), ours) + "]", fmt.Sprintf(`{"code":2,"data":{"applyParams":%q}}`, fmt.Sprintf(`{"csr":%q}`, pemOf(csr))), []string{"a"}, false},
		"a stranger's CSR":       {"[" + row("a", at(time.Minute), ours) + "]", echo(foreign), nil, false},
		"CSR not told":           {"[" + row("a", at(time.Minute), ours) + "]", `{"code":1,"data":{}}`, nil, true},
		"order cannot be read":   {"[" + row("a", at(time.Minute), ours) + "]", `{"code":-5}`, nil, true},
		"order without an ID":    {"[" + row("", at(time.Minute), ours) + "]", ``, nil, true},
		"not a list":             {`{}`, ``, nil, true},
		"nothing":                {`null`, ``, nil, true},
		"a list within a text":   {`"[]"`, ``, nil, true},
		"names of another kind":  {`[{"certId":"a","created":"` + at(time.Minute) + `","commonName":"","domains":[{"domainName":"example.com"}]}]`, echo(csr), []string{"a"}, false},
		"not orders":             {`["a"]`, ``, nil, true},
		"page of the oldest":     {many(20, hours(1)), ``, nil, true},
		"page of the newest":     {many(20, hours(-1)), ``, nil, false},
		"more than fills a page": {many(21, hours(1)), ``, nil, false},
		"a large account":        {many(50_001, hours(-1)), ``, nil, false},
		"more than is read":      {strings.Repeat(" ", kit.MaxList) + `[]`, ``, nil, true},
		"page without dates":     {many(10, func(int) string { return "" }), ``, nil, true},
	} {
		for _, code := range []string{"-1", "-5", "-7"} {
			f := newFake(t)
			f.expect("certIdByrefId", map[string]string{"refId": "ref-1"}, 200, `{"code":`+code+`,"errors":"refId is invalid"}`)
			f.also = map[string]string{"list": `{"code":1,"data":` + tt.data + `}`}
			if tt.collect != "" {
				f.also["collect"] = tt.collect
			}
			got, err := f.orders.Find(t.Context(), vendors.Lookup{Reference: "ref-1", Names: []string{"example.com"}, CSR: csr, Sent: sent})
			if !slices.Equal(got, tt.want) || errors.Is(err, vendors.ErrUndecidable) != tt.undecidable || (err != nil) != tt.undecidable {
				t.Errorf("%s, code %s: %v, %v", name, code, got, err)
			}
		}
	}
}

// TestReplacedOrderIsNoCandidate: an order that was to be replaced is not its own successor,
// although the names are the same.
func TestReplacedOrderIsNoCandidate(t *testing.T) {
	f := newFake(t)
	f.expect("certIdByrefId", nil, 200, `{"code":-1}`)
	f.also = map[string]string{
		"list":    `{"code":1,"data":[{"certId":"old","domains":["example.com"]}]}`,
		"collect": `{"code":1,"status":"PENDING","data":{}}`,
	}
	got, err := f.orders.Find(t.Context(), vendors.Lookup{Reference: "ref-1", OrderID: "old", Names: []string{"example.com"}, CSR: csrtest.DER(t, "shop.example.com")})
	if err != nil || len(got) > 0 {
		t.Errorf("%v, %v", got, err)
	}
}

// TestNoSecondWitness: a list that is refused or does not exist is not a second witness.
func TestNoSecondWitness(t *testing.T) {
	for _, tt := range []struct {
		list    string
		is      error
		verdict vendors.Verdict
	}{
		{`{"code":-1}`, vendors.ErrUndecidable, vendors.Retryable},
		{`{"code":0,"data":[]}`, vendors.ErrUndecidable, vendors.Retryable},
		{`{"code":2,"data":[]}`, vendors.ErrUndecidable, vendors.Retryable},
		{`{"code":1}`, vendors.ErrUndecidable, vendors.Retryable},
		{`{"code":400}`, vendors.ErrCredential, vendors.Permanent},
		{`<html>busy</html>`, nil, vendors.Retryable},
		{`{"data":[]}`, nil, vendors.Retryable},
	} {
		f := newFake(t)
		f.expect("certIdByrefId", nil, 200, `{"code":-1}`)
		f.also = map[string]string{"list": tt.list}
		got, err := f.orders.Find(t.Context(), vendors.Lookup{Reference: "ref-1", Names: []string{"example.com"}, Sent: time.Now()})
		if err == nil || len(got) > 0 || vendors.VerdictOf(err) != tt.verdict || tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("%s: %v, %v", tt.list, got, err)
		}
		if !errors.Is(tt.is, vendors.ErrUndecidable) && errors.Is(err, vendors.ErrUndecidable) {
			t.Errorf("%s: mistaken for a contradiction: %v", tt.list, err)
		}
	}
}

// behave sets the quirks of the sandbox.
func (s *service) behave(quirks hostile.Quirks) {
	s.T.Helper()
	if err := s.CA.Update(func(c *hostile.Config) { c.Quirks = quirks }); err != nil {
		s.T.Fatal(err)
	}
}

// lostOrder places an order whose answer is lost, at a service whose look-up by reference always
// answers with the same code.
func lostOrder(t *testing.T, code int, carriedOut bool, quirks hostile.Quirks) (*vendortest.Harness, vendors.Lookup) {
	t.Helper()
	h := openHarness(t)
	s := h.Service.(*service)
	s.behave(quirks)
	req := workedRequest()
	fault := hostile.Fault{Endpoint: "place", Kind: hostile.HTML}
	if carriedOut {
		fault.Phase = hostile.AfterEffect
	}
	remove := s.CA.Inject(fault)
	if _, err := h.Vendor.Place(t.Context(), req); vendors.VerdictOf(err) != vendors.Uncertain {
		t.Fatal(err)
	}
	remove()
	s.CA.Inject(hostile.Fault{Endpoint: "certIdByrefId", Kind: hostile.APICode, Code: code, Errors: "the status of the order does not allow this"})
	return h, vendors.Lookup{Reference: req.Reference, Names: req.Names, CSR: req.CSR, Sent: s.Now()}
}

// TestLostOrderBehindARefusedLookUp: a paid order is never reported absent because the look-up is
// refused with an undocumented code.
func TestLostOrderBehindARefusedLookUp(t *testing.T) {
	for _, code := range []int{-1, -5, -7} {
		for _, carriedOut := range []bool{true, false} {
			h, lookup := lostOrder(t, code, carriedOut, hostile.Quirks{})
			ids, err := h.Vendor.(vendors.Finder).Find(t.Context(), lookup)
			if err != nil || len(ids) != h.Service.Charges() {
				t.Errorf("code %d, carried out %v: %v, %v", code, carriedOut, ids, err)
			}
			h, lookup = lostOrder(t, code, carriedOut, hostile.Quirks{NoList: true})
			if ids, err := h.Vendor.(vendors.Finder).Find(t.Context(), lookup); len(ids) > 0 || !errors.Is(err, vendors.ErrUndecidable) {
				t.Errorf("code %d, carried out %v, no list: %v, %v", code, carriedOut, ids, err)
			}
		}
	}
}

// TestLostReplacement: a lost replacement is found through the order that was to be replaced.
func TestLostReplacement(t *testing.T) {
	for _, quirks := range []hostile.Quirks{{HideRefs: true}, {HideRefs: true, NoList: true}} {
		for _, carriedOut := range []bool{true, false} {
			h := openHarness(t)
			s := h.Service.(*service)
			s.behave(quirks)
			v := h.Vendor.(*Orders)
			req := workedRequest()
			order, err := v.Place(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			s.Prove(order)
			if got, err := v.Status(t.Context(), order.ID); err != nil || got.Status != vendors.StatusIssued {
				t.Fatal(got.Status, err)
			}
			fault := hostile.Fault{Endpoint: "replace", Kind: hostile.Empty}
			if carriedOut {
				fault.Phase = hostile.AfterEffect
			}
			remove := s.CA.Inject(fault)
			change := vendors.OrderRequest{
				OrderConfig: req.OrderConfig, Reference: "ref-2", Names: req.Names, CSR: csrtest.DER(t, "shop.example.com"), Unique: "u2",
			}
			if _, err := v.Reissue(t.Context(), order.ID, change); vendors.VerdictOf(err) != vendors.Uncertain {
				t.Fatal(err)
			}
			remove()
			ids, err := v.Find(t.Context(), vendors.Lookup{
				Reference: change.Reference, Names: change.Names, CSR: change.CSR, OrderID: order.ID, Sent: s.Now(),
			})
			switch found := len(ids) == 1 && ids[0] != order.ID; {
			case carriedOut && !quirks.NoList && (err != nil || !found),
				carriedOut && quirks.NoList && !errors.Is(err, vendors.ErrUndecidable),
				!carriedOut && (err != nil || len(ids) > 0):
				t.Errorf("no list %v, carried out %v: %v, %v", quirks.NoList, carriedOut, ids, err)
			}
		}
	}
}

// TestBareAnswerForWantOfMoney: an account without money gets only a code for unexpected errors. The
// error suggests topping it up, and the order is looked up before it is placed again.
func TestBareAnswerForWantOfMoney(t *testing.T) {
	h := openHarness(t)
	h.Service.(*service).behave(hostile.Quirks{BareNoMoney: true})
	h.Service.Spend()
	req := workedRequest()
	_, err := h.Vendor.Place(t.Context(), req)
	if vendors.VerdictOf(err) != vendors.Uncertain || !strings.Contains(fmt.Sprint(err), "check the account's balance and top it up") {
		t.Errorf("%v", err)
	}
	ids, err := h.Vendor.(vendors.Finder).Find(t.Context(), vendors.Lookup{Reference: req.Reference, Names: req.Names, CSR: req.CSR, Sent: time.Now()})
	if err != nil || len(ids) > 0 {
		t.Errorf("%v, %v", ids, err)
	}
}

func TestSecondWitnessLooksAtFewOrders(t *testing.T) {
	f := newFake(t)
	f.expect("certIdByrefId", nil, 200, `{"code":-1}`)
	f.also = map[string]string{
		"list":    `{"code":1,"data":[` + strings.Repeat(`{"certId":"a","domains":["example.com"]},`, 2*maxCandidates) + `{"certId":"b"}]}`,
		"collect": fmt.Sprintf(`{"code":1,"data":{"applyParams":{"csr":%q}}}`, pemOf(csrtest.DER(t, "shop.example.com"))),
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if ids, err := f.orders.Find(ctx, vendors.Lookup{Reference: "ref-1", Names: []string{"example.com"}, CSR: csrtest.DER(t, "shop.example.com")}); !errors.Is(err, vendors.ErrUndecidable) {
		t.Errorf("%v, %v", ids, err)
	}
	if n := f.logs.FilterMessage("vendor call").Len(); n != maxCandidates+2 {
		t.Errorf("%d calls", n)
	}
}

func pemOf(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func TestListOrders(t *testing.T) {
	const row = `{"certId":"a","commonName":"A.example","domains":["b.example"],"status":"REVOKED","created":"2026-03-02 08:00:00","endDate":"2027-03-02 07:59:59"}`
	want := vendors.ListedOrder{
		ID: "a", Names: []string{"a.example", "b.example"}, Status: vendors.StatusRevoked, RawStatus: "REVOKED",
		Created: time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC), TermEnds: time.Date(2027, 3, 1, 23, 59, 59, 0, time.UTC),
	}
	for data, orders := range map[string]int{
		`[` + row + `,{"certId":"","domains":[]}]`:              1,
		`[` + strings.Repeat(row+",", 2*pageSize-1) + row + `]`: -2 * pageSize, // may be truncated
		`[]`: 0,
		`{}`: -1, `"[]"`: -1, `null`: -1,
	} {
		f := newFake(t)
		f.expect("list", nil, 200, `{"code":1,"data":`+data+`}`)
		n := 0
		err := f.orders.ListOrders(t.Context(), func(o vendors.ListedOrder) error {
			if !reflect.DeepEqual(o, want) {
				t.Errorf("%+v", o)
			}
			n++
			return nil
		})
		if (err != nil) != (orders < 0) || n != max(orders, 0) && n != -orders || errors.Is(err, vendors.ErrUndecidable) != (orders < -1) {
			t.Errorf("%.40s: %d orders, %v", data, n, err)
		}
	}
}
