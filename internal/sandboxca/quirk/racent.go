package quirk

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/reseller"
)

// object is a JSON object whose fields are left as they are until one is changed.
type object map[string]json.RawMessage

// set puts a value that can always be encoded.
func (o object) set(field string, v any) { o[field], _ = json.Marshal(v) }

// text reads a string field.
func (o object) text(field string) string {
	var s string
	_ = json.Unmarshal(o[field], &s) // another kind of value counts as ""
	return s
}

func (o object) code() int {
	var n int
	_ = json.Unmarshal(o["code"], &n) // as above
	return n
}

// part is an object inside another, nil if there is none.
func (o object) part(field string) object {
	var part object
	_ = json.Unmarshal(o[field], &part) // as above
	return part
}

// Codes of Racent, see package racent.
const (
	codeOK         = 1
	codeIssuing    = 2
	codeBadParams  = -1
	codeUnexpected = -2
	codeNoBalance  = -4
)

// racent gives an answer of Racent's dialect its quirks.
func (q Quirks) racent(ca *sandboxca.CA, path string, ans sandboxca.Answer) sandboxca.Answer {
	if q.NoList && path == "list" {
		return sandboxca.Text(http.StatusNotFound, "404 page not found\n")
	}
	var env object
	if json.Unmarshal(ans.Body, &env) != nil || env == nil {
		return ans
	}
	switch path {
	case "certIdByrefId":
		env = q.lookup(env)
	case "place", "renew", "reissue", "replace":
		if q.BareNoMoney && env.code() == codeNoBalance {
			env = failure(codeUnexpected, nil)
		}
	case "collect":
		env = q.collect(env)
	}
	if data := env.part("data"); data != nil {
		q.data(ca, path, data)
		env.set("data", data)
	}
	if q.NumericIDs && path == "list" {
		var rows []object
		_ = json.Unmarshal(env["data"], &rows) // written by the dialect
		for _, row := range rows {
			q.numbers(row)
		}
		env.set("data", rows)
	}
	q.shapeErrors(env)
	return sandboxca.JSON(ans.Status, env)
}

func failure(code int, errs any) object {
	env := make(object)
	env.set("code", code)
	env.set("errors", errs)
	return env
}

func (q Quirks) lookup(env object) object {
	if q.HideRefs && env.code() == codeOK {
		env = failure(codeBadParams, map[string][]string{"refId": {"refId is invalid"}})
	}
	if q.EmptyUnknownRef && env.code() == codeBadParams {
		env = failure(codeOK, nil)
		env.set("data", []any{})
	}
	return env
}

func (q Quirks) collect(env object) object {
	if env.code() != codeOK || env.text("status") != sandboxca.StatusPending {
		return env
	}
	if q.Code2WithoutData {
		return failure(codeIssuing, nil)
	}
	if q.Code2WhilePending {
		env.set("code", codeIssuing)
	}
	if q.UnknownStatus != "" {
		env.set("status", q.UnknownStatus)
		env.set("certStatus", q.UnknownStatus)
	}
	return env
}

// data changes what is reported about an order.
func (q Quirks) data(ca *sandboxca.CA, path string, data object) {
	o, known := ca.Order(data.text("certId"))
	if known && q.TwinInDCVList && o.Twin != "" && data["dcvList"] != nil {
		q.addTwin(o, data)
	}
	switch _, shown := data["DCVfileName"]; {
	case !shown || !known:
	case q.NoDCVValues:
		for field := range data {
			if strings.HasPrefix(field, "DCV") {
				delete(data, field)
			}
		}
	case q.DCVInfo:
		data.set("dcvInfo", perName(o, data))
	}
	if q.ApplyParamsText && data["applyParams"] != nil {
		data.set("applyParams", string(data["applyParams"]))
	}
	if q.NumericIDs {
		q.numbers(data)
	}
	if q.NestedUpdate && path == "updateDCV" {
		inner := make(object, len(data))
		for field, value := range data {
			inner[field] = value
			delete(data, field)
		}
		data.set("data", inner)
	}
}

func (q Quirks) addTwin(o sandboxca.OrderInfo, data object) {
	list := make([]map[string]string, 0, len(o.Names)+1)
	_ = json.Unmarshal(data["dcvList"], &list) // written by the dialect
	twin := map[string]string{"domainName": o.Twin, "dcvMethod": list[0]["dcvMethod"], "dcvEmail": "", "is_verify": ""}
	if o.TwinVerified {
		twin["is_verify"] = "verified"
	}
	data.set("dcvList", append(list, twin))
}

// perName repeats the validation values for each name.
func perName(o sandboxca.OrderInfo, data object) map[string]object {
	info := make(map[string]object)
	for i, name := range o.Names {
		values := make(object)
		for field, value := range data {
			if strings.HasPrefix(field, "DCV") {
				values[field] = value
			}
		}
		scheme := "http"
		if o.Methods[i] == string(sandboxca.MethodHTTPS) {
			scheme = "https"
		}
		values.set("DCVfilePath", scheme+"://"+sandboxca.HostHeader(name)+sandboxca.ValidationPath+o.FileName)
		info[name] = values
	}
	return info
}

func (q Quirks) numbers(data object) {
	for _, field := range []string{"certId", "vendorId", "vendorCertId"} {
		if id := data.text(field); numeric(id) {
			data.set(field, json.Number(id))
		}
	}
}

// shapeErrors gives errors by field one of the forms that Racent was seen to use.
func (q Quirks) shapeErrors(env object) {
	var errs reseller.FieldErrors
	if json.Unmarshal(env["errors"], &errs) != nil || errs == nil {
		return
	}
	switch q.ErrorsShape {
	case "string":
		env.set("errors", errs.String())
	case "array":
		env.set("errors", errs.List())
	case "null":
		env.set("errors", nil)
	case "object-string":
		first := make(map[string]string)
		for field, texts := range errs {
			first[field] = texts[0]
		}
		env.set("errors", first)
	}
}
