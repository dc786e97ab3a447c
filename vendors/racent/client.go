package racent

import (
	"context"
	"errors"

	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
)

// The calls. Each is a POST of multipart/form-data with the token in the field api_token,
// and is documented on the page of that number at www.nicsrs.com/help-detail, but for those
// that are observed only.
var (
	validate      = read("validate")      // help.racent.com, 2.1 验证数据: a dry run with the input of place
	place         = effect("place")       // 10: buys
	renew         = effect("renew")       // 18: buys; the old order is called renewId here
	replace       = effect("replace")     // 20: a new CSR for an issued order; neither server nor contacts
	collect       = read("collect")       // 11: status, proofs and certificate
	updateDCV     = effect("updateDCV")   // 21: changes a name's method. With the same one it is checked again (observed)
	cancel        = effect("cancel")      // 16: up to 30 days after issue; the reason is required
	revoke        = effect("revoke")      // observed
	certIDByRefID = read("certIdByrefId") // 23, odd capitals included: the order that was placed with a reference
	list          = largest(read("list")) // observed: the orders of the account, all of them
	productList   = read("productList")   // 15: the products of a brand, whose spelling matters
)

func effect(name string) kit.Call { return kit.Call{Name: name, Path: "/" + name, Class: kit.Effect} }

func read(name string) kit.Call { return kit.Call{Name: name, Path: "/" + name, Class: kit.Read} }

// largest is a call whose answer grows with the account.
func largest(c kit.Call) kit.Call {
	c.MaxBody = kit.MaxList
	return c
}

func field(name, value string) kit.Field { return kit.Field{Name: name, Value: value} }

// call sends a form. There is an error unless the answer's code tells success; an answer
// that has a code is returned in either case.
func (o *Orders) call(ctx context.Context, call kit.Call, fields ...kit.Field) (answer, error) {
	body, contentType := kit.Form(append([]kit.Field{field("api_token", o.token)}, fields...)...)
	resp, err := o.Do(ctx, kit.Request{Call: call, ContentType: contentType, Body: body})
	if resp == nil {
		return answer{}, err
	}
	var a answer
	_ = kit.Unmarshal(resp.Body, &a) // what is no object has no code
	switch {
	case err == nil && a.Code == "":
		return answer{}, o.Fail(call, "", "", errors.New("answer has no code"))
	case err == nil && a.Code == codeOK:
		return a, nil
	case err == nil, resp.Status/100 == 4 && refusals[a.Code] != nil:
		// Assumed: the service reports its own errors with HTTP 200. Should it use a 4xx
		// status with one of its codes for "refused", that is as good an answer.
		return a, o.failure(call, a)
	}
	return answer{}, err
}
