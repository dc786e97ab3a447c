package kit

import (
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

func TestMissingCredentialSaysWhatToWrite(t *testing.T) {
	for credential, want := range map[string]string{
		"api_token": "api_token: missing; give it after the vendor's name, for example: vendor racent {env.RACENT_TOKEN}",
		"token":     "token: missing; give it after the vendor's name, for example: vendor racent {env.RACENT_TOKEN}",
	} {
		ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
		_, err := new(Account).Config(ctx, credential, "", "https://portal.example", vendors.Description{Name: "racent"})
		cancel()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
