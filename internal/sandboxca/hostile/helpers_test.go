package hostile

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"maps"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/caddy-commercial/caddy-commercial/internal/csrtest"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
)

const testToken = "tok-51d0c7e2"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a clock that only moves when told to.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// site serves validation files by host and path, as the web server under test
// would.
type site struct {
	mu      sync.Mutex
	files   map[string]string // host + path to content
	agents  map[string]bool
	handler http.Handler // if not nil, instead of the files
}

func newSite() *site { return &site{files: make(map[string]string), agents: make(map[string]bool)} }

func (s *site) publish(o OrderInfo, hosts ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, host := range hosts {
		s.files[host+sandboxca.ValidationPath+o.FileName] = o.FileContent
	}
}

func (s *site) unpublish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.files)
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.agents[r.UserAgent()] = true
	if s.handler != nil {
		s.handler.ServeHTTP(w, r)
		return
	}
	content, ok := s.files[r.Host+r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	_, _ = io.WriteString(w, content)
}

// RoundTrip serves the site without a network.
func (s *site) RoundTrip(r *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	s.ServeHTTP(rec, r)
	resp := rec.Result()
	resp.Request = r
	return resp, nil
}

// start serves the site on a loopback port and returns the port.
func (s *site) start(t *testing.T) int {
	t.Helper()
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	_, port, err := net.SplitHostPort(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// bench is a CA with a manual clock, a site and a client.
type bench struct {
	*CA
	t     *testing.T
	clock *clock
	site  *site
}

func newBench(t *testing.T, change func(*Config)) *bench {
	t.Helper()
	b := &bench{t: t, clock: newClock(), site: newSite()}
	cfg := Config{Core: Core{
		Accounts:  []Account{{Token: testToken, Balance: 100_000}},
		Transport: b.site,
		Now:       b.clock.Now,
	}}
	if change != nil {
		change(&cfg)
	}
	ca, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ca.Close)
	b.CA = ca
	return b
}

// reply is an answer of the Racent dialect.
type reply struct {
	Code       int             `json:"code"`
	Status     string          `json:"status"`
	CertStatus string          `json:"certStatus"`
	Errors     json.RawMessage `json:"errors"`
	Data       json.RawMessage `json:"data"`
	raw        string
}

// field reads a string from data.
func (r reply) field(name string) string {
	var data map[string]json.RawMessage
	_ = json.Unmarshal(r.Data, &data)
	var s string
	_ = json.Unmarshal(data[name], &s)
	return s
}

// call makes one call with an urlencoded form.
func (b *bench) call(endpoint string, form map[string]string) reply {
	b.t.Helper()
	values := url.Values{"api_token": {testToken}}
	for k, v := range form {
		values.Set(k, v)
	}
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost,
		"http://sandbox/ssl/"+endpoint, strings.NewReader(values.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.do(req)
}

func (b *bench) do(req *http.Request) reply {
	b.t.Helper()
	resp, err := b.Transport().RoundTrip(req)
	if err != nil {
		b.t.Fatalf("%s: %v", req.URL.Path, err)
	}
	return decode(b.t, resp)
}

func decode(t *testing.T, resp *http.Response) reply {
	t.Helper()
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d: %s", resp.StatusCode, body)
	}
	var r reply
	if err := json.Unmarshal(body, &r); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	r.raw = string(body)
	return r
}

func (b *bench) want(r reply, code int) reply {
	b.t.Helper()
	if r.Code != code {
		b.t.Fatalf("code %d, want %d: %s", r.Code, code, r.raw)
	}
	return r
}

// info finds an order.
func (b *bench) info(id string) OrderInfo {
	b.t.Helper()
	for _, o := range b.Orders() {
		if o.ID == id {
			return o
		}
	}
	b.t.Fatalf("no order %q", id)
	return OrderInfo{}
}

// placed places an order for the names and returns its ID.
func (b *bench) placed(product, ref string, names ...string) string {
	b.t.Helper()
	return b.want(b.call("place", orderForm(b.t, product, ref, names...)), 1).field("certId")
}

// issued places an order, publishes its file and collects until it is issued.
func (b *bench) issued(product, ref string, names ...string) string {
	b.t.Helper()
	id := b.placed(product, ref, names...)
	b.prove(id)
	return id
}

// prove publishes an order's file on all its names and expects it issued.
func (b *bench) prove(id string) {
	b.t.Helper()
	o := b.info(id)
	b.site.publish(o, o.Names...)
	b.clock.add(time.Second)
	if r := b.want(b.call("collect", map[string]string{"certId": id}), 1); r.Status != StatusComplete {
		b.t.Fatalf("status %s: %s; fetches %+v", r.Status, r.raw, b.Fetches())
	}
}

func contact() map[string]any {
	return map[string]any{
		"job": "Engineer", "firstName": "Ada", "lastName": "Lovelace", "email": "ada@example.com",
		"mobile": "+44.2012345678", "country": "GB", "state": "London", "city": "London",
		"address": "12 St James's Square", "postCode": "SW1Y 4LB",
		"organation": "Analytical Engines", "organization": "Analytical Engines",
	}
}

func organisation() map[string]any {
	return map[string]any{
		"organizationName": "Analytical Engines", "organizationAddress": "12 St James's Square",
		"organizationCity": "London", "organizationCountry": "GB",
		"organizationPostCode": "SW1Y 4LB", "organizationMobile": "+44.2012345678",
	}
}

// orderParamsFor are valid params of an order.
func orderParamsFor(t *testing.T, names ...string) map[string]any {
	t.Helper()
	return map[string]any{
		"csr": csrtest.PEM(t, nil, names[0], names...), "server": "nginx", "uniqueValue": "u1",
		"domainInfo": domains("HTTP_CSR_HASH", names...), "Administrator": contact(),
	}
}

func domains(word string, names ...string) []any {
	var list []any
	for _, n := range names {
		list = append(list, map[string]any{"domainName": n, "dcvMethod": word})
	}
	return list
}

func orderForm(t *testing.T, product, ref string, names ...string) map[string]string {
	t.Helper()
	return map[string]string{
		"productCode": product, "years": "1", "refId": ref, "params": asJSON(t, orderParamsFor(t, names...)),
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// multipartBody is the documented encoding of a call.
func multipartBody(t *testing.T, form map[string]string) (contentType string, body []byte) {
	t.Helper()
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	for k, v := range maps.All(form) {
		if err := w.WriteField(k, v); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return w.FormDataContentType(), buf.Bytes()
}

func parseCert(t *testing.T, text string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatalf("no PEM in %q", text)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
