package racent

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-commercial/caddy-commercial/internal/csrtest"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// leaves lists the values in JSON by their paths.
func leaves(path string, v any, into map[string]string) map[string]string {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			leaves(path+"."+key, value, into)
		}
	case []any:
		for i, value := range v {
			leaves(fmt.Sprintf("%s.%d", path, i), value, into)
		}
	default:
		into[strings.TrimPrefix(path, ".")] = fmt.Sprint(v)
	}
	return into
}

// documentedOrder is the order of the vendor's example for validate, testdata/validate.json, with
// its product and two years.
func documentedOrder() vendors.OrderRequest {
	req := workedRequest()
	req.Names = []string{"tt.cn"}
	req.Term = vendors.Term{Years: 2}
	req.Contact = vendors.Contact{
		Organization: "cola", JobTitle: "it", FirstName: "nick", LastName: "zhang", Email: "xx@tt.com.cn", Phone: "13911111111",
		Country: "CN", Address: "上海市", City: "上海", State: "上海", PostalCode: "4457145",
	}
	finance := vendors.Contact{
		Organization: "某公司", JobTitle: "ceo", FirstName: "nick", LastName: "zhang", Email: "xxx@qq.com", Phone: "18111111111",
		Country: "CN", Address: "上海市", City: "上海", State: "上海", PostalCode: "4514154",
	}
	tech := finance
	tech.Phone, tech.PostalCode = "15122222222", "48787"
	req.Billing, req.Tech = &finance, &tech
	req.Organization = &vendors.Organization{
		Name: "个人", Phone: "153999999999", Address: "上海某地", City: "上海", State: "上海", PostalCode: "200233", Country: "CN",
	}
	return req
}

// TestDocumentedExample places the order of the vendor's example request. All fields and values are
// the same, except for those that are listed here with the reason.
func TestDocumentedExample(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "validate.json"))
	if err != nil {
		t.Fatal(err)
	}
	var documented, sent any
	if err := json.Unmarshal(data, &documented); err != nil {
		t.Fatal(err)
	}
	f := newFakeWith(t, Options{Server: "iis7"})
	req := documentedOrder()
	if err := f.orders.CheckConfig(req.OrderConfig); err != nil {
		t.Error(err)
	}
	f.expect("validate", nil, 200, `{"code":1}`)
	if err := f.orders.Validate(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(f.sent["params"]), &sent); err != nil {
		t.Fatal(err)
	}
	delete(f.sent, "params")
	if want := map[string]string{"api_token": testToken, "productCode": "comodo-positivessl", "years": "2"}; !maps.Equal(f.sent, want) {
		t.Errorf("beside params: got %q, want %q", f.sent, want)
	}
	want, got := leaves("", documented, map[string]string{}), leaves("", sent, map[string]string{})
	for path, why := range map[string]struct{ documented, sent, reason string }{
		"csr":                   {"-----BEGIN CERTIFICATE REQUEST-----\n…\n-----END CERTIFICATE REQUEST-----\n", csrtest.Worked, "the example's is cut out"},
		"domainInfo.0.dcvEmail": {"", "", "documented for EMAIL only, and blanks were taken for errors"},
		"dcvMethod":             {"", "HTTP_CSR_HASH", "documented: required for CFCA; it says the same as the names'"},
		"uniqueValue":           {"", "cn20250101a", "documented as optional; without it the same CSR cannot be ordered twice"},
	} {
		if want[path] != why.documented || got[path] != why.sent {
			t.Errorf("%s: %q is documented and %q was sent, unlike %+v", path, want[path], got[path], why)
		}
		delete(want, path)
		delete(got, path)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if lines := strings.Split(csrtest.Worked, "\n"); lines[0] != "-----BEGIN CERTIFICATE REQUEST-----" || !strings.HasSuffix(csrtest.Worked, "\n-----END CERTIFICATE REQUEST-----\n") {
		t.Errorf("the CSR has different PEM lines: %s", csrtest.Worked)
	}
}

// TestPlaceSendsWhatWasValidated: the call that places an order sends the same as its dry run, and a
// reference.
func TestPlaceSendsWhatWasValidated(t *testing.T) {
	f := newFakeWith(t, Options{Server: "nginx", VerificationDocument: writeFile(t, "licence.PDF", "%PDF-")})
	req := documentedOrder()
	f.expect("validate", nil, 200, `{"code":1}`)
	if err := f.orders.Validate(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	validated := f.sent
	f.expect("place", nil, 200, `{"code":1,"data":{"certId":"a"}}`)
	if _, err := f.orders.Place(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	validated["refId"] = "ref-1"
	if !maps.Equal(f.sent, validated) || f.sent["verificationPic"] != "verificationPic.pdf: %PDF-" {
		t.Errorf("got  %q\nwant %q", f.sent, validated)
	}
	f.expect("renew", nil, 200, `{"code":1,"data":{"certId":"a"}}`)
	if _, err := f.orders.Renew(t.Context(), "old", req); err != nil || f.sent["verificationPic"] != "" || f.sent["params"] != validated["params"] {
		t.Errorf("renew: %q, %v", f.sent, err)
	}
}

// TestNeverSent: the private key's parameter, and the spelling of organization that the service
// ignores, are never sent.
func TestNeverSent(t *testing.T) {
	req := documentedOrder()
	req.Contact.IDType, req.Contact.IDNumber = "SFZ", "110101"
	req.Organization.IDType, req.Organization.RegistrationNumber = "TYDMZ", "9131"
	var sent any
	if err := json.Unmarshal([]byte(newFake(t).orders.params(req)), &sent); err != nil {
		t.Fatal(err)
	}
	for path := range leaves("", sent, map[string]string{}) {
		last := path[strings.LastIndexByte(path, '.')+1:]
		if slices.Contains([]string{"privateKey", "organization", "dcvEmail", "originalfromOthers"}, last) {
			t.Errorf("%s is sent", path)
		}
	}
}

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOptions(t *testing.T) {
	const words = `apachessl citrix domino ensim hsphere iis4 iis6 iis7 iplanet javawebserv netscape ibmhttp novel oracle plesk tomcat
		webstar whmcpane other apache2 c2net cisco cobaltseries nginx apacheraven redhatsap website zeusv3`
	for _, word := range append(strings.Fields(words), "") {
		if _, err := (Options{Server: word}).check(); err != nil {
			t.Errorf("server %s: %v", word, err)
		}
	}
	for _, kind := range strings.Fields("jpg jpeg png gif bmp rar zip pdf") {
		got, err := Options{VerificationDocument: writeFile(t, "a."+kind, "x")}.check()
		if err != nil || got.Name != "verificationPic" || got.FileName != "verificationPic."+kind || got.Value != "x" {
			t.Errorf("%s: %+v, %v", kind, got, err)
		}
	}
	full := writeFile(t, "full.zip", strings.Repeat("x", 2<<20))
	if _, err := (Options{VerificationDocument: full}).check(); err != nil {
		t.Error(err)
	}
	for _, tt := range []struct {
		options Options
		want    []string
	}{
		{Options{Server: "NGINX"}, []string{"server: must be one of other, ", `got "NGINX"`}},
		{Options{Server: "caddy"}, []string{"server: "}},
		{Options{VerificationDocument: writeFile(t, "licence.doc", "x")}, []string{"verification_document: ", "licence.doc is not of the kind jpg, jpeg"}},
		{Options{VerificationDocument: writeFile(t, "big.zip", strings.Repeat("x", 2<<20+1))}, []string{"verification_document: ", "big.zip has 2097153 bytes"}},
		{Options{VerificationDocument: "/none/at.pdf"}, []string{"verification_document: ", "/none/at.pdf"}},
	} {
		_, err := New(Config{Endpoint: "https://127.0.0.1"}, tt.options)
		for _, want := range tt.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: %v, want %s", tt.options, err, want)
			}
		}
	}
}
