package dcv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/libdns/libdns"

	"github.com/caddy-commercial/caddy-commercial/internal/test/zonetest"
)

func record(t *testing.T, host, label, kind, value string) Record {
	t.Helper()
	r, err := NewRecord(host, label, kind, value)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// forgetful is a provider whose answer to an addition contains only the name.
type forgetful struct{ zonetest.Provider }

func (p forgetful) AppendRecords(ctx context.Context, zone string, list []libdns.Record) ([]libdns.Record, error) {
	list, err := p.Provider.AppendRecords(ctx, zone, list)
	return []libdns.Record{libdns.RR{Name: list[0].RR().Name}}, err
}

// pedantic is a provider that lists absolute names and quoted texts, and finds records only as it
// has listed them.
type pedantic struct{ zonetest.Lister }

func (p pedantic) GetRecords(ctx context.Context, zone string) ([]libdns.Record, error) {
	list, err := p.Lister.GetRecords(ctx, zone)
	for i, r := range list {
		rr := r.RR()
		rr.Name = strings.TrimSuffix(libdns.AbsoluteName(rr.Name, zone), ".")
		if rr.Type == "TXT" {
			rr.Data = `"` + rr.Data + `"`
		}
		list[i] = rr
	}
	return list, err
}

func (p pedantic) DeleteRecords(ctx context.Context, zone string, list []libdns.Record) ([]libdns.Record, error) {
	var known []libdns.Record
	for _, r := range list {
		rr := r.RR()
		rr.Name, rr.Data = libdns.RelativeName(rr.Name, zone), strings.Trim(rr.Data, `"`)
		known = append(known, rr)
	}
	return p.Lister.DeleteRecords(ctx, zone, known)
}

// providers are the providers of the tests below, by what is special about them.
var providers = map[string]func(*zonetest.Zone) certmagic.DNSProvider{
	"plain": func(z *zonetest.Zone) certmagic.DNSProvider { return zonetest.Provider{Zone: z} },
	"listing": func(z *zonetest.Zone) certmagic.DNSProvider {
		return zonetest.Lister{Provider: zonetest.Provider{Zone: z}}
	},
	"forgetful": func(z *zonetest.Zone) certmagic.DNSProvider { return forgetful{zonetest.Provider{Zone: z}} },
	"pedantic": func(z *zonetest.Zone) certmagic.DNSProvider {
		return pedantic{zonetest.Lister{Provider: zonetest.Provider{Zone: z}}}
	},
}

// TestRecordsComeAndGo: a record is added once, no matter who asks how often, and its removal leaves
// everything else, no matter who removes it.
func TestRecordsComeAndGo(t *testing.T) {
	for title, newProvider := range providers {
		for _, c := range []struct {
			kind, value, line string
			others            []string
		}{
			{"TXT", "mine", "_dnsauth.shop TXT mine", []string{
				"_dnsauth.shop TXT theirs", "_dnsauth.shop TXT mine-too", "_dnsauth.shop MX 10 mail.example.com.",
				"_dnsauth TXT mine", "shop TXT mine", "@ TXT mine",
			}},
			{"CNAME", "a.b.sectigo.com", "_dnsauth.shop CNAME a.b.sectigo.com.", []string{
				"_other.shop CNAME a.b.sectigo.com.", "_dnsauth.shop RRSIG x", "shop TXT a.b.sectigo.com",
			}},
		} {
			t.Run(title+" "+c.kind, func(t *testing.T) {
				zone := zonetest.Start(t, "comeandgo.example.", c.others...)
				process := func() *DNS {
					return &DNS{Provider: newProvider(zone), TTL: time.Minute, Resolvers: []string{zone.Addr}}
				}
				before := zone.Records()
				with := append(slices.Clone(before), c.line)
				slices.Sort(with)
				r := record(t, "shop.comeandgo.example", "_dnsauth", c.kind, c.value)
				first, second := process(), process()
				for i, d := range []*DNS{first, first, second, process()} {
					added, err := d.Present(t.Context(), r)
					if err != nil || added != (i == 0) {
						t.Fatalf("call %d: added %t, error %v", i, added, err)
					}
					if got := zone.Records(); !slices.Equal(got, with) {
						t.Fatalf("call %d: the zone has %q, want %q", i, got, with)
					}
				}
				for i, d := range []*DNS{second, second, first, process()} {
					if err := d.Remove(t.Context(), r); err != nil {
						t.Fatalf("removal %d: %v", i, err)
					}
					if got := zone.Records(); !slices.Equal(got, before) {
						t.Fatalf("removal %d: the zone has %q, want %q", i, got, before)
					}
				}
				if added, err := first.Present(t.Context(), r); !added || err != nil {
					t.Errorf("adding it again: added %t, error %v", added, err)
				}
				if err := first.Remove(t.Context(), r); err != nil || !slices.Equal(zone.Records(), before) {
					t.Errorf("removing it again: %v, the zone has %q", err, zone.Records())
				}
			})
		}
	}
}

// TestNothingBesideCNAME: what DNS does not allow is an error before anything is changed.
func TestNothingBesideCNAME(t *testing.T) {
	for there, r := range map[string]Record{
		"_dnsauth CNAME old.dcv.digicert.com.": record(t, "beside.example", "_dnsauth", "CNAME", "new.dcv.digicert.com"),
		"_dnsauth TXT old":                     record(t, "beside.example", "_dnsauth", "CNAME", "new.dcv.digicert.com"),
		"_dnsauth CNAME proofs.example.":       record(t, "beside.example", "_dnsauth", "TXT", "new"),
	} {
		zone := zonetest.Start(t, "beside.example.", there)
		d := &DNS{Provider: providers["listing"](zone), Resolvers: []string{zone.Addr}}
		added, err := d.Present(t.Context(), r)
		if added || err == nil || !strings.Contains(err.Error(), "nothing can stand beside a CNAME") {
			t.Errorf("%s beside %s: added %t, error %v", r, there, added, err)
		}
		if got := zone.Records(); !slices.Equal(got, []string{there}) {
			t.Errorf("the zone has %q, want %q", got, there)
		}
	}
}

// TestRemoveAfterCancel: what was added is removed even if nothing else is done any more.
func TestRemoveAfterCancel(t *testing.T) {
	for title, newProvider := range providers {
		zone := zonetest.Start(t, "cancelled.example.")
		r := record(t, "cancelled.example", "_a", "TXT", "x")
		d := &DNS{Provider: newProvider(zone), Resolvers: []string{zone.Addr}}
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := d.Present(ctx, r); err != nil {
			t.Fatal(err)
		}
		zone.OnCall(func(ctx context.Context, call string, _ []libdns.Record) error {
			if _, ok := ctx.Deadline(); !ok {
				t.Errorf("%s: %s has no deadline", title, call)
			}
			return nil
		})
		cancel()
		if err := d.Remove(ctx, r); err != nil || len(zone.Records()) > 0 {
			t.Errorf("%s: error %v, the zone has %q", title, err, zone.Records())
		}
	}
}

// slowly is a provider that takes a second for each change, and counts those under way.
type slowly struct{ now, most atomic.Int32 }

func (p *slowly) change(list []libdns.Record) ([]libdns.Record, error) {
	for now := p.now.Add(1); ; {
		if most := p.most.Load(); now <= most || p.most.CompareAndSwap(most, now) {
			break
		}
	}
	time.Sleep(time.Second)
	p.now.Add(-1)
	return list, nil
}

func (p *slowly) GetRecords(context.Context, string) ([]libdns.Record, error) { return nil, nil }
func (p *slowly) AppendRecords(_ context.Context, _ string, list []libdns.Record) ([]libdns.Record, error) {
	return p.change(list)
}
func (p *slowly) DeleteRecords(_ context.Context, _ string, list []libdns.Record) ([]libdns.Record, error) {
	return p.change(list)
}

// TestTurns: no more changes than there are turns for are under way at a time, whoever makes them.
// Who does not get a turn in time adds nothing, but removes what it has added.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		provider, turns := new(slowly), make(chan struct{}, 4)
		processes := make([]*DNS, 2)
		for i := range processes {
			processes[i] = &DNS{Provider: provider, Turns: turns, findZone: func(context.Context, string) (string, error) { return "turns.example.", nil }}
		}
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		var group sync.WaitGroup
		var added atomic.Int32
		for i := range 40 {
			r := record(t, fmt.Sprintf("shop-%d.turns.example", i), "_a", "TXT", "x")
			group.Go(func() {
				d := processes[i%2]
				is, err := d.Present(ctx, r)
				if is != (err == nil) || err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("added %t, error %v", is, err)
				}
				if !is {
					return
				}
				added.Add(1)
				<-ctx.Done()
				if err := d.Remove(ctx, r); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		// Twelve have begun within the time, four of them in each second, and are then removed.
		if n, took := added.Load(), time.Since(began); provider.most.Load() != 4 || n != 12 || took != 6*time.Second {
			t.Errorf("%d at once, %d added in %s", provider.most.Load(), n, took)
		}
	})
}

func TestProviderErrors(t *testing.T) {
	refused := errors.New("refused")
	for title, c := range map[string]struct {
		call  string
		added bool // may have been
	}{
		"plain":   {"append", true},
		"listing": {"get", false},
	} {
		zone := zonetest.Start(t, "errors.example.")
		r := record(t, "errors.example", "_a", "TXT", "x")
		d := &DNS{Provider: providers[title](zone), Resolvers: []string{zone.Addr}}
		zone.OnCall(func(_ context.Context, call string, _ []libdns.Record) error {
			if call == c.call {
				return refused
			}
			return nil
		})
		added, err := d.Present(t.Context(), r)
		if !errors.Is(err, refused) || added != c.added || !strings.Contains(err.Error(), "errors.example") {
			t.Errorf("%s: added %t, error %v", title, added, err)
		}
		zone.OnCall(func(context.Context, string, []libdns.Record) error { return refused })
		if err := d.Remove(t.Context(), r); !errors.Is(err, refused) {
			t.Errorf("%s: removing gives %v", title, err)
		}
		zone.OnCall(nil)
		if err := d.Remove(t.Context(), r); err != nil {
			t.Errorf("%s: removing later gives %v", title, err)
		}
	}
}

// TestZoneIsFoundFromBelow: a record's zone is the nearest one, and not that of the apex.
func TestZoneIsFoundFromBelow(t *testing.T) {
	zone := zonetest.Start(t, "inner.outer.example.")
	d := &DNS{Provider: providers["plain"](zone), Resolvers: []string{zone.Addr}}
	if _, err := d.Present(t.Context(), record(t, "a.b.inner.outer.example", "_x", "TXT", "y")); err != nil {
		t.Fatal(err)
	}
	if got := zone.Records(); !slices.Equal(got, []string{"_x.a.b TXT y"}) {
		t.Errorf("the zone has %q", got)
	}
	_, err := d.Present(t.Context(), record(t, "elsewhere.example", "_x", "TXT", "y"))
	if err == nil || !strings.Contains(err.Error(), "finding the DNS zone of _x.elsewhere.example") {
		t.Errorf("a name in no zone: %v", err)
	}
}
