package howssl

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
)

// The calls, with the page that documents each. All are POST; letter case and underscores
// are as documented.
var (
	// createOrder checks an order and keeps it unpaid (2252015). commitOrder pays for it and
	// sends it to the CA (2252017). fromCheckID tells its order ID (2252016, Chinese book only).
	createOrder = call("createOrder", "/Home/Order/createOrder", kit.Once)
	commitOrder = call("commitOrder", "/Home/Order/commitOrder", kit.Effect)
	fromCheckID = call("fromCheck_idToOrder_id", "/Home/Order/fromCheck_idToOrder_id", kit.Read)

	accountInfo    = call("AccountInfo", "/Home/User/AccountInfo", kit.Read)              // 2252014
	getOrderInfo   = call("getOrderInfo", "/Home/Order/getOrderInfo", kit.Read)           // 2252022
	getValidInfo   = call("getValidity_info", "/Home/Order/getValidity_info", kit.Read)   // 2252018
	getCertificate = call("getCertificate", "/Home/Order/getCertificate", kit.Read)       // 2252021
	refreshOrder   = call("refreshOrder", "/Home/Order/refreshOrder", kit.Effect)         // 2252020
	cancelOrder    = call("cancelOrder", "/Home/Order/cancelOrder", kit.Effect)           // 2252019
	reissueSubmit  = call("Reissue/submit", "/Home/Reissue/submit", kit.Effect)           // 2395665, Chinese book only
	reissueList    = call("Reissue/orderReissue", "/Home/Reissue/orderReissue", kit.Read) // 2395667, Chinese book only

	// The books disagree on the spelling of the product list: 2252013, and the
	// English howssl/ssl-api/2296839.
	productList   = call("Product_info/lists", "/Home/Product_info/lists", kit.Read)
	productListEN = call("ProductInfo/lists", "/Home/ProductInfo/lists", kit.Read)
)

func call(name, path string, class kit.Class) kit.Call {
	return kit.Call{Name: name, Path: path, Class: class}
}

// tokenField carries the credential. Page 2252132 also has it as "tokend" in a
// sentence; its code and all other pages say token. The general page (2252131) wants
// application/x-www-form-urlencoded, every endpoint's page multipart/form-data, which is sent.
const tokenField = "token"

func field(name, value string) kit.Field { return kit.Field{Name: name, Value: value} }

var (
	errRefused = errors.New("refused")       // by the service; its reasons are for people only
	errNotTold = errors.New("answer has no") // followed by a field that a success should have
)

// ask sends a form and decodes the data of the answer into v. Data of another kind reads
// as empty; the callers insist on what they need.
//
// A refusal by the service, other than of the credential, is returned apart from other
// errors, and its data, if any, is decoded all the same: only the caller can know what the
// refusal means. Until the caller decides, it is uncertain, if the call may have had an effect.
func (o *Orders) ask(ctx context.Context, call kit.Call, v any, fields ...kit.Field) (refusal *vendors.Error, err error) {
	body, contentType := kit.Form(append([]kit.Field{field(tokenField, o.token)}, fields...)...)
	resp, err := o.Do(ctx, kit.Request{Call: call, ContentType: contentType, Body: body})
	if err != nil {
		return nil, err
	}
	if resp.Status != http.StatusOK {
		// Documented: the status is always 200, also for failures.
		return nil, o.Fail(call, "", "", fmt.Errorf("HTTP status %d is not the service's", resp.Status))
	}
	var env envelope
	if err := kit.Unmarshal(resp.Body, &env); err != nil {
		return nil, o.Fail(call, "", "", err)
	}
	switch {
	case env.Status == "false" && env.Code == codeToken:
		e := o.Fail(call, env.Code, env.Msg, vendors.ErrCredential)
		e.Verdict = vendors.Permanent
		return nil, e
	case env.Status == "false":
		refusal = o.Fail(call, env.Code, env.Msg, errRefused)
	case env.Status != "true" || env.Code != "" && env.Code != codeOK:
		return nil, o.Fail(call, env.Code, env.Msg, fmt.Errorf("answer has status %q, which is neither success nor failure", o.Text(env.Status)))
	}
	if v != nil && env.Data != nil {
		_ = kit.Unmarshal(env.Data, v)
	}
	return refusal, nil
}

// get is ask for callers to whom a refusal is an error like any other.
func (o *Orders) get(ctx context.Context, call kit.Call, v any, fields ...kit.Field) error {
	refusal, err := o.ask(ctx, call, v, fields...)
	if refusal != nil {
		return refusal
	}
	return err
}

// notTold is the error for a success whose answer lacks a field that is needed.
func (o *Orders) notTold(call kit.Call, name string) error {
	return o.Fail(call, "", "", fmt.Errorf("%w %s", errNotTold, name))
}
