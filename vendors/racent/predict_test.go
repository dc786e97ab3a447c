package racent

import (
	"reflect"
	"testing"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

func TestPredictWorkedExample(t *testing.T) {
	o := newFake(t).orders
	cname := workedHash[:32] + "." + workedHash[32:] + "."
	for _, tt := range []struct {
		method vendors.Method
		unique string
		want   vendors.Challenge
	}{
		{vendors.MethodHTTP, "", vendors.Challenge{FileName: workedFile, FileContent: workedHash + "\nsectigo.com"}},
		{vendors.MethodHTTPS, "cn20250101a", vendors.Challenge{FileName: workedFile, FileContent: workedHash + "\nsectigo.com\ncn20250101a"}},
		{vendors.MethodDNS, "", vendors.Challenge{RecordName: workedLabel, RecordType: "CNAME", RecordValue: cname + "sectigo.com"}},
		{vendors.MethodDNS, "cn20250101a", vendors.Challenge{RecordName: workedLabel, RecordType: "CNAME", RecordValue: cname + "cn20250101a.sectigo.com"}},
	} {
		req := workedRequest()
		req.Method, req.Unique, tt.want.Method = tt.method, tt.unique, tt.method
		got, err := o.Predict(req)
		if err != nil || !reflect.DeepEqual(got, []vendors.Challenge{tt.want}) {
			t.Errorf("%s %q:\ngot  %+v, %v\nwant %+v", tt.method, tt.unique, got, err, tt.want)
		}
	}
}

func TestOnlySectigoFamilyIsPredictable(t *testing.T) {
	o := newFake(t).orders
	for product, want := range map[string]bool{
		"comodo-positivessl": true, "sectigo-ov": true, "positivessl-ov": true, "essential-dv-ssl": true,
		"essentialssl-dv-wildcard": true, "instantssl-ov": true, "ssltrus-dv-ssl": true,
		"rapidssl": false, "geotrust-dv-ssl-flex": false, "digicert-ov-flex": false, "certum-dv-ssl": false, "": false,
	} {
		req := workedRequest()
		req.Product = product
		got, err := o.Predict(req)
		if err != nil || (len(got) == 1) != want {
			t.Errorf("%s: %v, %v", product, got, err)
		}
		if sent := certParams(req)["uniqueValue"]; (sent != nil) != want {
			t.Errorf("%s: unique value %q", product, sent)
		}
	}
}
