package control

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
)

// desk is a sandbox and its control API, without a network.
type desk struct {
	t     *testing.T
	ca    *hostile.CA
	api   *API
	clock *Clock
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	clock := new(Clock)
	ca, err := hostile.New(hostile.Config{Core: hostile.Core{
		Accounts: []hostile.Account{{Token: "t", Balance: 10_000}}, Now: clock.Now,
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ca.Close)
	return &desk{t: t, ca: ca, api: New(ca, clock, 1), clock: clock}
}

func (d *desk) call(method, path, body string) (int, string) {
	rec := httptest.NewRecorder()
	d.api.ServeHTTP(rec, httptest.NewRequest(method, path, strings.NewReader(body)))
	return rec.Code, strings.TrimSpace(rec.Body.String())
}

func (d *desk) want(method, path, body string, status int, part string) {
	d.t.Helper()
	if code, text := d.call(method, path, body); code != status || !strings.Contains(text, part) {
		d.t.Errorf("%s %s %s: %d %s, want %d with %s", method, path, body, code, text, status, part)
	}
}

// order makes an order in the console of HowSSL, and pays for it.
func (d *desk) order() string {
	d.t.Helper()
	checkID, err := d.ca.CreateAtHowSSL("t", "comodo-positivessl", 1, "a.example.com")
	if err != nil {
		d.t.Fatal(err)
	}
	body := strings.NewReader("token=t&check_id=" + checkID)
	req := httptest.NewRequest(http.MethodPost, "http://sandbox/Home/Order/commitOrder", body)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := d.ca.Transport().RoundTrip(req)
	if err != nil || resp.StatusCode != 200 {
		d.t.Fatal(resp, err)
	}
	orders := d.ca.Orders()
	return orders[len(orders)-1].ID
}

func TestOrders(t *testing.T) {
	d := newDesk(t)
	d.want("GET", "/orders", "", 200, "[]")
	d.want("GET", "/charges", "", 200, "[]")
	id := d.order()
	d.want("GET", "/orders", "", 200, `"status":"PENDING"`)
	d.want("GET", "/charges", "", 200, `"cents":550`)
	d.want("GET", "/fetches", "", 200, `"host":"a.example.com"`)
	d.want("GET", "/calls", "", 200, `{"Order/commitOrder":1}`)
	path := "/orders/" + id
	d.want("POST", path+"/revoke-certificate", "", 400, "has no certificate")
	d.want("POST", path+"/approve", `{"name":"b.example.com"}`, 400, "has no name")
	d.want("POST", path+"/approve", `{"name":"a.example.com"}`, 200, "ok")
	d.want("GET", "/orders", "", 200, `"status":"COMPLETE"`)
	d.want("POST", path+"/revoke-certificate", "", 200, "ok")
	d.want("GET", "/orders", "", 200, `"revoked":true`)
	d.want("POST", "/revoke-all", "", 200, `{"revoked":0}`)
	d.want("POST", path+"/status", `{"status":"CANCELLED"}`, 200, "ok")
	d.want("GET", "/orders", "", 200, `"status":"CANCELLED"`)
	d.want("POST", path+"/status", `{}`, 400, "status is missing")
	d.want("POST", path+"/status", `{"state":"x"}`, 400, "unknown field")
	for _, call := range []string{"status", "approve", "revoke-certificate", "end"} {
		d.want("POST", "/orders/none/"+call, `{}`, 404, `order \"none\"`)
	}
	second := d.order()
	d.want("POST", "/orders/"+second+"/approve", `{"name":"a.example.com"}`, 200, "ok")
	d.want("POST", "/revoke-all", "", 200, `{"revoked":1}`)
	d.want("POST", "/orders/"+second+"/end", `{"status":"COMPLETE"}`, 400, "an order ends as CANCELLED or REVOKED")
	d.want("POST", "/orders/"+second+"/end", `{"status":"REVOKED"}`, 200, "ok")
	d.want("GET", "/orders", "", 200, `"status":"REVOKED"`)
	d.want("POST", "/end-all", `{"status":"REVOKED"}`, 200, `{"ended":0}`)
	third := d.order()
	d.want("POST", "/end-all", `{"status":"CANCELLED"}`, 200, `{"ended":1}`)
	if o, _ := d.ca.Order(third); o.Status != "CANCELLED" || !o.Refunded {
		t.Errorf("%+v", o)
	}
	d.want("POST", "/balance", `{"token":"t","cents":5}`, 200, "ok")
	d.want("POST", "/balance", `{"token":"nobody","cents":5}`, 400, "no such account")
	if got := d.ca.Balance("t"); got != 5 {
		t.Errorf("balance %d", got)
	}
}

func TestClock(t *testing.T) {
	d := newDesk(t)
	id := d.order()
	d.want("POST", "/orders/"+id+"/approve", `{"name":"a.example.com"}`, 200, "ok")
	d.want("POST", "/clock", `{"advance":"8760h"}`, 200, "now")
	if ahead := time.Until(d.clock.Now()); ahead < 8759*time.Hour || ahead > 8760*time.Hour {
		t.Errorf("%s ahead", ahead)
	}
	next := d.order()
	if o, _ := d.ca.Order(next); time.Until(o.Created) < 8759*time.Hour {
		t.Errorf("ordered at %s", o.Created)
	}
	d.want("POST", "/clock", `{"advance":"soon"}`, 400, "soon")
	d.want("POST", "/clock", `{"advance":5}`, 400, "error")
	d.want("GET", "/clock", "", 200, "now")
}

func TestFaults(t *testing.T) {
	d := newDesk(t)
	d.want("GET", "/faults", "", 200, "[]")
	d.want("POST", "/faults", `{"endpoint":"User/AccountInfo","kind":"status","status":418,"times":1}`, 200, `{"id":1}`)
	d.want("POST", "/faults", `{"kind":"delay","delay":"1m","when":"after","skip":100}`, 200, `{"id":2}`)
	d.want("GET", "/faults", "", 200, `{"id":2,"when":"after","kind":"delay","delay":"1m0s","skip":100}`)
	ask := func() int {
		t.Helper()
		resp, err := d.ca.Transport().RoundTrip(httptest.NewRequest(http.MethodPost, "http://sandbox/Home/User/AccountInfo", nil))
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	if first, second := ask(), ask(); first != 418 || second != 200 {
		t.Errorf("statuses %d and %d", first, second)
	}
	d.want("DELETE", "/faults/1", "", 200, "ok")
	d.want("DELETE", "/faults/1", "", 404, "fault 1")
	d.want("DELETE", "/faults/x", "", 404, "fault")
	d.want("DELETE", "/faults", "", 200, "ok")
	d.want("GET", "/faults", "", 200, "[]")
	for body, part := range map[string]string{
		`{"kind":"earthquake"}`:               `kind \"earthquake\" is not one of api, bad-json`,
		`{"kind":"html","when":"never"}`:      "neither before nor after",
		`{"kind":"status","status":9}`:        "not an HTTP status",
		`{"kind":"html","surprise":1}`:        "unknown field",
		`{"kind":"delay","delay":"a moment"}`: "invalid duration",
		`[]`:                                  "reading the body",
	} {
		d.want("POST", "/faults", body, 400, part)
	}
	d.want("POST", "/hostility", `{"hostile":true,"seed":3}`, 200, "ok")
	d.want("POST", "/hostility", `{"hostile":true}`, 200, "ok")
	d.want("POST", "/hostility", `{"hostile":false}`, 200, "ok")
	d.want("POST", "/limit", `{"calls":1,"per":"1h"}`, 200, "ok")
	if first, second := ask(), ask(); first != 200 || second != 429 {
		t.Errorf("statuses %d and %d", first, second)
	}
	d.want("POST", "/limit", `{"calls":0}`, 200, "ok")
	if got := ask(); got != 200 {
		t.Errorf("status %d", got)
	}
	d.want("POST", "/limit", `{"calls":1}`, 400, "per must be")
	d.want("GET", "/nothing", "", 404, "")
	d.want("PUT", "/faults", "", 405, "")
}

func TestQuirks(t *testing.T) {
	d := newDesk(t)
	d.want("PATCH", "/quirks", `{"BareNoMoney":true,"HowSSL":{"RefusalCode":7}}`, 200, `"BareNoMoney":true`)
	d.want("PATCH", "/quirks", `{"HowSSL":{"StatusAsText":true}}`, 200, `"RefusalCode":7`)
	if q := d.ca.Quirks(); !q.BareNoMoney || q.HowSSL.RefusalCode != 7 || !q.HowSSL.StatusAsText {
		t.Errorf("quirks %+v", q)
	}
	d.want("PATCH", "/quirks", `{"NoSuchQuirk":true}`, 400, "unknown field")
	d.want("GET", "/quirks", "", 200, `"RefusalCode":7`)
}
