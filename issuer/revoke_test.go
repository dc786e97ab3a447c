package issuer

import (
	"strings"
	"testing"

	"github.com/caddyserver/certmagic"
)

func TestRevokeWithoutOrder(t *testing.T) {
	iss := &Issuer{}
	iss.about.Portal = "https://portal.example"
	err := iss.Revoke(t.Context(), certmagic.CertificateResource{SANs: []string{"example.com"}}, 0)
	if err == nil || !strings.Contains(err.Error(), "https://portal.example") {
		t.Errorf("error = %v", err)
	}
}
