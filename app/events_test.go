package app

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// testHandler handles events with a function.
type testHandler struct{ handle func(caddy.Event) }

func (h testHandler) Handle(_ context.Context, e caddy.Event) error {
	h.handle(e)
	return nil
}

// TestEvents: events reach the handlers of their config and of no other, with the app as their
// origin, including those from before all apps have started, and the last ones.
func TestEvents(t *testing.T) {
	s := newSite(t)
	var mu sync.Mutex
	seen := make(map[*App][]string)
	onProvision = func(a *App) {
		mod, err := a.ctx.App("events")
		if err != nil {
			t.Fatal(err)
		}
		err = mod.(*caddyevents.App).On("commercial_test", testHandler{func(e caddy.Event) {
			mu.Lock()
			defer mu.Unlock()
			seen[a] = append(seen[a], fmt.Sprint(e.Name(), " ", e.Origin().CaddyModule().ID, " ", e.Data["n"]))
		}})
		if err != nil {
			t.Fatal(err)
		}
		emit := func(n int) func() {
			return func() { a.Emit("commercial_test", map[string]any{"n": n}) }
		}
		a.OnStart(emit(1))
		a.OnListening(emit(2))
		a.OnStop(func() {
			a.Emit("commercial_other", nil)
			for n := 3; n <= 100; n++ {
				emit(n)()
			}
		})
	}
	defer func() { onProvision = nil }()
	config := s.config(true, object{"tls": tlsApp(nil, policy("apptest", "shop.example.com"))})
	first := s.load(config)
	second := s.load(config)
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	var want []string
	for n := 1; n <= 100; n++ {
		want = append(want, fmt.Sprint("commercial_test commercial.events ", n))
	}
	for _, a := range []*App{first, second} {
		if !slices.Equal(seen[a], want) {
			t.Errorf("got %q", seen[a])
		}
		a.Emit("commercial_test", nil) // too late, but harmless
	}
}

// newTestEmitter returns an emitter whose events go to handle.
func newTestEmitter(t *testing.T, handle func(n int)) (em *emitter, logs *observer.ObservedLogs, cancel context.CancelFunc) {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	events := new(caddyevents.App)
	if err := events.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	if err := events.On("n", testHandler{func(e caddy.Event) { handle(e.Data["n"].(int)) }}); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.DebugLevel)
	ready := make(chan struct{})
	close(ready)
	em, err := newEmitter(ctx, events, zap.New(core), ready)
	if err != nil {
		t.Fatal(err)
	}
	em.queue = make(chan event, 10)
	return em, logs, cancel
}

func number(n int) event { return event{"n", map[string]any{"n": n}} }

// TestSlowHandler: a slow handler holds nobody up. Events that do not fit are dropped, which is
// logged once.
func TestSlowHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handled := 0
		em, logs, cancel := newTestEmitter(t, func(n int) {
			if n != handled {
				t.Errorf("got %d after %d", n, handled-1)
			}
			handled++
			time.Sleep(time.Hour)
			if n == 3 {
				panic("a bad handler")
			}
		})
		defer cancel()
		go em.run()
		began := time.Now()
		for n := range cap(em.queue) + 10 {
			em.emit(number(n))
			if n == 0 {
				synctest.Wait() // the handler has the event
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %s", took)
		}
		if n := logs.FilterMessageSnippet("too slow").Len(); n != 1 {
			t.Errorf("logged %d times", n)
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if handled != cap(em.queue)+1 {
			t.Errorf("%d events were handled", handled)
		}
		if n := logs.FilterMessageSnippet("panic in an event handler").Len(); n != 1 {
			t.Errorf("%d panics", n)
		}
		em.close()
	})
}

// TestHandlerThatHangs: a handler that hangs delays the end of a config by only a few seconds, and
// the goroutine ends with it.
func TestHandlerThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handled := 0
		em, logs, cancel := newTestEmitter(t, func(int) {
			handled++
			time.Sleep(time.Minute)
		})
		go em.run()
		for n := range 3 {
			em.emit(number(n))
		}
		began := time.Now()
		em.close()
		if took := time.Since(began); took != eventPatience {
			t.Errorf("it took %s", took)
		}
		cancel()
		<-em.done
		if handled != 1 || logs.FilterMessageSnippet("the config has ended").Len() != 1 {
			t.Errorf("%d events were handled; %v", handled, logs.All())
		}
		em.emit(number(4))
	})
}
