package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-commercial/caddy-commercial/internal/test/zerossltest"
)

// many runs the processes.
type many struct {
	options
	caddy, sandbox, peer binary
}

// binary is a program of this module.
type binary struct{ path string }

// build builds the programs that are wanted.
func (m *many) build(ctx context.Context, wanted ...*binary) error {
	for _, b := range wanted {
		pkg := map[*binary]string{&m.caddy: "cmd/caddy", &m.sandbox: "cmd/order-sandbox", &m.peer: "internal/test/bench/peer"}[b]
		var err error
		if b.path, err = build(ctx, m.options, pkg); err != nil {
			return err
		}
	}
	return nil
}

// hosted is what it took until all names were served.
type hosted struct {
	issued              int
	charges, lost, late int
	wall                time.Duration
	cpu                 time.Duration // without what the visits took
	peak                int64         // bytes
	visited
	idle resting // the same Caddy, when all is done
}

// resting is a Caddy that has nothing to do but answer the visits.
type resting struct {
	cpu  time.Duration // of its start
	peak int64         // bytes
	visited
	perVisit time.Duration // processor time of a handshake and a request
}

// The two sides.
const (
	ours    = "commercial"
	zerossl = "zerossl"
)

// base is a Caddy with one name that has its certificate: what the process uses by
// itself.
func (m *many) base(ctx context.Context) (resting, error) {
	h, err := m.hosting(ctx, "base", ours, 1, 0)
	return h.idle, err
}

// hosting gets certificates for all names, and then runs the same Caddy again, which has
// nothing left to do. Each answer of the CA is delayed.
func (m *many) hosting(ctx context.Context, dir, side string, n int, delay time.Duration) (hosted, error) {
	w, err := m.newHoster(ctx, dir, side, n, delay)
	if err != nil {
		return hosted{}, err
	}
	defer w.close()
	busy, err := w.issueAll(ctx)
	if err != nil {
		return hosted{}, fmt.Errorf("%s, %d names: %w", side, n, err)
	}
	if busy.idle, err = w.rest(ctx); err != nil {
		return hosted{}, fmt.Errorf("%s, %d names, at rest: %w", side, n, err)
	}
	busy.cpu -= time.Duration(busy.count) * busy.idle.perVisit
	return busy, nil
}

// hoster is a Caddy's configuration and the CA for it.
type hoster struct {
	*many
	home, side string
	names      []string
	ports      []int         // HTTP, HTTPS, the plain site
	file       string        // of the config
	watch      time.Duration // zero for the default
	test       bool          // whether the config says that the vendor is a test service
	ca         *child
	api, admin string
}

func (m *many) newHoster(ctx context.Context, dir, side string, n int, delay time.Duration) (*hoster, error) {
	ports, err := freePorts(ctx, 5)
	if err != nil {
		return nil, err
	}
	w := &hoster{many: m, home: filepath.Join(m.dir, dir), side: side, ports: ports[:3], file: "caddy.json"}
	if err := os.MkdirAll(w.home, 0o700); err != nil {
		return nil, err
	}
	for i := range n {
		w.names = append(w.names, fmt.Sprintf("shop%d.example.com", i))
	}
	if side == zerossl {
		w.ca, err = start(ctx, w.home, nil, m.peer.path, "authority", "-http-port", fmt.Sprint(ports[0]), "-delay", delay.String())
	} else {
		w.api, w.admin = fmt.Sprintf("http://127.0.0.1:%d", ports[3]), fmt.Sprintf("http://127.0.0.1:%d", ports[4])
		w.ca, err = start(ctx, w.home, nil, m.sandbox.path, "-calm", "-tokens", issueToken, "-balance", "1000000000000", "-dialects", "racent",
			"-listen", strings.TrimPrefix(w.api, "http://"), "-control", strings.TrimPrefix(w.admin, "http://"),
			"-http-port", fmt.Sprint(ports[0]), "-perspectives", "1", "-may-miss", "0", "-check-interval", "0s")
	}
	if err != nil {
		return nil, err
	}
	line, err := w.ca.firstLine(ctx)
	if err != nil {
		w.close()
		return nil, err
	}
	if side == zerossl {
		w.api = line
		return w, nil
	}
	if delay > 0 {
		if err := w.slow(ctx, delay); err != nil {
			w.close()
			return nil, err
		}
	}
	return w, nil
}

func (w *hoster) close() { w.ca.kill() }

// issuer is the module that gets the certificates.
func (w *hoster) issuer() (any, error) {
	if w.side == zerossl {
		return map[string]any{"module": "zerossl", "api_key": "bench"}, nil
	}
	vendor := map[string]any{"name": "racent", "api_token": issueToken, "endpoint": w.api + "/ssl"}
	if w.test {
		vendor["test_service"] = true
	}
	cfg, err := issuerConfig(vendor, 0)
	if err != nil {
		return nil, err
	}
	cfg.Watch = caddy.Duration(w.watch)
	cfg.Bind = nil
	text, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	var issuer map[string]any
	if err := json.Unmarshal(text, &issuer); err != nil {
		return nil, err
	}
	// As at a real vendor, but without the probe: the names do not exist in the public
	// DNS.
	issuer["module"], issuer["probe"] = "commercial", "off"
	return issuer, nil
}

func (w *hoster) writeConfig() error {
	issuer, err := w.issuer()
	if err != nil {
		return err
	}
	type object = map[string]any
	respond := func(host []string) object {
		return object{"match": []object{{"host": host}}, "handle": []object{{"handler": "static_response", "body": hello}}}
	}
	listen := func(port int) []string { return []string{fmt.Sprintf("127.0.0.1:%d", port)} }
	config := object{
		"admin":   object{"disabled": true, "config": object{"persist": false}},
		"logging": object{"logs": object{"default": object{"level": "WARN"}}},
		"storage": object{"module": "file_system", "root": w.storage()},
		"apps": object{
			"http": object{
				"http_port": w.ports[0], "https_port": w.ports[1],
				"servers": object{
					"shops":     object{"listen": listen(w.ports[1]), "routes": []object{respond(append([]string{helloHost}, w.names...))}},
					"redirects": object{"listen": listen(w.ports[0]), "routes": []object{}, "automatic_https": object{"disable": true}},
					"plain":     object{"listen": listen(w.ports[2]), "routes": []object{respond([]string{helloHost})}, "automatic_https": object{"disable": true}},
				},
			},
			"tls": object{"automation": object{"policies": []object{
				{"subjects": []string{helloHost}, "issuers": []object{{"module": "internal"}}},
				{"issuers": []any{issuer}},
			}}},
			"pki": object{"certificate_authorities": object{"local": object{"install_trust": false}}},
		},
	}
	text, err := json.Marshal(config)
	if err != nil {
		return err
	}
	return os.WriteFile(w.config(), text, 0o600)
}

func (w *hoster) config() string  { return filepath.Join(w.home, w.file) }
func (w *hoster) storage() string { return filepath.Join(w.home, "storage") }

// startCaddy starts it with the names as they are now.
func (w *hoster) startCaddy(ctx context.Context) (*child, error) {
	if err := w.writeConfig(); err != nil {
		return nil, err
	}
	binary := w.caddy.path
	if w.side == zerossl {
		binary = w.peer.path
	}
	env := append(goVariables(), "HOME="+w.home, "XDG_DATA_HOME="+w.home, "XDG_CONFIG_HOME="+w.home, zerossltest.Variable+"="+w.api)
	return start(ctx, w.home, env, binary, "run", "--config", w.config())
}

// goVariables passes on the settings of Go's runtime.
func goVariables() []string {
	var env []string
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "GO") {
			env = append(env, v)
		}
	}
	return env
}

const (
	// manyPatience is how long the slowest name may take, and manyStall how long there
	// may be no new certificate.
	manyPatience = time.Hour
	manyStall    = 2 * time.Minute

	// look is how often progress is checked. That is work for the machine, too.
	look = 500 * time.Millisecond
)

// issueAll starts Caddy and waits until all names have their certificate.
func (w *hoster) issueAll(ctx context.Context) (h hosted, err error) {
	started := time.Now()
	caddy, err := w.startCaddy(ctx)
	if err != nil {
		return h, err
	}
	defer func() { err = errors.Join(err, caddy.stop()) }()
	visits := visit(ctx, w.ports[1], w.ports[2])
	p := progress{hoster: w, at: started}
	for last, since := 0, started; p.issued < len(w.names); {
		if err := caddy.sleep(ctx, look); err != nil {
			return h, err
		}
		if err := p.look(); err != nil {
			return h, err
		}
		if p.issued > last {
			last, since = p.issued, time.Now()
		}
		if time.Since(since) > manyStall || time.Since(started) > manyPatience {
			p.at = time.Now()
			break
		}
	}
	h.issued, h.wall = p.issued, p.at.Sub(started)
	h.visited = visits.end()
	if err := caddy.settle(ctx, pick(w.options, restLength, restLength/4)); err != nil {
		return h, err
	}
	used, err := caddy.usage()
	if err != nil {
		return h, err
	}
	h.cpu, h.peak = used.cpu, used.peak
	h.lost = caddy.said("the answer to a paid order was lost")
	h.late = caddy.said("not sent: ")
	if h.issued < len(w.names) {
		fmt.Fprintf(os.Stderr, "many: %s: %d of %d names after %s\n%s\n", w.side, h.issued, len(w.names), h.wall, caddy.tail())
	}
	if w.side == ours {
		h.charges, err = w.countCharges(ctx)
	}
	return h, err
}

// rest starts Caddy when all is done, and observes it for a while.
func (w *hoster) rest(ctx context.Context) (r resting, err error) {
	caddy, err := w.startCaddy(ctx)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, caddy.stop()) }()
	if err := caddy.settle(ctx, pick(w.options, restLength, restLength/4)); err != nil {
		return r, err
	}
	before, err := caddy.usage()
	if err != nil {
		return r, err
	}
	visits := visit(ctx, w.ports[1], w.ports[2])
	if err := caddy.sleep(ctx, pick(w.options, 10*time.Second, time.Second)); err != nil {
		return r, err
	}
	r.visited = visits.end()
	after, err := caddy.usage()
	if err != nil {
		return r, err
	}
	r.cpu, r.peak = before.cpu, after.peak
	r.perVisit = (after.cpu - before.cpu) / time.Duration(max(r.count, 1))
	return r, nil
}

// progress counts the names with a certificate in the storage. A folder is made for the
// first file of a name, so folders are counted, in one call, until all are there. Only
// then is each certificate looked for, until it is found.
type progress struct {
	*hoster
	issued  int
	at      time.Time // when the newest certificate that was looked for was written
	folder  string    // of the issuer; empty until there is one
	missing []string  // names whose certificate was looked for and not found; nil before
}

func (p *progress) look() (err error) {
	if p.folder == "" {
		if p.folder, err = p.certificates(); err != nil || p.folder == "" {
			return err
		}
	}
	if p.missing == nil {
		folder, err := os.Open(p.folder)
		if err != nil {
			return err
		}
		defer folder.Close()
		names, err := folder.Readdirnames(-1)
		if err != nil {
			return err
		}
		if p.issued = max(len(names)-1, 0); len(names) < len(p.names) { // the newest may be without a certificate
			return nil
		}
		p.missing = slices.Clone(p.names)
	}
	p.missing = slices.DeleteFunc(p.missing, func(name string) bool {
		written, ok := certificateOf(p.folder, name)
		if ok && written.After(p.at) {
			p.at = written
		}
		return ok
	})
	p.issued = len(p.names) - len(p.missing)
	return nil
}

// certificates is the folder of the issuer's certificates, or empty if there is none yet.
func (w *hoster) certificates() (string, error) {
	folders, err := filepath.Glob(filepath.Join(w.storage(), "certificates", w.side+"*"))
	if err != nil || len(folders) == 0 {
		return "", err
	}
	return folders[0], nil
}

// certificateOf returns when the certificate of a name was written, if it was.
func certificateOf(folder, name string) (time.Time, bool) {
	info, err := os.Stat(filepath.Join(folder, name, name+".crt"))
	if err != nil {
		return time.Time{}, false
	}
	return info.ModTime(), true
}

// countCharges asks the sandbox how many charges there are.
func (w *hoster) countCharges(ctx context.Context) (int, error) {
	var charges []json.RawMessage
	err := w.control(ctx, http.MethodGet, "/charges", nil, &charges)
	return len(charges), err
}

// slow delays all answers of the sandbox.
func (w *hoster) slow(ctx context.Context, delay time.Duration) error {
	var added json.RawMessage
	return w.control(ctx, http.MethodPost, "/faults", map[string]string{"kind": "delay", "when": "after", "delay": delay.String()}, &added)
}

// control calls the sandbox's control API.
func (w *hoster) control(ctx context.Context, method, path string, body, into any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, method, w.admin+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s of the sandbox: %s", method, path, answer.Status)
	}
	return json.NewDecoder(answer.Body).Decode(into)
}
