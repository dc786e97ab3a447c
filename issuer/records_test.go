package issuer

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libdns/libdns"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/internal/test/zonetest"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// newRecords makes the prover of a new process, with a provider that can list the zone
// or cannot.
func newRecords(zone *zonetest.Zone, lists bool, mode probeMode) (*records, *observer.ObservedLogs) {
	core, logs := observer.New(zap.DebugLevel)
	r := &records{
		dns:    &dcv.DNS{Provider: zonetest.Provider{Zone: zone}, Resolvers: []string{zone.Addr}, PropagationTimeout: 20 * time.Millisecond},
		mode:   mode,
		logger: zap.New(core),
	}
	if lists {
		r.dns.Provider = zonetest.Lister{Provider: zonetest.Provider{Zone: zone}}
	}
	return r, logs
}

func hashProof(id string, names ...string) proof {
	return proof{id, names, vendors.MethodDNS, []vendors.Challenge{
		{Method: vendors.MethodHTTP, FileName: "0718.txt", FileContent: "x"},
		{Method: vendors.MethodDNS, RecordName: "_0718", RecordType: "CNAME", RecordValue: "a.b.sectigo.com"},
	}}
}

func textProof(id, value string, names ...string) proof {
	return proof{id, names, vendors.MethodDNS, []vendors.Challenge{
		{Method: vendors.MethodDNS, RecordName: "_dnsauth", RecordType: "TXT", RecordValue: value},
	}}
}

func expectZone(t *testing.T, zone *zonetest.Zone, want ...string) {
	t.Helper()
	if got := zone.Records(); !slices.Equal(got, want) {
		t.Errorf("the zone has %q, want %q", got, want)
	}
}

// TestRecordsOfNames: a wildcard and its base share a record, other names have their
// own, and a www name brings that of its apex.
func TestRecordsOfNames(t *testing.T) {
	zone := zonetest.Start(t, "names.example.", "_0718 TXT theirs")
	r, _ := newRecords(zone, true, probeStrict)
	p := hashProof("1", "*.names.example", "names.example", "shop.names.example", "www.blog.names.example")
	if err := r.Publish(t.Context(), p); err == nil || !strings.Contains(err.Error(), "cannot be added") {
		t.Errorf("beside another record: %v", err)
	}
	expectZone(t, zone, "_0718 TXT theirs")

	zone = zonetest.Start(t, "names.example.", "www TXT theirs")
	r, _ = newRecords(zone, true, probeStrict)
	if err := r.Publish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	expectZone(t, zone, "_0718 CNAME a.b.sectigo.com.", "_0718.blog CNAME a.b.sectigo.com.",
		"_0718.shop CNAME a.b.sectigo.com.", "_0718.www.blog CNAME a.b.sectigo.com.", "www TXT theirs")
	if w, err := r.wanted(p); err != nil || len(w.needed) != 3 || len(w.extra) != 1 {
		t.Errorf("wanted %v, error %v", w, err)
	}
	both, err := r.wanted(hashProof("1", "www.names.example", "names.example"))
	if err != nil || len(both.needed) != 2 || len(both.extra) != 0 {
		t.Errorf("wanted %v for a www name and its apex, error %v", both, err)
	}
	if err := r.Probe(t.Context(), p); err != nil {
		t.Error(err)
	}
	r.Withdraw(t.Context(), p)
	expectZone(t, zone, "www TXT theirs")
}

// TestRecordsSurviveProcesses: another process publishes nothing twice, and removes
// what it never published.
func TestRecordsSurviveProcesses(t *testing.T) {
	for _, lists := range []bool{true, false} {
		zone := zonetest.Start(t, "restart.example.", "_dnsauth TXT theirs")
		p := textProof("1", "mine", "restart.example")
		first, _ := newRecords(zone, lists, probeStrict)
		if err := first.Publish(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		second, _ := newRecords(zone, lists, probeStrict)
		for range 2 {
			if err := second.Publish(t.Context(), p); err != nil {
				t.Fatal(err)
			}
		}
		if n := zone.Calls("append"); n != 1 {
			t.Errorf("listing %t: %d additions", lists, n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		third, _ := newRecords(zone, lists, probeStrict)
		third.Withdraw(ctx, p)
		expectZone(t, zone, "_dnsauth TXT theirs")
	}
}

// TestRecordsAreReplaced: what the vendor asks for now takes the place of what it asked
// for before.
func TestRecordsAreReplaced(t *testing.T) {
	zone := zonetest.Start(t, "replaced.example.", "_dnsauth TXT theirs")
	r, _ := newRecords(zone, false, probeStrict)
	for _, value := range []string{"first", "second"} {
		if err := r.Publish(t.Context(), textProof("1", value, "replaced.example")); err != nil {
			t.Fatal(err)
		}
		expectZone(t, zone, "_dnsauth TXT "+value, "_dnsauth TXT theirs")
	}
	if err := r.Publish(t.Context(), textProof("2", "other", "replaced.example")); err != nil {
		t.Fatal(err)
	}
	r.Withdraw(t.Context(), textProof("1", "second", "replaced.example"))
	expectZone(t, zone, "_dnsauth TXT other", "_dnsauth TXT theirs")
}

// TestRecordsOfFailures: if not all records can be added, those that were are removed,
// as is one whose addition was answered with an error.
func TestRecordsOfFailures(t *testing.T) {
	refused := errors.New("refused")
	zone := zonetest.Start(t, "failures.example.")
	r, logs := newRecords(zone, false, probeStrict)
	if err := r.Publish(t.Context(), textProof("0", "old", "a.failures.example")); err != nil {
		t.Fatal(err)
	}
	failFor := func(name string) {
		zone.OnCall(func(_ context.Context, call string, list []libdns.Record) error {
			if call == "append" && list[0].RR().Name == name {
				return refused
			}
			return nil
		})
	}
	failFor("_dnsauth.c")
	err := r.Publish(t.Context(), textProof("1", "new", "a.failures.example", "b.failures.example", "c.failures.example", "d.failures.example"))
	if !errors.Is(err, refused) {
		t.Errorf("error = %v", err)
	}
	expectZone(t, zone, "_dnsauth.a TXT old")

	// The apex of a www name is good to have, no more.
	failFor("_dnsauth")
	if err := r.Publish(t.Context(), textProof("2", "new", "www.failures.example")); err != nil {
		t.Errorf("the record of the apex is missing: %v", err)
	}
	expectZone(t, zone, "_dnsauth.a TXT old", "_dnsauth.www TXT new")

	zone.OnCall(func(context.Context, string, []libdns.Record) error { return refused })
	r.Withdraw(t.Context(), textProof("2", "new", "www.failures.example"))
	if n := logs.FilterMessage("removing a DNS record failed; remove it by hand").Len(); n == 0 {
		t.Error("nobody is told of the record that stays")
	}
}

// TestRecordsProbe: what a record that cannot be seen means before an order.
func TestRecordsProbe(t *testing.T) {
	for _, c := range []struct {
		mode       probeMode
		wrong      bool // servers say that there is no record; else nobody answers
		stops, log bool
	}{
		{probeDefault, true, true, false},
		{probeDefault, false, false, true},
		{probeStrict, true, true, false},
		{probeStrict, false, true, false},
		{probeWarn, true, false, true},
		{probeWarn, false, false, true},
		{probeOff, true, false, false},
		{probeOff, false, false, false},
	} {
		zone := zonetest.Start(t, "probe.example.")
		r, logs := newRecords(zone, true, c.mode)
		p := hashProof("1", "probe.example")
		if c.wrong {
			zone.Hide(true)
		}
		ctx := t.Context()
		if err := r.Publish(ctx, p); err != nil {
			t.Fatal(err)
		}
		if !c.wrong {
			// Nobody answers any more.
			r.dns = &dcv.DNS{Provider: r.dns.Provider, Resolvers: []string{"127.0.0.1:1"}, PropagationTimeout: time.Millisecond}
		}
		err := r.Probe(ctx, p)
		if problem, ok := errors.AsType[*dcv.PropagationError](err); ok != c.stops || err != nil && !ok || ok && problem.Wrong() != c.wrong {
			t.Errorf("%+v: error = %v", c, err)
		}
		warned := logs.FilterMessageSnippet("cannot be seen from here").Len() > 0
		if warned != c.log {
			t.Errorf("%+v: warned %t", c, warned)
		}
	}
}

// TestRecordsProbeOfTheUnknown: where the CA's record is known only after the order, one
// of our own shows that records can be added and seen. It does not stay.
func TestRecordsProbeOfTheUnknown(t *testing.T) {
	zone := zonetest.Start(t, "unknown.example.", "_dnsauth TXT theirs")
	r, _ := newRecords(zone, true, probeStrict)
	p := proof{"cc12", []string{"*.unknown.example"}, vendors.MethodDNS, nil}
	if err := r.Publish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	expectZone(t, zone, "_dnsauth TXT theirs")
	if err := r.Probe(t.Context(), p); err != nil {
		t.Error(err)
	}
	if n := zone.Calls("append"); n != 1 {
		t.Errorf("%d records were added", n)
	}
	zone.Hide(true)
	if _, ok := errors.AsType[*dcv.PropagationError](r.Probe(t.Context(), p)); !ok {
		t.Error("it was not looked for")
	}
	zone.OnCall(func(context.Context, string, []libdns.Record) error { return errors.New("refused") })
	if err := r.Probe(t.Context(), p); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("the provider refuses: %v", err)
	}
	expectZone(t, zone, "_dnsauth TXT theirs")
}

func TestRecordsAtOverride(t *testing.T) {
	zone := zonetest.Start(t, "override.example.")
	r, _ := newRecords(zone, true, probeStrict)
	r.override = "proofs.override.example"
	p := textProof("1", "mine", "www.one.example", "*.two.example")
	if err := r.Publish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	expectZone(t, zone, "proofs TXT mine")
	r.Withdraw(t.Context(), p)
	expectZone(t, zone)
}

func TestRecordsRefuseNonsense(t *testing.T) {
	zone := zonetest.Start(t, "nonsense.example.")
	r, _ := newRecords(zone, true, probeStrict)
	for title, challenges := range map[string][]vendors.Challenge{
		"files only": hashProof("1", "nonsense.example").challenges[:1],
		"no type":    {{Method: vendors.MethodDNS, RecordName: "_a", RecordValue: "x"}},
		"two lines":  {{Method: vendors.MethodDNS, RecordName: "_a", RecordType: "TXT", RecordValue: "x\ny"}},
		"one is bad": append(textProof("", "good").challenges, vendors.Challenge{Method: vendors.MethodDNS, RecordType: "MX", RecordValue: "x"}),
	} {
		p := proof{"1", []string{"nonsense.example"}, vendors.MethodDNS, challenges}
		if err := r.Publish(t.Context(), p); err == nil {
			t.Errorf("%s: published", title)
		}
		r.Withdraw(t.Context(), p)
	}
	if n := zone.Calls("append") + zone.Calls("delete"); n > 0 {
		t.Errorf("the provider was called %d times", n)
	}
}

// TestRecordsSettle: what was added is waited for once, and not longer than it may be.
func TestRecordsSettle(t *testing.T) {
	zone := zonetest.Start(t, "settle.example.")
	r, logs := newRecords(zone, true, probeDefault)
	r.dns.PropagationTimeout = time.Hour
	zone.Hide(true)
	p := hashProof("1", "settle.example")
	if err := r.Publish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	zone.OnQuestion(func(name string) {
		if name == "_0718.settle.example." {
			cancel()
		}
	})
	r.Settle(ctx, p)
	if ctx.Err() == nil {
		t.Error("nobody looked for the record")
	}
	if err := r.Probe(ctx, p); !errors.Is(err, context.Canceled) {
		t.Errorf("probing after the end gives %v", err)
	}
	if n := logs.FilterLevelExact(zap.WarnLevel).Len(); n > 0 {
		t.Errorf("a cancelled wait made %d warnings", n)
	}
	expectZone(t, zone, "_0718 CNAME a.b.sectigo.com.")

	// Publishing again, as when an order is followed, does not forget that nobody has
	// seen it yet.
	if err := r.Publish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	r.dns.PropagationTimeout = time.Millisecond
	r.Settle(t.Context(), p)
	if n := logs.FilterMessage("a DNS record for validation cannot be seen yet").Len(); n != 1 {
		t.Errorf("%d warnings that the record cannot be seen", n)
	}
	zone.OnQuestion(func(name string) { t.Errorf("%s was asked for again", name) })
	r.Settle(t.Context(), p)

	// Another process did not add it, and does not wait for it.
	other, _ := newRecords(zone, true, probeDefault)
	zone.OnQuestion(nil)
	if err := other.Publish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	zone.OnQuestion(func(name string) { t.Errorf("%s was asked for by another process", name) })
	other.Settle(t.Context(), p)
	zone.OnQuestion(nil)
	r.Withdraw(ctx, p)
	expectZone(t, zone)
	r.Settle(t.Context(), p)
}

// TestProversByMethod: each proof goes its own way, and an order that was placed with
// records is not forgotten when the provider is gone from the config.
func TestProversByMethod(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	v := provers{files: &files{logger: zap.New(core), mode: probeOff}}
	p := hashProof("1", "gone.example")
	if err := v.Publish(t.Context(), p); !errors.Is(err, errNoRecords) {
		t.Errorf("publishing gives %v", err)
	}
	if err := v.Probe(t.Context(), p); !errors.Is(err, errNoRecords) {
		t.Errorf("probing gives %v", err)
	}
	v.Withdraw(t.Context(), p)
	if logs.FilterMessage("DNS records of an order stay behind").Len() != 1 {
		t.Error("nobody is told of the records that stay")
	}
	p.method = vendors.MethodHTTP
	if err := v.Probe(t.Context(), p); err != nil {
		t.Errorf("probing a file gives %v", err)
	}
	zone := zonetest.Start(t, "method.example.")
	v.records, _ = newRecords(zone, true, probeStrict)
	p = hashProof("1", "method.example")
	if err := v.Publish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	expectZone(t, zone, "_0718 CNAME a.b.sectigo.com.")
	v.Withdraw(t.Context(), p)
	expectZone(t, zone)
}

// TestRecordsProbeTheRightType: a provider that cannot add the type of record that the
// vendor will ask for is found out before the order.
func TestRecordsProbeTheRightType(t *testing.T) {
	for _, cname := range []bool{false, true} {
		zone := zonetest.Start(t, "type.example.")
		r, _ := newRecords(zone, true, probeDefault)
		r.cname = cname
		zone.OnCall(func(_ context.Context, _ string, list []libdns.Record) error {
			for _, record := range list {
				if record.RR().Type == "CNAME" {
					return errors.New("this provider has no CNAME")
				}
			}
			return nil
		})
		err := r.Probe(t.Context(), proof{"cc13", []string{"shop.type.example"}, vendors.MethodDNS, nil})
		if (err != nil) != cname || cname && !strings.Contains(err.Error(), "no CNAME") {
			t.Errorf("cname %t: %v", cname, err)
		}
	}
}
