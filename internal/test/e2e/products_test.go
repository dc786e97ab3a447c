package e2e

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestProducts: all vendors of a config list what they sell, whether or not it is
// running, and nothing is ordered.
func TestProducts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	config := w.localGlobals(w.node)
	for _, s := range sellers {
		config += site(s.name+".localhost", w.issuerOf(s, "")) + site("more."+s.name+".localhost", w.issuerOf(s, ""))
	}
	file := filepath.Join(w.node.home, "Caddyfile")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	list := func(args ...string) (string, error) {
		return w.run(w.node, append([]string{"commercial", "products", "--config", file}, args...)...)
	}
	all, err := list()
	if err != nil {
		t.Fatalf("%v\n%s", err, all)
	}
	for _, part := range []string{"racent (", "digicert (", "howssl (", "comodo-positivessl ", "ssl_dv_rapidssl ", "12: "} {
		if !strings.Contains(all, part) {
			t.Errorf("%q is not in\n%s", part, all)
		}
	}
	if strings.Contains(all, "vendor call") {
		t.Errorf("the calls are logged:\n%s", all)
	}
	if n := strings.Count(all, "racent ("); n != 1 {
		t.Errorf("the account is listed %d times", n)
	}
	some, err := list("--vendor", "racent", "--search", "POSITIVESSL wildcard")
	if err != nil || !strings.Contains(some, "wildcard") || strings.Contains(some, "rapidssl") || strings.Contains(some, "comodo-positivessl ") {
		t.Errorf("%v\n%s", err, some)
	}
	if none, err := list("--vendor", "nobody"); err == nil || !strings.Contains(none, "no commercial issuer with such a vendor") {
		t.Errorf("%v\n%s", err, none)
	}
	var catalogues []struct {
		Vendor   string
		Products []struct {
			Code   string
			Prices map[int]string
		}
	}
	if out, err := list("--vendor", "racent", "--search", "comodo-positivessl", "--json"); err != nil ||
		json.Unmarshal([]byte(strings.Join(lines(out), "\n")), &catalogues) != nil || catalogues[0].Products[0].Prices[12] == "" {
		t.Errorf("%v\n%s", err, out)
	}
	// A sandbox is left alone: its directory belongs to one process, the running server.
	dir := filepath.Join(w.dir, "sandbox")
	config = w.localGlobals(w.node) + site("demo.localhost", "issuer commercial {\n\tvendor sandbox {\n\t\tdata_dir "+dir+"\n\t}\n}\n")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if none, err := list(); err == nil || !strings.Contains(none, "the sandbox is none") {
		t.Errorf("%v\n%s", err, none)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a sandbox was started: %v", err)
	}
	w.charges(0)
}
