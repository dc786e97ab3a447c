package issuer

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// oneServed is a site with a stopgap for one name.
type oneServed struct {
	site
	name string
	ends time.Time
}

func (s oneServed) Served(string) []*x509.Certificate { return nil }

func (s oneServed) IsServed(name string) bool { return name == s.name && time.Now().Before(s.ends) }

// TestUnservedNamesAreTold: names that nobody can visit are logged, with advice on how they get a
// certificate meanwhile: a few of many names, and not again and again.
func TestUnservedNamesAreTold(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		core, logs := observer.New(zap.WarnLevel)
		f := &flow{about: vendors.Description{Name: "racent"}, logger: zap.New(core), site: oneServed{name: "site0.example.com", ends: time.Now().Add(12 * time.Hour)}}
		names := make([]string, 50)
		for i := range names {
			names[i] = fmt.Sprintf("site%d.example.com", i)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var told sync.WaitGroup
		var few atomic.Int32 // of the names; another issuer exists then
		few.Store(int32(len(names)))
		told.Go(func() {
			f.tellUnserved(ctx, func() []string { return slices.Clone(names[:few.Load()]) }, func() bool { return int(few.Load()) == len(names) })
		})
		wantLog := func(sites, shown int, advice string) {
			t.Helper()
			all := logs.TakeAll()
			if len(all) != 1 {
				t.Fatalf("%d lines in the log, want one", len(all))
			}
			got := all[0].ContextMap()
			if got["sites"] != int64(sites) || len(got["identifiers"].([]any)) != shown || got["advice"] != advice {
				t.Errorf("the log has %v, want %d sites of which %d are named, and the advice %q", got, sites, shown, advice)
			}
		}
		time.Sleep(unservedAfter - time.Second)
		if logs.Len() > 0 {
			t.Error("it is logged before a CA can be done")
		}
		time.Sleep(time.Minute)
		wantLog(49, unservedShown, "a free issuer behind this one in the tls block, such as acme, gives them a certificate meanwhile")
		few.Store(2)
		time.Sleep(unservedEvery)
		wantLog(1, 1, "the issuers behind this one have not given them one either; the log tells why")
		few.Store(1)
		time.Sleep(unservedEvery - time.Minute)
		if logs.Len() > 0 {
			t.Error("a name with a certificate is logged")
		}
		time.Sleep(unservedEvery)
		wantLog(1, 1, "the issuers behind this one have not given them one either; the log tells why") // it has expired
		cancel()
		told.Wait()
	})
}
