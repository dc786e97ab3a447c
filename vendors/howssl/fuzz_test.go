package howssl

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/csrtest"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// FuzzVendorAnswer answers every call with arbitrary bytes: nothing panics, no order comes without
// an ID, a failed payment is never mistaken for a harmless one unless the credential was refused or
// the order's state says so, and absence is never concluded.
func FuzzVendorAnswer(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `[]`, `null`, `<html>`, ok, refusal, badToken, noReissues, infoOf("0"), infoOf(`"11"`), infoOf("3"), infoOf("2"),
		data(`{"order_id":"x","valid_info":` + workedInfo + `}`), data(`{"order_id":{},"valid_info":""}`),
		data(`{"check_id":"c","order_id":"x","order_status":"0","user_amount":"-1","total_amount":[{"value":[]}]}`),
		`{"status":"false","data":{"reissue_id":"x"}}`, `{"status":true,"data":[` + reissueOf("0", csrtest.Worked) + `]}`,
		`{"status":true,"data":[{"status_code":0,"validity_record":[{"name":"a","value":"b\\n"}]},null]}`,
		data(`{"order_id":"x","order_status":3,"certificate":{"cert":"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----"}}`),
		data(`[{"product_code":"p","prices_info":"[{\"label\":12,\"price\":[]}]"}]`),
	} {
		f.Add(200, []byte(seed))
		f.Add(400, []byte(seed))
	}
	var status int
	var body []byte
	orders := newFake(f).orders
	orders.Client = mustHTTP(f, roundTripFunc(func(r *http.Request) (*http.Response, error) {
		_, err := io.Copy(io.Discard, r.Body)
		return response(status, body), err
	}))

	f.Fuzz(func(t *testing.T, httpStatus int, answerBody []byte) {
		status, body = 200+(httpStatus%400+400)%400, answerBody
		orders.committed.Clear()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		req := workedRequest()

		order, err := orders.Place(ctx, req)
		if err == nil && (order.ID == "" || status != 200) {
			t.Errorf("placed with ID %q and HTTP %d", order.ID, status)
		}
		if err != nil {
			e, ok := err.(*vendors.Error) //nolint:errorlint // the contract asks for the type itself
			if !ok {
				t.Fatalf("error is a %T", err)
			}
			told := errors.Is(err, errRefused) || errors.Is(err, vendors.ErrBalance) || errors.Is(err, vendors.ErrCredential)
			if e.Verdict != vendors.Uncertain && !told && e.HTTPStatus != 429 {
				t.Errorf("verdict %v: %v", e.Verdict, err)
			}
		}
		if ids, err := orders.Find(ctx, vendors.Lookup{PreparedID: "c"}); err == nil && len(ids) != 1 {
			t.Errorf("found %q", ids)
		}
		if prepared, err := orders.Prepare(ctx, req); (err == nil) != (prepared.ID != "") {
			t.Errorf("prepared %q, %v", prepared.ID, err)
		}
		order, err = orders.Status(ctx, "id")
		if err == nil && (order.ID != "id" || order.Status == vendors.StatusIssued && len(order.Certificates) == 0) {
			t.Errorf("status: %+v", order)
		}
		order, err = orders.Reissue(ctx, "id", workedReissue())
		if err == nil && order.ID != "id" {
			t.Errorf("reissue: %+v", order)
		}
		for _, err := range []error{orders.Cancel(ctx, "id", ""), orders.Recheck(ctx, "id", req.Names, req.Method)} {
			if err != nil && err.Error() == "" {
				t.Error("error without a text")
			}
		}
		_, _ = orders.Products(ctx)
	})
}
