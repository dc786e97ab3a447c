package kit

import (
	"reflect"
	"strings"
	"testing"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

func TestDCV(t *testing.T) {
	hash := strings.Repeat("0aF", 21) + "b"
	file := func(content string) []vendors.Challenge {
		return []vendors.Challenge{{Method: vendors.MethodHTTP, FileName: "F.txt", FileContent: content}}
	}
	record := func(kind string) []vendors.Challenge {
		return []vendors.Challenge{{Method: vendors.MethodDNS, RecordName: "_h", RecordType: kind, RecordValue: "v."}}
	}
	for answer, want := range map[string][]vendors.Challenge{
		`{}`: nil,
		`{"DCVfileName":"F.txt","DCVfileContent":" a\nb\r\n"}`:                                                                  file(" a\nb\r\n"),
		`{"DCVfileName":"F.txt","DCVfileContent":"token"}`:                                                                      file("token"),
		`{"DCVfileName":"F.txt","DCVfileContent":"` + hash + `\\ncomodoca.com"}`:                                                file(hash + "\ncomodoca.com"),
		`{"DCVfileName":"F.txt","DCVfileContent":"` + hash + `\\nsectigo.com\\nu1"}`:                                            file(hash + "\nsectigo.com\nu1"),
		`{"DCVfileName":"F.txt","DCVfileContent":"a\\nb"}`:                                                                      nil,
		`{"DCVfileName":"F.txt","DCVfileContent":""}`:                                                                           nil,
		`{"DCVfileContent":"token"}`:                                                                                            nil,
		`{"DCVdnsHost":"_h","DCVdnsValue":"v.","DCVdnsType":"CNAME"}`:                                                           record("CNAME"),
		`{"DCVdnsHost":"_h","DCVdnsValue":"v.","DCVdnsType":" txt "}`:                                                           record("TXT"),
		`{"DCVdnsHost":"_h","DCVdnsValue":"v."}`:                                                                                record("CNAME"),
		`{"DCVdnsHost":"_h","DCVdnsValue":"v.","DCVdnsType":"SRV"}`:                                                             nil,
		`{"DCVdnsHost":"_h","DCVdnsType":"TXT"}`:                                                                                nil,
		`{"DCVdnsValue":"v.","DCVdnsType":"TXT"}`:                                                                               nil,
		`{"DCVfileName":"F.txt","DCVfileContent":"token","DCVdnsHost":"_h","DCVdnsValue":"v."}`:                                 append(file("token"), record("CNAME")...),
		`"{\"DCVfileName\":\"F.txt\",\"DCVfileContent\":\"token\",\"DCVdnsHost\":\"_h\",\"DCVdnsValue\":1,\"DCVdnsType\":[1]}"`: append(file("token"), vendors.Challenge{Method: vendors.MethodDNS, RecordName: "_h", RecordType: "CNAME", RecordValue: "1"}),
	} {
		var d DCV
		if err := Unmarshal([]byte(answer), &d); err != nil {
			t.Fatal(err)
		}
		if got := d.Challenges(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", answer, got, want)
		}
	}
}

func TestDCVForMethod(t *testing.T) {
	both := DCV{FileName: "F.txt", FileContent: "c", DNSHost: "_h", DNSValue: "v", DNSType: "TXT"}
	fileOnly, recordOnly := both, both
	fileOnly.DNSHost, recordOnly.FileName = "", ""
	file := vendors.Challenge{FileName: "F.txt", FileContent: "c"}
	record := vendors.Challenge{Method: vendors.MethodDNS, RecordName: "_h", RecordType: "TXT", RecordValue: "v"}
	for _, tt := range []struct {
		values DCV
		method vendors.Method
		as     vendors.Method
		want   *vendors.Challenge
	}{
		{both, "", vendors.MethodHTTP, &file},
		{both, vendors.MethodHTTP, vendors.MethodHTTP, &file},
		{both, vendors.MethodHTTPS, vendors.MethodHTTPS, &file},
		{both, vendors.MethodDNS, vendors.MethodDNS, &record},
		{fileOnly, vendors.MethodDNS, "", nil},
		{recordOnly, vendors.MethodHTTP, "", nil},
		{recordOnly, "", vendors.MethodDNS, &record},
		{DCV{}, "", "", nil},
	} {
		got, ok := tt.values.For(tt.method)
		if tt.want == nil {
			if ok {
				t.Errorf("%+v, %q: %+v", tt.values, tt.method, got)
			}
			continue
		}
		want := *tt.want
		want.Method = tt.as
		if !ok || got != want {
			t.Errorf("%+v, %q: %+v, %v, want %+v", tt.values, tt.method, got, ok, want)
		}
	}
}
