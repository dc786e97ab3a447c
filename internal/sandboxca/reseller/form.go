// Package reseller is what dialects of resellers in China have in common: forms, dates,
// and the rules and proofs of Sectigo, whose certificates they sell.
package reseller

import (
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
)

const (
	multipartMemory      = sandboxca.MaxRequestBytes
	contentTypeForm      = "application/x-www-form-urlencoded"
	contentTypeMultipart = "multipart/form-data"
)

// ReadForm reads the form in the body; the URL's query is ignored.
func ReadForm(r *http.Request) (url.Values, map[string][]*multipart.FileHeader, *sandboxca.Refusal) {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return nil, nil, sandboxca.Refuse(sandboxca.BadInput, "Content-Type", "the request has no readable content type")
	}
	switch kind {
	case contentTypeForm:
		body, err := io.ReadAll(r.Body)
		var form url.Values
		if err == nil {
			form, err = url.ParseQuery(string(body))
		}
		if err != nil {
			return nil, nil, sandboxca.Refuse(sandboxca.BadInput, "body", "the form cannot be decoded")
		}
		return form, nil, nil
	case contentTypeMultipart:
		form, err := multipart.NewReader(r.Body, params["boundary"]).ReadForm(multipartMemory)
		if err != nil {
			return nil, nil, sandboxca.Refuse(sandboxca.BadInput, "body", "the form cannot be decoded")
		}
		return form.Value, form.File, nil
	}
	return nil, nil, sandboxca.Refuse(sandboxca.BadInput, "Content-Type", "the request is neither "+contentTypeMultipart+" nor "+contentTypeForm)
}
