package howssl

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/vendortest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testToken   = vendortest.Credential
	testProduct = "comodo-positivessl-dv"
	domainField = "domain_list" // our own choice: the documentation does not show it
)

func TestConformance(t *testing.T) {
	vendortest.Run(t, func(t *testing.T) *vendortest.Harness { return newService(t, nil).harness() })
}

// TestConformanceAssumingOtherAnswers: where the documentation leaves a choice, the suite above uses
// the harsher one. The others must be handled, too.
func TestConformanceAssumingOtherAnswers(t *testing.T) {
	for name, quirks := range map[string]hostile.HowSSLQuirks{
		"kinder": {
			RefuseSecondCommit: true, RefusalCode: 40301, StatusAsText: true, ReissueSuccess: true,
			CommitValidInfo: "string", EscapedContent: true,
		},
		"other names": {
			Fields: hostile.HowSSLFields{CheckWay: "dcv_way"}, EnglishProducts: true,
			CommitValidInfo: "null", ReissueRecords: true, NamelessDrafts: true,
		},
		"proofs as text":          {ValidInfoText: true},
		"success told as refusal": {CommitRefusedAfterCharge: true, CommitValidInfo: "absent"},
	} {
		t.Run(name, func(t *testing.T) {
			vendortest.Run(t, func(t *testing.T) *vendortest.Harness { return newService(t, &quirks).harness() })
		})
	}
}

// service is the sandbox in HowSSL's dialect.
type service struct {
	*vendortest.Sandbox
	fields map[string]string
}

func newService(t *testing.T, quirks *hostile.HowSSLQuirks) *service {
	t.Helper()
	s := &service{fields: map[string]string{"domains": domainField}}
	if quirks == nil {
		quirks = new(hostile.HowSSLQuirks)
	}
	howssl := *quirks
	howssl.Fields.Domain = domainField
	if howssl.Fields.CheckWay != "" {
		s.fields["dcv_method"] = howssl.Fields.CheckWay
	}
	s.Sandbox = vendortest.NewSandbox(t, roleCalls, func(cfg *hostile.Config) {
		cfg.Quirks.HowSSL = howssl
		cfg.Products = []hostile.Product{{
			Code: testProduct, Name: "PositiveSSL", ValidationType: hostile.DV, Standard: true,
			PriceCents: map[int]int64{12: 695, 24: 1200},
		}, {
			Code: "comodo-multi-dv", Name: "Multi", ValidationType: hostile.DV, Standard: true, SAN: true, MaxDomains: 3,
			PriceCents: map[int]int64{12: 2400},
		}}
	})
	return s
}

// open returns a vendor at the service.
func (s *service) open(url, token string, ids ...CheckID) *Orders {
	s.T.Helper()
	v, err := New(Config{
		Secret: token, Endpoint: url, Logger: s.Logger,
		Description: vendors.Description{Name: "howssl", Account: "api.example", Portal: "the console"},
	}, Options{CreateOrderFields: s.fields, CheckIDs: ids})
	if err != nil {
		s.T.Fatal(err)
	}
	s.T.Cleanup(v.Close)
	return v
}

func (s *service) harness() *vendortest.Harness {
	return s.Harness(goodConfig(), func(url, token string) vendors.Vendor { return s.open(url, token) })
}

func goodConfig() vendors.OrderConfig {
	return vendors.OrderConfig{Product: testProduct, Term: vendors.Term{Years: 1}, Method: vendors.MethodHTTP}
}

var roleCalls = map[vendortest.Role]string{
	vendortest.RolePlace: "Order/commitOrder", vendortest.RoleReissue: "Reissue/submit",
	vendortest.RoleStatus: "Order/getOrderInfo", vendortest.RoleFind: "Order/fromCheck_idToOrder_id",
	vendortest.RoleRenew: "(there is none)",
}
