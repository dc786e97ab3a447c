package kit

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"reflect"
	"testing"
)

func TestForm(t *testing.T) {
	body, contentType := Form(
		Field{Name: "text", Value: "1 Dorset\r\nStreet & 上海 ＝"},
		Field{Name: "blank"},
		Field{Name: "picture", Value: "\x89PNG\r\n\x00", FileName: `my "licence".png`},
		Field{Name: "empty file", FileName: "x.pdf"},
		Field{Name: "paper", Value: "%", FileName: "paper"},
	)
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		t.Fatal(err)
	}
	type part struct{ name, file, contentType, value string }
	var got []part
	for r := multipart.NewReader(bytes.NewReader(body), params["boundary"]); ; {
		p, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		value, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, part{p.FormName(), p.FileName(), p.Header.Get("Content-Type"), string(value)})
	}
	want := []part{
		{"text", "", "", "1 Dorset\r\nStreet & 上海 ＝"},
		{"picture", `my "licence".png`, "image/png", "\x89PNG\r\n\x00"},
		{"paper", "paper", "application/octet-stream", "%"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestJSONIsNotEscapedForHTML(t *testing.T) {
	if got := string(JSON(map[string]string{"a": "<上海&>"})); got != `{"a":"<上海&>"}` {
		t.Error(got)
	}
}
