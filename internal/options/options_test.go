package options

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

type config struct {
	Text    string
	Number  int
	Port    int
	Wait    caddy.Duration
	On      bool
	List    []string
	Inner   string
	Deep    string
	Letters string
	Module  json.RawMessage
}

func (c *config) table() Table {
	return Table{
		"text":   String(&c.Text),
		"number": Int(&c.Number, 1, 6),
		"port":   Port(&c.Port),
		"wait":   Duration(&c.Wait),
		"on":     Flag(&c.On),
		"list":   Args(&c.List, 1, 3),
		"names":  Args(&c.List, 1, 0).Repeatable(),
		"inner": Block(Table{
			"text": String(&c.Inner),
			"deep": Block(Table{"text": String(&c.Deep)}),
		}),
		"letter": Value(func(arg string) error {
			if len(arg) != 1 {
				return errors.New("one letter only")
			}
			c.Letters += arg
			return nil
		}).Repeatable(),
		"module": Module("options.test", "name", &c.Module),
		"colour": Refused(errors.New("everything is grey")),
	}
}

func parse(input string) (config, error) {
	var c config
	d := caddyfile.NewTestDispenser(input)
	d.Next()
	err := Parse(d, c.table())
	return c, err
}

func TestParseSetsEveryKind(t *testing.T) {
	got, err := parse(`thing {
		text "a b"
		number 6
		port 65535
		wait 2d
		on
		list x y
		names z
		names z2 z3
		letter p
		letter q
		inner {
			deep {
				text down
			}
			text up
		}
		module tester arg {
			text inside
		}
	}`)
	if err != nil {
		t.Fatal(err)
	}
	want := config{
		Text: "a b", Number: 6, Port: 65535, Wait: caddy.Duration(48 * time.Hour), On: true,
		List: []string{"x", "y", "z", "z2", "z3"}, Inner: "up", Deep: "down", Letters: "pq",
		Module: got.Module,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	var module map[string]string
	if err := json.Unmarshal(got.Module, &module); err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"name": "tester", "arg": "arg", "text": "inside"}; !reflect.DeepEqual(module, want) {
		t.Errorf("module = %v, want %v", module, want)
	}
}

func TestParseAcceptsNoBlockAndEmptyBlocks(t *testing.T) {
	for _, input := range []string{
		"thing",
		"thing {\n}",
		"thing {\n inner\n on\n}",
		"thing {\n inner {\n }\n on\n}",
		"thing {\n module tester a\n on\n}",
		"thing {\n module tester a {\n }\n on\n}",
	} {
		got, err := parse(input)
		if err != nil {
			t.Errorf("%q: %v", input, err)
		}
		if got.On != strings.Contains(input, "on\n") {
			t.Errorf("%q: the option after the block was lost", input)
		}
	}
}

func TestParseErrorsNameOptionAndLine(t *testing.T) {
	for _, tt := range []struct{ input, want string }{
		{"thing stray", "unexpected argument 'stray', at Testfile:1"},
		{"thing {\n color red\n}", "unrecognized option 'color', known options are: inner, letter, list"},
		{"thing {\n colour red\n}", "option 'colour': everything is grey"},
		{"thing {\n text a\n text b\n}", "option 'text' is given twice, at Testfile:3"},
		{"thing {\n on\n on\n}", "option 'on' is given twice"},
		{"thing {\n inner {\n text a\n}\n inner {\n}\n}", "option 'inner' is given twice"},
		{"thing {\n text\n}", "option 'text' needs an argument, at Testfile:2"},
		{"thing {\n text \"\"\n}", "option 'text' is empty"},
		{"thing {\n text a b\n}", "unexpected argument 'b' after option 'text'"},
		{"thing {\n text a {\n on\n }\n}", "option 'text' takes no block here, at Testfile:2"},
		{"thing {\n text a {\n }\n}", "option 'text' takes no block here"},
		{"thing {\n on {\n }\n}", "option 'on' takes no block here"},
		{"thing {\n on true\n}", "unexpected argument 'true' after option 'on'"},
		{"thing {\n number 7\n}", "option 'number' must be a number from 1 to 6, got '7'"},
		{"thing {\n number x\n}", "got 'x'"},
		{"thing {\n number\n}", "option 'number' needs a number"},
		{"thing {\n port 0\n}", "from 1 to 65535, got '0'"},
		{"thing {\n port 65536\n}", "option 'port'"},
		{"thing {\n wait soon\n}", "option 'wait' must be a duration"},
		{"thing {\n wait -1s\n}", "option 'wait' must be a duration"},
		{"thing {\n wait\n}", "option 'wait' needs a duration"},
		{"thing {\n list\n}", "option 'list' needs at least 1 argument(s), got 0"},
		{"thing {\n list a b c d\n}", "option 'list' takes at most 3 argument(s), got 4"},
		{"thing {\n letter pq\n}", "option 'letter': one letter only, at Testfile:2"},
		{"thing {\n inner x\n}", "unexpected argument 'x'"},
		{"thing {\n inner {\n deep {\n text\n }\n }\n}", "option 'text' needs an argument, at Testfile:4"},
		{"thing {\n module\n}", "option 'module' needs the name of a module"},
		{"thing {\n module nobody\n}", "there is no module 'nobody' in options.test"},
		{"thing {\n module tester a {\n wrong\n }\n}", "unrecognized option 'wrong'"},
		{"thing {\n text a\n", "unexpected EOF"},
		{"thing {\n inner {\n text a\n", "unexpected EOF"},
	} {
		_, err := parse(tt.input)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "at Testfile:") {
			t.Errorf("%q:\ngot  %v\nwant %s", tt.input, err, tt.want)
		}
	}
}

func TestGivenOptionsCountAsDuplicates(t *testing.T) {
	var text string
	d := caddyfile.NewTestDispenser("thing a {\n text b\n}")
	d.Next()
	if !d.NextArg() {
		t.Fatal("no argument")
	}
	err := Parse(d, Table{"text": String(&text)}, "text")
	if err == nil || !strings.Contains(err.Error(), "option 'text' is given twice") {
		t.Errorf("err = %v", err)
	}
}

func TestResolve(t *testing.T) {
	t.Setenv("OPTIONS_TEST_SET", "secret")
	t.Setenv("OPTIONS_TEST_BLANK", "  ")
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	repl := caddy.NewReplacer()
	for _, tt := range []struct{ value, want, wantErr string }{
		{value: "", want: ""},
		{value: "plain", want: "plain"},
		{value: "{env.OPTIONS_TEST_SET}", want: "secret"},
		{value: "a-{env.OPTIONS_TEST_SET}", want: "a-secret"},
		{value: "{file." + file + "}", want: "from-file"},
		{value: "{env.OPTIONS_TEST_UNSET}", wantErr: "token: placeholder {env.OPTIONS_TEST_UNSET} is empty"},
		{value: "{env.OPTIONS_TEST_BLANK}", wantErr: "token: value is empty"},
		{value: "{file./nowhere/at/all}", wantErr: "token: placeholder {file./nowhere/at/all} is empty or cannot be read"},
		{value: "{nonsense}", wantErr: "token: placeholder {nonsense} is unknown"},
		{value: "hunter{2}x", wantErr: "token: a placeholder in the value is unknown"},
	} {
		got, err := Resolve(repl, "token", tt.value)
		if got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.value, got, tt.want)
		}
		if (err == nil) != (tt.wantErr == "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
			t.Errorf("%q: err = %v, want %s", tt.value, err, tt.wantErr)
		}
		if err != nil && strings.Contains(err.Error(), "hunter") {
			t.Errorf("the error repeats the value: %v", err)
		}
	}
}

// tester is a module with one argument and one option.
type tester struct {
	Arg  string `json:"arg,omitempty"`
	Text string `json:"text,omitempty"`
}

func (tester) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "options.test.tester", New: func() caddy.Module { return new(tester) }}
}

func (m *tester) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.Args(&m.Arg) {
		return d.ArgErr()
	}
	return Parse(d, Table{"text": String(&m.Text)})
}

func init() { caddy.RegisterModule(tester{}) }
