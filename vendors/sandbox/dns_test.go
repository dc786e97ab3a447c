package sandbox

import (
	"slices"
	"strings"
	"testing"

	"github.com/libdns/libdns"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
	"github.com/caddy-commercial/caddy-commercial/internal/test/zonetest"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// TestRecordsWithoutAccount: a name can be proven by a record, until CAA forbids the CA.
func TestRecordsWithoutAccount(t *testing.T) {
	zone := zonetest.Start(t, "records.vendor.example.")
	s, unload := mustLoad(t, map[string]any{"data_dir": t.TempDir(), "resolver": zone.Addr})
	defer unload()
	if !s.Describe().Supports(vendors.MethodDNS) {
		t.Fatal("records are not offered")
	}
	buy := func(reference string) vendors.Order {
		t.Helper()
		req := orderFor(t, reference, "www.records.vendor.example")
		req.Method = vendors.MethodDNS
		proofs, err := s.Predict(req)
		if err != nil || len(proofs) != 1 {
			t.Fatalf("predicted %v, %v", proofs, err)
		}
		record := libdns.RR{Name: proofs[0].RecordName + ".www", Type: proofs[0].RecordType, Data: proofs[0].RecordValue + "."}
		add(t, zone, record)
		placed, err := s.Place(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Status(t.Context(), placed.ID)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := buy("1"); got.Status != vendors.StatusIssued {
		t.Errorf("order %+v; fetches %+v", got, s.service.ca.Fetches())
	}
	add(t, zone, libdns.RR{Name: "@", Type: "CAA", Data: `0 issue "other.example"`})
	if got := buy("2"); got.Status != vendors.StatusPending {
		t.Errorf("order %+v", got)
	}
	if fetches := s.service.ca.Fetches(); !slices.ContainsFunc(fetches, func(f sandboxca.Fetch) bool {
		return f.Host == "www.records.vendor.example" && strings.Contains(f.Result, "CAA records of records.vendor.example do not allow")
	}) {
		t.Errorf("fetches %+v", fetches)
	}
}

func add(t *testing.T, zone *zonetest.Zone, record libdns.RR) {
	t.Helper()
	if _, err := (zonetest.Provider{Zone: zone}).AppendRecords(t.Context(), zone.Name, []libdns.Record{record}); err != nil {
		t.Fatal(err)
	}
}

// TestResolverCanBeTakenAway: the latest settings apply, including those for DNS.
func TestResolverCanBeTakenAway(t *testing.T) {
	dir := t.TempDir()
	first, unload := mustLoad(t, map[string]any{"data_dir": dir, "resolver": "127.0.0.1:1"})
	defer unload()
	second, unloadSecond := mustLoad(t, map[string]any{"data_dir": dir})
	defer unloadSecond()
	if first.Describe().Supports(vendors.MethodDNS) == second.Describe().Supports(vendors.MethodDNS) {
		t.Error("both support records, or neither")
	}
	if _, unload, err := load(t, map[string]any{"data_dir": dir, "resolver": "dns.example"}); err == nil {
		t.Error("accepted the name of a resolver")
	} else {
		unload()
	}
}
