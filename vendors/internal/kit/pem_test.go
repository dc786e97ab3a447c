package kit

import (
	"bytes"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/caddy-commercial/caddy-commercial/internal/csrtest"
)

func testPEM(contents ...string) string {
	var b bytes.Buffer
	for _, c := range contents {
		pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: []byte(c)})
	}
	return b.String()
}

func TestCertificates(t *testing.T) {
	for _, tt := range []struct {
		text string
		want int // -1 means an error
	}{
		{"", 0},
		{" \r\n", 0},
		{testPEM("a"), 1},
		{testPEM("a", "b", "c"), 3},
		{strings.ReplaceAll(testPEM("a", "b"), "\n", "\r\n"), 2},
		{testPEM("a") + "\n\n \t" + testPEM("b"), 2},
		{"subject=CN\n" + testPEM("a"), -1},
		{testPEM("a") + "trailer", -1},
		{testPEM("a")[:40], -1},
		{strings.ReplaceAll(testPEM("a"), "CERTIFICATE", "PRIVATE KEY"), -1},
		{"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n", -1},
	} {
		got, err := Certificates(tt.text)
		if (err != nil) != (tt.want < 0) || err == nil && len(got) != tt.want {
			t.Errorf("%q: %d certificates, %v", tt.text, len(got), err)
		}
	}
}

func TestRequest(t *testing.T) {
	der := csrtest.DER(t, "example.com")
	encode := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	good := encode("CERTIFICATE REQUEST", der)
	for name, text := range map[string]string{
		"plain": good, "CRLF": strings.ReplaceAll(good, "\n", "\r\n"), "in one line": strings.ReplaceAll(good, "\n", ""),
		"escaped": strings.ReplaceAll(good, "\n", `\n`), "escaped CRLF": strings.ReplaceAll(good, "\n", `\r\n`),
		"old type": encode("NEW CERTIFICATE REQUEST", der), "space around": "\n " + good + " \n",
	} {
		if got := ReadCSR(text); !bytes.Equal(got, der) {
			t.Errorf("%s: %x", name, got)
		}
	}
	for name, text := range map[string]string{
		"nothing": "", "shortened": "-----BEGIN CERTIFICATE REQUEST-----\nMIIB…", "cut off": encode("CERTIFICATE REQUEST", der[:len(der)-3]),
		"another type": encode("CERTIFICATE", der), "two": good + good, "no base64": strings.ReplaceAll(good, "M", "!"),
	} {
		if got := ReadCSR(text); got != nil {
			t.Errorf("%s: %x", name, got)
		}
	}
}

func TestSerial(t *testing.T) {
	for text, want := range map[string]string{
		"0AE71279E5213729026AFE4BB58DE1AB": "ae71279e5213729026afe4bb58de1ab", "00:0a:FF": "aff", "": "", "none": "", "12 34": "1234",
	} {
		if got := Serial(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
