package racent

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/vendortest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testToken = vendortest.Credential

func TestConformance(t *testing.T) { vendortest.Run(t, openHarness) }

// TestConformanceWithoutValues: the service reports no proofs, so the predicted ones must be enough.
func TestConformanceWithoutValues(t *testing.T) {
	vendortest.Run(t, func(t *testing.T) *vendortest.Harness {
		s := newService(t)
		s.behave(hostile.Quirks{NoDCVValues: true})
		return s.harness()
	})
}

func openHarness(t *testing.T) *vendortest.Harness { return newService(t).harness() }

// service is the sandbox in Racent's dialect.
type service struct{ *vendortest.Sandbox }

func newService(t *testing.T) *service {
	t.Helper()
	return &service{vendortest.NewSandbox(t, roleCalls, nil)}
}

func (s *service) harness() *vendortest.Harness {
	h := s.Harness(goodConfig(), func(url, token string) vendors.Vendor {
		v, err := New(Config{
			Secret: token, Endpoint: url + "/ssl", Logger: s.Logger,
			Description: vendors.Description{Name: "racent", Account: "portal.example", Portal: "https://portal.example"},
		}, Options{})
		if err != nil {
			s.T.Fatal(err)
		}
		s.T.Cleanup(v.Close)
		return v
	})
	h.Service = s
	return h
}

var roleCalls = map[vendortest.Role]string{
	vendortest.RolePlace: "place", vendortest.RoleRenew: "renew", vendortest.RoleReissue: "replace",
	vendortest.RoleStatus: "collect", vendortest.RoleFind: "certIdByrefId",
}

func goodConfig() vendors.OrderConfig {
	return vendors.OrderConfig{
		Product: "comodo-positivessl",
		Term:    vendors.Term{Years: 1},
		Method:  vendors.MethodHTTP,
		Contact: vendors.Contact{
			FirstName: "Ada", LastName: "Lovelace", Email: "ada@example.com", Phone: "+44.2012345678",
			Organization: "Analytical Engines", JobTitle: "Engineer", Address: "1 Dorset Street", City: "London",
			State: "London", PostalCode: "W1U 4EG", Country: "gb",
		},
	}
}
