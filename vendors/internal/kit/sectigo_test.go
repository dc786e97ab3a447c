package kit

import (
	"encoding/pem"
	"slices"
	"testing"

	"github.com/caddy-commercial/caddy-commercial/internal/csrtest"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

func TestSectigoProofs(t *testing.T) {
	const (
		hash  = "d73f0e02451bbf32a61a1ac89a8eba6c4ae1ed2b71bf65316411ed284de108d2"
		file  = "07182696BBD74EE89627E3B4D943258A.txt"
		label = "_07182696bbd74ee89627e3b4d943258a"
	)
	block, _ := pem.Decode([]byte(csrtest.Worked))
	for unique, want := range map[string][2]string{
		"":            {hash + "\nsectigo.com", hash[:32] + "." + hash[32:] + ".sectigo.com"},
		"cn20250101a": {hash + "\nsectigo.com\ncn20250101a", hash[:32] + "." + hash[32:] + ".cn20250101a.sectigo.com"},
	} {
		wanted := []vendors.Challenge{
			{Method: vendors.MethodHTTP, FileName: file, FileContent: want[0]},
			{Method: vendors.MethodDNS, RecordName: label, RecordType: "CNAME", RecordValue: want[1]},
		}
		if got := SectigoProofs(block.Bytes, unique); !slices.Equal(got, wanted) {
			t.Errorf("%q:\ngot  %+v\nwant %+v", unique, got, wanted)
		}
	}
}

func TestSectigoCAA(t *testing.T) {
	if got := SectigoCAA("comodo-positivessl"); !slices.Contains(got, "sectigo.com") {
		t.Errorf("%v", got)
	}
	if got := SectigoCAA("certum-dv"); got != nil {
		t.Errorf("for another CA: %v", got)
	}
}
