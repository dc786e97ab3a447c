package certpem

import (
	"bytes"
	"encoding/pem"
	"strings"
	"testing"
)

func testPEM(contents ...string) string {
	var b bytes.Buffer
	for _, c := range contents {
		pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: []byte(c)})
	}
	return b.String()
}

func TestParse(t *testing.T) {
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
		got, err := Parse(tt.text)
		if (err != nil) != (tt.want < 0) || err == nil && len(got) != tt.want {
			t.Errorf("%q: %d certificates, %v", tt.text, len(got), err)
		}
	}
}
