package hostile

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libdns/libdns"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/resolver"
	"github.com/caddy-commercial/caddy-commercial/internal/test/zonetest"
)

// asking makes a CA that uses a zone's name server as resolver.
func asking(t *testing.T, zone *zonetest.Zone) *bench {
	t.Helper()
	asked, err := resolver.New(zone.Addr)
	if err != nil {
		t.Fatal(err)
	}
	return newBench(t, func(cfg *Config) { asked.Serve(&cfg.Core) })
}

func add(t *testing.T, zone *zonetest.Zone, name, kind, data string) {
	t.Helper()
	records := []libdns.Record{libdns.RR{Name: name, Type: kind, Data: data}}
	if _, err := (zonetest.Provider{Zone: zone}).AppendRecords(t.Context(), zone.Name, records); err != nil {
		t.Fatal(err)
	}
}

// TestRecordsAreLookedUp proves names by DNS records, at two sellers.
func TestRecordsAreLookedUp(t *testing.T) {
	const name = "shop.dns.sandbox.example"
	zone := zonetest.Start(t, "dns.sandbox.example.")
	b := asking(t, zone)
	form := orderForm(t, "comodo-positivessl", "", name)
	form["params"] = strings.Replace(form["params"], "HTTP_CSR_HASH", "CNAME_CSR_HASH", 1)
	id := b.want(b.call("place", form), 1).field("certId")
	o := b.info(id)
	add(t, zone, o.DNSLabel+".shop", "CNAME", o.DNSTarget+".")

	body := strings.Replace(digicertOrderBody(t, nil, name), "http-token", "dns-txt-token", 1)
	ordered := b.expectStatus(b.ask("POST", "order/certificate/ssl_dv_rapidssl", body), 201, "")
	add(t, zone, "_dnsauth.shop", "TXT", ordered.text("dcv_random_value"))

	b.clock.add(time.Second)
	if r := b.want(b.call("collect", map[string]string{"certId": id}), 1); r.Status != StatusComplete {
		t.Errorf("status %s; fetches %+v", r.Status, b.Fetches())
	}
	if r := b.ask("PUT", "order/certificate/"+ordered.text("id")+"/check-dcv", ""); r.text("order_status") != "issued" {
		t.Errorf("answer %s; fetches %+v", r.raw, b.Fetches())
	}
}

// TestCAAForbids orders for one name at two sellers. The zone allows only one of them,
// and that one only for a single account.
func TestCAAForbids(t *testing.T) {
	const name = "shop.caa.sandbox.example"
	account := sandboxca.AccountURI(Account{Token: testToken}.Key())
	zone := zonetest.Start(t, "caa.sandbox.example.", `@ CAA 0 issue "digicert.com; validationmethods=http-01; accounturi=`+account+`"`)
	b := asking(t, zone)
	id := b.placed("comodo-positivessl", "", name)
	b.site.publish(b.info(id), name)
	b.clock.add(time.Second)
	if r := b.want(b.call("collect", map[string]string{"certId": id}), 1); r.Status != StatusPending {
		t.Errorf("status %s", r.Status)
	}
	if fetches := b.Fetches(); !slices.ContainsFunc(fetches, func(f Fetch) bool {
		return f.Host == name && strings.Contains(f.Result, "do not allow sectigo.com")
	}) {
		t.Errorf("fetches %+v", fetches)
	}
	b.expectStatus(b.proven(b.ordered(name), name), 200, "")
	if orders := b.Orders(); orders[len(orders)-1].Status != StatusComplete {
		t.Errorf("order %+v; fetches %+v", orders[len(orders)-1], b.Fetches())
	}
}
