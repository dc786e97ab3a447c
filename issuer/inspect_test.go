package issuer

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/libdns/libdns"

	"github.com/caddy-commercial/caddy-commercial/check"
	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/internal/test/zonetest"
)

// TestRunningCaddyThatDoesNotAnswer, such as one that is loading a config, does not block the check.
func TestRunningCaddyThatDoesNotAnswer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		cancel()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
		}
		_, _ = w.Write([]byte("{}"))
	}))
	defer server.Close()
	defer close(ended)
	in := new(inspection)
	if err := in.askRunning(ctx, server.Listener.Addr().String()); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
}

// TestRecordThatStays: a trial record that the provider does not remove is told of.
func TestRecordThatStays(t *testing.T) {
	for _, stays := range []bool{false, true} {
		zone := zonetest.Start(t, "stays.example.")
		zone.OnCall(func(_ context.Context, call string, _ []libdns.Record) error {
			if stays && call == "delete" {
				return errors.New("429 too many requests")
			}
			return nil
		})
		b := &inspected{iss: new(Issuer)}
		b.iss.proofs.DNS = &dcv.DNS{Provider: zonetest.Provider{Zone: zone}, Resolvers: []string{zone.Addr}, PropagationTimeout: time.Second}
		r := new(inspection).tryRecord(t.Context(), b, "shop.stays.example")
		if left := zone.Records(); (len(left) > 0) != stays || (r.Verdict == check.OK) == stays || stays && !strings.Contains(r.Message+r.Advice, strings.Fields(left[0])[0]) {
			t.Errorf("%+v, left %q", r, left)
		}
	}
}
