package proof

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

// newRecords makes the prover of a new process, with a provider that can or cannot list the zone.
func newRecords(zone *zonetest.Zone, lists bool, mode Mode) (*records, *observer.ObservedLogs) {
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

func hashProof(id string, names ...string) Proof {
	return Proof{ID: id, Names: names, Method: vendors.MethodDNS, Challenges: []vendors.Challenge{
		{Method: vendors.MethodHTTP, FileName: "0718.txt", FileContent: "x"},
		{Method: vendors.MethodDNS, RecordName: "_0718", RecordType: "CNAME", RecordValue: "a.b.sectigo.com"},
	}}
}

func textProof(id, value string, names ...string) Proof {
	return Proof{ID: id, Names: names, Method: vendors.MethodDNS, Challenges: []vendors.Challenge{
		{Method: vendors.MethodDNS, RecordName: "_dnsauth", RecordType: "TXT", RecordValue: value},
	}}
}

func expectZone(t *testing.T, zone *zonetest.Zone, want ...string) {
	t.Helper()
	if got := zone.Records(); !slices.Equal(got, want) {
		t.Errorf("the zone has %q, want %q", got, want)
	}
}

// TestRecordsOfNames: a wildcard and its base share a record, other names have their own, and a www
// name also adds the record of its apex.
func TestRecordsOfNames(t *testing.T) {
	zone := zonetest.Start(t, "names.example.", "_0718 TXT theirs")
	r, _ := newRecords(zone, true, ModeStrict)
	p := hashProof("1", "*.names.example", "names.example", "shop.names.example", "www.blog.names.example")
	if err := r.Present(t.Context(), p); err == nil || !strings.Contains(err.Error(), "cannot be added") {
		t.Errorf("beside another record: %v", err)
	}
	expectZone(t, zone, "_0718 TXT theirs")

	zone = zonetest.Start(t, "names.example.", "www TXT theirs")
	r, _ = newRecords(zone, true, ModeStrict)
	if err := r.Present(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	expectZone(t, zone, "_0718 CNAME a.b.sectigo.com.", "_0718.blog CNAME a.b.sectigo.com.",
		"_0718.shop CNAME a.b.sectigo.com.", "_0718.www.blog CNAME a.b.sectigo.com.", "www TXT theirs")
	if w, err := r.wanted(p, p.Challenges); err != nil || len(w.needed) != 3 || len(w.extra) != 1 {
		t.Errorf("wanted %v, error %v", w, err)
	}
	two := hashProof("1", "www.names.example", "names.example")
	both, err := r.wanted(two, two.Challenges)
	if err != nil || len(both.needed) != 2 || len(both.extra) != 0 {
		t.Errorf("wanted %v for a www name and its apex, error %v", both, err)
	}
	if err := r.Wait(t.Context(), p); err != nil {
		t.Error(err)
	}
	r.CleanUp(t.Context(), p)
	expectZone(t, zone, "www TXT theirs")
}

// TestRecordsSurviveProcesses: another process publishes nothing twice, and removes what it did not
// publish itself.
func TestRecordsSurviveProcesses(t *testing.T) {
	for _, lists := range []bool{true, false} {
		zone := zonetest.Start(t, "restart.example.", "_dnsauth TXT theirs")
		p := textProof("1", "mine", "restart.example")
		first, _ := newRecords(zone, lists, ModeStrict)
		if err := first.Present(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		second, _ := newRecords(zone, lists, ModeStrict)
		for range 2 {
			if err := second.Present(t.Context(), p); err != nil {
				t.Fatal(err)
			}
		}
		if n := zone.Calls("append"); n != 1 {
			t.Errorf("listing %t: %d additions", lists, n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		third, _ := newRecords(zone, lists, ModeStrict)
		third.CleanUp(ctx, p)
		expectZone(t, zone, "_dnsauth TXT theirs")
	}
}

// TestRecordsAreReplaced: what the vendor asks for now replaces what it asked for before.
func TestRecordsAreReplaced(t *testing.T) {
	zone := zonetest.Start(t, "replaced.example.", "_dnsauth TXT theirs")
	r, _ := newRecords(zone, false, ModeStrict)
	for _, value := range []string{"first", "second"} {
		if err := r.Present(t.Context(), textProof("1", value, "replaced.example")); err != nil {
			t.Fatal(err)
		}
		expectZone(t, zone, "_dnsauth TXT "+value, "_dnsauth TXT theirs")
	}
	if err := r.Present(t.Context(), textProof("2", "other", "replaced.example")); err != nil {
		t.Fatal(err)
	}
	r.CleanUp(t.Context(), textProof("1", "second", "replaced.example"))
	expectZone(t, zone, "_dnsauth TXT other", "_dnsauth TXT theirs")
}

// TestRecordsOfFailures: if not all records can be added, those that were added are removed, and so
// is one whose addition was answered with an error.
func TestRecordsOfFailures(t *testing.T) {
	refused := errors.New("refused")
	zone := zonetest.Start(t, "failures.example.")
	r, logs := newRecords(zone, false, ModeStrict)
	if err := r.Present(t.Context(), textProof("0", "old", "a.failures.example")); err != nil {
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
	err := r.Present(t.Context(), textProof("1", "new", "a.failures.example", "b.failures.example", "c.failures.example", "d.failures.example"))
	if !errors.Is(err, refused) {
		t.Errorf("error = %v", err)
	}
	expectZone(t, zone, "_dnsauth.a TXT old")

	// The record of the apex of a www name is useful, but not required.
	failFor("_dnsauth")
	if err := r.Present(t.Context(), textProof("2", "new", "www.failures.example")); err != nil {
		t.Errorf("the record of the apex is missing: %v", err)
	}
	expectZone(t, zone, "_dnsauth.a TXT old", "_dnsauth.www TXT new")

	zone.OnCall(func(context.Context, string, []libdns.Record) error { return refused })
	r.CleanUp(t.Context(), textProof("2", "new", "www.failures.example"))
	if n := logs.FilterMessage("removing a DNS record failed; remove it by hand").Len(); n == 0 {
		t.Error("the record that stays is not reported")
	}
}

// TestRecordsWait: depending on the mode, a record that cannot be seen stops an order, causes a
// warning, or does neither.
func TestRecordsWait(t *testing.T) {
	for _, c := range []struct {
		mode       Mode
		wrong      bool // servers say that there is no record; otherwise nobody answers
		stops, log bool
	}{
		{ModeDefault, true, true, false},
		{ModeDefault, false, false, true},
		{ModeStrict, true, true, false},
		{ModeStrict, false, true, false},
		{ModeWarn, true, false, true},
		{ModeWarn, false, false, true},
		{ModeOff, true, false, false},
		{ModeOff, false, false, false},
	} {
		zone := zonetest.Start(t, "probe.example.")
		r, logs := newRecords(zone, true, c.mode)
		p := hashProof("1", "probe.example")
		if c.wrong {
			zone.Hide(true)
		}
		ctx := t.Context()
		if err := r.Present(ctx, p); err != nil {
			t.Fatal(err)
		}
		if !c.wrong {
			// From now on, nothing answers.
			r.dns = &dcv.DNS{Provider: r.dns.Provider, Resolvers: []string{"127.0.0.1:1"}, PropagationTimeout: time.Millisecond}
		}
		err := r.Wait(ctx, p)
		if problem, ok := errors.AsType[*dcv.PropagationError](err); ok != c.stops || err != nil && !ok || ok && problem.Wrong() != c.wrong {
			t.Errorf("%+v: error = %v", c, err)
		}
		warned := logs.FilterMessageSnippet("cannot be seen from here").Len() > 0
		if warned != c.log {
			t.Errorf("%+v: warned %t", c, warned)
		}
	}
}

// TestRecordsTrial: if the CA's record is known only after the order, one of our own shows that
// records can be added and seen. It is removed when the CA's arrives.
func TestRecordsTrial(t *testing.T) {
	zone := zonetest.Start(t, "unknown.example.", "_dnsauth TXT theirs")
	r, _ := newRecords(zone, true, ModeStrict)
	p := Proof{ID: "cc12", Names: []string{"*.unknown.example"}, Method: vendors.MethodDNS}
	if err := r.Present(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	expectZone(t, zone, "_dnsauth TXT theirs")
	p.Trial = Trial(p.ID, p.Method, vendors.Description{})
	trial := p.Trial[0].RecordName + " TXT " + p.Trial[0].RecordValue
	if err := r.Present(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	expectZone(t, zone, "_dnsauth TXT theirs", trial)
	if err := r.Wait(t.Context(), p); err != nil {
		t.Error(err)
	}
	zone.Hide(true)
	if _, ok := errors.AsType[*dcv.PropagationError](r.Wait(t.Context(), p)); !ok {
		t.Error("it was not checked")
	}
	zone.Hide(false)
	p.Challenges = textProof("", "told").Challenges
	if err := r.Present(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	expectZone(t, zone, "_dnsauth TXT theirs", "_dnsauth TXT told")
	r.CleanUp(t.Context(), p)
	expectZone(t, zone, "_dnsauth TXT theirs")

	p.Challenges = nil
	zone.OnCall(func(context.Context, string, []libdns.Record) error { return errors.New("refused") })
	if err := r.Present(t.Context(), p); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("the provider refuses: %v", err)
	}
	zone.OnCall(nil)
	expectZone(t, zone, "_dnsauth TXT theirs")
}

// TestRecordsTrialOfADeadProcess: a process that knows the ID removes the record of a dead process's
// trial, both before the order and when it presents the CA's record after the order.
func TestRecordsTrialOfADeadProcess(t *testing.T) {
	for _, lists := range []bool{true, false} {
		for _, about := range []vendors.Description{{RecordType: "TXT"}, {RecordType: "CNAME"}} {
			for _, told := range []bool{true, false} {
				zone := zonetest.Start(t, "dead.example.")
				p := Proof{ID: "cc12", Names: []string{"dead.example"}, Method: vendors.MethodDNS}
				p.Trial = Trial(p.ID, p.Method, about)
				first, _ := newRecords(zone, lists, ModeStrict)
				if err := first.Present(t.Context(), p); err != nil {
					t.Fatal(err)
				}
				if n := len(zone.Records()); n != 1 {
					t.Fatalf("%d records", n)
				}
				second, logs := newRecords(zone, lists, ModeStrict)
				again := Proof{ID: p.ID, Names: p.Names, Method: p.Method, Trial: Trial(p.ID, p.Method, about)}
				if told {
					again.Challenges = textProof("", "told").Challenges
					if err := second.Present(t.Context(), again); err != nil {
						t.Fatal(err)
					}
					expectZone(t, zone, "_dnsauth TXT told")
				}
				second.CleanUp(t.Context(), again)
				expectZone(t, zone)
				if n := logs.FilterLevelExact(zap.WarnLevel).Len(); n > 0 {
					t.Errorf("%d warnings", n)
				}
			}
		}
	}
}

// TestRecordsOfSeveralProofs: a record that two orders need stays until both are done.
func TestRecordsOfSeveralProofs(t *testing.T) {
	zone := zonetest.Start(t, "several.example.")
	r, _ := newRecords(zone, true, ModeStrict)
	one, two := textProof("1", "same", "several.example"), textProof("2", "same", "*.several.example")
	for _, p := range []Proof{one, two} {
		if err := r.Present(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	r.CleanUp(t.Context(), one)
	r.CleanUp(t.Context(), one)
	expectZone(t, zone, "_dnsauth TXT same")
	r.CleanUp(t.Context(), two)
	expectZone(t, zone)
}

func TestRecordsAtOverride(t *testing.T) {
	zone := zonetest.Start(t, "override.example.")
	r, _ := newRecords(zone, true, ModeStrict)
	r.override = "proofs.override.example"
	p := textProof("1", "mine", "www.one.example", "*.two.example")
	if err := r.Present(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	expectZone(t, zone, "proofs TXT mine")
	r.CleanUp(t.Context(), p)
	expectZone(t, zone)
}

func TestRecordsRefuseNonsense(t *testing.T) {
	zone := zonetest.Start(t, "nonsense.example.")
	r, _ := newRecords(zone, true, ModeStrict)
	for title, challenges := range map[string][]vendors.Challenge{
		"files only": hashProof("1", "nonsense.example").Challenges[:1],
		"no type":    {{Method: vendors.MethodDNS, RecordName: "_a", RecordValue: "x"}},
		"www":        {{Method: vendors.MethodDNS, RecordName: "www", RecordType: "CNAME", RecordValue: "a.example"}},
		"ACME":       {{Method: vendors.MethodDNS, RecordName: "_acme-challenge", RecordType: "CNAME", RecordValue: "a.example"}},
		"two lines":  {{Method: vendors.MethodDNS, RecordName: "_a", RecordType: "TXT", RecordValue: "x\ny"}},
		"one is bad": append(textProof("", "good").Challenges, vendors.Challenge{Method: vendors.MethodDNS, RecordType: "MX", RecordValue: "x"}),
	} {
		p := Proof{ID: "1", Names: []string{"nonsense.example"}, Method: vendors.MethodDNS, Challenges: challenges}
		if err := r.Present(t.Context(), p); err == nil {
			t.Errorf("%s: published", title)
		}
		r.CleanUp(t.Context(), p)
	}
	if n := zone.Calls("append") + zone.Calls("delete"); n > 0 {
		t.Errorf("the provider was called %d times", n)
	}
}

// TestRecordsWaitOnce: an added record is waited for once, and for no longer than allowed.
func TestRecordsWaitOnce(t *testing.T) {
	zone := zonetest.Start(t, "once.example.")
	r, logs := newRecords(zone, true, ModeDefault)
	r.dns.PropagationTimeout = time.Hour
	zone.Hide(true)
	p := hashProof("1", "once.example")
	if err := r.Present(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	zone.OnQuestion(func(name string) {
		if name == "_0718.once.example." {
			cancel()
		}
	})
	if err := r.Wait(ctx, p); !errors.Is(err, context.Canceled) {
		t.Errorf("the end of its context gives %v", err)
	}
	if n := logs.FilterLevelExact(zap.WarnLevel).Len(); n > 0 {
		t.Errorf("a cancelled wait made %d warnings", n)
	}
	expectZone(t, zone, "_0718 CNAME a.b.sectigo.com.")

	// Presenting again, as when an order is continued, does not forget that the record has not been
	// seen yet.
	if err := r.Present(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	r.dns.PropagationTimeout = time.Millisecond
	wrong := func() bool {
		problem, ok := errors.AsType[*dcv.PropagationError](r.Wait(t.Context(), p))
		return ok && problem.Wrong()
	}
	if !wrong() {
		t.Error("it was not waited for again")
	}
	// From now on one check is enough, however long it could last.
	r.dns.PropagationTimeout, r.dns.PropagationDelay = time.Hour, time.Hour
	if !wrong() {
		t.Error("it was not checked")
	}
	zone.Hide(false)
	if err := r.Wait(t.Context(), p); err != nil {
		t.Error(err)
	}

	// A record that replaces it is waited for again.
	zone.Hide(true)
	if err := r.Present(t.Context(), textProof("1", "new", "once.example")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if err := r.Wait(ctx, textProof("1", "new", "once.example")); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
	zone.OnQuestion(nil)
	r.CleanUp(ctx, p)
	expectZone(t, zone)
}

// TestRecordsTrialHasTheRightType: a provider that cannot add the type of record for which the
// vendor will ask is found out before the order.
func TestRecordsTrialHasTheRightType(t *testing.T) {
	for _, cname := range []bool{false, true} {
		zone := zonetest.Start(t, "type.example.")
		r, _ := newRecords(zone, true, ModeDefault)
		about := vendors.Description{}
		if cname {
			about.RecordType = "CNAME"
		}
		zone.OnCall(func(_ context.Context, _ string, list []libdns.Record) error {
			for _, record := range list {
				if record.RR().Type == "CNAME" {
					return errors.New("this provider has no CNAME")
				}
			}
			return nil
		})
		p := Proof{ID: "cc13", Names: []string{"shop.type.example"}, Method: vendors.MethodDNS}
		p.Trial = Trial(p.ID, p.Method, about)
		err := r.Present(t.Context(), p)
		if (err != nil) != cname || cname && !strings.Contains(err.Error(), "no CNAME") {
			t.Errorf("cname %t: %v", cname, err)
		}
	}
}
