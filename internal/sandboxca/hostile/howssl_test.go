package hostile

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/csrtest"
)

// howsslReply is an answer of the HowSSL dialect.
type howsslReply struct {
	Status any             `json:"status"`
	Code   *int            `json:"code"`
	Data   json.RawMessage `json:"data"`
	raw    string
}

func (r howsslReply) field(name string) string {
	var fields map[string]any
	_ = json.Unmarshal(r.Data, &fields)
	s, _ := fields[name].(string)
	return s
}

// howssl makes one call with an urlencoded form.
func (b *bench) howssl(endpoint string, form map[string]string) howsslReply {
	b.t.Helper()
	values := url.Values{"token": {testToken}}
	for k, v := range form {
		values.Set(k, v)
	}
	return b.howsslBody(endpoint, "application/x-www-form-urlencoded", []byte(values.Encode()))
}

func (b *bench) howsslBody(endpoint, contentType string, body []byte) howsslReply {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, "http://sandbox/Home/"+endpoint, bytes.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := b.Transport().RoundTrip(req)
	if err != nil {
		b.t.Fatal(err)
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		b.t.Fatalf("%s: HTTP %d, %v: %s", endpoint, resp.StatusCode, err, raw)
	}
	r := howsslReply{raw: string(raw)}
	if err := json.Unmarshal(raw, &r); err != nil {
		b.t.Fatalf("%s: %v in %s", endpoint, err, raw)
	}
	return r
}

// good makes a call that must succeed, bad one that must be refused.
func (b *bench) good(endpoint string, form map[string]string) howsslReply {
	b.t.Helper()
	r := b.howssl(endpoint, form)
	if r.Status != true {
		b.t.Fatalf("%s: %s", endpoint, r.raw)
	}
	return r
}

func (b *bench) bad(endpoint string, form map[string]string, want string) {
	b.t.Helper()
	if r := b.howssl(endpoint, form); r.Status != false || r.Code != nil || !strings.Contains(r.raw, want) {
		b.t.Errorf("%s: %s, want %q", endpoint, r.raw, want)
	}
}

func howsslOrderForm(t *testing.T, name string) map[string]string {
	t.Helper()
	return map[string]string{
		"product_code": "comodo-positivessl", "validity_period": "12", "csr": csrtest.PEM(t, nil, name, name),
		"auto_info": "1", "domains": name, "check_way": "FILE",
	}
}

// committed creates and commits an order.
func (b *bench) committed(name string) (checkID, orderID string) {
	b.t.Helper()
	checkID = b.good("Order/createOrder", howsslOrderForm(b.t, name)).field("check_id")
	return checkID, b.good("Order/commitOrder", map[string]string{"check_id": checkID}).field("order_id")
}

// completed proves an order or its reissue, and makes the CA check it.
func (b *bench) completed(orderID string) {
	b.t.Helper()
	for _, o := range b.Orders() {
		b.site.publish(o, o.Names...)
	}
	b.clock.add(time.Second)
	b.good("Order/refreshOrder", map[string]string{"order_id": orderID})
}

func (b *bench) orderStatus(orderID string) string {
	b.t.Helper()
	var data struct {
		Status json.Number `json:"order_status"`
	}
	if err := json.Unmarshal(b.good("Order/getOrderInfo", map[string]string{"order_id": orderID}).Data, &data); err != nil {
		b.t.Fatal(err)
	}
	return data.Status.String()
}

func TestHowSSLLife(t *testing.T) {
	b := newBench(t, nil)
	checkID := b.good("Order/createOrder", howsslOrderForm(t, "a.example.com")).field("check_id")
	temporary := b.good("Order/fromCheck_idToOrder_id", map[string]string{"check_id": checkID}).field("order_id")
	if got := b.orderStatus(temporary); got != "0" || len(b.Charges()) != 0 {
		t.Fatalf("order_status %s, %d charges before the commit", got, len(b.Charges()))
	}
	r := b.good("Order/commitOrder", map[string]string{"check_id": checkID})
	id := r.field("order_id")
	if id == temporary || len(b.Charges()) != 1 || b.Balance(testToken) != 100_000-550 || b.Charges()[0].Reference != checkID {
		t.Fatalf("%s, charges %+v", r.raw, b.Charges())
	}
	o := b.info(id)
	var data struct {
		ValidInfo map[string]string `json:"valid_info"`
	}
	if err := json.Unmarshal(r.Data, &data); err != nil {
		t.Fatal(err)
	}
	v := data.ValidInfo
	if v["DCVfileName"] != o.FileName || v["DCVfileContent"] != o.FileContent || v["DCVdnsType"] != "CNAME" ||
		v["DCVdnsHost"] != "_"+strings.ToLower(strings.TrimSuffix(o.FileName, ".txt")) || len(v) != 5 {
		t.Errorf("valid_info %v", v)
	}
	b.bad("Order/getOrderInfo", map[string]string{"order_id": temporary}, "order_id does not exist")
	if got := b.orderStatus(id); got != "11" {
		t.Errorf("order_status %s after the commit", got)
	}
	b.bad("Order/getCertificate", map[string]string{"order_id": id}, "not completed")
	b.bad("Reissue/submit", map[string]string{"order_id": id, "reissue_type": "1", "csr_type": "2"}, "not completed")

	// Only refreshOrder checks.
	b.site.publish(o, o.Names...)
	b.clock.add(time.Hour)
	if got := b.orderStatus(id); got != "11" {
		t.Errorf("order_status %s without a refresh", got)
	}
	b.completed(id)
	if got := b.orderStatus(id); got != "3" {
		t.Fatalf("order_status %s, fetches %+v", got, b.Fetches())
	}
	b.bad("Order/getValidity_info", map[string]string{"order_id": id}, "not under review")
	b.bad("Order/cancelOrder", map[string]string{"order_id": id}, "cannot be cancelled")
	var cert struct {
		Certificate map[string]string `json:"certificate"`
	}
	if err := json.Unmarshal(b.good("Order/getCertificate", map[string]string{"order_id": id}).Data, &cert); err != nil {
		t.Fatal(err)
	}
	if leaf := parseCert(t, cert.Certificate["cert"]); leaf.VerifyHostname("a.example.com") != nil || cert.Certificate["private_key"] != "" {
		t.Errorf("names %v, key %q", leaf.DNSNames, cert.Certificate["private_key"])
	}
	b.clock.add(366 * 24 * time.Hour)
	if got := b.orderStatus(id); got != "9" {
		t.Errorf("order_status %s after the term", got)
	}
}

func TestHowSSLSecondCommit(t *testing.T) {
	for refuse, want := range map[bool]int{false: 2, true: 1} {
		b := newBench(t, func(cfg *Config) { cfg.Quirks.HowSSL.RefuseSecondCommit = refuse })
		checkID, id := b.committed("a.example.com")
		r := b.howssl("Order/commitOrder", map[string]string{"check_id": checkID})
		if r.Status != !refuse || len(b.Charges()) != want || b.Balance(testToken) != 100_000-int64(want)*550 {
			t.Errorf("refuse %v: %s, charges %+v", refuse, r.raw, b.Charges())
		}
		if len(b.Orders()) != 1 || !refuse && r.field("order_id") != id {
			t.Errorf("refuse %v: orders %+v", refuse, b.Orders())
		}
	}
}

func TestHowSSLWithoutMoney(t *testing.T) {
	b := newBench(t, nil)
	if err := b.SetBalance(testToken, 549); err != nil {
		t.Fatal(err)
	}
	checkID := b.good("Order/createOrder", howsslOrderForm(t, "a.example.com")).field("check_id")
	b.bad("Order/commitOrder", map[string]string{"check_id": checkID}, "insufficient balance")
	if r := b.good("User/AccountInfo", nil); r.field("user_amount") != "5.49" || len(b.Charges()) != 0 {
		t.Errorf("%s, charges %+v", r.raw, b.Charges())
	}
	if err := b.SetBalance(testToken, 550); err != nil {
		t.Fatal(err)
	}
	b.good("Order/commitOrder", map[string]string{"check_id": checkID})
	if len(b.Charges()) != 1 {
		t.Errorf("charges %+v", b.Charges())
	}
}

func TestHowSSLReissue(t *testing.T) {
	b := newBench(t, nil)
	_, id := b.committed("a.example.com")
	b.completed(id)
	csr := csrtest.PEM(t, nil, "a.example.com", "a.example.com")
	form := map[string]string{"order_id": id, "reissue_type": "1", "csr_type": "2", "csr_content": csr, "check_type": "2"}
	for field, value := range map[string]string{
		"reissue_type": "2", "csr_type": "1", "check_type": "3", "csr_content": csrtest.PEM(t, nil, "b.example.com", "b.example.com"), "add_domain": "[b]",
	} {
		wrong := map[string]string{field: value}
		for k, v := range form {
			if k != field {
				wrong[k] = v
			}
		}
		if r := b.howssl("Reissue/submit", wrong); r.Status != false || strings.Contains(r.raw, "reissue_id") {
			t.Errorf("%s %q: %s", field, value, r.raw)
		}
	}
	r := b.howssl("Reissue/submit", form)
	if r.Status != false || r.field("reissue_id") == "" || r.Code != nil {
		t.Fatalf("not as printed: %s", r.raw)
	}
	list := b.good("Reissue/orderReissue", map[string]string{"order_id": id})
	if !strings.Contains(list.raw, `"status_code":1`) || !strings.Contains(list.raw, `"validity_record":null`) || list.Code != nil {
		t.Errorf("list %s", list.raw)
	}
	b.bad("Reissue/submit", form, "a reissue is in progress")
	if got := b.orderStatus(id); got != "3" {
		t.Errorf("order_status %s during the reissue", got)
	}
	before := b.good("Order/getCertificate", map[string]string{"order_id": id}).raw
	b.completed(id)
	if info := b.good("Reissue/info", map[string]string{"reissue_id": r.field("reissue_id")}); !strings.Contains(info.raw, `"status_code":2`) {
		t.Errorf("info %s", info.raw)
	}
	if after := b.good("Order/getCertificate", map[string]string{"order_id": id}).raw; after == before {
		t.Error("the certificate is the old one")
	}
	if len(b.Charges()) != 1 {
		t.Errorf("charges %+v", b.Charges())
	}
}

func TestHowSSLRules(t *testing.T) {
	with := func(name, field, value string) map[string]string {
		form := howsslOrderForm(t, name)
		form[field] = value
		if value == "" {
			delete(form, field)
		}
		return form
	}
	b := newBench(t, nil)
	const name = "a.example.com"
	for want, form := range map[string]map[string]string{
		"product_code is required":       with(name, "product_code", ""),
		"product_code does not exist":    with(name, "product_code", "x"),
		"validity_period is required":    with(name, "validity_period", ""),
		"validity_period is not sold":    with(name, "validity_period", "1"),
		"auto_info is required":          with(name, "auto_info", ""),
		"auto_info must be 0 or 1":       with(name, "auto_info", "2"),
		"auto_info must be 0":            with(name, "product_code", "sectigo-ov"),
		"contacter_job is required":      with(name, "auto_info", "0"),
		"domains is required":            with(name, "domains", ""),
		"not a valid name (a..b)":        with(name, "domains", "a..b"),
		"not a valid name (a.b,c.d)":     with(name, "domains", "a.b,c.d"),
		"check_way is required":          with(name, "check_way", ""),
		"check_way is not a known":       with(name, "check_way", "HTTP"),
		"dcvEmail is required":           with(name, "check_way", "EMAIL"),
		"csr is not PEM":                 with(name, "csr", "x"),
		"common name of the csr":         with(name, "csr", csrtest.PEM(t, nil, "b.example.com", "b.example.com")),
		"domain is not a known field":    with(name, "domain", name),
		"api_token is not a known field": with(name, "api_token", testToken),
	} {
		b.bad("Order/createOrder", form, want)
	}
	b.bad("Order/commitOrder", map[string]string{"check_id": "x"}, "check_id does not exist")
	b.bad("Order/fromCheck_idToOrder_id", map[string]string{"check_id": "x"}, "check_id does not exist")
	b.bad("Order/commitOrder", map[string]string{"order_id": "x"}, "check_id is required; order_id is not a known field")
	for _, endpoint := range []string{"getOrderInfo", "getCertificate", "getValidity_info", "refreshOrder", "cancelOrder"} {
		b.bad("Order/"+endpoint, map[string]string{"order_id": "x"}, "order_id does not exist")
	}
	b.bad("Reissue/info", map[string]string{"reissue_id": "x"}, "reissue_id does not exist")
	b.bad("Product_info/lists", map[string]string{"page": "0"}, "must be positive")
	if len(b.Orders())+len(b.Charges()) != 0 {
		t.Errorf("orders %+v, charges %+v", b.Orders(), b.Charges())
	}
	b.good("Order/createOrder", with(name, "csr", "")) // documented to be optional
}

func TestHowSSLEnvelope(t *testing.T) {
	b := newBench(t, nil)
	if r := b.howssl("User/AccountInfo", map[string]string{"token": "x"}); r.Status != "false" || r.Code == nil || *r.Code != 501 {
		t.Errorf("bad token: %s", r.raw)
	}
	kind, body := multipartBody(t, map[string]string{"token": testToken})
	if r := b.howsslBody("User/AccountInfo", kind, body); r.Status != true || r.Code == nil || *r.Code != 200 {
		t.Errorf("multipart: %s", r.raw)
	}
	if r := b.howsslBody("User/AccountInfo", "application/json", []byte(`{}`)); r.Status != false {
		t.Errorf("JSON: %s", r.raw)
	}
	checkID, _ := b.committed("a.example.com")
	if r := b.good("Order/fromCheck_idToOrder_id", map[string]string{"check_id": checkID}); r.Code != nil {
		t.Errorf("has a code: %s", r.raw)
	}
	for _, path := range []string{"Order/commitorder", "ProductInfo/lists", "Order/revoke"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://sandbox/Home/"+path, strings.NewReader(""))
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := b.Transport().RoundTrip(req); err != nil || resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %v, %v", path, resp, err)
		}
	}
}

func TestHowSSLChangesOfProof(t *testing.T) {
	b := newBench(t, nil)
	_, id := b.committed("a.example.com")
	b.bad("Order/updateDCV", map[string]string{"order_id": id, "check_way": "DNS", "domain": "b.example.com"}, "not part of the order")
	b.bad("Order/batchUpdateDCV", map[string]string{"order_id": id, "check_way": "HTTP"}, "not a known method")
	if r := b.good("Order/batchUpdateDCV", map[string]string{"order_id": id, "check_way": "DNS"}); r.Data != nil {
		t.Errorf("has data: %s", r.raw)
	}
	if got := b.info(id).Methods[0]; got != "cname" {
		t.Errorf("method %s", got)
	}
	b.good("Order/updateDCV", map[string]string{"order_id": id, "check_way": "EMAIL", "domain": "a.example.com", "email_suffix": "admin"})
	if r := b.good("Order/getValidity_info", map[string]string{"order_id": id}); r.field("valid_info") != "Access email verification to verify email!" {
		t.Errorf("answer %s", r.raw)
	}
	if err := b.Approve(id, "a.example.com"); err != nil {
		t.Fatal(err)
	}
	b.bad("Order/batchUpdateDCV", map[string]string{"order_id": id, "check_way": "DNS"}, "not under review")
	_, other := b.committed("c.example.com")
	b.good("Order/cancelOrder", map[string]string{"order_id": other})
	if got := b.orderStatus(other); got != "5" || !b.info(other).Refunded {
		t.Errorf("order_status %s", got)
	}
}

func TestHowSSLQuirks(t *testing.T) {
	for name, tt := range map[string]struct {
		quirks HowSSLQuirks
		call   func(b *bench, checkID, orderID string) howsslReply
		want   string
	}{
		"commit without id": {HowSSLQuirks{CommitWithoutID: true}, nil, `"data":{"valid_info":{`},
		"no valid_info":     {HowSSLQuirks{CommitValidInfo: "absent", CommitWithoutID: true}, nil, `"data":{}`},
		"null valid_info":   {HowSSLQuirks{CommitValidInfo: "null"}, nil, `"valid_info":null`},
		"text valid_info":   {HowSSLQuirks{CommitValidInfo: "string"}, nil, `"valid_info":"Access`},
		"escaped":           {HowSSLQuirks{EscapedContent: true}, nil, `\\nsectigo.com"`},
		"hostile":           {HowSSLQuirks{HostileFileName: true}, nil, `"DCVfileName":"../../`},
		"random":            {HowSSLQuirks{RandomProof: true}, nil, `"DCVdnsType":"TXT"`},
		"refused":           {HowSSLQuirks{CommitRefusedAfterCharge: true, RefusalCode: 7}, nil, `"code":7`},
		"status": {HowSSLQuirks{OrderStatus: "2"}, func(b *bench, _, id string) howsslReply {
			return b.howssl("Order/getOrderInfo", map[string]string{"order_id": id})
		}, `"order_status":2`},
		"text status": {HowSSLQuirks{StatusAsText: true}, func(b *bench, _, id string) howsslReply {
			return b.howssl("Order/getOrderInfo", map[string]string{"order_id": id})
		}, `"order_status":"11"`},
		"english": {HowSSLQuirks{EnglishProducts: true}, func(b *bench, _, _ string) howsslReply {
			return b.howssl("ProductInfo/lists", map[string]string{"size": "1", "page": "2"})
		}, `"prices_info":"[{`},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, func(cfg *Config) { cfg.Quirks.HowSSL = tt.quirks })
			checkID := b.good("Order/createOrder", howsslOrderForm(t, "a.example.com")).field("check_id")
			r := b.howssl("Order/commitOrder", map[string]string{"check_id": checkID})
			if len(b.Charges()) != 1 {
				t.Errorf("charges %+v", b.Charges())
			}
			if tt.call != nil {
				r = tt.call(b, checkID, b.Orders()[0].ID)
			}
			if !strings.Contains(r.raw, tt.want) {
				t.Errorf("answer %s, want %s", r.raw, tt.want)
			}
		})
	}
}

// TestHowSSLQueueAndRestart: a queued commit is charged when it is due, and only once.
func TestHowSSLQueueAndRestart(t *testing.T) {
	dir := t.TempDir()
	change := func(cfg *Config) { cfg.Dir, cfg.Quirks.HowSSL.CommitQueue = dir, time.Hour }
	b := newBench(t, change)
	checkID := b.good("Order/createOrder", howsslOrderForm(t, "a.example.com")).field("check_id")
	if r := b.good("Order/commitOrder", map[string]string{"check_id": checkID}); r.Data != nil {
		t.Errorf("has data: %s", r.raw)
	}
	b.Close()

	again := newBench(t, change)
	again.clock.add(59 * time.Minute)
	temporary := again.good("Order/fromCheck_idToOrder_id", map[string]string{"check_id": checkID}).field("order_id")
	if got := again.orderStatus(temporary); got != "0" || len(again.Charges()) != 0 {
		t.Fatalf("order_status %s, charges %+v", got, again.Charges())
	}
	again.clock.add(time.Minute)
	for range 3 {
		id := again.good("Order/fromCheck_idToOrder_id", map[string]string{"check_id": checkID}).field("order_id")
		if got := again.orderStatus(id); got != "11" || id == temporary || len(again.Charges()) != 1 {
			t.Fatalf("order_status %s, charges %+v", got, again.Charges())
		}
	}
}

// TestHowSSLOrdersOfOthers: no account can see the orders of another.
func TestHowSSLOrdersOfOthers(t *testing.T) {
	b := newBench(t, func(cfg *Config) { cfg.Accounts = append(cfg.Accounts, Account{Token: "other", Balance: 10}) })
	checkID, id := b.committed("a.example.com")
	b.bad("Order/getOrderInfo", map[string]string{"token": "other", "order_id": id}, "does not exist")
	b.bad("Order/commitOrder", map[string]string{"token": "other", "check_id": checkID}, "does not exist")
	if _, err := b.CreateAtHowSSL(testToken, "no-such-product", 1, "a.example.com"); err == nil {
		t.Error("created an order for an unknown product")
	}
}
