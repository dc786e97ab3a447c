package sandboxca

import (
	"context"
	"errors"
	"strings"
	"testing"
)

var testIdentities = []string{"sectigo.com", "comodoca.com"}

func TestCAA(t *testing.T) {
	issue := func(values ...string) []CAA {
		var list []CAA
		for _, value := range values {
			list = append(list, CAA{Tag: "issue", Value: value})
		}
		return list
	}
	const account = "https://sandbox.invalid/accounts/k"
	tests := map[string]struct {
		name    string
		method  Method
		records map[string][]CAA
		want    string // a part of the error; empty means allowed
	}{
		"none":           {name: "a.example.com"},
		"named":          {name: "a.example.com", records: map[string][]CAA{"a.example.com": issue("other.example", "Sectigo.com")}},
		"another name":   {name: "a.example.com", records: map[string][]CAA{"a.example.com": issue(" comodoca.com ; policy=ev")}},
		"other":          {name: "a.example.com", records: map[string][]CAA{"a.example.com": issue("other.example")}, want: "do not allow sectigo.com"},
		"nobody":         {name: "a.example.com", records: map[string][]CAA{"a.example.com": issue(";")}, want: "do not allow"},
		"parent":         {name: "a.b.example.com", records: map[string][]CAA{"example.com": issue("other.example")}, want: "records of example.com"},
		"nearest":        {name: "a.example.com", records: map[string][]CAA{"a.example.com": issue("sectigo.com"), "example.com": issue(";")}},
		"top level":      {name: "a.example.com", records: map[string][]CAA{"com": issue(";")}, want: "records of com"},
		"only iodef":     {name: "a.example.com", records: map[string][]CAA{"a.example.com": {{Tag: "iodef", Value: "mailto:a@b"}}}},
		"critical":       {name: "a.example.com", records: map[string][]CAA{"a.example.com": append(issue("sectigo.com"), CAA{Critical: true, Tag: "tbs"})}, want: `critical property "tbs"`},
		"critical issue": {name: "a.example.com", records: map[string][]CAA{"a.example.com": {{Critical: true, Tag: "ISSUE", Value: "sectigo.com"}}}},
		"not critical":   {name: "a.example.com", records: map[string][]CAA{"a.example.com": append(issue("sectigo.com"), CAA{Tag: "tbs"})}},
		"wildcard":       {name: "*.example.com", records: map[string][]CAA{"example.com": append(issue("sectigo.com"), CAA{Tag: "issuewild", Value: ";"})}, want: "do not allow"},
		"not wildcard":   {name: "example.com", records: map[string][]CAA{"example.com": append(issue("sectigo.com"), CAA{Tag: "issuewild", Value: ";"})}},
		"issue for wild": {name: "*.example.com", records: map[string][]CAA{"example.com": issue("sectigo.com")}},
		"address":        {name: "127.0.0.1", records: map[string][]CAA{"1": issue(";")}},

		"this account":       {name: "a.example.com", records: map[string][]CAA{"a.example.com": issue("sectigo.com; accounturi=" + account)}},
		"other account":      {name: "a.example.com", records: map[string][]CAA{"a.example.com": issue("sectigo.com; accounturi=" + account + "2")}, want: "account " + account},
		"two accounts":       {name: "a.example.com", records: map[string][]CAA{"a.example.com": issue("sectigo.com; accounturi=" + account + "; accounturi=" + account)}, want: "do not allow"},
		"account of another": {name: "a.example.com", records: map[string][]CAA{"a.example.com": issue("other.example; accounturi="+account, "sectigo.com")}},

		"method by number": {name: "a.example.com", records: map[string][]CAA{"a.example.com": issue("sectigo.com; validationmethods=ca-tbr-7,CA-TBR-18")}},
		"method of ACME":   {name: "a.example.com", records: map[string][]CAA{"a.example.com": issue("sectigo.com;ValidationMethods=http-01")}},
		"other method":     {name: "a.example.com", records: map[string][]CAA{"a.example.com": issue("sectigo.com; validationmethods=dns-01")}, want: "method ca-tbr-18"},
		"DNS":              {name: "a.example.com", method: MethodCNAME, records: map[string][]CAA{"a.example.com": issue("sectigo.com; validationmethods=dns-01")}},
		"no method":        {name: "a.example.com", records: map[string][]CAA{"a.example.com": issue("sectigo.com; validationmethods=")}, want: "do not allow"},
		"methods twice":    {name: "a.example.com", records: map[string][]CAA{"a.example.com": issue("sectigo.com; validationmethods=http-01; validationmethods=http-01")}, want: "do not allow"},
		"both": {name: "a.example.com", records: map[string][]CAA{"a.example.com": issue(
			"sectigo.com; validationmethods=http-01; accounturi=" + account + "; ")}},
		"no parameter": {name: "a.example.com", records: map[string][]CAA{"a.example.com": issue("sectigo.com; nonsense")}, want: "do not allow"},
	}
	for name, tt := range tests {
		if tt.method == "" {
			tt.method = MethodHTTP
		}
		cfg := Config{LookupCAA: func(_ context.Context, host string) ([]CAA, error) { return tt.records[host], nil }}
		err := checkCAA(t.Context(), &cfg, caaQuestion{name: tt.name, identities: testIdentities, account: account, method: tt.method})
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}

	// A CA that cannot find out must not issue.
	cfg := Config{LookupCAA: func(_ context.Context, host string) ([]CAA, error) {
		if host == "example.com" {
			return nil, errors.New("SERVFAIL")
		}
		return nil, nil
	}}
	if err := checkCAA(t.Context(), &cfg, caaQuestion{name: "a.example.com", identities: testIdentities}); err == nil || !strings.Contains(err.Error(), "SERVFAIL") {
		t.Errorf("error %v", err)
	}
	if err := checkCAA(t.Context(), &cfg, caaQuestion{name: "a.example.com"}); err != nil {
		t.Errorf("without identities: %v", err)
	}
}
