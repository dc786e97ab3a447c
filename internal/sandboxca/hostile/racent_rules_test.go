package hostile

import (
	"bytes"
	"maps"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/csrtest"
)

// TestPlaceRefuses breaks the rules for new orders, one at a time.
func TestPlaceRefuses(t *testing.T) {
	type change struct {
		form   func(map[string]string)
		params func(map[string]any)
		names  []string
		code   int
		want   string // in the answer
	}
	param := func(key string, value any) func(map[string]any) {
		return func(p map[string]any) {
			if value == nil {
				delete(p, key)
				return
			}
			p[key] = value
		}
	}
	field := func(key, value string) func(map[string]string) {
		return func(f map[string]string) { f[key] = value }
	}
	admin := func(key string, value any) func(map[string]any) {
		return func(p map[string]any) { param(key, value)(p["Administrator"].(map[string]any)) }
	}
	domain := func(key string, value any) func(map[string]any) {
		return func(p map[string]any) { param(key, value)(p["domainInfo"].([]any)[0].(map[string]any)) }
	}
	tests := map[string]change{
		"unknown product":          {form: field("productCode", "sectigo-positivessl"), code: -3},
		"term without price":       {form: field("years", "5"), code: -3},
		"no years":                 {form: field("years", ""), code: -1, want: "years is required"},
		"too many years":           {form: field("years", "6"), code: -1, want: "years"},
		"zero years":               {form: field("years", "0"), code: -1, want: "years"},
		"years as text":            {form: field("years", "one"), code: -1, want: "years"},
		"unknown form field":       {form: field("refid", "x"), code: -1, want: `"refid"`},
		"params not JSON":          {form: field("params", "{"), code: -1, want: "params"},
		"unknown param":            {params: param("organation", "x"), code: -1, want: `"organation"`},
		"private key":              {params: param("privateKey", "x"), code: -1, want: "privateKey must never be sent"},
		"no server":                {params: param("server", nil), code: -1, want: "server is required"},
		"server in capitals":       {params: param("server", "NGINX"), code: -1, want: "server is not one"},
		"caddy as server":          {params: param("server", "caddy"), code: -1, want: "server is not one"},
		"no csr":                   {params: param("csr", nil), code: -1, want: `"csr":["csr is required"]`},
		"bad csr":                  {params: param("csr", "x"), code: -1, want: `"csr":`},
		"csr without cn":           {params: param("csr", csrtest.PEM(t, nil, "", "a.example.com")), code: -1, want: "no common name"},
		"csr for another name":     {params: param("csr", csrtest.PEM(t, nil, "b.example.com")), code: -1, want: "is not the first domain"},
		"csr with another san":     {params: param("csr", csrtest.PEM(t, nil, "a.example.com", "b.example.com")), code: -1, want: "not ordered"},
		"long unique value":        {params: param("uniqueValue", strings.Repeat("a", 21)), code: -1, want: "uniqueValue"},
		"unique value with dash":   {params: param("uniqueValue", "a-b"), code: -1, want: "uniqueValue"},
		"empty unique value":       {params: param("uniqueValue", ""), code: -1, want: "uniqueValue"},
		"bonus of 2":               {params: param("originalfromOthers", 2), code: -1, want: "originalfromOthers"},
		"no Administrator":         {params: param("Administrator", nil), code: -1, want: "Administrator is required"},
		"small administrator":      {params: param("administrator", contact()), code: -1, want: `"administrator"`},
		"organization only":        {params: admin("organation", nil), code: -1, want: "The administrator's organation is required"},
		"no phone":                 {params: admin("mobile", nil), code: -1, want: "Administrator.mobile"},
		"blank job":                {params: admin("job", " "), code: -1, want: "Administrator.job"},
		"unknown contact field":    {params: admin("phone", "1"), code: -1, want: "Administrator.phone"},
		"country name":             {params: admin("country", "Britain"), code: -1, want: "two-letter"},
		"bad email":                {params: admin("email", "ada"), code: -1, want: "email"},
		"number in contact":        {params: admin("postCode", 1234), code: -1, want: "postCode must be a string"},
		"no domainInfo":            {params: param("domainInfo", nil), code: -1, want: "domainInfo is required"},
		"domainInfo as text":       {params: param("domainInfo", "[]"), code: -1, want: "domainInfo must be an array"},
		"no domains":               {params: param("domainInfo", []any{}), code: -1, want: "1 domains, not 0"},
		"unknown domain field":     {params: domain("method", "x"), code: -1, want: "domainInfo.0.method"},
		"no method":                {params: domain("dcvMethod", nil), code: -1, want: "dcvMethod is required"},
		"unknown method":           {params: domain("dcvMethod", "http"), code: -1, want: "dcvMethod is not"},
		"unknown outer method":     {params: param("dcvMethod", "http"), code: -1, want: "dcvMethod is not"},
		"email without mailbox":    {params: domain("dcvMethod", "EMAIL"), code: -1, want: "dcvEmail"},
		"two names, one product":   {names: []string{"a.example.com", "b.example.com"}, code: -1, want: "1 domains, not 2"},
		"same name twice":          {form: field("productCode", "comodo-positive-multi-domain"), names: []string{"a.example.com", "A.example.com"}, code: -1, want: "twice"},
		"wildcard, plain product":  {names: []string{"*.example.com"}, code: -1, want: "The product does not support wildcard type(*.example.com)"},
		"plain, wildcard product":  {form: field("productCode", "comodo-positivessl-wildcard"), code: -1, want: "The product does not support normal type(a.example.com)"},
		"wildcard by file":         {form: field("productCode", "comodo-positivessl-wildcard"), names: []string{"*.example.com"}, code: -1, want: "cannot be validated by file"},
		"ip, wrong product":        {form: field("productCode", "comodo-ssl"), names: []string{"127.0.0.1"}, code: -1, want: "The product does not support ip type(127.0.0.1)"},
		"ip by dns":                {names: []string{"127.0.0.1"}, params: param("dcvMethod", "CNAME_CSR_HASH"), code: -1, want: "only be validated by file"},
		"invalid name":             {names: []string{"a_b.example.com"}, code: -1, want: "not a valid name"},
		"one label":                {names: []string{"localhost"}, code: -1, want: "not a valid name"},
		"ov without contacts":      {form: field("productCode", "sectigo-ov"), params: param("organizationInfo", organisation()), code: -1, want: "finance is required"},
		"ov without organisation":  {form: field("productCode", "sectigo-ov"), params: func(p map[string]any) { p["finance"], p["tech"] = contact(), contact() }, code: -1, want: "organizationInfo is required"},
		"empty organisation, ov":   {form: field("productCode", "sectigo-ov"), params: param("organizationInfo", map[string]any{}), code: -1, want: "organizationInfo is required"},
		"half an organisation":     {params: param("organizationInfo", map[string]any{"organizationName": "x"}), code: -1, want: "organizationMobile is required"},
		"organisation phone":       {params: func(p map[string]any) { o := organisation(); o["organizationPhone"] = "1"; p["organizationInfo"] = o }, code: -1, want: "organizationInfo.organizationPhone"},
		"unknown paper":            {params: admin("idType", "TYDMZ"), code: -1, want: "Administrator.idType"},
		"paper without a number":   {params: admin("idType", "SFZ"), code: -1, want: "Administrator.idNumber"},
		"organisation of a person": {params: func(p map[string]any) { o := organisation(); o["idType"] = "SFZ"; p["organizationInfo"] = o }, code: -1, want: "organizationInfo.idType"},
		"blank organisation part":  {params: func(p map[string]any) { o := organisation(); o["organizationState"] = ""; p["organizationInfo"] = o }, code: -1, want: "must not be empty"},
	}
	b := newBench(t, nil)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b.t = t
			names := tt.names
			if names == nil {
				names = []string{"a.example.com"}
			}
			params := orderParamsFor(t, names...)
			if tt.params != nil {
				tt.params(params)
			}
			form := map[string]string{"productCode": "comodo-positivessl", "years": "1", "params": asJSON(t, params)}
			if tt.form != nil {
				tt.form(form)
			}
			for _, endpoint := range []string{"place", "validate"} {
				r := b.want(b.call(endpoint, form), tt.code)
				if !strings.Contains(r.raw, tt.want) {
					t.Errorf("%s answers %s, want %q in it", endpoint, r.raw, tt.want)
				}
			}
		})
	}
	if n := len(b.Orders()); n != 0 {
		t.Errorf("%d orders were made", n)
	}
	if n := len(b.Charges()); n != 0 {
		t.Errorf("%d charges were made", n)
	}
}

func TestPlaceAccepts(t *testing.T) {
	tests := map[string]struct {
		product string
		names   []string
		params  func(map[string]any)
	}{
		"single":     {"comodo-positivessl", []string{"a.example.com"}, nil},
		"ip":         {"comodo-positivessl", []string{"127.0.0.1"}, nil},
		"ipv6":       {"comodo-positivessl", []string{"::1"}, nil},
		"wildcard":   {"comodo-positivessl-wildcard", []string{"*.example.com"}, func(p map[string]any) { p["dcvMethod"] = "CNAME_CSR_HASH" }},
		"multi":      {"comodo-positive-multi-domain", []string{"a.example.com", "b.example.com"}, nil},
		"no unique":  {"comodo-positivessl", []string{"a.example.com"}, func(p map[string]any) { delete(p, "uniqueValue") }},
		"organation": {"comodo-positivessl", []string{"a.example.com"}, func(p map[string]any) { delete(p["Administrator"].(map[string]any), "organization") }},
		"bonus":      {"comodo-positivessl", []string{"a.example.com"}, func(p map[string]any) { p["originalfromOthers"] = "1" }},
		"email": {"comodo-positivessl", []string{"a.example.com"}, func(p map[string]any) {
			p["domainInfo"] = []any{map[string]any{"domainName": "a.example.com", "dcvMethod": "EMAIL", "dcvEmail": "admin@example.com"}}
		}},
		"papers": {"comodo-positivessl", []string{"a.example.com"}, func(p map[string]any) {
			a, o := contact(), organisation()
			a["idType"], a["idNumber"], o["idType"], o["organizationRegNumber"] = "HZ", "1", "TYDMZ", "9131"
			p["Administrator"], p["organizationInfo"] = a, o
		}},
		"outer method": {"comodo-positivessl", []string{"a.example.com"}, func(p map[string]any) { p["dcvMethod"] = "CNAME_CSR_HASH" }},
		"ov": {"sectigo-ov", []string{"a.example.com"}, func(p map[string]any) {
			p["finance"], p["tech"], p["organizationInfo"] = contact(), contact(), organisation()
		}},
		"capital domain": {"comodo-positivessl", []string{"A.Example.com"}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, nil)
			params := orderParamsFor(t, tt.names...)
			if tt.params != nil {
				tt.params(params)
			}
			form := map[string]string{"productCode": tt.product, "years": "1", "params": asJSON(t, params)}
			b.want(b.call("validate", form), 1)
			if len(b.Charges()) != 0 || len(b.Orders()) != 0 {
				t.Fatal("validate had an effect")
			}
			b.want(b.call("place", form), 1)
			if len(b.Charges()) != 1 || len(b.Orders()) != 1 {
				t.Errorf("%d charges and %d orders", len(b.Charges()), len(b.Orders()))
			}
		})
	}
}

func TestAuthenticationAndForms(t *testing.T) {
	b := newBench(t, func(cfg *Config) {
		cfg.Accounts = append(cfg.Accounts, Account{Token: "elsewhere", AllowedIPs: []string{"192.0.2.0/24"}},
			Account{Token: "here", AllowedIPs: []string{"127.0.0.1"}})
	})
	post := func(contentType, body, query string) *http.Request {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://sandbox/ssl/list"+query, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", contentType)
		return req
	}
	tests := map[string]struct {
		req  *http.Request
		code int
	}{
		"good":            {post("application/x-www-form-urlencoded", "api_token="+testToken, ""), 1},
		"good with ip":    {post("application/x-www-form-urlencoded", "api_token=here", ""), 1},
		"no token":        {post("application/x-www-form-urlencoded", "", ""), 400},
		"wrong token":     {post("application/x-www-form-urlencoded", "api_token=x", ""), 400},
		"token in query":  {post("application/x-www-form-urlencoded", "", "?api_token="+testToken), 400},
		"wrong ip":        {post("application/x-www-form-urlencoded", "api_token=elsewhere", ""), 400},
		"json":            {post("application/json", `{"api_token":"`+testToken+`"}`, ""), -1},
		"no content type": {post("", "api_token="+testToken, ""), -1},
		"broken form":     {post("application/x-www-form-urlencoded", "%zz", ""), -1},
		"broken multi":    {post("multipart/form-data; boundary=x", "nonsense", ""), -1},
		"twice":           {post("application/x-www-form-urlencoded", "api_token="+testToken+"&api_token=x", ""), -1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b.t = t
			b.want(b.do(tt.req), tt.code)
		})
	}
	for path, want := range map[string]int{"/ssl/List": 404, "/ssl/": 404, "/ssl/getCertByRefId": 404, "/ssl/batchupdateDCV": 404} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://sandbox"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := b.Transport().RoundTrip(req)
		if err != nil || resp.StatusCode != want {
			t.Errorf("%s: %v, %v", path, resp, err)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://sandbox/ssl/list", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := b.Transport().RoundTrip(req); err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %v, %v", resp, err)
	}
}

func TestAccountsAreSeparate(t *testing.T) {
	b := newBench(t, func(cfg *Config) { cfg.Accounts = append(cfg.Accounts, Account{Token: "other"}) })
	id := b.issued("comodo-positivessl", "ref", "a.example.com")
	asOther := func(endpoint string, form map[string]string) reply {
		form = maps.Clone(form)
		form["api_token"] = "other"
		return b.call(endpoint, form)
	}
	b.want(asOther("collect", map[string]string{"certId": id}), -1)
	b.want(asOther("cancel", map[string]string{"certId": id, "reason": "x"}), -1)
	b.want(asOther("reissue", map[string]string{"certId": id, "reason": "x"}), -1)
	b.want(asOther("certIdByrefId", map[string]string{"refId": "ref"}), -1)
	if r := b.want(asOther("list", map[string]string{}), 1); string(r.Data) != "[]" {
		t.Errorf("the other account sees %s", r.Data)
	}
	b.want(asOther("place", orderForm(t, "comodo-positivessl", "ref", "b.example.com")), -4)
}

func TestMoney(t *testing.T) {
	b := newBench(t, func(cfg *Config) { cfg.Accounts[0].Balance = 1_000 })
	first := orderForm(t, "comodo-positivessl", "r1", "a.example.com")
	id := b.want(b.call("place", first), 1).field("certId")
	if got := b.Balance(testToken); got != 450 {
		t.Errorf("balance %d", got)
	}
	want := Charge{OrderID: id, Reference: "r1", Product: "comodo-positivessl", Cents: 550, Kind: KindPlace}
	if got := b.Charges(); len(got) != 1 || got[0].OrderID != want.OrderID || got[0].Reference != want.Reference ||
		got[0].Product != want.Product || got[0].Cents != want.Cents || got[0].Kind != want.Kind || got[0].Names[0] != "a.example.com" {
		t.Errorf("charges %+v", got)
	}
	// The same reference again is the same order, also with another body.
	if again := b.want(b.call("place", first), 1).field("certId"); again != id {
		t.Errorf("got %s, want %s", again, id)
	}
	second := orderForm(t, "comodo-positivessl", "r2", "b.example.com")
	b.want(b.call("validate", second), -4)
	b.want(b.call("place", second), -4)
	if n := len(b.Orders()); n != 1 {
		t.Errorf("%d orders", n)
	}
	// The same CSR with the same unique value is refused before it is charged.
	if err := b.SetBalance(testToken, 5_000); err != nil {
		t.Fatal(err)
	}
	first["refId"] = "r3"
	b.want(b.call("place", first), -6)
	if got := b.Balance(testToken); got != 5_000 {
		t.Errorf("balance %d", got)
	}
	// A pending order is refunded when it is cancelled, once.
	cancel := map[string]string{"certId": id, "reason": "test"}
	b.want(b.call("cancel", cancel), 1)
	b.want(b.call("cancel", cancel), -8)
	if got := b.Balance(testToken); got != 5_550 {
		t.Errorf("balance %d", got)
	}
	if o := b.info(id); o.Status != StatusCancelled || !o.Refunded {
		t.Errorf("order %+v", o)
	}
	if n := len(b.Charges()); n != 1 {
		t.Errorf("%d charges", n)
	}
}

func TestReferences(t *testing.T) {
	b := newBench(t, nil)
	id := b.placed("comodo-positivessl", "ref", "a.example.com")
	if got := b.want(b.call("certIdByrefId", map[string]string{"refId": "ref"}), 1).field("certId"); got != id {
		t.Errorf("found %q, want %q", got, id)
	}
	b.want(b.call("certIdByrefId", map[string]string{"refId": "other"}), -1)

	again := func(q Quirks) reply {
		if err := b.Update(func(cfg *Config) { cfg.Quirks = q }); err != nil {
			t.Fatal(err)
		}
		return b.call("place", orderForm(t, "comodo-positivessl", "ref", "a.example.com"))
	}
	b.want(again(Quirks{StrictRefID: true}), -1)
	if got := b.want(again(Quirks{}), 1).field("certId"); got != id {
		t.Errorf("got %q, want %q", got, id)
	}
	if n := len(b.Charges()); n != 1 {
		t.Fatalf("%d charges", n)
	}
	second := b.want(again(Quirks{LooseRefID: true}), 1).field("certId")
	if second == id || len(b.Charges()) != 2 {
		t.Errorf("second order %q, %d charges", second, len(b.Charges()))
	}
	if got := b.want(b.call("certIdByrefId", map[string]string{"refId": "ref"}), 1).field("certId"); got != second {
		t.Errorf("found %q, want the newest %q", got, second)
	}
	if err := b.Update(func(cfg *Config) { cfg.Quirks = Quirks{HideRefs: true, EmptyUnknownRef: true} }); err != nil {
		t.Fatal(err)
	}
	if r := b.want(b.call("certIdByrefId", map[string]string{"refId": "ref"}), 1); string(r.Data) != "[]" {
		t.Errorf("data %s", r.Data)
	}
}

func TestReissueAndReplace(t *testing.T) {
	b := newBench(t, nil)
	pending := b.placed("comodo-positivessl", "", "p.example.com")
	b.want(b.call("reissue", map[string]string{"certId": pending, "reason": "x", "uniqueValue": "z"}), -7)
	b.want(b.call("revoke", map[string]string{"certId": pending, "reason": "x"}), -7)

	id := b.issued("comodo-positivessl", "first", "a.example.com")
	end := b.info(id).TermEnd
	b.clock.add(24 * time.Hour)
	b.want(b.call("reissue", map[string]string{"certId": id}), -1)
	b.want(b.call("reissue", map[string]string{"certId": id, "reason": "x", "csr": "y"}), -1)
	b.want(b.call("reissue", map[string]string{"certId": id, "reason": "x", "uniqueValue": "u1"}), -6)
	reissue := map[string]string{"certId": id, "reason": "x", "uniqueValue": "u2", "refId": "re"}
	re := b.want(b.call("reissue", reissue), 1).field("certId")
	if again := b.want(b.call("reissue", reissue), 1).field("certId"); again != re {
		t.Errorf("the repeated reissue is %s, want %s", again, re)
	}
	if old := b.info(id); old.Status != StatusReissued || old.ReplacedBy != re {
		t.Errorf("old order %+v", old)
	}
	if o := b.info(re); o.Status != StatusPending || o.CSRSHA256 != b.info(id).CSRSHA256 || o.FileContent == b.info(id).FileContent {
		t.Errorf("reissue %+v", o)
	}
	b.want(b.call("cancel", map[string]string{"certId": re, "reason": "x"}), -7)
	b.prove(re)

	replace := func(of string, params map[string]any) reply {
		return b.call("replace", map[string]string{"certId": of, "refId": "rp", "params": asJSON(t, params)})
	}
	good := func(cn string) map[string]any {
		return map[string]any{"csr": csrtest.PEM(t, nil, cn), "uniqueValue": "u3", "domainInfo": domains("HTTP_CSR_HASH", cn)}
	}
	b.want(replace(id, good("a.example.com")), -7) // it was reissued
	b.want(replace(re, good("b.example.com")), -1)
	withServer := good("a.example.com")
	withServer["server"] = "nginx"
	b.want(replace(re, withServer), -1)
	rp := b.want(replace(re, good("a.example.com")), 1).field("certId")
	b.prove(rp)
	o := b.info(rp)
	if o.Parent != re || o.PaidBy != id || o.Cents != 0 || !o.TermEnd.Equal(end) {
		t.Errorf("replacement %+v, want the term to end at %s", o, end)
	}
	if n := len(b.Charges()); n != 2 { // the two placed
		t.Errorf("%d charges", n)
	}
	// In the end, the term is over.
	b.clock.add(365 * 24 * time.Hour)
	b.want(replace(rp, good("a.example.com")), -7)
}

func TestRenewWindow(t *testing.T) {
	const year = 365 * time.Minute // a day is a minute
	b := newBench(t, func(cfg *Config) { cfg.Year, cfg.Lifetime = year, 199*time.Minute })
	id := b.issued("comodo-positivessl", "first", "a.example.com")
	renew := func(ref string) reply {
		return b.call("renew", map[string]string{
			"renewId": id, "years": "1", "refId": ref, "params": asJSON(t, orderParamsFor(t, "a.example.com")),
		})
	}
	b.want(renew("second"), -7)
	b.clock.add(year - 91*time.Minute)
	b.want(renew("second"), -7)
	b.clock.add(2 * time.Minute)
	next := b.want(renew("second"), 1).field("certId")
	if again := b.want(renew("second"), 1).field("certId"); again != next {
		t.Errorf("renewed twice: %s and %s", next, again)
	}
	if ch := b.Charges(); len(ch) != 2 || ch[1].Kind != KindRenew || ch[1].OrderID != next {
		t.Errorf("charges %+v", ch)
	}
	if o := b.info(id); o.Status != StatusComplete {
		t.Errorf("the old order is %s", o.Status)
	}
	b.prove(next)
	b.clock.add(90 * time.Minute)
	b.want(renew("third"), -7) // the old term is over
}

func TestCancelAndRevokeIssued(t *testing.T) {
	b := newBench(t, nil)
	reason := func(id string) map[string]string { return map[string]string{"certId": id, "reason": "test"} }

	young := b.issued("comodo-positivessl", "", "a.example.com")
	b.want(b.call("cancel", map[string]string{"certId": young}), -1)
	before := b.Balance(testToken)
	b.want(b.call("cancel", reason(young)), 1)
	if got := b.Balance(testToken); got != before+550 {
		t.Errorf("balance %d, was %d", got, before)
	}
	if o := b.info(young); !o.Revoked {
		t.Errorf("the certificate of the cancelled order is not revoked: %+v", o)
	}

	old := b.issued("comodo-positivessl", "", "b.example.com")
	b.clock.add(31 * 24 * time.Hour)
	b.want(b.call("cancel", reason(old)), -7)
	before = b.Balance(testToken)
	b.want(b.call("revoke", reason(old)), 1)
	b.want(b.call("revoke", reason(old)), -7)
	if got := b.Balance(testToken); got != before {
		t.Errorf("revoking changed the balance from %d to %d", before, got)
	}
	r := b.want(b.call("collect", map[string]string{"certId": old}), 1)
	if r.Status != StatusRevoked || !b.Revoked(parseCert(t, r.field("certificate")).SerialNumber) {
		t.Errorf("status %s", r.Status)
	}
}

func TestProductList(t *testing.T) {
	b := newBench(t, nil)
	r := b.want(b.call("productList", map[string]string{"vendor": "Sectigo"}), 1)
	const want = `{"code":"comodo-positivessl","maxDomain":1,"maxYear":5,"price":{"basePrice":{"price012":5.50,"price024":10.45,"price036":14.85},"sanPrice":[]},"productName":"PositiveSSL","supportIp":"Y","supportSan":"N","supportStandard":"Y","supportWildcard":"N","validationType":"dv"}`
	if !strings.Contains(string(r.Data), want) {
		t.Errorf("data %s, want %s in it", r.Data, want)
	}
	if r := b.want(b.call("productList", map[string]string{"vendor": "Digicert"}), 1); string(r.Data) != "[]" {
		t.Errorf("data %s", r.Data)
	}
	if r := b.want(b.call("productList", map[string]string{"vendor": "sectigo"}), -1); !strings.Contains(r.raw, "vendor invalid") {
		t.Errorf("answer %s", r.raw)
	}
}

func TestUpdateDCVRefuses(t *testing.T) {
	b := newBench(t, nil)
	id := b.placed("comodo-positive-multi-domain", "", "a.example.com", "b.example.com")
	for name, form := range map[string]map[string]string{
		"no name":        {"dcvMethod": "HTTP_CSR_HASH"},
		"foreign name":   {"dcvMethod": "HTTP_CSR_HASH", "domainName": "c.example.com"},
		"no method":      {"domainName": "a.example.com"},
		"unknown method": {"dcvMethod": "http", "domainName": "a.example.com"},
		"no mailbox":     {"dcvMethod": "EMAIL", "domainName": "a.example.com"},
	} {
		form["certId"] = id
		if r := b.call("updateDCV", form); r.Code != -1 {
			t.Errorf("%s: %s", name, r.raw)
		}
	}
	b.want(b.call("updateDCV", map[string]string{"certId": id, "dcvMethod": "EMAIL", "domainName": "a.example.com", "dcvEmail": "admin@example.com"}), 1)
	b.want(b.call("batchUpdateDCV", map[string]string{"certId": id, "dcvMethod": "EMAIL"}), -1)
	b.want(b.call("batchUpdateDCV", map[string]string{"certId": id, "domainInfo": "x"}), -1)
	b.want(b.call("batchUpdateDCV", map[string]string{"certId": id, "dcvMethod": "CNAME_CSR_HASH",
		"domainInfo": asJSON(t, domains("HTTPS_CSR_HASH", "b.example.com"))}), 1)
	if got := strings.Join(b.info(id).Methods, " "); got != "email https" {
		t.Errorf("methods %s", got)
	}
	b.want(b.call("batchUpdateDCV", map[string]string{"certId": id, "dcvMethod": "HTTP_CSR_HASH"}), 1)
	if got := strings.Join(b.info(id).Methods, " "); got != "http http" {
		t.Errorf("methods %s", got)
	}
	b.prove(id)
	b.want(b.call("updateDCV", map[string]string{"certId": id, "dcvMethod": "HTTP_CSR_HASH", "domainName": "a.example.com"}), -7)
	b.want(b.call("batchUpdateDCV", map[string]string{"certId": id}), -7)
}

// TestFiles sends files: validate and place accept one, of up to 2 MB.
func TestFiles(t *testing.T) {
	b := newBench(t, nil)
	send := func(endpoint, field string, size int) reply {
		form := orderForm(t, "comodo-positivessl", "", "a.example.com")
		form["api_token"] = testToken
		var body bytes.Buffer
		w := multipart.NewWriter(&body)
		for k, v := range form {
			if err := w.WriteField(k, v); err != nil {
				t.Fatal(err)
			}
		}
		file, err := w.CreateFormFile(field, "evidence.png")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = file.Write(make([]byte, size)) // a buffer does not fail
		_ = w.Close()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://sandbox/ssl/"+endpoint, &body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", w.FormDataContentType())
		return b.do(req)
	}
	b.want(send("validate", "verificationPic", 100), 1)
	b.want(send("validate", "verificationPic", 2<<20+1), -1)
	b.want(send("validate", "domainVerificationPic", 100), -1)
	b.want(send("place", "verificationPic", 100), 1) // documented for validate; that place takes the same is assumed
	if r := b.want(b.call("validate", map[string]string{"verificationPic": "text"}), -1); !strings.Contains(r.raw, "verificationPic") {
		t.Errorf("answer %s", r.raw)
	}
}
