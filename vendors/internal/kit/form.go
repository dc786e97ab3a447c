package kit

import (
	"bytes"
	"cmp"
	"encoding/json"
	"mime"
	"mime/multipart"
	"net/textproto"
	"path"
	"strings"
)

// Field is one field of a form.
type Field struct {
	Name, Value string

	// FileName makes the field a file of that name, whose content is Value.
	FileName string
}

// Form returns the body of a multipart form with the fields in their order, blanks left
// out, and its content type.
func Form(fields ...Field) (body []byte, contentType string) {
	var buf bytes.Buffer // writing to it does not fail
	form := multipart.NewWriter(&buf)
	for _, f := range fields {
		switch {
		case f.Value == "":
		case f.FileName != "":
			part, _ := form.CreatePart(textproto.MIMEHeader{
				"Content-Disposition": {multipart.FileContentDisposition(f.Name, f.FileName)},
				"Content-Type":        {cmp.Or(mime.TypeByExtension(path.Ext(f.FileName)), "application/octet-stream")},
			})
			_, _ = part.Write([]byte(f.Value))
		default:
			_ = form.WriteField(f.Name, f.Value)
		}
	}
	_ = form.Close()
	return buf.Bytes(), form.FormDataContentType()
}

// JSON encodes a value as vendors write it themselves: without escapes for HTML. It
// panics for what JSON cannot represent, which no type of a request has.
func JSON(v any) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimSpace(buf.Bytes())
}

// Reason is why an order is ended, which vendors insist on.
func Reason(given string) string {
	return cmp.Or(strings.TrimSpace(given), "requested by the operator")
}
