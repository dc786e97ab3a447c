package sandbox

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
)

// TestPortsOfTheHTTPApp: without ports in its config, the sandbox fetches files where the HTTP app
// listens.
func TestPortsOfTheHTTPApp(t *testing.T) {
	w := newWeb(t)
	var cfg caddy.Config
	config := fmt.Sprintf(`{
		"admin": {"disabled": true, "config": {"persist": false}},
		"storage": {"module": "file_system", "root": %q},
		"apps": {"http": {"http_port": %d}}
	}`, t.TempDir(), w.port)
	if err := json.Unmarshal([]byte(config), &cfg); err != nil {
		t.Fatal(err)
	}
	if err := caddy.Run(&cfg); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	}()

	ctx, cancel := caddy.NewContext(caddy.ActiveContext())
	defer cancel()
	mod, err := ctx.LoadModuleByID("tls.vendors.sandbox", fmt.Appendf(nil, `{"data_dir": %q}`, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	s := mod.(*Sandbox)
	if _, err := s.Place(t.Context(), order(t, "1")); err != nil {
		t.Fatal(err)
	}
	fetches := s.service.ca.Fetches()
	if len(fetches) == 0 {
		t.Fatal("no file was fetched")
	}
	for _, f := range fetches {
		if !strings.Contains(f.URL, fmt.Sprintf(":%d/", w.port)) || f.Result == sandboxca.ResultOK || f.Status != 404 {
			t.Errorf("fetched %+v", f)
		}
	}
}
