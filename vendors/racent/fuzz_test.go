package racent

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// FuzzVendorAnswer answers every call with arbitrary bytes: nothing panics, no order comes without
// an ID, and no failed payment is mistaken for a harmless one unless the vendor clearly refused.
func FuzzVendorAnswer(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `[]`, `null`, `{"code":1}`, `{"code":1,"data":{"certId":"x"}}`, `{"code":1,"data":{"certId":{}}}`,
		`{"code":2,"data":[{"certId":1}]}`, `{"code":-4,"errors":{"a":[["b"]]}}`, `<html>`, `{"code":"400"}`,
		`{"code":1,"status":"COMPLETE","data":{"certificate":"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----"}}`,
		`{"code":1,"data":{"applyParams":"\"","dcvInfo":{"":{"DCVfileName":"x","DCVfileContent":"y"}},"dcvList":[null]}}`,
		`{"code":1,"data":[{"code":"p","price":{"basePrice":{"price012":[]}}}]}`,
	} {
		f.Add(200, []byte(seed))
		f.Add(400, []byte(seed))
	}
	var status int
	var body []byte
	answer := roundTripFunc(func(r *http.Request) (*http.Response, error) {
		io.Copy(io.Discard, r.Body)
		return response(status, body), nil
	})
	orders, err := New(Config{
		Secret: testToken, Endpoint: "https://127.0.0.1", Description: vendors.Description{Name: "racent"}, Transport: answer,
	}, Options{})
	if err != nil {
		f.Fatal(err)
	}
	refusedCodes := map[string]bool{"-1": true, "-3": true, "-4": true, "400": true}

	f.Fuzz(func(t *testing.T, httpStatus int, answerBody []byte) {
		status, body = 200+(httpStatus%400+400)%400, answerBody
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		req := workedRequest()
		paid := func(what string, order vendors.Order, err error) {
			if err == nil {
				if order.ID == "" || status < 200 || status > 299 {
					t.Errorf("%s: success with ID %q and HTTP %d", what, order.ID, status)
				}
				return
			}
			e, ok := err.(*vendors.Error) //nolint:errorlint // the contract asks for the type itself
			if !ok {
				t.Fatalf("%s: error is a %T", what, err)
			}
			stateful := what != "place" && (e.Code == "-5" || e.Code == "-7" || e.Code == "-8")
			if e.Verdict != vendors.Uncertain && !refusedCodes[e.Code] && !stateful && e.HTTPStatus != 429 {
				t.Errorf("%s: verdict %v: %v", what, e.Verdict, err)
			}
			_ = fmt.Sprint(err)
		}
		order, err := orders.Place(ctx, req)
		paid("place", order, err)
		order, err = orders.Renew(ctx, "old", req)
		paid("renew", order, err)
		order, err = orders.Reissue(ctx, "old", vendors.OrderRequest{OrderConfig: req.OrderConfig, Names: req.Names, CSR: req.CSR})
		paid("replace", order, err)

		order, err = orders.Status(ctx, "id")
		if err == nil && (order.ID != "id" || order.Status == vendors.StatusIssued && len(order.Certificates) == 0) {
			t.Errorf("status: %+v", order)
		}
		ids, err := orders.Find(ctx, vendors.Lookup{Reference: "ref"})
		for _, id := range ids {
			if id == "" || err != nil {
				t.Errorf("found %q, %v", ids, err)
			}
		}
		for _, err := range []error{
			orders.Validate(ctx, req), orders.Cancel(ctx, "id", ""), orders.Revoke(ctx, "id", ""),
			orders.Recheck(ctx, "id", req.Names, vendors.MethodHTTP),
		} {
			if err != nil && err.Error() == "" {
				t.Error("error without a text")
			}
		}
		_, _ = orders.Products(ctx)
	})
}
