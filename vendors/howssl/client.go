package howssl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime/multipart"
	"net/http"

	"github.com/caddy-commercial/caddy-commercial/internal/vendorhttp"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// client makes the calls. All are POST with the token as a form field.
//
// The general page (2252131) wants application/x-www-form-urlencoded, every endpoint's
// page multipart/form-data. The latter is sent.
type client struct {
	http   *vendorhttp.Client
	vendor string
	token  string
}

// tokenField carries the credential. Page 2252132 also has it as "tokend" in a
// sentence; its code and all other pages say token.
const tokenField = "token"

// endpoint is a call. Letter case and underscores are as documented.
type endpoint struct {
	name, path string
	class      vendorhttp.Class
}

// The calls, with the page that documents each.
var (
	accountInfo = endpoint{"AccountInfo", "/Home/User/AccountInfo", vendorhttp.Read} // 2252014

	// createOrder is free and checks the order (2252015); that commitOrder charges,
	// and not this, is documented there.
	createOrder = endpoint{"createOrder", "/Home/Order/createOrder", vendorhttp.Effect}

	// commitOrder pays for a check_id and sends the order to the CA (2252017).
	commitOrder = endpoint{"commitOrder", "/Home/Order/commitOrder", vendorhttp.Effect}

	// fromCheckID tells the order ID of a check_id (2252016, Chinese book only).
	fromCheckID = endpoint{"fromCheck_idToOrder_id", "/Home/Order/fromCheck_idToOrder_id", vendorhttp.Read}

	getOrderInfo   = endpoint{"getOrderInfo", "/Home/Order/getOrderInfo", vendorhttp.Read}         // 2252022
	getValidInfo   = endpoint{"getValidity_info", "/Home/Order/getValidity_info", vendorhttp.Read} // 2252018
	getCertificate = endpoint{"getCertificate", "/Home/Order/getCertificate", vendorhttp.Read}     // 2252021

	refreshOrder = endpoint{"refreshOrder", "/Home/Order/refreshOrder", vendorhttp.Effect} // 2252020
	cancelOrder  = endpoint{"cancelOrder", "/Home/Order/cancelOrder", vendorhttp.Effect}   // 2252019

	reissueSubmit = endpoint{"Reissue/submit", "/Home/Reissue/submit", vendorhttp.Effect}           // 2395665, Chinese book only
	reissueList   = endpoint{"Reissue/orderReissue", "/Home/Reissue/orderReissue", vendorhttp.Read} // 2395667, Chinese book only

	// The books disagree on the spelling of the product list: 2252013, and the
	// English howssl/ssl-api/2296839.
	productList   = endpoint{"Product_info/lists", "/Home/Product_info/lists", vendorhttp.Read}
	productListEN = endpoint{"ProductInfo/lists", "/Home/ProductInfo/lists", vendorhttp.Read}
)

// errRefused matches errors of calls that the service answered with a failure of its
// own, other than about the credential. Of its error codes only one is known, so that
// the reason is for people only.
var errRefused = errors.New("refused")

func isRefused(err error) bool { return errors.Is(err, errRefused) }

// call sends a form and returns the data of the answer. Every error is a
// *vendors.Error; data that came with a refusal is returned beside it. A refused call
// with effects is Uncertain, because what a refusal means is known from the place of
// the call alone.
func (c *client) call(ctx context.Context, ep endpoint, fields ...field) (json.RawMessage, error) {
	body, contentType, err := encode(append([]field{{tokenField, c.token}}, fields...))
	if err != nil {
		return nil, &vendors.Error{Vendor: c.vendor, Endpoint: ep.name, Verdict: vendors.Permanent, Err: err}
	}
	resp, err := c.http.Do(ctx, vendorhttp.Request{
		Endpoint: ep.name, Path: ep.path, Class: ep.class, ContentType: contentType, Body: body,
	})
	if err != nil {
		return nil, vendorhttp.TransportError(c.vendor, ep.name, err)
	}
	if resp.Status != http.StatusOK {
		// Documented: the status is always 200, also for failures.
		return nil, c.unclear(ep, fmt.Errorf("HTTP status %d is not the service's", resp.Status))
	}
	var env envelope
	if err := json.Unmarshal(resp.Body, &env); err != nil {
		return nil, c.unclear(ep, errors.New("answer is not an object"))
	}
	switch env.verdict() {
	case succeeded:
		return env.Data, nil
	case failed:
		return env.Data, c.refusal(ep, env)
	case neither:
	}
	e := c.unclear(ep, fmt.Errorf("answer has status %q, which is neither success nor failure", c.http.Scrub(env.Status.Word())))
	e.Code, e.Message = c.http.Scrub(env.Code.Word()), c.http.Scrub(env.message())
	return nil, e
}

// into is call with the data decoded. Data of another kind than an object reads as
// empty; the callers insist on what they need.
func (c *client) into(ctx context.Context, ep endpoint, v any, fields ...field) error {
	data, err := c.call(ctx, ep, fields...)
	if err != nil {
		return err
	}
	_ = json.Unmarshal(data, v)
	return nil
}

// refusal is the error for an answer that says failure.
func (c *client) refusal(ep endpoint, env envelope) *vendors.Error {
	e := c.unclear(ep, errRefused)
	e.Code, e.Message = c.http.Scrub(env.Code.Word()), c.http.Scrub(env.message())
	if env.Code.Word() == codeToken {
		e.Verdict, e.Err = vendors.Permanent, vendors.ErrCredential
	}
	return e
}

// unclear is the error for an answer that cannot be used.
func (c *client) unclear(ep endpoint, err error) *vendors.Error {
	verdict := vendors.Uncertain
	if ep.class == vendorhttp.Read {
		verdict = vendors.Retryable
	}
	return &vendors.Error{Vendor: c.vendor, Endpoint: ep.name, Verdict: verdict, Err: err}
}

func encode(fields []field) (body []byte, contentType string, err error) {
	var buf bytes.Buffer
	form := multipart.NewWriter(&buf)
	for _, f := range fields {
		if f.value == "" {
			continue
		}
		if err := form.WriteField(f.name, f.value); err != nil {
			return nil, "", err
		}
	}
	if err := form.Close(); err != nil {
		return nil, "", err
	}
	return buf.Bytes(), form.FormDataContentType(), nil
}
