package e2e

import (
	"archive/tar"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/internal/test/redistest"
	"github.com/caddy-commercial/caddy-commercial/internal/test/zonetest"
	"github.com/caddy-commercial/caddy-commercial/ledger"
)

const (
	redisServers = 3
	redisNames   = 300
)

// redisCluster are Caddys that share a storage in Redis.
type redisCluster struct {
	*world
	redis   *redistest.Server
	nodes   []node
	servers []*server // those that run now, in the order of nodes
	configs []string
	names   []string
	begun   time.Time // when they were given the names
}

// redisScenario is what happens to a cluster while it buys.
type redisScenario struct {
	title string

	// late is how late a server sees what another one writes. If it is set, locks do nothing.
	late time.Duration

	// deaths is whether orders get lost that only time can prove lost. The vendor is then
	// a test service, where that is a matter of seconds.
	deaths bool

	// settle is that of the issuer; 1s if it is empty.
	settle string

	// clocks are how far the servers' wall clocks are ahead.
	clocks []time.Duration

	// disturb runs once the servers have the names. All names are certified some time
	// after it has returned.
	disturb func(c *redisCluster)
}

var redisScenarios = []redisScenario{
	{title: "kind"},
	{title: "unkind", late: 500 * time.Millisecond},
	{title: "killed", deaths: true, disturb: (*redisCluster).killServers},
	{title: "killed, unkind", deaths: true, late: 500 * time.Millisecond, disturb: (*redisCluster).killServers},
	{title: "stopped", disturb: (*redisCluster).stopServers},
	// With appendfsync everysec, Redis puts off writing for up to two seconds when the
	// disk is busy.
	{title: "Redis killed", deaths: true, settle: "2500ms", disturb: (*redisCluster).killRedis},
	{title: "clocks", clocks: []time.Duration{-30 * time.Minute, 0, 30 * time.Minute}},
	{title: "clocks, unkind", late: 500 * time.Millisecond, clocks: []time.Duration{-30 * time.Minute, 0, 30 * time.Minute}},
}

// TestRedis: three servers on one storage in Redis buy one certificate for each of many
// names, and all of them serve all of these, whatever happens meanwhile.
func TestRedis(t *testing.T) {
	if !*onRedis {
		t.Skip("the clusters on Redis run with the flag -redis, as in .ci/run")
	}
	for _, s := range redisScenarios {
		t.Run(s.title, func(t *testing.T) {
			t.Parallel()
			c := newRedisCluster(t, s)
			c.begin()
			if s.disturb != nil {
				s.disturb(c)
			}
			c.allServed()
			took := time.Since(c.begun)
			c.paidOnce()
			t.Logf("%d names on %d servers took %s, %d charges, %d reissues\n%s", len(c.names), len(c.nodes), took.Round(100*time.Millisecond),
				len(c.ca.Charges()), c.ca.Calls("replace")+c.ca.Calls("reissue"), c.cost())
		})
	}
}

func newRedisCluster(t *testing.T, s redisScenario) *redisCluster {
	t.Helper()
	c := &redisCluster{world: newWorld(t, func(c *hostile.Config) { c.IssueDelay = 500 * time.Millisecond })}
	c.patient = 15 * time.Minute
	c.redis = redistest.Start(t, fmt.Sprintf("127.0.0.1:%d", freePort(t)), t.TempDir())
	c.binary = redisBinary(t)
	if s.clocks != nil {
		c.binary = shiftedBinary(t)
	}
	c.keep = func(n node) string {
		return fmt.Sprintf("e2e_redis %s %s %s", c.redis.Addr, journalOf(n), s.late)
	}
	c.fetch = c.export
	for i := range redisServers {
		n := c.node
		if i > 0 {
			n = c.newNode(fmt.Sprintf("caddy%d", i+1))
		}
		if s.clocks != nil {
			n.clock = s.clocks[i]
		}
		c.nodes = append(c.nodes, n)
	}
	c.balance(c.nodes...).dice = true

	// As with a real vendor, which would not accept names below localhost, but without
	// the probe, which would go to port 80 of this machine.
	zone := zonetest.Start(t, "example.com.")
	issuer := strings.NewReplacer("test_service", "", "probe strict", "probe off").Replace(c.issuer())
	settle := "settle " + cmp.Or(s.settle, "1s")
	if s.deaths {
		issuer = c.issuer(settle)
	} else {
		issuer = strings.Replace(issuer, "product", settle+"\nproduct", 1)
	}
	issuer = strings.NewReplacer("product", "spend_limit 1000 per 24h\nproduct", "poll 50ms 1s", "poll 1s 2s").Replace(issuer)
	for i := range redisNames {
		c.names = append(c.names, fmt.Sprintf("shop%03d.example.com", i))
	}
	for _, n := range c.nodes {
		c.configs = append(c.configs, c.localGlobals(n, "tls_resolvers "+zone.Addr)+site(strings.Join(c.names, ", "), issuer))
	}
	return c
}

// begin starts the servers, one after the other, and gives all of them the names at once.
func (c *redisCluster) begin() {
	c.t.Helper()
	for _, n := range c.nodes {
		s := c.startAt(n, c.localGlobals(n)+site("first.localhost", "issuer internal"))
		c.servers = append(c.servers, s)
		s.awaitLog("serving initial configuration")
	}
	c.begun = time.Now()
	errs := make([]error, len(c.servers))
	var group sync.WaitGroup
	for i, s := range c.servers {
		group.Go(func() {
			_, errs[i] = s.call(http.MethodPost, "/load", http.Header{"Content-Type": {"text/caddyfile"}}, c.configs[i])
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		c.t.Fatal(err)
	}
}

// bought waits until there are that many charges.
func (c *redisCluster) bought(n int) {
	c.t.Helper()
	c.await(fmt.Sprintf("%d orders", n), func() error {
		if got := len(c.ca.Charges()); got < n {
			return fmt.Errorf("there are %d", got)
		}
		return nil
	})
}

// killServers kills one server after the other and starts it again. With each of them a few
// orders are lost. It takes a while until that is proven and they are placed again, and there
// are no more deaths by then: an order that is lost twice would be held back for ten minutes.
func (c *redisCluster) killServers() {
	for bought := 10; bought < redisNames/2; bought += 30 {
		c.bought(bought)
		i := rand.IntN(len(c.servers))
		c.servers[i].kill()
		c.servers[i] = c.startAt(c.nodes[i], c.configs[i])
	}
}

// stopServers stops one server after the other until its locks have passed to others, and
// resumes it.
func (c *redisCluster) stopServers() {
	for i, s := range c.servers {
		c.bought(20 + 80*i)
		// Its locks may all have been released just now.
		c.await(s.name+" to be stopped while it has locks", func() error {
			s.signal(syscall.SIGSTOP)
			if c.locks(s) > 0 {
				return nil
			}
			s.signal(syscall.SIGCONT)
			return errors.New("it has none")
		})
		c.await("its leases to end", func() error {
			if n := c.locks(s); n > 0 {
				return fmt.Errorf("it has %d locks", n)
			}
			return nil
		})
		s.signal(syscall.SIGCONT)
	}
}

func (s *server) signal(sig syscall.Signal) {
	s.w.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.w.t.Fatal(err)
	}
}

// locks is how many locks a server has.
func (c *redisCluster) locks(s *server) int {
	c.t.Helper()
	held, err := c.redis.Eval(fmt.Sprintf(`
		local n = 0
		for _, k in ipairs(redis.call('KEYS', 'l/*')) do
			if string.sub(redis.call('GET', k) or '', 1, %d) == '%d-' then n = n + 1 end
		end
		return tostring(n)`, len(fmt.Sprint(s.cmd.Process.Pid))+1, s.cmd.Process.Pid))
	if err != nil {
		c.t.Fatal(err)
	}
	var n int
	if _, err := fmt.Sscan(held, &n); err != nil {
		c.t.Fatal(err)
	}
	return n
}

// killRedis kills Redis in the middle, and starts it again when a server has noticed.
func (c *redisCluster) killRedis() {
	c.bought(redisNames / 3)
	c.redis.Kill()
	c.await("trouble with the storage", func() error {
		for _, s := range c.servers {
			if slices.ContainsFunc(s.log.all(), func(e logEntry) bool { return strings.Contains(e.raw, c.redis.Addr+": connect") }) {
				return nil
			}
		}
		if len(c.ca.Charges()) == redisNames {
			return nil // they may have nothing left to do with it
		}
		return errors.New("nobody complains")
	})
	c.redis.Run()
}

// allServed waits until each server serves each name.
func (c *redisCluster) allServed() {
	c.t.Helper()
	for _, name := range c.names {
		for _, s := range c.servers {
			s.served(name)
		}
	}
}

// paidOnce fails unless there is one charge for each name, and one entry that knows of it.
func (c *redisCluster) paidOnce() {
	c.t.Helper()
	paid := make(map[string]int)
	for _, charge := range c.ca.Charges() {
		if len(charge.Names) != 1 {
			c.t.Errorf("an order for %q", charge.Names)
		}
		paid[charge.Names[0]]++
	}
	for _, name := range c.names {
		if paid[name] != 1 {
			c.t.Errorf("%s was paid for %d times", name, paid[name])
		}
	}
	c.charges(len(c.names))
	c.await("all orders to finish", func() error {
		issued := make(map[string]int)
		for _, e := range c.entries() {
			switch e.State {
			case ledger.Issued:
				issued[e.Names[0]]++
			case ledger.Gone:
			default: // a reissue may be under way
				return fmt.Errorf("entry %s for %s is %v: %s", e.ID, e.Names, e.State, e.Problem)
			}
		}
		for _, name := range c.names {
			if issued[name] != 1 {
				return fmt.Errorf("%s has %d entries that are issued", name, issued[name])
			}
		}
		return nil
	})
	c.nothingForgotten()
}

// export copies everything in Redis into the directory storage.
func (c *redisCluster) export() {
	c.t.Helper()
	config := filepath.Join(c.dir, "export.Caddyfile")
	// This storage shows everything at once.
	if err := os.WriteFile(config, fmt.Appendf(nil, "{\n\tstorage e2e_redis %s\n}\n", c.redis.Addr), 0o600); err != nil {
		c.t.Fatal(err)
	}
	archive := filepath.Join(c.dir, "export.tar")
	if out, err := c.run(c.node, "storage", "export", "--config", config, "--output", archive); err != nil {
		c.t.Fatalf("%v: %s", err, out)
	}
	if err := os.RemoveAll(c.storage); err != nil {
		c.t.Fatal(err)
	}
	file, err := os.Open(archive)
	if err != nil {
		c.t.Fatal(err)
	}
	defer file.Close()
	for tr := tar.NewReader(file); ; {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			c.t.Fatal(err)
		}
		value, err := io.ReadAll(tr)
		path := filepath.Join(c.storage, filepath.FromSlash(header.Name))
		if err := cmp.Or(err, os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, value, 0o600)); err != nil {
			c.t.Fatal(err)
		}
	}
}

func journalOf(n node) string { return filepath.Join(n.home, "operations") }

// cost is how many operations of the storage all servers together took for one name.
func (c *redisCluster) cost() string {
	c.t.Helper()
	counts := make(map[string][2]int) // ours, and the others
	var kinds []string
	for _, n := range c.nodes {
		for _, op := range c.operations(journalOf(n)) {
			if op.at.Add(-n.clock).Before(c.begun) {
				continue
			}
			count, known := counts[op.what]
			if !known {
				kinds = append(kinds, op.what)
			}
			if strings.HasPrefix(op.key, "commercial") {
				count[0]++
			} else {
				count[1]++
			}
			counts[op.what] = count
		}
	}
	slices.Sort(kinds)
	var text strings.Builder
	var sum [2]int
	line := func(what string, count [2]int) {
		per := float64(len(c.names))
		fmt.Fprintf(&text, "%8s: %5.1f ours, %5.1f certmagic's and Caddy's\n", what, float64(count[0])/per, float64(count[1])/per)
	}
	for _, what := range kinds {
		line(what, counts[what])
		sum[0], sum[1] = sum[0]+counts[what][0], sum[1]+counts[what][1]
	}
	line("all", sum)
	return text.String()
}
