package statuspage

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/operator"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

const day = 24 * time.Hour

// office is a handler and the storage that it shows.
type office struct {
	*Handler
	tb      testing.TB
	storage *certmagic.FileStorage
	now     time.Time // the time at which orders are entered

	unordered map[string][]string // of a vendor
}

func newOffice(tb testing.TB) *office {
	o := &office{tb: tb, storage: &certmagic.FileStorage{Path: tb.TempDir()}, now: time.Now().UTC().Truncate(time.Second)}
	desk := operator.NewDesk([]operator.Account{o.account("racent", "portal.example"), o.account("digicert", "api.example")})
	o.Handler = &Handler{logger: zap.NewNop(), orders: newReader(), desk: func() *operator.Desk { return desk }}
	return o
}

func (o *office) ledger(vendor, account string) *ledger.Ledger {
	return &ledger.Ledger{
		Storage: o.storage, Prefix: ledger.Prefix(vendor, account), Memory: new(ledger.Memory), Now: func() time.Time { return o.now },
	}
}

func (o *office) account(vendor, account string) operator.Account {
	return operator.Account{
		Ledger: o.ledger(vendor, account), About: vendors.Description{Name: vendor, Account: account, Portal: "https://" + account},
		Margin: func(*ledger.Entry) time.Duration { return 30 * day },
		Order: func(string) vendors.OrderConfig {
			return vendors.OrderConfig{Product: "dv", Term: vendors.Term{Years: 1}}
		},
		Manages: func(name string) bool { return strings.Contains(name, ".example") && name != "other.example" },
		Doing: func(name string, e *ledger.Entry) operator.Doing {
			if e == nil {
				return operator.Doing{Waits: "too little money", Next: o.now.Add(time.Hour)}
			}
			return operator.Doing{Said: "the vendor cannot tell about " + name, At: o.now}
		},
		Unordered: func() []string { return o.unordered[vendor] },
	}
}

// enter stores an order, issued unless change alters that.
func (o *office) enter(vendor, account, name string, change func(*ledger.Entry)) *ledger.Entry {
	o.tb.Helper()
	l := o.ledger(vendor, account)
	e := &ledger.Entry{
		ID: l.NewID(), Names: []string{name}, State: ledger.Asked, Product: "dv", Term: vendors.Term{Years: 1}, Method: vendors.MethodHTTP,
		Paid: o.now, Ends: o.now.AddDate(1, 0, 0),
		Attempt: ledger.Attempt{
			Kind: ledger.KindOrder, Reference: "reference-of-" + name, Started: o.now, AbsenceAge: 10 * time.Minute,
			CSR: []byte("hidden-request"), Unique: "hidden-unique",
			Challenges: []vendors.Challenge{{Method: vendors.MethodHTTP, FileName: "PROOF.txt", FileContent: "hidden-content"}},
		},
	}
	if err := l.Create(o.tb.Context(), e); err != nil {
		o.tb.Fatal(err)
	}
	e, err := l.Write(o.tb.Context(), e, func(e *ledger.Entry) {
		e.State, e.OrderID, e.Covered, e.Issued = ledger.Issued, "order-of-"+name, []string{name, "www." + name}, 1
		e.Certificate = &ledger.Certificate{Serial: "0abc", NotBefore: o.now, NotAfter: o.now.Add(199 * day)}
		if change != nil {
			change(e)
		}
	})
	if err != nil {
		o.tb.Fatal(err)
	}
	return e
}

func flagged(reason string) func(*ledger.Entry) {
	return func(e *ledger.Entry) { e.State, e.Flag = ledger.Open, &ledger.Flag{Since: e.Paid, Reason: reason} }
}

// request returns a request from this machine.
func request(method, target string) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	r.Host, r.RemoteAddr = "localhost:8080", "127.0.0.1:40000"
	ctx := context.WithValue(r.Context(), caddy.ReplacerCtxKey, caddy.NewReplacer())
	return r.WithContext(context.WithValue(ctx, http.LocalAddrContextKey, net.Addr(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080})))
}

func (o *office) do(r *http.Request) *httptest.ResponseRecorder {
	o.tb.Helper()
	w := httptest.NewRecorder()
	if err := o.ServeHTTP(w, r, nil); err != nil {
		var said caddyhttp.HandlerError
		if !errors.As(err, &said) {
			o.tb.Fatal(err)
		}
		w.Code = said.StatusCode
	}
	return w
}

// get returns a page, and fails unless it is well-formed and accessible.
func (o *office) get(query string, status int) string {
	o.tb.Helper()
	w := o.do(request(http.MethodGet, "/"+query))
	body := w.Body.String()
	if w.Code != status {
		o.tb.Fatalf("status %d\n%s", w.Code, body)
	}
	checkPage(o.tb, body)
	if strings.Contains(body, "hidden-") {
		o.tb.Error("the page shows what it must not show")
	}
	return body
}

func contains(t *testing.T, body string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(body, part) {
			t.Errorf("%q is not in\n%s", part, body)
		}
	}
}

func TestWhoIsShownThePage(t *testing.T) {
	o := newOffice(t)
	for title, tc := range map[string]struct {
		change func(*http.Request)
		allow  bool
		want   int
	}{
		"on this machine":    {func(*http.Request) {}, false, http.StatusOK},
		"at the address":     {func(r *http.Request) { r.Host = "127.0.0.1:8080" }, false, http.StatusOK},
		"at the IPv6 one":    {func(r *http.Request) { r.Host = "[::1]" }, false, http.StatusOK},
		"below localhost":    {func(r *http.Request) { r.Host = "Status.Localhost." }, false, http.StatusOK},
		"mapped":             {func(r *http.Request) { r.RemoteAddr = "[::ffff:127.0.0.1]:40000" }, false, http.StatusOK},
		"from elsewhere":     {elsewhere, false, http.StatusForbidden},
		"on another address": {func(r *http.Request) { *r = *r.WithContext(localAddr(r, "192.0.2.1")) }, false, http.StatusForbidden},
		"on a Unix socket":   {func(r *http.Request) { r.RemoteAddr = "@" }, false, http.StatusForbidden},
		"of another name":    {func(r *http.Request) { r.Host = "status.example.com" }, false, http.StatusForbidden},
		"like localhost":     {func(r *http.Request) { r.Host = "localhost.example.com" }, false, http.StatusForbidden},
		"no host":            {func(r *http.Request) { r.Host = "" }, false, http.StatusForbidden},
		"proxied":            {func(r *http.Request) { r.Header.Set("X-Forwarded-For", "192.0.2.1") }, false, http.StatusForbidden},
		"proxied, no client": {func(r *http.Request) { r.Header.Set("x-forwarded-proto", "https") }, false, http.StatusForbidden},
		"proxied, standard":  {func(r *http.Request) { r.Header.Set("Forwarded", "for=192.0.2.1") }, false, http.StatusForbidden},
		"proxied, nginx":     {func(r *http.Request) { r.Header.Set("X-Real-IP", "192.0.2.1") }, false, http.StatusForbidden},
		"proxied, HTTP/1.0":  {func(r *http.Request) { r.ProtoMajor, r.ProtoMinor = 1, 0 }, false, http.StatusForbidden},
		"proxied, via":       {func(r *http.Request) { r.Header.Set("Via", "1.1 proxy") }, false, http.StatusForbidden},
		"logged in":          {func(r *http.Request) { elsewhere(r); replacer(r).Set("http.auth.user.id", "ada") }, false, http.StatusOK},
		"logged in, proxied": {func(r *http.Request) {
			r.Header.Set("X-Forwarded-For", "192.0.2.1")
			replacer(r).Set("http.auth.user.id", "ada")
		}, false, http.StatusOK},
		"nobody logged in": {func(r *http.Request) { elsewhere(r); replacer(r).Set("http.auth.user.id", "") }, false, http.StatusForbidden},
		"only tried":       {func(r *http.Request) { elsewhere(r); replacer(r).Set("http.auth.candidate.id", "ada") }, false, http.StatusForbidden},
		"says so":          {func(r *http.Request) { elsewhere(r); r.SetBasicAuth("ada", "guess") }, false, http.StatusForbidden},
		"allowed":          {elsewhere, true, http.StatusOK},
	} {
		t.Run(title, func(t *testing.T) {
			o.AllowUnauthenticated = tc.allow
			r := request(http.MethodGet, "/")
			tc.change(r)
			w := o.do(r)
			if w.Code != tc.want {
				t.Errorf("status %d, want %d", w.Code, tc.want)
			}
			if w.Code == http.StatusForbidden {
				contains(t, w.Body.String(), "basic_auth {", "allow_unauthenticated")
			}
		})
	}
}

func elsewhere(r *http.Request) { r.RemoteAddr = "192.0.2.7:40000" }

func replacer(r *http.Request) *caddy.Replacer {
	return r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
}

func localAddr(r *http.Request, ip string) context.Context {
	return context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(&net.TCPAddr{IP: net.ParseIP(ip), Port: 8080}))
}

func TestMethods(t *testing.T) {
	o := newOffice(t)
	o.enter("racent", "portal.example", "shop.example", nil)
	got := o.do(request(http.MethodGet, "/"))
	head := o.do(request(http.MethodHead, "/"))
	if head.Code != http.StatusOK || head.Body.Len() > 0 || head.Header().Get("Content-Length") != fmt.Sprint(got.Body.Len()) {
		t.Errorf("HEAD: status %d, %d bytes, Content-Length %s", head.Code, head.Body.Len(), head.Header().Get("Content-Length"))
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, "get"} {
		if w := o.do(request(method, "/")); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: status %d, Allow %q", method, w.Code, w.Header().Get("Allow"))
		}
	}
}

// TestHeader: the policy allows the style sheet of the page, and nothing else.
func TestHeader(t *testing.T) {
	w := newOffice(t).do(request(http.MethodGet, "/"))
	sheets := regexp.MustCompile(`(?s)<style>(.*?)</style>`).FindAllStringSubmatch(w.Body.String(), -1)
	if len(sheets) != 1 {
		t.Fatalf("%d style sheets", len(sheets))
	}
	sum := sha256.Sum256([]byte(sheets[0][1]))
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
			"'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
		"X-Content-Type-Options": "nosniff",
		"Referrer-Policy":        "no-referrer",
		"Cache-Control":          "no-store",
		"Content-Type":           "text/html; charset=utf-8",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestList(t *testing.T) {
	o := newOffice(t)
	o.enter("racent", "portal.example", "good.example", nil)
	o.enter("racent", "portal.example", "asks.example", flagged("nobody knows"))
	o.enter("digicert", "api.example", "soon.example", func(e *ledger.Entry) { e.Certificate.NotAfter = o.now.Add(9 * day) })
	o.enter("digicert", "api.example", "over.example", func(e *ledger.Entry) { e.Ends = o.now.Add(-time.Hour) })
	o.unordered = map[string][]string{"racent": {"new.example"}}
	damaged := filepath.Join(o.storage.Path, ledger.Prefix("racent", "portal.example"), "entries", "damaged.json")
	if err := os.WriteFile(damaged, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}

	body := o.get("", http.StatusOK)
	contains(t, body, `<dd><a href="?state=none">1</a></dd>`, `<a href="?order=new.example">`, "too little money", "good.example", "soon.example", "in 9 days", "nobody knows", ">damaged</a>", "cannot be used",
		"caddy commercial resolve asks.example --order &lt;id&gt;", `<dd><a class="asks" href="?#asking">2</a></dd>`)
	if strings.Contains(body, "over.example") || strings.Index(body, "asks.example") > strings.Index(body, "good.example") {
		t.Error("an order that is over is shown, or the flagged one does not come first")
	}
	for query, want := range map[string]string{
		"?state=issued":                       "good soon",
		"?state=flagged":                      "asks",
		"?state=none":                         "new",
		"?state=&vendor=racent&about=":        "asks good new",
		"?vendor=digicert":                    "soon",
		"?vendor=digicert&past=true":          "over soon",
		"?expiring=14d":                       "soon",
		"?about=www.good.example&gateway=123": "good",
		"?about=order-of-soon.example":        "soon",
		"?about=nobody.example":               "",
	} {
		body := o.get(query, http.StatusOK)
		for _, name := range []string{"good", "soon", "asks", "over", "new"} {
			if shown := strings.Contains(body, ">"+name+".example</a>"); shown != strings.Contains(want, name) {
				t.Errorf("%s: %s is shown: %v", query, name, shown)
			}
		}
	}
	for query, want := range map[string]string{"?state=lost": "state: must be one of", "?expiring=soon": "expiring: ", "?past=perhaps": "past: "} {
		contains(t, o.get(query, http.StatusBadRequest), want)
	}
}

func TestPages(t *testing.T) {
	o := newOffice(t)
	const n = 2*pageRows + 7
	for i := range n {
		o.enter("racent", "portal.example", fmt.Sprintf("site%03d.example", i), nil)
	}
	seen := make(map[string]bool)
	next, sizes := "?state=issued", []int(nil)
	for next != "" {
		body := o.get(next, http.StatusOK)
		names := regexp.MustCompile(`>(site\d+\.example)</a>`).FindAllStringSubmatch(body, -1)
		for _, name := range names {
			seen[name[1]] = true
		}
		sizes, next = append(sizes, len(names)), ""
		if link := regexp.MustCompile(`<a href="(\?[^"]*)">Next page`).FindStringSubmatch(body); link != nil {
			next = strings.ReplaceAll(link[1], "&amp;", "&")
		}
	}
	if fmt.Sprint(sizes) != fmt.Sprint([]int{pageRows, pageRows, 7}) || len(seen) != n {
		t.Errorf("pages of %v, %d orders", sizes, len(seen))
	}
}

// TestManyAtOnce: one request reads, and the others wait for it and share what it has read.
func TestManyAtOnce(t *testing.T) {
	o := newOffice(t)
	for i := range 20 {
		o.enter("racent", "portal.example", fmt.Sprintf("site%d.example", i), nil)
	}
	var visitors sync.WaitGroup
	for range 8 {
		visitors.Go(func() {
			if w := o.do(request(http.MethodGet, "/")); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "site19.example") {
				t.Errorf("status %d", w.Code)
			}
		})
	}
	visitors.Wait()
}

func TestStory(t *testing.T) {
	o := newOffice(t)
	e := o.enter("racent", "portal.example", "shop.example", func(e *ledger.Entry) {
		e.State, e.Certificate, e.Issued = ledger.Open, nil, 0
		e.Attempt.AddVisits([]ledger.Visit{{Time: o.now, Host: "shop.example", From: "192.0.2.9", Server: "one", UserAgent: "Validator", Status: 404}}, 1)
	})
	o.enter("digicert", "api.example", "shop.example", nil)
	contains(t, o.get("?order="+e.ID, http.StatusOK), "http://shop.example/.well-known/pki-validation/PROOF.txt", `href="https://portal.example"`,
		"requested", "placed", "the order is looked at until they have", "the vendor cannot tell about shop.example",
		">404</th>", "192.0.2.9", "Validator")
	contains(t, o.get("?order=SHOP.example", http.StatusOK), "Order <span class=\"id\">order-of-shop.example", "0abc", "reissued, free of charge")
	contains(t, o.get("?order=new.example", http.StatusOK), "At racent", "At digicert", ">none</span>", "too little money", "an order is placed as soon as")
	contains(t, o.get("?order=other.example", http.StatusNotFound), "No such order", "other.example")
}

// TestHostileWords: vendors may say anything, and so may visitors.
func TestHostileWords(t *testing.T) {
	o := newOffice(t)
	const evil = `</td></style><script>alert(1)</script><img src=x onerror=alert(2)>"'&{{env "HOME"}}` + "\x00\u202e"
	e := o.enter("racent", "portal.example", "shop.example", flagged(evil))
	e, err := o.ledger("racent", "portal.example").Write(t.Context(), e, func(e *ledger.Entry) {
		e.OrderID, e.CAOrderID, e.Product, e.Problem, e.Certificate.Serial = evil, evil, evil, evil, evil
		e.Attempt.AddVisits([]ledger.Visit{{Time: o.now, Host: evil, From: evil, Server: evil, UserAgent: evil}}, 1)
	})
	if err != nil {
		t.Fatal(err)
	}
	for query, status := range map[string]int{
		"":                                    http.StatusOK,
		"?order=" + e.ID:                      http.StatusOK,
		"?order=" + url.QueryEscape(evil):     http.StatusOK, // it is an ID of the order
		"?order=no" + url.QueryEscape(evil):   http.StatusNotFound,
		"?about=" + url.QueryEscape(evil):     http.StatusOK,
		"?vendor=" + url.QueryEscape(evil):    http.StatusOK,
		"?state=" + url.QueryEscape(evil):     http.StatusBadRequest,
		"?expiring=" + url.QueryEscape(evil):  http.StatusBadRequest,
		"?after=000/" + url.QueryEscape(evil): http.StatusOK,
	} {
		body := o.get(query, status)
		for _, bad := range []string{"<script", "<img", "{{"} {
			if strings.Contains(body, bad) {
				t.Errorf("%s: the page has %q", query, bad)
			}
		}
	}
}

func TestNoIssuerAndNoStorage(t *testing.T) {
	o := newOffice(t)
	contains(t, o.get("", http.StatusOK), "No orders.", "Nothing is renewed or paid for")
	o.enter("racent", "portal.example", "shop.example", nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o.orders = newReader()
	w := o.do(request(http.MethodGet, "/").WithContext(context.WithValue(ctx, http.LocalAddrContextKey, request("GET", "/").Context().Value(http.LocalAddrContextKey))))
	if w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "cannot be read") {
		t.Errorf("status %d\n%s", w.Code, w.Body)
	}
	o.desk = func() *operator.Desk { return nil }
	contains(t, o.get("", http.StatusOK), "No commercial issuer runs")
}

func TestPlan(t *testing.T) {
	monday := time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)
	p := newPlan(monday.Add(6*day + 23*time.Hour))
	at := func(days int) time.Time { return monday.Add(time.Duration(days) * day) }
	p.add(operator.Row{NextRenewal: at(6), NextCharge: at(100)})
	p.add(operator.Row{NextRenewal: at(7), NextCharge: at(7)})
	p.add(operator.Row{NextRenewal: at(5 + planDays), NextCharge: at(5 + planDays)})
	p.add(operator.Row{NextRenewal: at(500), NextCharge: at(500)})
	p.add(operator.Row{})
	if p.Renewals != 1 || p.Charges != 3 || p.Later != 1 {
		t.Errorf("%d renewals, %d charges, %d later", p.Renewals, p.Charges, p.Later)
	}
	want := []week{{at(0), 1, 0}, {at(7), 0, 1}, {at(98), 0, 1}, {at(399), 0, 1}}
	if got := p.Busy(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
	if bars := p.Bars(); len(bars) != 4 || bars[1].Title != "week of 2026-12-07: 1 charge" {
		t.Errorf("%+v", bars)
	}
	if months := p.Months(); len(months) != 13 || months[0] != (month{0, "Dec"}) || months[1].Name != "Jan 2027" {
		t.Errorf("%v", months)
	}
}

// TestWithoutAuthentication: a status page without authentication, which visitors from elsewhere are
// not shown, is reported beforehand.
func TestWithoutAuthentication(t *testing.T) {
	routes := func(handlers ...string) caddyhttp.RouteList {
		var route caddyhttp.Route
		for _, h := range handlers {
			route.HandlersRaw = append(route.HandlersRaw, json.RawMessage(`{"handler": "subroute", "routes": [{"handle": [{"handler": "`+h+`"}]}]}`))
		}
		return caddyhttp.RouteList{route}
	}
	provisioned := routes(handlerName)
	provisioned = append(provisioned, caddyhttp.Route{Handlers: []caddyhttp.MiddlewareHandler{
		&caddyhttp.Subroute{Routes: caddyhttp.RouteList{{Handlers: []caddyhttp.MiddlewareHandler{caddyauth.Authentication{}}}}},
	}})
	app := &caddyhttp.App{Servers: map[string]*caddyhttp.Server{
		"open":        {Listen: []string{"127.0.0.1:80", ":80"}, Routes: routes(handlerName)},
		"local":       {Listen: []string{"127.0.0.1:80", "[::1]:80", "localhost:81"}, Routes: routes(handlerName)},
		"login":       {Listen: []string{":443"}, Routes: routes("authentication", handlerName)},
		"provisioned": {Listen: []string{":443"}, Routes: provisioned},
		"allowed":     {Listen: []string{":443"}, Routes: routes(handlerName + `", "allow_unauthenticated": true, "":"`)},
		"other":       {Listen: []string{":443"}, Routes: routes("file_server")},
	}}
	if got := withoutAuthentication(app); fmt.Sprint(got) != "[open]" {
		t.Errorf("%q", got)
	}
	app.Servers["local"].Routes[0].Handlers = []caddyhttp.MiddlewareHandler{new(Handler)}
	if got := withoutAuthentication(app); got != nil {
		t.Errorf("it is reported again: %q", got)
	}
}
