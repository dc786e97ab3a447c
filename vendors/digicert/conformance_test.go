package digicert

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

// testKey is hard to quote. A header cannot hold more than visible ASCII.
const testKey = `k3y"en/+ &=\x`

const testOrganization = 5_000_000_001

func TestConformance(t *testing.T) { vendortest.Run(t, openHarness) }

func openHarness(t *testing.T) *vendortest.Harness {
	t.Helper()
	s, logs := newService(t, nil)
	closed := httptest.NewServer(nil)
	closed.Close()
	return &vendortest.Harness{
		Vendor:      s.open(testKey, s.base),
		Stranger:    s.open(testKey+"wrong", s.base),
		Unreachable: s.open(testKey, closed.URL),
		Service:     s,
		Order:       goodConfig(),
		Secrets:     []string{testKey},
		Logs:        logs,
	}
}

func goodConfig() vendors.OrderConfig {
	return vendors.OrderConfig{Product: "ssl_dv_rapidssl", Term: vendors.Term{Years: 1}, Method: vendors.MethodHTTP}
}

// service is the sandbox with a clock of its own, and the web of the names.
type service struct {
	t    *testing.T
	ca   *hostile.CA
	base string
	log  *zap.Logger

	mu    sync.Mutex
	ahead time.Duration
	files map[string]string
}

func newService(t *testing.T, change func(*hostile.Config)) (*service, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	s := &service{t: t, files: make(map[string]string), log: zap.New(core)}
	cfg := hostile.Config{Core: hostile.Core{
		Accounts:  []hostile.Account{{Token: testKey, Balance: 1e9, Organizations: []int64{testOrganization}}},
		Transport: s,
		Now:       s.now,
	}}
	if change != nil {
		change(&cfg)
	}
	var err error
	if s.ca, err = hostile.New(cfg); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s.ca)
	s.base = srv.URL
	t.Cleanup(func() { s.ca.Close(); srv.Close() })
	return s, logs
}

func (s *service) open(key, base string) *Orders {
	s.t.Helper()
	v, err := New(Config{
		Secret: key, Endpoint: base + "/services/v2", Logger: s.log,
		Description: vendors.Description{Name: "digicert", Account: "www.example", Portal: "https://www.example"},
	}, Options{OrganizationID: testOrganization})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(v.Close)
	return v
}

var endpoints = map[vendortest.Role]string{
	vendortest.RolePlace: "order", vendortest.RoleRenew: "order", vendortest.RoleReissue: "reissue",
	vendortest.RoleStatus: "info", vendortest.RoleFind: "alternate",
}

func (s *service) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.ahead)
}

func (s *service) pass(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead += d
}

// RoundTrip serves a file by host and path: its name is the same for all orders.
func (s *service) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	content, ok := s.files[r.URL.Hostname()+r.URL.Path]
	if !ok {
		content, ok = s.files[r.URL.Path]
	}
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
		fault.Kind, fault.Body = hostile.HTTPStatus, []byte("cannot handle key "+testKey)
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

func (s *service) Age(string) { s.pass(300 * 24 * time.Hour) }

func (s *service) Spend() {
	if err := s.ca.SetBalance(testKey, 0); err != nil {
		s.t.Error(err)
	}
}
