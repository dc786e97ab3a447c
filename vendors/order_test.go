package vendors

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// TestDescribeIsOneLine, and not too long, whatever names a vendor tells.
func TestDescribeIsOneLine(t *testing.T) {
	o := Order{RawStatus: "PENDING", Detail: "dcv processing", Names: []NameStatus{{Name: "a.example\x1b[2J\r\nlevel=error \xff"}, {Name: "b.example", Verified: true}}}
	if got, want := o.Describe(), "PENDING; dcv processing; not validated yet: a.example [2J level=error"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for range 250 {
		o.Names = append(o.Names, NameStatus{Name: strings.Repeat("ä", 31) + ".example"})
	}
	if got := o.Describe(); len(got) > maxDescribed+len("…") || !utf8.ValidString(got) || strings.ContainsFunc(got, unicode.IsControl) || !strings.HasSuffix(got, "…") {
		t.Errorf("got %d bytes, %+q", len(got), got)
	}
}
