package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// benchMany has a Caddy get certificates for many names at once, from CAs that issue at
// once and are processes of their own: the plugin from the sandbox, and certmagic's ZeroSSL
// issuer from a stand-in of ZeroSSL's API. Both CAs fetch the validation file once.
func benchMany(ctx context.Context, o options) ([]row, error) {
	m := &many{options: o}
	if err := m.build(ctx); err != nil {
		return nil, err
	}
	few := min(o.names, pick(o, 200, 10))
	base, err := m.base(ctx)
	if err != nil {
		return nil, err
	}
	small, err := m.hosting(ctx, "few", ours, few)
	if err != nil {
		return nil, err
	}
	large, err := m.hosting(ctx, "all", ours, o.names)
	if err != nil {
		return nil, err
	}
	peer, err := m.hosting(ctx, "peer", zerossl, o.names)
	if err != nil {
		return nil, err
	}
	each := func(h hosted, n int) float64 { return (h.cpu - base.cpu).Seconds() * 1e3 / float64(n) }
	grown := func(h hosted) float64 { return float64(h.peak-h.idlePeak) / 1024 / float64(o.names) }
	seconds := func(d time.Duration) string { return number(d.Seconds()) + " s" }
	slower := func(claim string, idle, busy time.Duration) row {
		return row{
			claim: claim, ours: number(busy.Seconds()*1e3) + " ms", peer: number(idle.Seconds()*1e3) + " ms (idle)",
			value: float64(idle) / float64(busy), unit: "×",
		}
	}
	return []row{
		{
			claim: fmt.Sprintf("certificates of %d names at once, of an instant CA: names without", o.names),
			ours:  fmt.Sprint(o.names - large.issued), peer: fmt.Sprint(o.names - peer.issued),
			value: float64(o.names - large.issued), want: bound{kind: atMost},
		},
		{
			claim: "paid calls whose answer was lost, and charges beyond one for each name",
			ours:  fmt.Sprintf("%d and %d", large.lost, large.charges-o.names), peer: "-",
			value: float64(large.lost + max(large.charges-o.names, 0)), want: bound{kind: atMost},
		},
		{
			claim: "orders that were withdrawn because they had become late",
			ours:  fmt.Sprint(large.late), peer: "-", value: float64(large.late), want: bound{kind: atMost},
		},
		{
			claim: fmt.Sprintf("processor time of Caddy for a certificate, of %d names, against that of %d (peer: that of ZeroSSL's issuer)", o.names, few),
			ours:  fmt.Sprintf("%s ms, %s ms", number(each(large, o.names)), number(each(small, few))), peer: number(each(peer, o.names)) + " ms",
			value: each(large, o.names) / each(small, few), unit: "×", want: bound{atMost, 1.2, 0.1},
		},
		{
			claim: fmt.Sprintf("time until all %d names have their certificate, against ZeroSSL's issuer", o.names),
			ours:  seconds(large.wall), peer: seconds(peer.wall),
			value: float64(large.wall) / float64(peer.wall), unit: "×", want: bound{atMost, 1, 0.05},
		},
		{
			claim: fmt.Sprintf("peak memory for a name, over that of a Caddy with the same %d at rest", o.names),
			ours:  number(grown(large)) + " KiB", peer: number(grown(peer)) + " KiB",
			value: grown(large), unit: " KiB", want: bound{atMost, 10, 0.1},
		},
		slower("a TLS handshake meanwhile, median, against at rest", large.idleHandshake, large.handshake),
		slower("a plain request meanwhile, median, against at rest", large.idleRequest, large.request),
	}, nil
}

// many builds and runs the processes.
type many struct {
	options
	caddy, sandbox, peer string // binaries
}

func (m *many) build(ctx context.Context) error {
	const module = "github.com/caddy-commercial/caddy-commercial/"
	for _, b := range []struct {
		into *string
		pkg  string
	}{{&m.caddy, "cmd/caddy"}, {&m.sandbox, "cmd/order-sandbox"}, {&m.peer, "internal/test/bench/peer"}} {
		*b.into = filepath.Join(m.dir, "bin", filepath.Base(b.pkg))
		build := exec.CommandContext(ctx, "go", "build", "-o", *b.into, module+b.pkg) //nolint:gosec // a path of our own
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", b.pkg, err, out)
		}
	}
	return nil
}

// hosted is what it took to have all names served.
type hosted struct {
	issued              int
	charges, lost, late int
	wall, cpu           time.Duration
	peak, idlePeak      int64 // bytes
	handshake, request  time.Duration
	idleHandshake       time.Duration
	idleRequest         time.Duration
}

// The two sides.
const (
	ours    = "commercial"
	zerossl = "zerossl"
)

// base is a Caddy with one name that has its certificate: what the process takes by itself.
func (m *many) base(ctx context.Context) (hosted, error) {
	w, err := m.newHoster(ctx, "base", ours, 1)
	if err != nil {
		return hosted{}, err
	}
	defer w.close()
	if _, err := w.issueAll(ctx); err != nil {
		return hosted{}, err
	}
	return w.rest(ctx)
}

// hosting has all names issued, and then runs the same Caddy again, which has nothing to
// do any more.
func (m *many) hosting(ctx context.Context, dir, side string, n int) (hosted, error) {
	w, err := m.newHoster(ctx, dir, side, n)
	if err != nil {
		return hosted{}, err
	}
	defer w.close()
	busy, err := w.issueAll(ctx)
	if err != nil {
		return hosted{}, fmt.Errorf("%s, %d names: %w", side, n, err)
	}
	idle, err := w.rest(ctx)
	if err != nil {
		return hosted{}, fmt.Errorf("%s, %d names, at rest: %w", side, n, err)
	}
	busy.idlePeak, busy.idleHandshake, busy.idleRequest = idle.peak, idle.handshake, idle.request
	return busy, nil
}

// hoster is a Caddy's configuration and the CA for it.
type hoster struct {
	*many
	home, side string
	names      []string
	ports      []int // HTTP, HTTPS, the plain site
	ca         *child
	api, admin string
}

func (m *many) newHoster(ctx context.Context, dir, side string, n int) (*hoster, error) {
	ports, err := freePorts(ctx, 5)
	if err != nil {
		return nil, err
	}
	w := &hoster{many: m, home: filepath.Join(m.dir, dir), side: side, ports: ports[:3]}
	if err := os.MkdirAll(w.home, 0o700); err != nil {
		return nil, err
	}
	for i := range n {
		w.names = append(w.names, fmt.Sprintf("shop%d.example.com", i))
	}
	if err := w.writeConfig(); err != nil {
		return nil, err
	}
	if side == zerossl {
		w.ca, err = start(ctx, w.home, nil, m.peer, "authority", "-http-port", fmt.Sprint(ports[0]))
	} else {
		w.api, w.admin = fmt.Sprintf("http://127.0.0.1:%d", ports[3]), fmt.Sprintf("http://127.0.0.1:%d", ports[4])
		w.ca, err = start(ctx, w.home, nil, m.sandbox, "-calm", "-tokens", issueToken, "-balance", "1000000000000", "-dialects", "racent",
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
	if err := w.writeConfig(); err != nil { // the address of the API stands in it
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *hoster) close() { w.ca.kill() }

// issuer is the module that gets the certificates.
func (w *hoster) issuer() (any, error) {
	if w.side == zerossl {
		return map[string]any{"module": "zerossl", "api_key": "bench"}, nil
	}
	cfg, err := issuerConfig(map[string]any{"name": "racent", "api_token": issueToken, "endpoint": w.api + "/ssl", "test_service": true}, 0)
	if err != nil {
		return nil, err
	}
	cfg.Bind = nil
	text, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	var issuer map[string]any
	if err := json.Unmarshal(text, &issuer); err != nil {
		return nil, err
	}
	issuer["module"], issuer["settle"] = "commercial", "1s" // as at a real vendor
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

func (w *hoster) config() string  { return filepath.Join(w.home, "caddy.json") }
func (w *hoster) storage() string { return filepath.Join(w.home, "storage") }

func (w *hoster) startCaddy(ctx context.Context) (*child, error) {
	binary := w.caddy
	if w.side == zerossl {
		binary = w.peer
	}
	env := append(goVariables(), "HOME="+w.home, "XDG_DATA_HOME="+w.home, "XDG_CONFIG_HOME="+w.home, "BENCH_ZEROSSL_API="+w.api)
	return start(ctx, w.home, env, binary, "run", "--config", w.config())
}

// goVariables passes the settings of Go's runtime on.
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
	// manyPatience is how long the names may take that take the longest, and manyStall
	// after how much time without another one they are given up.
	manyPatience = time.Hour
	manyStall    = 2 * time.Minute

	// look is how often it is looked how far they are.
	look = 250 * time.Millisecond
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
	last, progress := 0, started
	for h.issued < len(w.names) {
		if err := caddy.sleep(ctx, look); err != nil {
			return h, err
		}
		if h.issued, err = w.countIssued(); err != nil {
			return h, err
		}
		if h.issued > last {
			last, progress = h.issued, time.Now()
		}
		if time.Since(progress) > manyStall || time.Since(started) > manyPatience {
			break
		}
	}
	h.wall = time.Since(started)
	h.handshake, h.request = visits.end()
	if err := caddy.settle(ctx, pick(w.options, restLength, restLength/4)); err != nil {
		return h, err
	}
	if h.cpu, h.peak, err = caddy.usage(); err != nil {
		return h, err
	}
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

// rest starts Caddy when all is done, and looks at it for a while.
func (w *hoster) rest(ctx context.Context) (h hosted, err error) {
	caddy, err := w.startCaddy(ctx)
	if err != nil {
		return h, err
	}
	defer func() { err = errors.Join(err, caddy.stop()) }()
	if err := caddy.settle(ctx, pick(w.options, restLength, restLength/4)); err != nil {
		return h, err
	}
	visits := visit(ctx, w.ports[1], w.ports[2])
	if err := caddy.sleep(ctx, pick(w.options, 5*time.Second, time.Second)); err != nil {
		return h, err
	}
	h.handshake, h.request = visits.end()
	h.cpu, h.peak, err = caddy.usage()
	return h, err
}

// countIssued counts the names with a certificate in the storage. Folders are made for each
// file that is written, so that the certificates are looked for only once all are there.
func (w *hoster) countIssued() (int, error) {
	folders, err := filepath.Glob(filepath.Join(w.storage(), "certificates", w.side+"*"))
	if err != nil || len(folders) == 0 {
		return 0, err
	}
	names, err := os.ReadDir(folders[0])
	if err != nil || len(names) < len(w.names) {
		return max(len(names)-1, 0), err
	}
	issued := 0
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(folders[0], name.Name(), name.Name()+".crt")); err == nil {
			issued++
		}
	}
	return issued, nil
}

// countCharges asks the sandbox.
func (w *hoster) countCharges(ctx context.Context) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.admin+"/charges", nil)
	if err != nil {
		return 0, err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	var charges []json.RawMessage
	err = json.NewDecoder(answer.Body).Decode(&charges)
	return len(charges), err
}
