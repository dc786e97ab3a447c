package proof

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/internal/test/zonetest"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// brokenStorage fails to store keys that contain a given text.
type brokenStorage struct {
	certmagic.Storage
	broken atomic.Value
}

var errBroken = errors.New("the storage is broken")

func (s *brokenStorage) Store(ctx context.Context, key string, value []byte) error {
	if part, _ := s.broken.Load().(string); part != "" && strings.Contains(key, part) {
		return errBroken
	}
	return s.Storage.Store(ctx, key, value)
}

// left lists the files in a storage.
func (s *brokenStorage) left(t *testing.T) []string {
	t.Helper()
	var keys []string
	root := s.Storage.(*certmagic.FileStorage).Path
	err := filepath.WalkDir(filepath.Join(root, "commercial"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			keys = append(keys, path)
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return keys
}

func newStorage(t *testing.T) *brokenStorage {
	return &brokenStorage{Storage: &certmagic.FileStorage{Path: t.TempDir()}}
}

func fileProof(id, content string, names ...string) Proof {
	return Proof{ID: id, Names: names, Method: vendors.MethodHTTP, Challenges: []vendors.Challenge{
		{Method: vendors.MethodHTTP, FileName: "A1.txt", FileContent: content},
		{Method: vendors.MethodDNS, RecordName: "_a1", RecordType: "CNAME", RecordValue: "a.b.sectigo.com"},
	}}
}

// served returns what this process serves as a file on a host, or an empty string.
func served(host, file string) string {
	body, _ := dcv.Live.Lookup(host, dcv.PathPrefix+file)
	return string(body)
}

// serveFiles listens on the loopback address and serves files there, for tests that fetch them. It
// returns the port. The names below localhost lead there.
func serveFiles(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if body := served(r.Host, strings.TrimPrefix(r.URL.Path, dcv.PathPrefix)); body != "" {
			_, _ = io.WriteString(w, body)
			return
		}
		http.NotFound(w, r)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return ln.Addr().(*net.TCPAddr).Port
}

// closedPort returns a port that nothing listens on.
func closedPort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

func at(port int) func() int { return func() int { return port } }

func newProver(t *testing.T, change func(*Config)) (*ByMethod, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	c := Config{About: vendors.Description{Name: "test", AnyName: true}, Logger: zap.New(core)}
	if change != nil {
		change(&c)
	}
	m := New(c)
	t.Cleanup(m.Close)
	return m, logs
}

// TestFilesHalfPresented: when the file of one name cannot be stored, those of the other names do
// not stay; and what was there before does.
func TestFilesHalfPresented(t *testing.T) {
	storage := newStorage(t)
	m, _ := newProver(t, func(c *Config) { c.Storage = storage })
	names := []string{"a.half.localhost", "b.half.localhost", "c.half.localhost"}
	storage.broken.Store("b.half")
	if err := m.Present(t.Context(), fileProof("half-1", "new", names...)); !errors.Is(err, errBroken) {
		t.Fatalf("error = %v", err)
	}
	for _, name := range names {
		if got := served(name, "A1.txt"); got != "" {
			t.Errorf("%s serves %q", name, got)
		}
	}
	if left := storage.left(t); len(left) > 0 {
		t.Errorf("the storage has %q", left)
	}

	storage.broken.Store("")
	old := fileProof("half-1", "old", names[0])
	if err := m.Present(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	storage.broken.Store("b.half")
	if err := m.Present(t.Context(), fileProof("half-1", "new", names...)); !errors.Is(err, errBroken) {
		t.Fatalf("error = %v", err)
	}
	if got := served(names[0], "A1.txt"); got != "old" {
		t.Errorf("the file that should still be there is %q", got)
	}
	if got := served(names[2], "A1.txt"); got != "" {
		t.Errorf("%s serves %q", names[2], got)
	}
	storage.broken.Store("")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 2 {
		m.CleanUp(ctx, old)
	}
	if got := served(names[0], "A1.txt"); got != "" || len(storage.left(t)) > 0 {
		t.Errorf("after the clean-up %q is served, and the storage has %q", got, storage.left(t))
	}
}

// TestFilesAreReplaced: names for which the vendor no longer asks lose their file, and files for
// names outside the order are cleaned up, too.
func TestFilesAreReplaced(t *testing.T) {
	storage := newStorage(t)
	m, _ := newProver(t, func(c *Config) { c.Storage = storage })
	p := fileProof("replaced-1", "one", "a.replaced.localhost", "b.replaced.localhost")
	if err := m.Present(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	p.Challenges = []vendors.Challenge{{Name: "replaced.localhost", Method: vendors.MethodHTTP, FileName: "A2.txt", FileContent: "two"}}
	if err := m.Present(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	for _, name := range p.Names {
		if got := served(name, "A1.txt"); got != "" {
			t.Errorf("%s serves %q", name, got)
		}
	}
	if got := served("replaced.localhost", "A2.txt"); got != "two" {
		t.Errorf("the new file is %q", got)
	}
	p.Challenges = append(p.Challenges, vendors.Challenge{Method: vendors.MethodHTTP, FileName: "A3.txt", FileContent: "three"},
		vendors.Challenge{Name: p.Names[0], Method: vendors.MethodHTTP, FileName: "A4.txt", FileContent: "four"})
	if err := m.Present(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if got := served(p.Names[0], "A3.txt") + served(p.Names[0], "A4.txt"); got != "threefour" {
		t.Errorf("the two files for one name are %q", got)
	}
	// Another process knows only what is in the proof.
	other, _ := newProver(t, func(c *Config) { c.Storage = storage })
	other.CleanUp(t.Context(), p)
	if left := storage.left(t); len(left) > 0 {
		t.Errorf("the storage has %q", left)
	}
	m.CleanUp(t.Context(), p)
}

// TestFilesRefuseNonsense: a proof that is not good as a whole is not presented in part.
func TestFilesRefuseNonsense(t *testing.T) {
	m, _ := newProver(t, nil)
	for title, challenges := range map[string][]vendors.Challenge{
		"records only": textProof("", "x").Challenges,
		"one is bad": append(fileProof("", "good").Challenges,
			vendors.Challenge{Method: vendors.MethodHTTP, FileName: "../x", FileContent: "x"}),
	} {
		p := Proof{ID: "nonsense", Names: []string{"nonsense.localhost"}, Method: vendors.MethodHTTP, Challenges: challenges}
		if err := m.Present(t.Context(), p); err == nil {
			t.Errorf("%s: presented", title)
		}
		if err := Check(p); err == nil {
			t.Errorf("%s: passes the check", title)
		}
		if got := served("nonsense.localhost", "A1.txt"); got != "" {
			t.Errorf("%s: %q is served", title, got)
		}
	}
	for _, p := range []Proof{fileProof("good", "x", "good.localhost"), hashProof("good", "good.example"), {Method: vendors.MethodDNS}, {Method: vendors.MethodHTTPS}} {
		if err := Check(p); err != nil {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

// TestFilesWait: depending on the mode, a file that cannot be fetched stops an order, causes a
// warning, or does neither.
func TestFilesWait(t *testing.T) {
	open, closed := serveFiles(t), closedPort(t)
	deaf := &dcv.ListenError{Addr: ":80", Err: errors.New("the port is taken")}
	for _, c := range []struct {
		mode       Mode
		there      bool // somebody answers
		served     bool // the right thing
		deaf       bool
		stops, log bool
	}{
		{mode: ModeDefault, there: true, served: true},
		{mode: ModeStrict, there: true, served: true, deaf: true}, // it is served elsewhere
		{mode: ModeDefault, there: true, stops: true},
		{mode: ModeDefault, log: true},
		{mode: ModeDefault, deaf: true, stops: true},
		{mode: ModeStrict, there: true, stops: true},
		{mode: ModeStrict, stops: true},
		{mode: ModeWarn, there: true, log: true},
		{mode: ModeWarn, log: true},
		{mode: ModeWarn, deaf: true, log: true},
		{mode: ModeOff, there: true},
		{mode: ModeOff, deaf: true},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			t.Parallel()
			port := closed
			if c.there {
				port = open
			}
			m, logs := newProver(t, func(config *Config) {
				config.Mode, config.Port = c.mode, at(port)
				config.Listen = func(context.Context) (func(), error) {
					if c.deaf {
						return nil, deaf
					}
					return func() {}, nil
				}
			})
			host := "w" + derive(t.Name(), "host") + ".localhost"
			p := fileProof("wait-"+host, "right", host)
			if err := m.Present(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			if !c.served {
				if err := dcv.Live.CleanUp(t.Context(), nil, p.ID, nil); err != nil {
					t.Fatal(err)
				}
			}
			err := m.Wait(t.Context(), p)
			problem, ok := errors.AsType[*dcv.ProbeError](err)
			if ok != c.stops || err != nil && !ok || ok && problem.Wrong() != c.there {
				t.Errorf("error = %v", err)
			}
			if _, told := errors.AsType[*dcv.ListenError](err); c.stops && told != c.deaf {
				t.Errorf("the port that cannot be listened on is reported: %t, error %v", told, err)
			}
			if warned := logs.FilterMessageSnippet("could not be fetched from here").Len() > 0; warned != c.log {
				t.Errorf("warned %t", warned)
			}
			if warned := logs.FilterMessageSnippet("cannot listen for the CA").Len() > 0; warned != c.deaf {
				t.Errorf("warned about the port: %t", warned)
			}
			m.CleanUp(t.Context(), p)
		})
	}
}

// TestFilesTrial: if the CA's file is not known yet, one of our own is fetched from the same folder,
// and is removed when the CA's arrives.
func TestFilesTrial(t *testing.T) {
	port := serveFiles(t)
	m, _ := newProver(t, func(c *Config) { c.Port, c.Mode = at(port), ModeStrict })
	p := Proof{ID: "trial-1", Names: []string{"trial.localhost"}, Method: vendors.MethodHTTP}
	p.Trial = Trial(p.ID, p.Method, vendors.Description{})
	file := p.Trial[0].FileName
	if err := m.Present(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if err := m.Wait(t.Context(), p); err != nil {
		t.Error(err)
	}
	if got := served("trial.localhost", file); got != p.Trial[0].FileContent {
		t.Errorf("%q is served", got)
	}
	p.Challenges = fileProof("", "told").Challenges
	if err := m.Present(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if got := served("trial.localhost", file) + served("trial.localhost", "A1.txt"); got != "told" {
		t.Errorf("%q is served", got)
	}
	m.CleanUp(t.Context(), p)
	if got := served("trial.localhost", "A1.txt"); got != "" {
		t.Errorf("%q is served", got)
	}
}

// TestFilesListen: the port is held while a file is to be fetched over HTTP, once per proof, and
// released when the proof or the config ends.
func TestFilesListen(t *testing.T) {
	var opened, released atomic.Int32
	failing := true
	m, _ := newProver(t, func(c *Config) {
		c.Mode, c.Port = ModeStrict, at(serveFiles(t))
		c.Listen = func(context.Context) (func(), error) {
			if failing {
				return nil, errors.New("the port is taken")
			}
			opened.Add(1)
			return func() { released.Add(1) }, nil
		}
	})
	expect := func(what string, wantOpened, wantReleased int32) {
		t.Helper()
		if opened.Load() != wantOpened || released.Load() != wantReleased {
			t.Errorf("%s: opened %d and released %d times", what, opened.Load(), released.Load())
		}
	}
	p := fileProof("listen-1", "x", "listen.localhost")
	if err := m.Present(t.Context(), p); err != nil {
		t.Fatalf("a port that is taken is an error: %v", err)
	}
	failing = false
	if err := m.Wait(t.Context(), p); err != nil {
		t.Error(err)
	}
	expect("tried again by Wait", 1, 0)
	if err := m.Present(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	expect("presented again", 1, 0)
	m.CleanUp(t.Context(), p)
	m.CleanUp(t.Context(), p)
	expect("cleaned up", 1, 1)

	overTLS := fileProof("listen-2", "x", "listen.localhost")
	overTLS.Method = vendors.MethodHTTPS
	nothing := Proof{ID: "listen-3", Names: []string{"listen.localhost"}, Method: vendors.MethodHTTP}
	for _, p := range []Proof{overTLS, nothing} {
		if err := m.Present(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		m.CleanUp(t.Context(), p)
	}
	expect("nothing over HTTP", 1, 1)

	if err := m.Present(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	m.Close()
	m.Close()
	expect("closed", 2, 2)
	if err := m.Present(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	expect("presented after the config", 2, 2)
	if got := served("listen.localhost", "A1.txt"); got != "x" {
		t.Error("the file did not outlive the config")
	}
	m.CleanUp(t.Context(), p)
}

func TestFilesSeen(t *testing.T) {
	m, _ := newProver(t, nil)
	p := fileProof("seen-1", "x", "seen.localhost")
	if got := m.Seen(p); !strings.Contains(got, "nobody") {
		t.Error(got)
	}
	if got := m.Seen(hashProof("1", "seen.example")); got != "" {
		t.Error(got)
	}
}

// TestFilesWaitEndsWithItsContext, whatever the mode: unloading a config does not wait.
func TestFilesWaitEndsWithItsContext(t *testing.T) {
	cause := errors.New("config was unloaded")
	for _, mode := range []Mode{ModeDefault, ModeStrict, ModeWarn} {
		m, logs := newProver(t, func(c *Config) { c.Mode, c.Port = mode, at(closedPort(t)) })
		p := fileProof("ends-1", "x", "ends.localhost")
		if err := m.Present(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		if err := m.Wait(ctx, p); !errors.Is(err, cause) {
			t.Errorf("%q: error = %v", mode, err)
		}
		if n := logs.FilterLevelExact(zap.WarnLevel).Len(); n > 0 {
			t.Errorf("%q: %d warnings", mode, n)
		}
		m.CleanUp(t.Context(), p)
	}
}

// TestForAll: all problems are reported, in order, and only a few are searched for at once.
func TestForAll(t *testing.T) {
	var now, most atomic.Int32
	list := make([]int, 100)
	for i := range list {
		list[i] = i
	}
	var judged []int
	err := forAll(list, func(i int) error {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		defer now.Add(-1)
		if i%10 == 3 {
			return fmt.Errorf("no %d", i)
		}
		return nil
	}, func(i int, err error) error {
		judged = append(judged, i)
		if i == 23 || i == 43 {
			return err
		}
		return nil
	})
	if err == nil || err.Error() != "2 problems: 1. no 23; 2. no 43" || len(judged) != 10 || !slices.IsSorted(judged) || most.Load() > atATime {
		t.Errorf("error %v, judged %v, %d at once", err, judged, most.Load())
	}
}

// TestPortIsAskedLate: the port is not asked for before Wait, because asking while a config is being
// provisioned makes Caddy provision the HTTP app in the middle of that.
func TestPortIsAskedLate(t *testing.T) {
	early, asked := true, false
	port := serveFiles(t)
	m, _ := newProver(t, func(c *Config) {
		c.Mode = ModeStrict
		c.Port = func() int {
			if early {
				t.Error("the port is asked for before Wait")
			}
			asked = true
			return port
		}
	})
	p := fileProof("late-1", "x", "late.localhost")
	if err := m.Present(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	early = false
	if err := m.Wait(t.Context(), p); err != nil || !asked {
		t.Errorf("asked %t, error %v", asked, err)
	}
	m.CleanUp(t.Context(), p)
}

// TestFilesAtEachAddress: the CA may come to any address of a name, so one that leads to another
// server stops the order.
func TestFilesAtEachAddress(t *testing.T) {
	port := serveFiles(t)
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.2:%d", port))
	if err != nil {
		t.Skip("there is only one loopback address: ", err)
	}
	other := &httptest.Server{Listener: ln, Config: &http.Server{Handler: http.NotFoundHandler()}}
	other.Start()
	t.Cleanup(other.Close)
	zone := zonetest.Start(t, "each.example.", "good A 127.0.0.1", "bad A 127.0.0.1", "bad A 127.0.0.2")
	for name, stops := range map[string]bool{"good.each.example": false, "bad.each.example": true} {
		m, logs := newProver(t, func(c *Config) {
			c.About.AnyName, c.About.HTTPPort, c.Resolvers = false, port, []string{zone.Addr}
		})
		p := fileProof("each-"+name, "content", name)
		if err := m.Present(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		err := m.Wait(t.Context(), p)
		failed, _ := errors.AsType[*dcv.ProbeError](err)
		if (failed != nil) != stops || stops && (failed.Address.String() != "127.0.0.2" || !strings.Contains(err.Error(), "at 127.0.0.2: wrong status")) {
			t.Errorf("%s: error = %v", name, err)
		}
		if logs.FilterLevelExact(zap.WarnLevel).Len() > 0 {
			t.Errorf("%s: there are warnings: %v", name, logs.All())
		}
		m.CleanUp(t.Context(), p)
	}
}

// ownAddress is a connection without a packet that begins at an address of this machine.
type ownAddress struct {
	net.Conn
	addr string
}

func (o ownAddress) Close() error        { return nil }
func (o ownAddress) LocalAddr() net.Addr { return &net.UDPAddr{IP: net.ParseIP(o.addr)} }

// TestFilesBehindARouter: where IPv6 serves the file, an IPv4 address that does not answer stops an
// order only if that means that the CA gets no answer either; and a private address never does,
// whatever answers there.
func TestFilesBehindARouter(t *testing.T) {
	for _, c := range []struct {
		title, own, addr string
		err              error // nil is an answer without the file
		stops            bool
	}{
		{"behind a router", "192.168.1.2", "203.0.113.1", syscall.ECONNREFUSED, false},
		{"with a public address", "198.51.100.7", "203.0.113.1", syscall.ECONNREFUSED, true},
		{"without IPv4", "", "203.0.113.1", syscall.ENETUNREACH, false},
		{"a wrong answer", "192.168.1.2", "203.0.113.1", nil, true},
		{"a wrong answer at an address that no CA gets to", "192.168.1.2", "10.0.0.7", nil, false},
	} {
		t.Run(c.title, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, logs := newProver(t, func(config *Config) {
					elsewhere(t, "shop.example.com. 60 IN A "+c.addr, "shop.example.com. 60 IN AAAA 2001:db8::1")(config)
					nginx := config.Dial
					config.Identities = nil
					config.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
						host, _, err := net.SplitHostPort(addr)
						switch {
						case err != nil:
							return nil, err
						case network == "udp" && c.own == "":
							return nil, syscall.ENETUNREACH
						case network == "udp":
							return ownAddress{addr: c.own}, nil
						case host == c.addr && c.err != nil:
							return nil, c.err
						case host == c.addr:
							return nginx(ctx, network, addr)
						}
						near, far := net.Pipe()
						go func() {
							defer func() { _ = far.Close() }()
							if _, err := http.ReadRequest(bufio.NewReader(far)); err == nil {
								_, _ = io.WriteString(far, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\ncontent")
							}
						}()
						return near, nil
					}
				})
				p := fileProof("router-"+derive(c.title, "id"), "content", "shop.example.com")
				if err := m.Present(t.Context(), p); err != nil {
					t.Fatal(err)
				}
				defer m.CleanUp(t.Context(), p)
				err := m.Wait(t.Context(), p)
				if (err != nil) != c.stops || err == nil && logs.FilterMessageSnippet("could not be fetched from here").Len() != 1 {
					t.Errorf("error = %v, logs %v", err, logs.All())
				}
			})
		})
	}
}
