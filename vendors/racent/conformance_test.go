package racent

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

const testToken = `t0k"en/+ &=\x`

func TestConformance(t *testing.T) { vendortest.Run(t, openHarness) }

// Nobody tells the proofs, so those that were predicted have to do.
func TestConformanceWithoutValues(t *testing.T) {
	vendortest.Run(t, func(t *testing.T) *vendortest.Harness {
		return openWith(t, hostile.Quirks{NoDCVValues: true})
	})
}

func openHarness(t *testing.T) *vendortest.Harness { return openWith(t, hostile.Quirks{}) }

func openWith(t *testing.T, quirks hostile.Quirks) *vendortest.Harness {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	logger := zap.New(core)
	s := &service{t: t, files: make(map[string]string)}
	ca, err := hostile.New(hostile.Config{Core: hostile.Core{
		Accounts:  []hostile.Account{{Token: testToken, Balance: 1e9}},
		Transport: s,
		Now:       s.now,
	}, Quirks: quirks})
	if err != nil {
		t.Fatal(err)
	}
	s.ca = ca
	srv := httptest.NewServer(ca)
	closed := httptest.NewServer(nil)
	closed.Close()
	t.Cleanup(func() { ca.Close(); srv.Close() })

	open := func(base, token string) vendors.Vendor {
		v, err := New(Config{
			Secret: token, Endpoint: base + "/ssl", Logger: logger,
			Description: vendors.Description{Name: "racent", Account: "portal.example", Portal: "https://portal.example"},
		}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(v.Close)
		return v
	}
	return &vendortest.Harness{
		Vendor:      open(srv.URL, testToken),
		Stranger:    open(srv.URL, testToken+"wrong"),
		Unreachable: open(closed.URL, testToken),
		Service:     s,
		Order:       goodConfig(),
		Secrets:     []string{testToken},
		Logs:        logs,
	}
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

// service is the sandbox with a clock of its own, and the web of the names.
type service struct {
	t  *testing.T
	ca *hostile.CA

	mu    sync.Mutex
	ahead time.Duration
	files map[string]string
}

var endpoints = map[vendortest.Role]string{
	vendortest.RolePlace: "place", vendortest.RoleRenew: "renew", vendortest.RoleReissue: "replace",
	vendortest.RoleStatus: "collect", vendortest.RoleFind: "certIdByrefId",
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
		fault.Kind, fault.Body = hostile.HTTPStatus, []byte("cannot handle api_token "+testToken)
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
		s.files["/.well-known/pki-validation/"+ch.FileName] = ch.FileContent
	}
	s.ahead += time.Minute
}

func (s *service) Age(string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead += 300 * 24 * time.Hour
}

func (s *service) Spend() {
	if err := s.ca.SetBalance(testToken, 0); err != nil {
		s.t.Error(err)
	}
}
