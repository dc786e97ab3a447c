package caddycommercial

import (
	"context"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/libdns/libdns"
)

const modulePath = "github.com/caddy-commercial/caddy-commercial"

// cloudflare stands for the DNS provider of that name, which the docs use as an example and which is
// a plugin of its own.
type cloudflare struct {
	Token string `json:"api_token,omitempty"`
}

// execHandler stands for the event handler of that name, which docs/events.md uses as an example and
// which is a plugin of its own.
type execHandler struct {
	Command    string   `json:"command,omitempty"`
	Args       []string `json:"args,omitempty"`
	Foreground bool     `json:"foreground,omitempty"`
}

func init() {
	caddy.RegisterModule(new(cloudflare))
	caddy.RegisterModule(new(execHandler))
}

func (*execHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.exec", New: func() caddy.Module { return new(execHandler) }}
}

func (h *execHandler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume handler name
	if !d.Args(&h.Command) {
		return d.ArgErr()
	}
	h.Args = d.RemainingArgs()
	return nil
}

func (*execHandler) Handle(context.Context, caddy.Event) error { return nil }

func (*cloudflare) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "dns.providers.cloudflare", New: func() caddy.Module { return new(cloudflare) }}
}

func (c *cloudflare) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume provider name
	if !d.AllArgs(&c.Token) {
		return d.ArgErr()
	}
	return nil
}

func (*cloudflare) AppendRecords(context.Context, string, []libdns.Record) ([]libdns.Record, error) {
	return nil, errors.ErrUnsupported
}

func (*cloudflare) GetRecords(context.Context, string) ([]libdns.Record, error) {
	return nil, errors.ErrUnsupported
}

func (*cloudflare) SetRecords(context.Context, string, []libdns.Record) ([]libdns.Record, error) {
	return nil, errors.ErrUnsupported
}

func (*cloudflare) DeleteRecords(context.Context, string, []libdns.Record) ([]libdns.Record, error) {
	return nil, errors.ErrUnsupported
}

// ourModules returns the modules of this plugin that importing it has registered.
func ourModules() []caddy.ModuleInfo {
	var ours []caddy.ModuleInfo
	for _, id := range caddy.Modules() {
		info, err := caddy.GetModule(id)
		if err != nil {
			continue
		}
		typ := reflect.TypeOf(info.New())
		if typ.Kind() == reflect.Pointer && strings.HasPrefix(typ.Elem().PkgPath(), modulePath+"/") {
			ours = append(ours, info)
		}
	}
	return ours
}

// TestModulesRegister compares what is registered with what the package
// documentation and docs/options.md promise.
func TestModulesRegister(t *testing.T) {
	promised := regexp.MustCompile(`(?m)^//\t((?:tls|http|admin)\.[a-z._]+|commercial[a-z.]*) `).FindAllStringSubmatch(read(t, "plugin.go"), -1)
	if len(promised) < 4 {
		t.Fatalf("the package documentation names %d modules", len(promised))
	}
	var want, got []string
	for _, match := range promised {
		want = append(want, match[1])
	}
	for _, info := range ourModules() {
		got = append(got, string(info.ID))
		if !strings.Contains(read(t, filepath.Join("docs", "options.md")), "`"+string(info.ID)+"`") {
			t.Errorf("docs/options.md does not name %s", info.ID)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("registered %v, documented %v", got, want)
	}
}

// TestVendorsAreEverywhere checks that each vendor is in the places where nothing else would notice
// that it is missing.
func TestVendorsAreEverywhere(t *testing.T) {
	places := []struct{ file, text string }{
		{"README.md", "(docs/%s.md) (`tls.vendors.%s`) |"}, // the table
		{filepath.Join("docs", "vendors.md"), "(`tls.vendors.%s`) |"},
		{"CHANGELOG.md", "`tls.vendors.%s`"},
		{"example.Caddyfile", "vendor %s "},
		{filepath.Join("cmd", "order-sandbox", "options.go"), `"%s": "/`},
		{filepath.Join("cmd", "order-sandbox", "README.md"), "%s "},
		{filepath.Join("issuer", "vendors_test.go"), `{name: "%s", `},
		{filepath.Join("internal", "test", "e2e", "vendors_test.go"), `{"%s", `},
	}
	for _, info := range ourModules() {
		name, isVendor := strings.CutPrefix(string(info.ID), "tls.vendors.")
		if !isVendor || name == "sandbox" {
			continue
		}
		for _, place := range places {
			if want := strings.ReplaceAll(place.text, "%s", name); !strings.Contains(read(t, place.file), want) {
				t.Errorf("%s does not have %q", place.file, want)
			}
		}
		if _, err := os.Stat(filepath.Join("docs", name+".md")); err != nil {
			t.Errorf("no page describes what is known about the API: %v", err)
		}
	}
}

func TestExampleAdapts(t *testing.T) {
	_, warnings, err := adapt(read(t, "example.Caddyfile"))
	if err != nil || len(warnings) > 0 {
		t.Errorf("%v, warnings %v", err, warnings)
	}
}

func adapt(text string) ([]byte, []caddyconfig.Warning, error) {
	return caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// optionTable is a literal of an options table in the source: where it is, for which block of a
// Caddyfile, and the names of its options.
type optionTable struct {
	file, block string
	syntax      string // the comment of the function, or that of UnmarshalCaddyfile beside it
	names       []string
}

// optionTables reads all option tables of the modules from the source.
func optionTables(t *testing.T) []optionTable {
	t.Helper()
	var tables []optionTable
	for _, file := range sources(t, "issuer", "vendors", "dcv", "statuspage", "caddyfile") {
		parsed := parse(t, file)
		syntax := ""
		for _, decl := range parsed.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Name.Name == "UnmarshalCaddyfile" {
				syntax = fn.Doc.Text()
			}
		}
		for _, decl := range parsed.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				lit, ok := n.(*ast.CompositeLit)
				if !ok {
					return true
				}
				if sel, ok := lit.Type.(*ast.SelectorExpr); !ok || sel.Sel.Name != "Table" {
					return true
				}
				table := optionTable{file: file, block: blockOf(file, fn.Name.Name), syntax: syntax}
				for _, element := range lit.Elts {
					pair := element.(*ast.KeyValueExpr)
					if isRefused(pair.Value) {
						continue
					}
					name, err := strconv.Unquote(pair.Key.(*ast.BasicLit).Value)
					if err != nil {
						t.Fatal(err)
					}
					table.names = append(table.names, name)
				}
				tables = append(tables, table)
				return false
			})
		}
	}
	if len(tables) < 5 {
		t.Fatalf("found only %d options tables; has their format changed?", len(tables))
	}
	return withAccounts(tables)
}

// isRefused reports whether an option exists only to say why it does not exist.
func isRefused(option ast.Expr) bool {
	call, ok := option.(*ast.CallExpr)
	if !ok {
		return false
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	return ok && sel.Sel.Name == "Refused"
}

// withAccounts adds the options that all vendors share to the table of each vendor that accepts them.
func withAccounts(tables []optionTable) []optionTable {
	shared := func(table optionTable) bool { return strings.HasPrefix(table.file, "vendors/internal/kit/") }
	i := slices.IndexFunc(tables, shared)
	if i < 0 {
		return tables
	}
	names := tables[i].names
	tables = slices.DeleteFunc(tables, shared)
	for i, table := range tables {
		if strings.HasPrefix(table.file, "vendors/") && table.block != "sandbox" && !slices.Contains(table.names, names[0]) {
			tables[i].names = slices.Concat(table.names, names)
		}
	}
	return tables
}

// blockOf names the block that a table in this function of this file is for: that of a function such
// as contactOption, the vendor of a vendor's folder, the status page, or the issuer.
func blockOf(file, function string) string {
	if block, ok := strings.CutSuffix(function, "Option"); ok {
		return block
	}
	if dir := filepath.Dir(file); strings.HasPrefix(dir, "vendors/") {
		return filepath.Base(dir)
	} else if dir == "statuspage" {
		return "commercial_status"
	}
	return "commercial"
}

func sources(t *testing.T, roots ...string) []string {
	t.Helper()
	var files []string
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
			if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
				files = append(files, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func parse(t *testing.T, file string) *ast.File {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// TestEveryOptionIsDocumented checks that each option is in the syntax comment beside its table, in
// the right block of a Caddyfile in docs/options.md, and among the golden files of errors.
func TestEveryOptionIsDocumented(t *testing.T) {
	documented := make(map[string]bool)
	for _, text := range fencesOf(t, filepath.Join("docs", "options.md"), "caddyfile") {
		for _, option := range optionsIn(text) {
			documented[option] = true
		}
	}
	failing := ""
	for _, file := range glob(t, filepath.Join("caddyfile", "testdata", "errors", "*.caddyfiletest")) {
		failing += read(t, file)
	}
	for _, table := range optionTables(t) {
		for _, name := range table.names {
			if !regexp.MustCompile(`(?m)^\s*` + name + `\b`).MatchString(table.syntax) {
				t.Errorf("%s: the comment of UnmarshalCaddyfile does not show %q", table.file, name)
			}
			if !documented[table.block+" "+name] {
				t.Errorf("no Caddyfile of docs/options.md shows option %q of %q", name, table.block)
			}
			if !strings.Contains(failing, "option '"+name+"'") {
				t.Errorf("no golden file shows how option %q of %q fails", name, table.block)
			}
		}
	}
}

// optionsIn returns each line's option with its block, as "block option".
func optionsIn(caddyfile string) []string {
	var found []string
	blocks := []string{""}
	for line := range strings.Lines(caddyfile) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		if words[0] == "}" {
			blocks = blocks[:len(blocks)-1]
			continue
		}
		found = append(found, blocks[len(blocks)-1]+" "+words[0])
		line, _, _ := strings.Cut(line, " #")
		if strings.HasSuffix(strings.TrimSpace(line), "{") {
			block := words[0]
			if slices.Contains([]string{"vendor", "issuer", "cert_issuer"}, block) {
				block = words[1]
			}
			blocks = append(blocks, block)
		}
	}
	return found
}

// fences returns the fenced blocks in a language from the README and the docs.
func fences(t *testing.T, language string) []string {
	t.Helper()
	var list []string
	for _, file := range append(glob(t, filepath.Join("docs", "*.md")), "README.md") {
		list = append(list, fencesOf(t, file, language)...)
	}
	if len(list) == 0 {
		t.Fatalf("there is no %s in the README and the docs", language)
	}
	return list
}

// fencesOf returns those from one page.
func fencesOf(t *testing.T, file, language string) (list []string) {
	t.Helper()
	for _, match := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(read(t, file), -1) {
		list = append(list, match[1])
	}
	return list
}

// TestReadmeConfigsLoad passes all configs of the README and the docs through everything that Caddy
// does before it starts one.
func TestReadmeConfigsLoad(t *testing.T) {
	configs := fences(t, "json")
	for _, text := range fences(t, "caddyfile") {
		raw, _, err := adapt(text)
		if err != nil {
			t.Errorf("%v in\n%s", err, text)
			continue
		}
		configs = append(configs, string(raw))
	}
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("licence.pdf", []byte("%PDF-"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, text := range configs {
		for _, match := range regexp.MustCompile(`{env\.(\w+)}`).FindAllStringSubmatch(text, -1) {
			t.Setenv(match[1], "token")
		}
		// Another program may be using the port.
		text = strings.ReplaceAll(text, "127.0.0.1:9443", "127.0.0.1:0")
		cfg := new(caddy.Config)
		if err := caddy.StrictUnmarshalJSON([]byte(text), cfg); err != nil {
			t.Errorf("%v in\n%s", err, text)
			continue
		}
		cfg.Admin = &caddy.AdminConfig{Disabled: true}
		cfg.StorageRaw = json.RawMessage(`{"module": "file_system", "root": "storage"}`)
		if err := caddy.Validate(cfg); err != nil {
			t.Errorf("%v in\n%s", err, text)
		}
	}
}

// TestReadmeQuotesRealMessages checks that the source has the messages that are headings of
// docs/troubleshooting.md, those that docs/import.md explains, and those in the README's recording.
// Dots in a heading stand for what varies.
func TestReadmeQuotesRealMessages(t *testing.T) {
	var texts []string
	for _, file := range sources(t, "issuer", "app", "check", "ledger", "vendors", "dcv", "internal") {
		ast.Inspect(parse(t, file), func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if text, err := strconv.Unquote(lit.Value); err == nil {
					texts = append(texts, text)
				}
			}
			return true
		})
	}
	headings := regexp.MustCompile("(?m)^#### `(.+)`").FindAllStringSubmatch(read(t, filepath.Join("docs", "troubleshooting.md")), -1)
	if len(headings) < 10 {
		t.Fatalf("found %d headings", len(headings))
	}
	refusals := regexp.MustCompile("(?m)^\\| `(.+?)` \\|").FindAllStringSubmatch(read(t, filepath.Join("docs", "import.md")), -1)
	if len(refusals) < 5 {
		t.Fatalf("docs/import.md has %d refusals", len(refusals))
	}
	recorded := regexp.MustCompile(`(?m)^[0-9:.]+ +[A-Z]+ +tls\.(?:issuance|vendors)\.[a-z]+ +(.+?) +{`).FindAllStringSubmatch(read(t, "README.md"), -1)
	if len(recorded) < 3 {
		t.Fatalf("the README's recording has %d messages", len(recorded))
	}
	for _, heading := range slices.Concat(headings, refusals, recorded) {
		for part := range strings.SplitSeq(heading[1], "…") {
			part = strings.TrimSpace(part)
			if !slices.ContainsFunc(texts, func(text string) bool { return quotes(part, text) }) {
				t.Errorf("no message of the source has %q", part)
			}
		}
	}
}

// quotes reports whether a part of a heading is in a message of the source, which may begin with the
// name of an option that is inserted.
func quotes(part, message string) bool {
	if rest, ok := strings.CutPrefix(message, "%s: "); ok {
		if option, said, _ := strings.Cut(part, ": "); said != "" && !strings.Contains(option, " ") && strings.HasPrefix(rest, said) {
			return true
		}
	}
	return strings.Contains(message, part)
}

// TestReadmeCommands checks that the README and the project's check use the same commands.
func TestReadmeCommands(t *testing.T) {
	for _, command := range []string{"go run ./cmd/caddy run --config example.Caddyfile", "go test -race ./..."} {
		for _, file := range []string{"README.md", filepath.Join(".ci", "run")} {
			if !strings.Contains(read(t, file), command) {
				t.Errorf("%s does not have %q", file, command)
			}
		}
	}
}

// TestDependenciesAreExplained checks that CONTRIBUTING.md explains each module that go.mod requires
// directly.
func TestDependenciesAreExplained(t *testing.T) {
	direct := regexp.MustCompile(`(?m)^(?:require )?\t?([a-z.]+\.[a-z]+/\S+) v\S+$`).FindAllStringSubmatch(read(t, "go.mod"), -1)
	if len(direct) < 5 {
		t.Fatalf("go.mod has %d direct dependencies", len(direct))
	}
	for _, match := range direct {
		if !strings.Contains(read(t, "CONTRIBUTING.md"), "`"+match[1]+"`") {
			t.Errorf("CONTRIBUTING.md does not say why %s is needed", match[1])
		}
	}
}

// TestFieldsHaveDocs: Caddy's website generates the JSON documentation from these comments.
func TestFieldsHaveDocs(t *testing.T) {
	seen := make(map[reflect.Type]bool)
	var check func(reflect.Type)
	check = func(typ reflect.Type) {
		for slices.Contains([]reflect.Kind{reflect.Pointer, reflect.Slice}, typ.Kind()) {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || seen[typ] || !strings.HasPrefix(typ.PkgPath(), modulePath+"/") {
			return
		}
		seen[typ] = true
		comments, documented := fieldComments(t, typ)
		if !documented {
			t.Errorf("%s has no comment", typ)
		}
		for i := range typ.NumField() {
			field := typ.Field(i)
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if field.Anonymous && name == "" {
				check(field.Type)
			}
			if !field.IsExported() || name == "" || name == "-" {
				continue
			}
			if comments[field.Name] == "" {
				t.Errorf("%s.%s has no comment", typ, field.Name)
			}
			check(field.Type)
		}
	}
	for _, info := range ourModules() {
		check(reflect.TypeOf(info.New()))
	}
}

// fieldComments returns the comments of a struct's fields, and whether the struct
// has one itself.
func fieldComments(t *testing.T, typ reflect.Type) (comments map[string]string, documented bool) {
	t.Helper()
	comments = make(map[string]string)
	for _, file := range glob(t, filepath.Join(strings.TrimPrefix(typ.PkgPath(), modulePath+"/"), "*.go")) {
		for _, decl := range parse(t, file).Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range gen.Specs {
				def, ok := spec.(*ast.TypeSpec)
				if !ok || def.Name.Name != typ.Name() {
					continue
				}
				documented = gen.Doc.Text() != ""
				for _, field := range def.Type.(*ast.StructType).Fields.List {
					for _, name := range field.Names {
						comments[name.Name] = field.Doc.Text()
					}
				}
			}
		}
	}
	return comments, documented
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("nothing at %s: %v", pattern, err)
	}
	return files
}
