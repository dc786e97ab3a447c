// Package chromium opens pages in a headless Chromium, for tests.
package chromium

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long anything may take. It is only ever used up by a failure.
const patience = 2 * time.Minute

// Browser is a running Chromium. It is controlled through the DevTools protocol, in
// messages that end with a zero byte.
type Browser struct {
	tb    testing.TB
	cmd   *exec.Cmd
	to    *os.File
	log   bytes.Buffer // of the process; read it only when that has ended
	ended chan struct{}

	mu      sync.Mutex
	last    int
	waiting map[int]chan message
	pages   map[string]*Page
}

type message struct {
	ID      int             `json:"id,omitempty"`
	Session string          `json:"sessionId,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// find returns the path of the program.
func find(tb testing.TB) string {
	tb.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	tb.Skip("this test needs Chromium, on Debian: apt-get install chromium")
	return ""
}

// Start runs Chromium until the end of the test, which is skipped if there is none.
func Start(tb testing.TB) *Browser {
	tb.Helper()
	program := find(tb)
	args := []string{
		"--headless", "--remote-debugging-pipe", "--user-data-dir=" + tb.TempDir(),
		"--no-first-run", "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions", "--hide-scrollbars",
		// It can reach nothing but this machine, over IPv4.
		"--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--host-resolver-rules=MAP localhost 127.0.0.1, MAP *.localhost 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
	}
	if os.Geteuid() == 0 {
		args = append(args, "--no-sandbox") // it refuses to start as root otherwise
	}
	b := &Browser{tb: tb, ended: make(chan struct{}), waiting: make(map[int]chan message), pages: make(map[string]*Page)}
	theirIn, ourOut, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	ourIn, theirOut, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	b.to = ourOut
	b.cmd = exec.Command(program, args...) //nolint:gosec,noctx // what a test runs, and ends itself
	b.cmd.ExtraFiles = []*os.File{theirIn, theirOut}
	b.cmd.Stdout, b.cmd.Stderr = &b.log, &b.log
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	b.cmd.WaitDelay = patience
	err = b.cmd.Start()
	_ = theirIn.Close()
	_ = theirOut.Close()
	if err != nil {
		tb.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() { b.read(ourIn) })
	go func() {
		// How it exits does not matter. It has ended when all of its processes have,
		// because they share the log.
		_ = b.cmd.Wait()
		close(b.ended)
	}()
	tb.Cleanup(func() {
		b.end()
		reading.Wait()
		_, _ = ourIn.Close(), ourOut.Close()
		if tb.Failed() {
			tb.Logf("log of Chromium:\n%s", b.log.String())
		}
	})
	return b
}

// end asks Chromium to exit, and kills it if it does not.
func (b *Browser) end() {
	ctx, cancel := context.WithTimeout(context.Background(), patience/4)
	defer cancel()
	if b.call(ctx, "", "Browser.close", nil, nil) == nil {
		select {
		case <-b.ended:
			return
		case <-ctx.Done():
		}
	}
	// Its group is gone if it has ended already.
	_ = syscall.Kill(-b.cmd.Process.Pid, syscall.SIGKILL)
	<-b.ended
}

// read takes answers and events until Chromium ends.
func (b *Browser) read(from *os.File) {
	r := bufio.NewReader(from)
	for {
		data, err := r.ReadBytes(0)
		if err != nil {
			break
		}
		var m message
		if err := json.Unmarshal(bytes.TrimSuffix(data, []byte{0}), &m); err != nil {
			b.tb.Errorf("Chromium sent invalid JSON: %v", err)
			continue
		}
		b.mu.Lock()
		answer, page := b.waiting[m.ID], b.pages[m.Session]
		delete(b.waiting, m.ID)
		b.mu.Unlock()
		switch {
		case answer != nil:
			answer <- m
		case m.Method != "" && page != nil:
			page.event(m)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, answer := range b.waiting {
		close(answer)
		delete(b.waiting, id)
	}
}

// call calls a method, for a page unless session is empty.
func (b *Browser) call(ctx context.Context, session, method string, params, result any) error {
	m := message{Session: session, Method: method}
	if params != nil {
		data, err := json.Marshal(params)
		if err != nil {
			return err
		}
		m.Params = data
	}
	answer := make(chan message, 1)
	b.mu.Lock()
	b.last++
	m.ID = b.last
	b.waiting[m.ID] = answer
	data, err := json.Marshal(m)
	if err == nil {
		_, err = b.to.Write(append(data, 0))
	}
	b.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	select {
	case m, ok := <-answer:
		switch {
		case !ok:
			return fmt.Errorf("%s: chromium has ended", method)
		case m.Error != nil:
			return fmt.Errorf("%s: %s", method, m.Error.Message)
		case result != nil:
			return json.Unmarshal(m.Result, result)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", method, ctx.Err())
	}
}

// Screen is what a page is viewed on.
type Screen struct {
	Width, Height int
	Dark          bool // what the user prefers
	Phone         bool
}

// Page is an open page.
type Page struct {
	b       *Browser
	session string
	width   int
	loaded  chan struct{}

	mu         sync.Mutex
	complaints []string
}

type object map[string]any

// Open opens a page and returns when it is loaded.
func (b *Browser) Open(url string, s Screen) *Page {
	b.tb.Helper()
	var target struct{ TargetID string }
	b.must("", "Target.createTarget", object{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.must("", "Target.attachToTarget", object{"targetId": target.TargetID, "flatten": true}, &attached)
	p := &Page{b: b, session: attached.SessionID, width: s.Width, loaded: make(chan struct{}, 1)}
	b.mu.Lock()
	b.pages[p.session] = p
	b.mu.Unlock()
	scheme := "light"
	if s.Dark {
		scheme = "dark"
	}
	for _, step := range []struct {
		method string
		params any
	}{
		{"Page.enable", nil},
		{"Runtime.enable", nil},
		{"Log.enable", nil},
		{"Emulation.setDeviceMetricsOverride", object{"width": s.Width, "height": s.Height, "deviceScaleFactor": 1, "mobile": s.Phone}},
		{"Emulation.setEmulatedMedia", object{"features": []object{{"name": "prefers-color-scheme", "value": scheme}}}},
	} {
		b.must(p.session, step.method, step.params, nil)
	}
	p.navigate(url)
	return p
}

func (p *Page) navigate(url string) {
	p.b.tb.Helper()
	var went struct{ ErrorText string }
	p.b.must(p.session, "Page.navigate", object{"url": url}, &went)
	if went.ErrorText != "" {
		p.b.tb.Fatalf("opening %s: %s", url, went.ErrorText)
	}
	p.awaitLoad()
}

func (p *Page) awaitLoad() {
	p.b.tb.Helper()
	select {
	case <-p.loaded:
	case <-p.b.ended:
		p.b.tb.Fatal("Chromium has ended")
	case <-time.After(patience):
		p.b.tb.Fatal("the page does not load")
	}
}

func (b *Browser) must(session, method string, params, result any) {
	b.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.call(ctx, session, method, params, result); err != nil {
		b.tb.Fatal(err)
	}
}

func (p *Page) event(m message) {
	switch m.Method {
	case "Page.loadEventFired":
		select {
		case p.loaded <- struct{}{}:
		default:
		}
	case "Log.entryAdded", "Runtime.exceptionThrown":
		p.complain(m)
	case "Runtime.consoleAPICalled":
		var call struct{ Type string }
		if json.Unmarshal(m.Params, &call) == nil && (call.Type == "error" || call.Type == "warning") {
			p.complain(m)
		}
	}
}

func (p *Page) complain(m message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.complaints = append(p.complaints, m.Method+" "+string(m.Params))
}

// Complaints are the errors that the console shows, violations of the page's Content Security
// Policy among them.
func (p *Page) Complaints() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.complaints...)
}

// Eval evaluates a JavaScript expression, as in the browser's console.
func (p *Page) Eval(expression string, result any) {
	p.b.tb.Helper()
	if err := p.eval(expression, result); err != nil {
		p.b.tb.Fatal(err)
	}
}

func (p *Page) eval(expression string, result any) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var evaluated struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails json.RawMessage
	}
	err := p.b.call(ctx, p.session, "Runtime.evaluate", object{"expression": expression, "returnByValue": true}, &evaluated)
	switch {
	case err != nil:
		return err
	case evaluated.ExceptionDetails != nil:
		return errors.New(string(evaluated.ExceptionDetails))
	case result == nil:
		return nil
	}
	return json.Unmarshal(evaluated.Result.Value, result)
}

// Problems are what is wrong with any page: that it is wider than the screen, or that the
// browser complains about it.
func (p *Page) Problems() []string {
	p.b.tb.Helper()
	var width int
	p.Eval("document.scrollingElement.scrollWidth", &width)
	problems := p.Complaints()
	if width > p.width {
		problems = append(problems, fmt.Sprintf("it is %d wide, on a screen of %d", width, p.width))
	}
	return problems
}

// Press presses and releases a key, such as Tab, on the page.
func (p *Page) Press(key string) {
	p.b.tb.Helper()
	codes := map[string]int{"Tab": 9, "Enter": 13}
	for _, kind := range []string{"rawKeyDown", "keyUp"} {
		p.b.must(p.session, "Input.dispatchKeyEvent", object{
			"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": codes[key],
		}, nil)
	}
}

// Screenshot returns a picture of the visible part, as a PNG.
func (p *Page) Screenshot() []byte {
	p.b.tb.Helper()
	var shot struct{ Data []byte }
	p.b.must(p.session, "Page.captureScreenshot", object{"format": "png"}, &shot)
	return shot.Data
}
