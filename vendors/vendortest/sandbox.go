package vendortest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Sandbox is the sandbox CA as a [Service], with a clock of its own. It is also the web
// in which the CA looks for the proofs.
type Sandbox struct {
	CA *hostile.CA

	// URL is where it listens; nothing listens at Closed. The vendors log to Logger.
	URL, Closed string
	Logger      *zap.Logger
	Logs        *observer.ObservedLogs

	// T is the test.
	T *testing.T

	calls map[Role]string

	mu    sync.Mutex
	ahead time.Duration
	files map[string]string // by host and path
}

// Credential is hard to quote, and contains only what a header can hold.
const Credential = `t0k"en/+ &=\x` //nolint:gosec // of the sandbox

// NewSandbox starts a sandbox with one account, whose credential is Credential. Calls has
// the sandbox's name of the call for each role.
func NewSandbox(t *testing.T, calls map[Role]string, change func(*hostile.Config)) *Sandbox {
	t.Helper()
	s := &Sandbox{T: t, calls: calls, files: make(map[string]string)}
	core, logs := observer.New(zap.DebugLevel)
	s.Logger, s.Logs = zap.New(core), logs
	cfg := hostile.Config{Core: hostile.Core{
		Accounts: []hostile.Account{{Token: Credential, Balance: 1e9}}, Transport: s, Now: s.Now,
	}}
	if change != nil {
		change(&cfg)
	}
	var err error
	if s.CA, err = hostile.New(cfg); err != nil {
		t.Fatal(err)
	}
	open, closed := httptest.NewServer(s.CA), httptest.NewServer(nil)
	closed.Close()
	s.URL, s.Closed = open.URL, closed.URL
	t.Cleanup(func() { s.CA.Close(); open.Close() })
	return s
}

// Harness returns a harness with the sandbox as its service. Open makes a vendor for a URL.
func (s *Sandbox) Harness(order vendors.OrderConfig, open func(url, credential string) vendors.Vendor) *Harness {
	return &Harness{
		Vendor: open(s.URL, Credential), Stranger: open(s.URL, Credential+"wrong"), Unreachable: open(s.Closed, Credential),
		Service: s, Order: order, Secrets: []string{Credential}, Logs: s.Logs,
	}
}

// Now returns the sandbox's time.
func (s *Sandbox) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.ahead)
}

// Pass advances the sandbox's clock.
func (s *Sandbox) Pass(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead += d
}

// RoundTrip implements http.RoundTripper: the sandbox is the web.
func (s *Sandbox) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	content, ok := s.files[r.URL.Hostname()+r.URL.Path]
	if !ok {
		content, ok = s.files[r.URL.Path]
	}
	status := http.StatusOK
	if !ok {
		status = http.StatusNotFound
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(content))}, nil
}

// Put publishes content at a host and path, or at a path of all hosts. A test may also put other
// things, such as DNS records under their names, and find them with Get.
func (s *Sandbox) Put(place, content string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[place] = content
}

// Get returns what was put at a place, or an empty string.
func (s *Sandbox) Get(place string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.files[place]
}

// Prove implements Service.
func (s *Sandbox) Prove(order vendors.Order) {
	for _, ch := range order.Challenges {
		if ch.FileName != "" {
			s.Put("/.well-known/pki-validation/"+ch.FileName, ch.FileContent)
		}
	}
	s.Pass(time.Minute)
}

// Age implements Service.
func (s *Sandbox) Age(string) { s.Pass(300 * 24 * time.Hour) }

// Spend implements Service.
func (s *Sandbox) Spend() {
	if err := s.CA.SetBalance(Credential, 0); err != nil {
		s.T.Error(err)
	}
}

// Charges implements Service.
func (s *Sandbox) Charges() int { return len(s.CA.Charges()) }

// Sent implements Service.
func (s *Sandbox) Sent(role Role) int { return s.CA.Calls(s.calls[role]) }

// Inject implements Service.
func (s *Sandbox) Inject(f Fault) (remove func()) {
	fault, known := faults[f.Kind]
	if !known {
		s.T.Fatalf("no such fault: %s", f.Kind)
	}
	fault.Endpoint = s.calls[f.Role]
	if f.AfterEffect {
		fault.Phase = hostile.AfterEffect
	}
	return s.CA.Inject(fault)
}

// faults are the sandbox's faults for the kinds in the suite.
var faults = map[Kind]hostile.Fault{
	HTML200:     {Kind: hostile.HTML, Status: http.StatusOK},
	HTML502:     {Kind: hostile.HTML},
	HTTP500:     {Kind: hostile.HTTPStatus},
	Text:        {Kind: hostile.HTTPStatus, Status: http.StatusOK, Body: []byte("service is busy")},
	EchoToken:   {Kind: hostile.HTTPStatus, Body: []byte("cannot handle credential " + Credential)},
	Empty:       {Kind: hostile.Empty},
	CutOff:      {Kind: hostile.CutOff},
	BadJSON:     {Kind: hostile.BadJSON},
	Huge:        {Kind: hostile.Huge},
	Redirect:    {Kind: hostile.Redirect},
	Reset:       {Kind: hostile.Reset},
	Hang:        {Kind: hostile.Hang},
	ExtraFields: {Kind: hostile.ExtraFields},
}

// Arrived implements Service.
func (s *Sandbox) Arrived(role Role, afterEffect bool) <-chan struct{} {
	phase := hostile.BeforeEffect
	if afterEffect {
		phase = hostile.AfterEffect
	}
	arrived := make(chan struct{})
	var once sync.Once
	s.CA.OnCall(func(endpoint string, at hostile.Phase) {
		if endpoint == s.calls[role] && at == phase {
			once.Do(func() { close(arrived) })
		}
	})
	return arrived
}
