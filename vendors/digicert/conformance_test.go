package digicert

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/vendortest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testKey          = vendortest.Credential
	testOrganization = 5_000_000_001
)

func TestConformance(t *testing.T) {
	vendortest.Run(t, func(t *testing.T) *vendortest.Harness {
		s := newService(t, nil)
		return s.Harness(goodConfig(), func(url, key string) vendors.Vendor { return s.open(key, url) })
	})
}

// service is the sandbox in DigiCert's dialect.
type service struct{ *vendortest.Sandbox }

func newService(t *testing.T, change func(*hostile.Config)) *service {
	t.Helper()
	return &service{vendortest.NewSandbox(t, roleCalls, func(cfg *hostile.Config) {
		cfg.Accounts[0].Organizations = []int64{testOrganization}
		if change != nil {
			change(cfg)
		}
	})}
}

func (s *service) open(key, url string) *Orders {
	s.T.Helper()
	v, err := New(Config{
		Secret: key, Endpoint: url + "/services/v2", Logger: s.Logger,
		Description: vendors.Description{Name: "digicert", Account: "www.example", Portal: "https://www.example"},
	}, Options{OrganizationID: testOrganization})
	if err != nil {
		s.T.Fatal(err)
	}
	s.T.Cleanup(v.Close)
	return v
}

var roleCalls = map[vendortest.Role]string{
	vendortest.RolePlace: "order", vendortest.RoleRenew: "order", vendortest.RoleReissue: "reissue",
	vendortest.RoleStatus: "info", vendortest.RoleFind: "alternate",
}

func goodConfig() vendors.OrderConfig {
	return vendors.OrderConfig{Product: "ssl_dv_rapidssl", Term: vendors.Term{Years: 1}, Method: vendors.MethodHTTP}
}
