package caddyfile

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-commercial/caddy-commercial/internal/test/e2e/dnsprovider"
	"github.com/caddy-commercial/caddy-commercial/issuer"
	_ "github.com/caddy-commercial/caddy-commercial/vendors/digicert"
	_ "github.com/caddy-commercial/caddy-commercial/vendors/howssl"
	_ "github.com/caddy-commercial/caddy-commercial/vendors/racent"
	_ "github.com/caddy-commercial/caddy-commercial/vendors/sandbox"
)

// update replaces what the golden files expect by what the adapter returns now. Read the difference
// before you keep it.
var update = flag.Bool("update", false, "rewrite the golden files")

// A golden file holds one or more cases. A case is a Caddyfile, a line of dashes, and the JSON or
// the error that it leads to. A line of equals signs separates cases.
const (
	dashes = "----------"
	equals = "=========="
)

type golden struct{ input, want string }

func readGoldens(t *testing.T, path string) []golden {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var cases []golden
	for text := range strings.SplitSeq(string(data), "\n"+equals+"\n") {
		input, want, ok := strings.Cut(text+"\n", "\n"+dashes+"\n")
		if !ok && !*update {
			t.Fatalf("%s: case %d has no line of dashes", path, len(cases)+1)
		}
		cases = append(cases, golden{strings.TrimSpace(input) + "\n", strings.TrimSpace(want)})
	}
	return cases
}

func writeGoldens(t *testing.T, path string, cases []golden) {
	t.Helper()
	var texts []string
	for _, c := range cases {
		texts = append(texts, c.input+dashes+"\n"+c.want+"\n")
	}
	if err := os.WriteFile(path, []byte(strings.Join(texts, equals+"\n")), 0o600); err != nil {
		t.Fatal(err)
	}
}

func goldenFiles(t *testing.T, folder string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", folder, "*.caddyfiletest"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files in %s: %v", folder, err)
	}
	return files
}

// adapt turns a Caddyfile into indented JSON.
func adapt(t *testing.T, input string) (string, error) {
	t.Helper()
	got, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(input), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return "", err
	}
	for _, w := range warnings {
		t.Errorf("adapting warns: %v", w)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, got, "", "\t"); err != nil {
		t.Fatal(err)
	}
	return out.String(), nil
}

func TestAdapt(t *testing.T) {
	for _, path := range goldenFiles(t, "adapt") {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".caddyfiletest"), func(t *testing.T) {
			cases := readGoldens(t, path)
			for i, c := range cases {
				got, err := adapt(t, c.input)
				if err != nil {
					t.Fatal(err)
				}
				if got != c.want && !*update {
					t.Errorf("adapted\n%s\nto\n%s\nwant\n%s", c.input, got, c.want)
				}
				cases[i].want = got
			}
			if *update {
				writeGoldens(t, path, cases)
			}
		})
	}
}

// place is the end of every error: the file and the line to check.
var place = regexp.MustCompile(`at Caddyfile:\d+`)

func TestAdaptErrors(t *testing.T) {
	for _, path := range goldenFiles(t, "errors") {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".caddyfiletest"), func(t *testing.T) {
			cases := readGoldens(t, path)
			for i, c := range cases {
				got, err := adapt(t, c.input)
				if err == nil {
					t.Errorf("adapted without an error:\n%s\nto\n%s", c.input, got)
					continue
				}
				if !place.MatchString(err.Error()) {
					t.Errorf("the error does not say where: %v", err)
				}
				if err.Error() != c.want && !*update {
					t.Errorf("adapting\n%s\nfailed with\n%s\nwant\n%s", c.input, err, c.want)
				}
				cases[i].want = err.Error()
			}
			if *update {
				writeGoldens(t, path, cases)
			}
		})
	}
}

// TestGoldensUseEveryField fails for a JSON field of one of our modules that no golden file sets,
// and therefore for an option without an example.
func TestGoldensUseEveryField(t *testing.T) {
	seen := make(map[string]bool)
	for _, path := range goldenFiles(t, "adapt") {
		for _, c := range readGoldens(t, path) {
			var config any
			if err := json.Unmarshal([]byte(c.want), &config); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			eachIssuer(config, func(iss map[string]any) {
				visit(t, reflect.TypeFor[issuer.Issuer](), iss, seen)
			})
		}
	}
	want := make(map[string]bool)
	expect(reflect.TypeFor[issuer.Issuer](), want)
	for _, info := range caddy.GetModules("tls.vendors") {
		expect(reflect.TypeOf(info.New()).Elem(), want)
	}
	for field := range want {
		if !seen[field] {
			t.Errorf("no golden file sets %s", field)
		}
	}
}

// eachIssuer finds the commercial issuers anywhere in a config.
func eachIssuer(config any, found func(map[string]any)) {
	switch v := config.(type) {
	case map[string]any:
		if v["module"] == "commercial" {
			found(v)
		}
		for _, inner := range v {
			eachIssuer(inner, found)
		}
	case []any:
		for _, inner := range v {
			eachIssuer(inner, found)
		}
	}
}

// jsonFields calls use for each field of a struct type that has a JSON name, including those of
// embedded structs.
func jsonFields(typ reflect.Type, use func(name string, field reflect.StructField)) {
	for i := range typ.NumField() {
		field := typ.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch embedded := inner(field.Type); {
		case field.Anonymous && name == "" && embedded != nil:
			jsonFields(embedded, use)
		case name != "" && name != "-":
			use(name, field)
		}
	}
}

// inner returns the struct type behind a field, or nil.
func inner(typ reflect.Type) reflect.Type {
	for slices.Contains([]reflect.Kind{reflect.Pointer, reflect.Slice}, typ.Kind()) {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct {
		return nil
	}
	return typ
}

func expect(typ reflect.Type, want map[string]bool) {
	jsonFields(typ, func(name string, field reflect.StructField) {
		want[typ.String()+"."+name] = true
		if t := inner(field.Type); t != nil {
			expect(t, want)
		}
	})
}

// visit records the fields that a JSON object sets.
func visit(t *testing.T, typ reflect.Type, value any, seen map[string]bool) {
	if list, ok := value.([]any); ok {
		for _, item := range list {
			visit(t, typ, item, seen)
		}
		return
	}
	object, ok := value.(map[string]any)
	if !ok {
		t.Fatalf("%v for %s is not an object", value, typ)
	}
	known := map[string]bool{"module": true, "name": true}
	jsonFields(typ, func(name string, field reflect.StructField) {
		known[name] = true
		v, ok := object[name]
		if !ok {
			return
		}
		seen[typ.String()+"."+name] = true
		if name == "vendor" {
			info, err := caddy.GetModule("tls.vendors." + v.(map[string]any)["name"].(string))
			if err != nil {
				t.Fatal(err)
			}
			visit(t, reflect.TypeOf(info.New()).Elem(), v, seen)
		} else if s := inner(field.Type); s != nil {
			visit(t, s, v, seen)
		}
	})
	for name := range object {
		if !known[name] {
			t.Errorf("%s has no JSON field %q", typ, name)
		}
	}
}
