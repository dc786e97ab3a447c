package howssl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/csrtest"
	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
)

// wireCall is a call with the exact form it must send and a good answer.
type wireCall struct {
	form map[string]string
	good string
	call func(context.Context, *Orders) error
	paid bool
}

// calls lists all calls by their paths. For those that depend on other calls, the request is made
// directly by the client.
func calls() map[string]wireCall {
	id := map[string]string{"order_id": "id"}
	raw := func(call kit.Call, fields ...kit.Field) func(context.Context, *Orders) error {
		return func(ctx context.Context, o *Orders) error { return o.get(ctx, call, nil, fields...) }
	}
	return map[string]wireCall{
		"User/AccountInfo": {form: map[string]string{}, good: data(`{"user_amount":"0.00"}`), call: raw(accountInfo)},
		"Order/createOrder": {
			form: map[string]string{
				"product_code": testProduct, "validity_period": "12", "csr": csrtest.Worked, domainField: "shop.example.com",
				"check_way": "FILE", "auto_info": "1",
			},
			good: data(`{"check_id":"chk-1"}`),
			call: func(ctx context.Context, o *Orders) error { _, err := o.create(ctx, workedRequest()); return err },
		},
		"Order/commitOrder": {
			form: map[string]string{"check_id": "chk-1"}, good: data(`{"order_id":"id"}`), paid: true,
			call: func(ctx context.Context, o *Orders) error { _, err := o.Place(ctx, workedRequest()); return err },
		},
		"Order/fromCheck_idToOrder_id": {
			form: map[string]string{"check_id": "chk-1"}, good: `{"status":true,"data":{"order_id":"id"}}`,
			call: raw(fromCheckID, field("check_id", "chk-1")),
		},
		"Order/getOrderInfo": {
			form: id, good: infoOf("0"),
			call: func(ctx context.Context, o *Orders) error { _, err := o.Status(ctx, "id"); return err },
		},
		"Order/getValidity_info": {form: id, good: data(`{"valid_info":"sentence"}`), call: raw(getValidInfo, field("order_id", "id"))},
		"Order/getCertificate":   {form: id, good: data(`{}`), call: raw(getCertificate, field("order_id", "id"))},
		"Order/cancelOrder":      {form: id, good: ok, call: raw(cancelOrder, field("order_id", "id"))},
		"Order/refreshOrder": {
			form: id, good: ok,
			call: func(ctx context.Context, o *Orders) error {
				return o.Recheck(ctx, "id", []string{"a.example"}, vendors.MethodHTTP)
			},
		},
		"Reissue/submit": {
			form: map[string]string{"order_id": "id", "reissue_type": "1", "csr_type": "2", "csr_content": csrtest.Worked, "check_type": "2"},
			good: `{"status":true,"data":{"reissue_id":"r1"}}`,
			call: raw(reissueSubmit, field("order_id", "id"), field("reissue_type", "1"), field("csr_type", "2"),
				field("csr_content", kit.CSR(workedRequest().CSR)), field("check_type", "2")),
		},
		"Reissue/orderReissue": {form: id, good: noReissues, call: raw(reissueList, field("order_id", "id"))},
		"Product_info/lists": {
			form: map[string]string{"page": "1", "size": "100"}, good: data(`[]`),
			call: func(ctx context.Context, o *Orders) error { _, err := o.Products(ctx); return err },
		},
	}
}

func TestFormsOnTheWire(t *testing.T) {
	for path, c := range calls() {
		t.Run(path, func(t *testing.T) {
			f := newFake(t)
			f.expect(path, c.form, c.good)
			if err := c.call(t.Context(), f.orders); err != nil {
				t.Error(err)
			}
			if f.calls[path] != 1 {
				t.Errorf("sent %d times", f.calls[path])
			}
		})
	}
}

func TestUnusableAnswersOfEveryCall(t *testing.T) {
	for path, c := range calls() {
		for name, a := range map[string]answer{
			"html 502":      {status: 502, body: "<html>Bad Gateway</html>"},
			"other status":  {status: 201, body: c.good},
			"cut off":       {body: c.good[:len(c.good)/2]},
			"no status":     {body: strings.Replace(c.good, `"status":true`, `"state":true`, 1)},
			"truthy status": {body: strings.Replace(c.good, `"status":true`, `"status":1`, 1)},
			"other code":    {body: strings.Replace(c.good, `"status":true`, `"status":true,"code":500`, 1) + " "},
			"array":         {body: `[]`},
			"null":          {body: `null`},
			"empty":         {body: ``},
		} {
			if name == "other code" {
				a.body = strings.Replace(a.body, `,"code":200`, "", 1)
			}
			t.Run(path+"/"+name, func(t *testing.T) {
				f := newFake(t)
				a.form = c.form
				f.answers[path] = a
				ctx, cancel := context.WithTimeout(t.Context(), time.Second) // leaves no time for a second attempt
				defer cancel()
				err := c.call(ctx, f.orders)
				if err == nil {
					t.Fatal("no error")
				}
				if verdict := vendors.VerdictOf(err); c.paid && verdict != vendors.Uncertain {
					t.Errorf("verdict is %v: %v", verdict, err)
				}
				if !strings.HasPrefix(err.Error(), "howssl ") || !strings.Contains(path, strings.TrimSuffix(strings.Fields(err.Error())[1], ":")) {
					t.Errorf("error is %q", err)
				}
				if f.calls[path] != 1 {
					t.Errorf("sent %d times", f.calls[path])
				}
			})
		}
	}
}

func TestBadTokenOfEveryCall(t *testing.T) {
	for path, c := range calls() {
		f := newFake(t)
		f.expect(path, c.form, badToken)
		err := c.call(t.Context(), f.orders)
		if !errors.Is(err, vendors.ErrCredential) || vendors.VerdictOf(err) != vendors.Permanent {
			t.Errorf("%s: %v", path, err)
		}
		if err != nil && !strings.Contains(err.Error(), "code 501: The operation needs the correct Token.") {
			t.Errorf("%s: the vendor's message was lost: %v", path, err)
		}
	}
}

// TestEveryFieldOfCreateOrderIsInTheDocs: the docs have the same table of fields as the source.
func TestEveryFieldOfCreateOrderIsInTheDocs(t *testing.T) {
	docs, err := os.ReadFile("../../docs/howssl.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range orderFields {
		row := fmt.Sprintf("| `%s` | `%s` |", f.our, f.their)
		if f.their == "" || f.our == "dcv_method" {
			row = fmt.Sprintf("| `%s` | **not known**", f.our)
		}
		if !strings.Contains(string(docs), row) {
			t.Errorf("docs/howssl.md has no row that begins with %s", row)
		}
	}
}

func TestFormOfAnOrderWithPeople(t *testing.T) {
	f := newFake(t)
	var err error
	f.orders.fields, err = newFieldMap(map[string]string{"domains": domainField, "country": "cc", "organization_country": "occ", "dcv_method": "way"})
	if err != nil {
		t.Fatal(err)
	}
	req := workedRequest()
	req.Method, req.Term = vendors.MethodDNS, vendors.Term{Days: 730}
	req.Contact = vendors.Contact{
		FirstName: "Ada", LastName: "Lovelace", JobTitle: "Engineer", Phone: "+44.2012345678", Email: "ada@example.com",
		Country: "gb", PostalCode: "W1U",
	}
	req.Organization = &vendors.Organization{
		Name: "Analytical Engines", Phone: "+44.1", Address: "1 Dorset Street", City: "London", State: "Greater London", Country: "gb",
	}
	f.expect("Order/createOrder", map[string]string{
		"product_code": testProduct, "validity_period": "24", "csr": csrtest.Worked, domainField: "shop.example.com",
		"way": "DNS", "auto_info": "0",
		"first_name": "Ada", "last_name": "Lovelace", "contacter_job": "Engineer", "contacter_phone": "+44.2012345678",
		"contacter_email": "ada@example.com", "cc": "GB", "occ": "GB",
		"company_name": "Analytical Engines", "company_phone": "+44.1", "company_address": "1 Dorset Street",
		"company_city": "London", "company_province": "Greater London",
	}, data(`{"check_id":12345678901234567890}`))
	f.expect(lookUpPath, map[string]string{"check_id": "12345678901234567890"}, refusal)
	if prepared, err := f.orders.Prepare(t.Context(), req); err != nil || prepared.ID != "12345678901234567890" {
		t.Errorf("%q, %v", prepared.ID, err)
	}
}
