package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/internal/test/chromium"
	"github.com/caddy-commercial/caddy-commercial/ledger"
)

// statusSites show the status page on this machine, to users, and to everybody. The
// password's hash has the lowest possible cost.
const statusSites = `
http://status.localhost {
	commercial_status
}
http://login.example.com {
	basic_auth {
		ada $2a$04$DAxcpNncWl9DfDwxV4r0SuPMPMj049nLBg92t5WnYzu4WLau3fOum
	}
	commercial_status
}
http://all.example.com {
	commercial_status {
		allow_unauthenticated
	}
}
`

// status asks a server for its status page.
func (w *world) status(host string, header http.Header) (answer, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", w.node.http), nil)
	if err != nil {
		return answer{}, err
	}
	req.Host, req.Close = host, true
	maps.Copy(req.Header, header)
	return roundTrip(req)
}

// TestStatusPage shows orders that are issued, pending and flagged, to those who may see
// them.
func TestStatusPage(t *testing.T) {
	t.Parallel()
	w := lostOrder(t, "lost.localhost", hostile.BeforeEffect)
	config := w.simple(w.node, "lost.localhost") + site("shop.localhost", w.issuer()) + statusSites
	s := w.start(config)
	s.awaitEntry("the refusal", func(e logEntry) bool { return e.Level == "error" && strings.Contains(e.raw, "is not known whether") })
	s.served("shop.localhost")
	w.update(neverIssue)
	config += site("new.localhost", w.issuer())
	s.load(config, false)
	w.await("a pending order", func() error {
		if !slices.ContainsFunc(w.entries(), func(e *ledger.Entry) bool { return e.State == ledger.Open }) {
			return errors.New("there is none")
		}
		return nil
	})

	login := func(password string) http.Header {
		r := &http.Request{Header: make(http.Header)}
		r.SetBasicAuth("ada", password)
		return r.Header
	}
	for title, tc := range map[string]struct {
		host   string
		header http.Header
		want   int
	}{
		"on this machine": {"status.localhost", nil, http.StatusOK},
		"through a proxy": {"status.localhost", http.Header{"X-Forwarded-For": {"192.0.2.1"}}, http.StatusForbidden},
		"no login":        {"login.example.com", nil, http.StatusUnauthorized},
		"a wrong login":   {"login.example.com", login("wrong"), http.StatusUnauthorized},
		"a login":         {"login.example.com", login("correct horse"), http.StatusOK},
		"everybody":       {"all.example.com", http.Header{"X-Forwarded-For": {"192.0.2.1"}}, http.StatusOK},
	} {
		got, err := w.status(tc.host, tc.header)
		if err != nil || got.status != tc.want {
			t.Errorf("%s: %v, status %d, want %d", title, err, got.status, tc.want)
		}
		for _, part := range []string{"caddy commercial resolve lost.localhost --order", ">shop.localhost</a>", ">new.localhost</a>"} {
			if shown := strings.Contains(got.body, part); shown != (tc.want == http.StatusOK) {
				t.Errorf("%s: %q is shown: %v", title, part, shown)
			}
		}
	}
	t.Run("in a browser", func(t *testing.T) { w.statusInBrowser(t) })

	ctx, stop := context.WithCancel(t.Context())
	var visitor sync.WaitGroup
	visitor.Go(func() {
		for ctx.Err() == nil {
			// Dropped connections are part of a reload.
			if got, err := w.status("status.localhost", nil); err == nil && (got.status != http.StatusOK || !strings.Contains(got.body, ">shop.localhost</a>")) {
				t.Errorf("during a reload: status %d\n%s", got.status, got.body)
			}
		}
	})
	for range 5 {
		s.load(config, true)
	}
	stop()
	visitor.Wait()

	s.load(w.localGlobals(w.node)+statusSites, false)
	w.await("the orders to go", func() error {
		got, err := w.status("status.localhost", nil)
		if err == nil && !strings.Contains(got.body, "No commercial issuer runs") {
			err = errors.New(got.body)
		}
		return err
	})
}

// statusInBrowser opens the page in light and dark, on a phone and a desktop.
func (w *world) statusInBrowser(t *testing.T) {
	b := chromium.Start(t)
	for _, screen := range []chromium.Screen{
		{Width: 360, Height: 740, Phone: true},
		{Width: 360, Height: 740, Phone: true, Dark: true},
		{Width: 1280, Height: 800},
		{Width: 1280, Height: 800, Dark: true},
	} {
		for _, query := range []string{"", "?state=open", "?order=lost.localhost", "?order=shop.localhost"} {
			p := b.Open(fmt.Sprintf("http://status.localhost:%d/%s", w.node.http, query), screen)
			for _, problem := range p.Problems() {
				t.Errorf("%+v, %q: %s", screen, query, problem)
			}
			var colour string
			p.Eval("getComputedStyle(document.body).backgroundColor", &colour)
			if want := map[bool]string{false: "rgb(246, 247, 249)", true: "rgb(18, 21, 26)"}[screen.Dark]; colour != want {
				t.Errorf("%+v, %q: the background is %s, want %s: is the style sheet there?", screen, query, colour, want)
			}
			if shot := p.Screenshot(); len(shot) < 10_000 {
				t.Errorf("%+v, %q: a picture of %d bytes", screen, query, len(shot))
			}
		}
	}
}
