package hostile

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// TestRestart closes a CA and opens it again from its directory.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	in := func(cfg *Config) { cfg.Dir = dir }
	b := newBench(t, in)
	done := b.issued("comodo-positivessl", "one", "a.example.com")
	waiting := b.placed("comodo-positivessl", "two", "b.example.com")
	orders, charges, root, balance := b.Orders(), b.Charges(), b.RootPEM(), b.Balance(testToken)
	b.Close()

	again := newBench(t, in)
	again.site, again.clock = b.site, b.clock
	if err := again.Update(func(cfg *Config) { cfg.Transport, cfg.Now = b.site, b.clock.Now }); err != nil {
		t.Fatal(err)
	}
	if got := again.Orders(); !reflect.DeepEqual(got, orders) {
		t.Errorf("orders\n%+v, want\n%+v", got, orders)
	}
	if got := again.Charges(); !reflect.DeepEqual(got, charges) {
		t.Errorf("charges %+v, want %+v", got, charges)
	}
	if got := again.Balance(testToken); got != balance {
		t.Errorf("balance %d, want %d", got, balance)
	}
	if !bytes.Equal(again.RootPEM(), root) {
		t.Error("the root changed")
	}
	onDisk, err := os.ReadFile(filepath.Join(dir, "root.pem"))
	if err != nil || !bytes.Equal(onDisk, root) {
		t.Errorf("root.pem: %s, %v", onDisk, err)
	}
	again.prove(waiting)
	if got := again.want(again.call("certIdByrefId", map[string]string{"refId": "one"}), 1).field("certId"); got != done {
		t.Errorf("found %q, want %q", got, done)
	}
	for name, mode := range map[string]fs.FileMode{
		"journal.jsonl": 0o600, "root.key": 0o600, "intermediate.key": 0o600, "root.pem": 0o644,
	} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "*.tmp"))
	if err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

// TestPlaceIsAtomic makes the state unwritable: no order, no charge.
func TestPlaceIsAtomic(t *testing.T) {
	dir := t.TempDir()
	b := newBench(t, func(cfg *Config) { cfg.Dir = dir })
	old := b.issued("comodo-positivessl", "", "a.example.com")
	before := b.Balance(testToken)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	b.want(b.call("place", orderForm(t, "comodo-positivessl", "x", "b.example.com")), -2)
	b.want(b.call("reissue", map[string]string{"certId": old, "reason": "x", "uniqueValue": "n"}), -2)
	if n := len(b.Orders()); n != 1 {
		t.Errorf("%d orders", n)
	}
	if n := len(b.Charges()); n != 1 {
		t.Errorf("%d charges", n)
	}
	if got := b.Balance(testToken); got != before {
		t.Errorf("balance %d, was %d", got, before)
	}
	if got := b.info(old).Status; got != StatusComplete {
		t.Errorf("the old order is %s", got)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	b.want(b.call("place", orderForm(t, "comodo-positivessl", "x", "b.example.com")), 1)
}

func TestBrokenDirectoryIsRefused(t *testing.T) {
	for name, content := range map[string]string{
		"journal.jsonl":    `{"version":1}` + "\n",
		"intermediate.key": "no key",
		"intermediate.pem": "no cert",
	} {
		dir := t.TempDir()
		ca, err := New(Config{Core: Core{Dir: dir}})
		if err != nil {
			t.Fatal(err)
		}
		ca.Close()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if ca, err := New(Config{Core: Core{Dir: dir}}); err == nil {
			ca.Close()
			t.Errorf("%s: accepted", name)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if ca, err := New(Config{Core: Core{Dir: file}}); err == nil {
		ca.Close()
		t.Error("accepted a file as directory")
	}
}

// TestTokenIsNowhere looks for the token in logs, files and answers.
func TestTokenIsNowhere(t *testing.T) {
	var log bytes.Buffer
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewDevelopmentEncoderConfig()), zapcore.Lock(zapcore.AddSync(&log)), zapcore.DebugLevel)
	dir := t.TempDir()
	b := newBench(t, func(cfg *Config) { cfg.Dir, cfg.Logger = dir, zap.New(core) })
	id := b.issued("comodo-positivessl", "ref", "a.example.com")
	answers := []reply{
		b.call("collect", map[string]string{"certId": id}),
		b.call("list", map[string]string{"bogus": "x"}),
		b.call("list", map[string]string{"api_token": testToken + "x"}),
		b.call("cancel", map[string]string{"certId": id, "reason": "x"}),
	}
	b.clock.add(time.Hour)
	b.Close()

	if !strings.Contains(log.String(), "order taken") || !strings.Contains(log.String(), "not trusted by anyone") {
		t.Errorf("log %s", log.String())
	}
	if strings.Contains(log.String(), testToken) {
		t.Error("the token is in the log")
	}
	for _, r := range answers {
		if strings.Contains(r.raw, testToken) {
			t.Errorf("the token is in the answer %s", r.raw)
		}
	}
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(testToken)) {
			err = errors.Join(err, errors.New("the token is in "+d.Name()))
		}
		return err
	})
	if err != nil || files != 5 {
		t.Errorf("%d files, %v", files, err)
	}
}
