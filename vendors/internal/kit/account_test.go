package kit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

func TestMissingCredentialSaysWhatToWrite(t *testing.T) {
	for credential, want := range map[string]string{
		"api_token": "api_token: missing; give it after the vendor's name, for example: vendor racent {env.RACENT_TOKEN}",
		"token":     "token: missing; give it after the vendor's name, for example: vendor racent {env.RACENT_TOKEN}",
	} {
		ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
		_, err := new(Account).Config(ctx, credential, "", "https://portal.example", vendors.Description{Name: "racent"}, Limits{})
		cancel()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// Some shells write UTF-16 into a file.
func TestCredentialThatIsNoText(t *testing.T) {
	for _, credential := range []string{"\xff\xfeX\x00Y\x00", "X\x00Y\x00", "X\xe9Y", "X\nY"} {
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, []byte(credential), 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
		cfg, err := new(Account).Config(ctx, "api_token", "{file."+file+"}", "https://portal.example", vendors.Description{Name: "racent"}, Limits{})
		if err == nil {
			_, err = NewClient(cfg)
		}
		cancel()
		if err == nil || !strings.HasPrefix(err.Error(), "api_token: ") || strings.Contains(err.Error(), "Y") {
			t.Errorf("%q: got %v", credential, err)
		}
	}
}

func TestCleanupReleasesTheLimiter(t *testing.T) {
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	var a Account
	cfg, err := a.Config(ctx, "token", "x", "https://portal.example", vendors.Description{Name: "racent"}, Limits{1, []Limit{{1, time.Hour}}})
	if err != nil || cfg.Limiter == nil {
		t.Fatalf("%+v, %v", cfg.Limiter, err)
	}
	if _, err := NewClient(cfg); err != nil {
		t.Fatal(err)
	}
	if len(a.ends) != 2 {
		t.Errorf("%d things to clean up, want the limiter and the client", len(a.ends))
	}
	if err := a.Cleanup(); err != nil {
		t.Error(err)
	}
	limiters.Range(func(any, any) bool { t.Error("not released"); return false })
	if err := new(Account).Cleanup(); err != nil {
		t.Errorf("for a module that was never provisioned: %v", err)
	}
}
