package hostile

import (
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
)

// TestIssueQuirks checks what each quirk does to a certificate.
func TestIssueQuirks(t *testing.T) {
	names := func(r reply, t *testing.T) string {
		return strings.Join(parseCert(t, r.field("certificate")).DNSNames, " ")
	}
	chainLen := func(r reply) int { return strings.Count(r.field("caCertificate"), "BEGIN CERTIFICATE") }
	first := func(r reply, t *testing.T) bool {
		return parseCert(t, r.field("caCertificate")).CheckSignatureFrom(parseCert(t, r.field("caCertificate"))) == nil
	}
	tests := map[string]struct {
		quirks Quirks
		check  func(*testing.T, *bench, reply) bool
	}{
		"none": {Quirks{}, func(t *testing.T, _ *bench, r reply) bool {
			return names(r, t) == "example.com www.example.com" && chainLen(r) == 1 && !first(r, t) && !strings.Contains(r.field("certificate"), "\r")
		}},
		"no twin":    {Quirks{NoTwin: true}, func(t *testing.T, _ *bench, r reply) bool { return names(r, t) == "example.com" }},
		"twin first": {Quirks{TwinFirst: true}, func(t *testing.T, _ *bench, r reply) bool { return names(r, t) == "www.example.com example.com" }},
		"twin in list": {Quirks{TwinInDCVList: true}, func(_ *testing.T, _ *bench, r reply) bool {
			return strings.Contains(r.raw, `"domainName":"www.example.com"`)
		}},
		"wrong cn": {Quirks{WrongCN: "evil.example.org"}, func(t *testing.T, _ *bench, r reply) bool {
			return parseCert(t, r.field("certificate")).Subject.CommonName == "evil.example.org"
		}},
		"wrong key": {Quirks{WrongKey: true}, func(t *testing.T, b *bench, r reply) bool {
			var params struct{ CSR string }
			var data struct{ ApplyParams json.RawMessage }
			if err := errors.Join(json.Unmarshal(r.Data, &data), json.Unmarshal(data.ApplyParams, &params)); err != nil {
				t.Fatal(err)
			}
			csr, err := sandboxca.ParseCSR(params.CSR)
			return err == nil && !csr.PublicKey.(*ecdsa.PublicKey).Equal(parseCert(t, r.field("certificate")).PublicKey)
		}},
		"expired": {Quirks{ExpiredCert: true}, func(t *testing.T, b *bench, r reply) bool {
			return parseCert(t, r.field("certificate")).NotAfter.Before(b.clock.Now())
		}},
		"no chain":  {Quirks{OmitIntermediate: true}, func(_ *testing.T, _ *bench, r reply) bool { return chainLen(r) == 0 }},
		"with root": {Quirks{IncludeRoot: true}, func(t *testing.T, _ *bench, r reply) bool { return chainLen(r) == 2 && !first(r, t) }},
		"reversed":  {Quirks{ReverseChain: true}, func(t *testing.T, _ *bench, r reply) bool { return chainLen(r) == 2 && first(r, t) }},
		"crlf": {Quirks{CRLF: true}, func(_ *testing.T, _ *bench, r reply) bool {
			return strings.Contains(r.field("caCertificate"), "-----\r\n")
		}},
		"numeric ids": {Quirks{NumericIDs: true}, func(_ *testing.T, b *bench, r reply) bool {
			return strings.Contains(r.raw, `"certId":`+b.Orders()[0].ID+",")
		}},
		"params text": {Quirks{ApplyParamsText: true}, func(_ *testing.T, _ *bench, r reply) bool {
			return strings.Contains(r.field("applyParams"), `"server":"nginx"`)
		}},
		"more fields": {Quirks{UnknownFields: true}, func(_ *testing.T, _ *bench, r reply) bool { return strings.Contains(r.raw, "sandboxExtra") }},
		"old trailer": {Quirks{Trailer: "comodoca.com"}, func(_ *testing.T, _ *bench, r reply) bool {
			return strings.Contains(r.field("DCVfileContent"), "\ncomodoca.com\n")
		}},
		"no dcv": {Quirks{NoDCVValues: true}, func(_ *testing.T, _ *bench, r reply) bool { return !strings.Contains(r.raw, "DCVfile") }},
		"dcv per name": {Quirks{DCVInfo: true}, func(_ *testing.T, _ *bench, r reply) bool {
			return strings.Contains(r.raw, `"dcvInfo":{"example.com":{"DCV`)
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, func(cfg *Config) { cfg.Quirks = tt.quirks })
			b.want(b.call("place", orderForm(t, "comodo-positivessl", "ref", "example.com")), 1)
			o := b.Orders()[0]
			b.site.publish(o, "example.com", "www.example.com")
			b.clock.add(time.Second)
			r := b.want(b.call("collect", map[string]string{"certId": o.ID}), 1)
			if r.Status != StatusComplete {
				t.Fatalf("status %s, fetches %+v", r.Status, b.Fetches())
			}
			if !tt.check(t, b, r) {
				t.Errorf("answer %s", r.raw)
			}
		})
	}
}

func TestPendingQuirks(t *testing.T) {
	for name, tt := range map[string]struct {
		quirks Quirks
		code   int
		want   string
	}{
		"none":         {Quirks{}, 1, `"status":"PENDING"`},
		"code 2":       {Quirks{Code2WhilePending: true}, 2, `"dcvList"`},
		"code 2, bare": {Quirks{Code2WithoutData: true}, 2, `{"code":2,"errors":null}`},
		"other word":   {Quirks{UnknownStatus: "APPROVING"}, 1, `"status":"APPROVING"`},
	} {
		b := newBench(t, func(cfg *Config) { cfg.Quirks = tt.quirks })
		id := b.placed("comodo-positivessl", "", "a.example.com")
		if r := b.call("collect", map[string]string{"certId": id}); r.Code != tt.code || !strings.Contains(r.raw, tt.want) {
			t.Errorf("%s: %s", name, r.raw)
		}
	}
}

func TestErrorsShapes(t *testing.T) {
	for shape, want := range map[string]string{
		"":              `{"dcvMethod":["dcvMethod is required"],"refId":["refId is not a known field"]}`,
		"object":        `{"dcvMethod":["dcvMethod is required"],"refId":["refId is not a known field"]}`,
		"object-string": `{"dcvMethod":"dcvMethod is required","refId":"refId is not a known field"}`,
		"string":        `"dcvMethod is required; refId is not a known field"`,
		"array":         `["dcvMethod is required","refId is not a known field"]`,
		"null":          `null`,
	} {
		b := newBench(t, func(cfg *Config) { cfg.Quirks.ErrorsShape = shape })
		if r := b.want(b.call("updateDCV", map[string]string{"certId": "x", "dcvMethod": "", "refId": "x"}), -1); string(r.Errors) != want {
			t.Errorf("%q: %s", shape, r.raw)
		}
	}
	b := newBench(t, func(cfg *Config) { cfg.Quirks.ErrorsShape = "string" })
	if r := b.want(b.call("collect", nil), -1); string(r.Errors) != `"certId is required"` {
		t.Errorf("answer %s", r.raw)
	}
}

func TestSameCertAgain(t *testing.T) {
	b := newBench(t, func(cfg *Config) { cfg.Quirks.SameCertAgain = true })
	id := b.issued("comodo-positivessl", "", "a.example.com")
	next := b.want(b.call("reissue", map[string]string{"certId": id, "reason": "x", "uniqueValue": "n"}), 1).field("certId")
	b.prove(next)
	if a, c := b.info(id).Serial, b.info(next).Serial; a != c || a == "" {
		t.Errorf("serials %q and %q", a, c)
	}
}

func TestRefetchAfterPass(t *testing.T) {
	for refetch, want := range map[bool]string{false: StatusComplete, true: StatusPending} {
		b := newBench(t, func(cfg *Config) {
			cfg.IssueDelay, cfg.Quirks.NoTwin, cfg.Quirks.RefetchAfterPass = time.Minute, true, refetch
		})
		id := b.placed("comodo-positivessl", "", "a.example.com")
		b.site.publish(b.info(id), "a.example.com")
		b.clock.add(time.Second)
		b.call("collect", map[string]string{"certId": id})
		if len(b.info(id).Verified) != 1 {
			t.Fatalf("not verified: %+v", b.Fetches())
		}
		b.site.unpublish()
		b.clock.add(time.Second)
		b.call("collect", map[string]string{"certId": id})
		b.clock.add(time.Hour)
		if r := b.call("collect", map[string]string{"certId": id}); r.Status != want {
			t.Errorf("refetch %v: %s, want %s", refetch, r.Status, want)
		}
	}
}

func TestClipToTerm(t *testing.T) {
	for clip, want := range map[bool]time.Duration{false: 199 * 24 * time.Hour, true: time.Hour} {
		b := newBench(t, func(cfg *Config) { cfg.Year, cfg.Quirks.ClipToTerm = time.Hour, clip })
		id := b.issued("comodo-positivessl", "", "a.example.com")
		if got := b.info(id).NotAfter.Sub(b.clock.Now()); got != want {
			t.Errorf("clip %v: %s, want %s", clip, got, want)
		}
	}
}

func TestNestedUpdate(t *testing.T) {
	b := newBench(t, nil)
	id := b.placed("comodo-positivessl", "", "a.example.com")
	form := map[string]string{"certId": id, "dcvMethod": "HTTP_CSR_HASH"}
	if r := b.want(b.call("updateDCV", form), 1); r.field("DCVfileName") == "" {
		t.Errorf("answer %s", r.raw)
	}
	if err := b.Update(func(cfg *Config) { cfg.Quirks.NestedUpdate = true }); err != nil {
		t.Fatal(err)
	}
	if r := b.want(b.call("updateDCV", form), 1); !strings.Contains(r.raw, `"data":{"data":{`) {
		t.Errorf("answer %s", r.raw)
	}
}

func TestBonus(t *testing.T) {
	b := newBench(t, nil)
	params := orderParamsFor(t, "a.example.com")
	params["originalfromOthers"] = 1
	id := b.want(b.call("place", map[string]string{"productCode": "comodo-positivessl", "years": "2", "params": asJSON(t, params)}), 1).field("certId")
	b.prove(id)
	if got := b.info(id).TermEnd.Sub(b.clock.Now()); got != (2*365+30)*24*time.Hour {
		t.Errorf("term of %s", got)
	}
}
