package reseller

import (
	"testing"

	"github.com/caddy-commercial/caddy-commercial/internal/csrtest"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
)

func TestCSRHashGolden(t *testing.T) {
	csr, err := sandboxca.ParseCSR(csrtest.Worked)
	if err != nil {
		t.Fatal(err)
	}
	const sum = "d73f0e02451bbf32a61a1ac89a8eba6c4ae1ed2b71bf65316411ed284de108d2"
	tests := []struct {
		unique, trailer string
		want            sandboxca.Proof
	}{
		{"", "", sandboxca.Proof{
			FileName:    "07182696BBD74EE89627E3B4D943258A.txt",
			FileContent: sum + "\nsectigo.com",
			DNSLabel:    "_07182696bbd74ee89627e3b4d943258a",
			DNSTarget:   "d73f0e02451bbf32a61a1ac89a8eba6c.4ae1ed2b71bf65316411ed284de108d2.sectigo.com",
		}},
		{"cn20250101a", "", sandboxca.Proof{
			FileName:    "07182696BBD74EE89627E3B4D943258A.txt",
			FileContent: sum + "\nsectigo.com\ncn20250101a",
			DNSLabel:    "_07182696bbd74ee89627e3b4d943258a",
			DNSTarget:   "d73f0e02451bbf32a61a1ac89a8eba6c.4ae1ed2b71bf65316411ed284de108d2.cn20250101a.sectigo.com",
		}},
		{"", "comodoca.com", sandboxca.Proof{
			FileName:    "07182696BBD74EE89627E3B4D943258A.txt",
			FileContent: sum + "\ncomodoca.com",
			DNSLabel:    "_07182696bbd74ee89627e3b4d943258a",
			DNSTarget:   "d73f0e02451bbf32a61a1ac89a8eba6c.4ae1ed2b71bf65316411ed284de108d2.comodoca.com",
		}},
	}
	for _, tt := range tests {
		if got := CSRHash(csr.Raw, tt.unique, tt.trailer); got != tt.want {
			t.Errorf("CSRHash(%q, %q) = %+v, want %+v", tt.unique, tt.trailer, got, tt.want)
		}
	}
}
