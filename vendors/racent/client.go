package racent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"mime/multipart"
	"strconv"

	"github.com/caddy-commercial/caddy-commercial/internal/vendorhttp"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// client has one method per endpoint. All are POST with multipart/form-data and
// the token in the field api_token, as documented; answers are JSON whose code
// tells success.
type client struct {
	http   *vendorhttp.Client
	vendor string
	token  string
}

// field is one form field. They are sent in order, blanks left out.
type field struct{ name, value string }

// Validate is POST /validate, a dry check of an order with the input of place.
// Documented on help.racent.com ("验证数据").
func (c *client) Validate(ctx context.Context, product string, years int, params orderParams) (answer, error) {
	return c.order(ctx, "validate", vendorhttp.Read, params,
		field{"productCode", product}, field{"years", strconv.Itoa(years)})
}

// Place is POST /place: it buys. Documented on www.nicsrs.com/help-detail/10;
// refId, productCode and years are top-level fields.
func (c *client) Place(ctx context.Context, product string, years int, refID string, params orderParams) (answer, error) {
	return c.order(ctx, "place", vendorhttp.Effect, params,
		field{"productCode", product}, field{"years", strconv.Itoa(years)}, field{"refId", refID})
}

// Renew is POST /renew: it buys. Documented on www.nicsrs.com/help-detail/18;
// the old order's ID is called renewId here.
func (c *client) Renew(ctx context.Context, renewID string, years int, refID string, params orderParams) (answer, error) {
	return c.order(ctx, "renew", vendorhttp.Effect, params,
		field{"renewId", renewID}, field{"years", strconv.Itoa(years)}, field{"refId", refID})
}

// Replace is POST /replace: a new CSR within the paid term. Documented on
// www.nicsrs.com/help-detail/20; only issued certificates can be replaced, and
// neither server nor contacts are sent.
func (c *client) Replace(ctx context.Context, certID, refID string, params orderParams) (answer, error) {
	return c.order(ctx, "replace", vendorhttp.Effect, params,
		field{"certId", certID}, field{"refId", refID})
}

// Reissue is POST /reissue: the same CSR once more. Documented on
// www.nicsrs.com/help-detail/19; the reason is required.
func (c *client) Reissue(ctx context.Context, certID, refID, reason, unique string) (answer, error) {
	return c.call(ctx, "reissue", vendorhttp.Effect,
		field{"certId", certID}, field{"reason", reason}, field{"uniqueValue", unique}, field{"refId", refID})
}

// Collect is POST /collect: status, proofs and certificate. Documented on
// www.nicsrs.com/help-detail/11.
func (c *client) Collect(ctx context.Context, certID string) (answer, error) {
	return c.call(ctx, "collect", vendorhttp.Read, field{"certId", certID})
}

// UpdateDCV is POST /updateDCV: it changes a name's method, or has the name
// checked again when the method stays the same. Documented on
// www.nicsrs.com/help-detail/21; the second use is observed.
func (c *client) UpdateDCV(ctx context.Context, certID, name, method string) (answer, error) {
	return c.call(ctx, "updateDCV", vendorhttp.Effect,
		field{"certId", certID}, field{"domainName", name}, field{"dcvMethod", method})
}

// BatchUpdateDCV is POST /batchUpdateDCV: without a method it has all names
// checked again, some minutes later. Documented on
// www.nicsrs.com/help-detail/22, for Sectigo products only.
func (c *client) BatchUpdateDCV(ctx context.Context, certID string) (answer, error) {
	return c.call(ctx, "batchUpdateDCV", vendorhttp.Effect, field{"certId", certID})
}

// Cancel is POST /cancel: it takes an order back, up to 30 days after issue.
// Documented on www.nicsrs.com/help-detail/16; the reason is required.
func (c *client) Cancel(ctx context.Context, certID, reason string) (answer, error) {
	return c.call(ctx, "cancel", vendorhttp.Effect, field{"certId", certID}, field{"reason", reason})
}

// Revoke is POST /revoke. Its page cannot be read; fields as observed.
func (c *client) Revoke(ctx context.Context, certID, reason string) (answer, error) {
	return c.call(ctx, "revoke", vendorhttp.Effect, field{"certId", certID}, field{"reason", reason})
}

// CertIDByRefID is POST /certIdByrefId: it finds an order by the reference that
// it was placed with. Documented, odd capitals included, on
// www.nicsrs.com/help-detail/23.
func (c *client) CertIDByRefID(ctx context.Context, refID string) (answer, error) {
	return c.call(ctx, "certIdByrefId", vendorhttp.Read, field{"refId", refID})
}

// List is POST /list: the orders of the account. No page of documents tells of it; a
// published client uses it with the token alone (observed).
func (c *client) List(ctx context.Context) (answer, error) {
	return c.call(ctx, "list", vendorhttp.Read)
}

// ProductList is POST /productList: the products of one brand. Documented on
// www.nicsrs.com/help-detail/15; the brand's spelling matters.
func (c *client) ProductList(ctx context.Context, brand string) (answer, error) {
	return c.call(ctx, "productList", vendorhttp.Read, field{"vendor", brand})
}

// order is call with params, which are JSON inside a form field.
func (c *client) order(ctx context.Context, endpoint string, class vendorhttp.Class, params orderParams, fields ...field) (answer, error) {
	var encoded bytes.Buffer
	enc := json.NewEncoder(&encoded)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(params); err != nil {
		return answer{}, &vendors.Error{Vendor: c.vendor, Endpoint: endpoint, Verdict: vendors.Permanent, Err: err}
	}
	value := string(bytes.TrimSpace(encoded.Bytes()))
	return c.call(ctx, endpoint, class, append(fields, field{"params", value})...)
}

// call sends a form and returns the envelope of the answer, whatever its code.
// Every error is a *vendors.Error.
func (c *client) call(ctx context.Context, endpoint string, class vendorhttp.Class, fields ...field) (answer, error) {
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	for _, f := range append([]field{{"api_token", c.token}}, fields...) {
		if f.value == "" {
			continue
		}
		if err := form.WriteField(f.name, f.value); err != nil {
			return answer{}, &vendors.Error{Vendor: c.vendor, Endpoint: endpoint, Verdict: vendors.Permanent, Err: err}
		}
	}
	if err := form.Close(); err != nil {
		return answer{}, &vendors.Error{Vendor: c.vendor, Endpoint: endpoint, Verdict: vendors.Permanent, Err: err}
	}
	resp, err := c.http.Do(ctx, vendorhttp.Request{
		Endpoint:    endpoint,
		Path:        "/" + endpoint,
		Class:       class,
		ContentType: form.FormDataContentType(),
		Body:        body.Bytes(),
	})
	if err != nil {
		return c.explained(endpoint, err)
	}
	var a answer
	if err := json.Unmarshal(resp.Body, &a); err != nil || a.Code == "" {
		verdict := vendors.Uncertain
		if class == vendorhttp.Read {
			verdict = vendors.Retryable
		}
		return answer{}, &vendors.Error{
			Vendor: c.vendor, Endpoint: endpoint, Verdict: verdict, HTTPStatus: resp.Status,
			Err: errors.New("answer has no code"),
		}
	}
	return a, nil
}

// explained deals with a call that failed below the API. Assumed: the service
// reports its own errors with HTTP 200. Should it use a 4xx status with one of
// its codes for "refused" in the body, that is as good an answer.
func (c *client) explained(endpoint string, err error) (answer, error) {
	failed := vendorhttp.TransportError(c.vendor, endpoint, err)
	low, ok := errors.AsType[*vendorhttp.Error](err)
	if !ok || low.Status < 400 || low.Status > 499 {
		return answer{}, failed
	}
	var a answer
	if json.Unmarshal(low.Body, &a) == nil && refused(a.Code) {
		return a, nil
	}
	return answer{}, failed
}
