package howssl

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/vendortest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testToken   = `t0k"en/+ &=\x`
	testProduct = "comodo-positivessl-dv"
	domainField = "domain_list" // of our own choice: the documents do not show it
)

func TestConformance(t *testing.T) {
	vendortest.Run(t, func(t *testing.T) *vendortest.Harness { return newService(t, nil).harness() })
}

// Where the documents leave a choice, the suite above has the harsher one. The others
// must be survived as well.
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

// service is the sandbox with a clock of its own, and the web of the names.
type service struct {
	t      *testing.T
	ca     *hostile.CA
	url    string
	logs   *observer.ObservedLogs
	logger *zap.Logger
	fields map[string]string

	mu    sync.Mutex
	ahead time.Duration
	files map[string]string
}

func newService(t *testing.T, quirks *hostile.HowSSLQuirks) *service {
	t.Helper()
	s := &service{t: t, files: make(map[string]string), fields: map[string]string{"domains": domainField}}
	core, logs := observer.New(zap.DebugLevel)
	s.logs, s.logger = logs, zap.New(core)
	if quirks == nil {
		quirks = new(hostile.HowSSLQuirks)
	}
	howssl := *quirks
	howssl.Fields.Domain = domainField
	if howssl.Fields.CheckWay != "" {
		s.fields["dcv_method"] = howssl.Fields.CheckWay
	}
	ca, err := hostile.New(hostile.Config{Core: hostile.Core{
		Accounts: []hostile.Account{{Token: testToken, Balance: 1e9}},
		Products: []hostile.Product{{
			Code: testProduct, Name: "PositiveSSL", ValidationType: hostile.DV, Standard: true,
			PriceCents: map[int]int64{12: 695, 24: 1200},
		}, {
			Code: "comodo-multi-dv", Name: "Multi", ValidationType: hostile.DV, Standard: true, SAN: true, MaxDomains: 3,
			PriceCents: map[int]int64{12: 2400},
		}},
		Transport: s,
		Now:       s.now,
	}, Quirks: hostile.Quirks{HowSSL: howssl}})
	if err != nil {
		t.Fatal(err)
	}
	s.ca = ca
	srv := httptest.NewServer(ca)
	s.url = srv.URL
	t.Cleanup(func() { ca.Close(); srv.Close() })
	return s
}

// open returns a vendor at the service.
func (s *service) open(base, token string, ids ...CheckID) *Orders {
	s.t.Helper()
	v, err := New(Config{
		Secret: token, Endpoint: base, Logger: s.logger,
		Description: vendors.Description{Name: "howssl", Account: "api.example", Portal: "the console"},
	}, Options{CreateOrderFields: s.fields, CheckIDs: ids})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(v.Close)
	return v
}

func (s *service) harness() *vendortest.Harness {
	closed := httptest.NewServer(nil)
	closed.Close()
	return &vendortest.Harness{
		Vendor:      s.open(s.url, testToken),
		Stranger:    s.open(s.url, testToken+"wrong"),
		Unreachable: s.open(closed.URL, testToken),
		Service:     s,
		Order:       goodConfig(),
		Secrets:     []string{testToken},
		Logs:        s.logs,
	}
}

func goodConfig() vendors.OrderConfig {
	return vendors.OrderConfig{Product: testProduct, Term: vendors.Term{Years: 1}, Method: vendors.MethodHTTP}
}

var endpoints = map[vendortest.Role]string{
	vendortest.RolePlace: "Order/commitOrder", vendortest.RoleReissue: "Reissue/submit",
	vendortest.RoleStatus: "Order/getOrderInfo", vendortest.RoleFind: "Order/fromCheck_idToOrder_id",
	vendortest.RoleRenew: "(there is none)",
}

func (s *service) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.ahead)
}

func (s *service) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	content, ok := s.files[r.URL.Path]
	s.mu.Unlock()
	status := http.StatusOK
	if !ok {
		status = http.StatusNotFound
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(content))}, nil
}

func (s *service) Charges() int { return len(s.ca.Charges()) }

func (s *service) Sent(role vendortest.Role) int { return s.ca.Calls(endpoints[role]) }

func (s *service) Inject(f vendortest.Fault) (remove func()) {
	fault := hostile.Fault{Endpoint: endpoints[f.Role]}
	if f.AfterEffect {
		fault.Phase = hostile.AfterEffect
	}
	switch f.Kind {
	case vendortest.HTML200:
		fault.Kind, fault.Status = hostile.HTML, http.StatusOK
	case vendortest.HTML502:
		fault.Kind = hostile.HTML
	case vendortest.HTTP500:
		fault.Kind = hostile.HTTPStatus
	case vendortest.Text:
		fault.Kind, fault.Status, fault.Body = hostile.HTTPStatus, http.StatusOK, []byte("service is busy")
	case vendortest.EchoToken:
		fault.Kind, fault.Body = hostile.HTTPStatus, []byte("cannot handle token "+testToken)
	case vendortest.Empty:
		fault.Kind = hostile.Empty
	case vendortest.CutOff:
		fault.Kind = hostile.CutOff
	case vendortest.BadJSON:
		fault.Kind = hostile.BadJSON
	case vendortest.Huge:
		fault.Kind = hostile.Huge
	case vendortest.Redirect:
		fault.Kind = hostile.Redirect
	case vendortest.Reset:
		fault.Kind = hostile.Reset
	case vendortest.Hang:
		fault.Kind = hostile.Hang
	case vendortest.ExtraFields:
		fault.Kind = hostile.ExtraFields
	default:
		s.t.Fatalf("no such fault: %s", f.Kind)
	}
	return s.ca.Inject(fault)
}

func (s *service) Arrived(role vendortest.Role, afterEffect bool) <-chan struct{} {
	phase := hostile.BeforeEffect
	if afterEffect {
		phase = hostile.AfterEffect
	}
	arrived := make(chan struct{})
	var once sync.Once
	s.ca.OnCall(func(endpoint string, at hostile.Phase) {
		if endpoint == endpoints[role] && at == phase {
			once.Do(func() { close(arrived) })
		}
	})
	return arrived
}

func (s *service) Prove(order vendors.Order) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ch := range order.Challenges {
		if ch.Method == vendors.MethodHTTP {
			s.files["/.well-known/pki-validation/"+ch.FileName] = ch.FileContent
		}
	}
	s.ahead += time.Minute
}

func (s *service) Age(string) { s.pass(300 * 24 * time.Hour) }

func (s *service) pass(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead += d
}

func (s *service) Spend() {
	if err := s.ca.SetBalance(testToken, 0); err != nil {
		s.t.Error(err)
	}
}
