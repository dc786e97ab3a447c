package issuer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/issuer/proof"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// server is a process that serves validation files itself, and records who asks for them.
type server struct {
	*process
	handler *dcv.Handler
	writes  *visitWrites
	die     func()
}

// startServer starts a server. Until it is asked for a name, it only serves what others have presented.
func (w *world) startServer(name string) *server {
	store := dcv.NewStore()
	s := &server{handler: dcv.NewHandler(store, zap.NewNop()), writes: &visitWrites{Storage: w.storage}}
	s.process = w.start(nil, func(f *flow) {
		quickly(f)
		f.ledger.Storage, f.files, f.server = s.writes, store, name
		f.prove = proof.New(proof.Config{Mode: proof.ModeOff, About: vendors.Description{AnyName: true}, Storage: s.writes, Store: store, Group: f.ledger.Prefix})
	})
	ctx, cancel := context.WithCancel(w.ctx)
	unmanage := store.Manage(s.writes, func(string) (managed, exact bool) { return true, true })
	var keeping sync.WaitGroup
	keeping.Go(func() { s.keepVisits(ctx) })
	s.die = sync.OnceFunc(func() {
		cancel()
		keeping.Wait()
		unmanage()
		s.stop()
	})
	w.tb.Cleanup(s.die)
	return s
}

// visitWrites counts the operations on files of visits, and can make them fail.
type visitWrites struct {
	certmagic.Storage
	reads, stores atomic.Int64
	broken        atomic.Bool
}

var errNoConnection = errors.New("no connection")

func (s *visitWrites) of(key string, count *atomic.Int64) error {
	if !strings.Contains(key, "/visits/") {
		return nil
	}
	count.Add(1)
	if s.broken.Load() {
		return errNoConnection
	}
	return nil
}

func (s *visitWrites) Load(ctx context.Context, key string) ([]byte, error) {
	if err := s.of(key, &s.reads); err != nil {
		return nil, err
	}
	return s.Storage.Load(ctx, key)
}

func (s *visitWrites) Store(ctx context.Context, key string, value []byte) error {
	if err := s.of(key, &s.stores); err != nil {
		return err
	}
	return s.Storage.Store(ctx, key, value)
}

// RoundTrip makes the server the one that the CA reaches.
func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	answer := httptest.NewRecorder()
	request := httptest.NewRequest(r.Method, r.URL.String(), nil)
	request.Header = r.Header
	err := s.handler.ServeHTTP(answer, request, caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		http.NotFound(w, r)
		return nil
	}))
	return answer.Result(), err
}

// visit asks the server for the validation file of the name's order.
func (s *server) visit(name, agent string) {
	s.w.tb.Helper()
	e := s.w.entry(name)
	if e == nil || len(e.Attempt.Challenges) == 0 {
		s.w.tb.Fatalf("no challenge for %s: %+v", name, e)
	}
	s.fetch(name, e.Attempt.Challenges[0].FileName, agent, http.StatusOK)
}

func (s *server) fetch(host, file, agent string, status int) {
	s.w.tb.Helper()
	r, err := http.NewRequest(http.MethodGet, "http://"+host+dcv.PathPrefix+file, nil)
	if err != nil {
		s.w.tb.Fatal(err)
	}
	r.Header.Set("User-Agent", agent)
	if resp, err := s.RoundTrip(r); err != nil || resp.StatusCode != status {
		s.w.tb.Fatalf("%s of %s: %v, %v", file, host, resp.StatusCode, err)
	}
}

// reachedAt makes a server the one that the CA reaches under all names.
func (w *world) reachedAt(s *server) {
	w.tb.Helper()
	if err := w.ca.Update(func(c *hostile.Config) { c.Transport = s }); err != nil {
		w.tb.Fatal(err)
	}
}

// told returns what any server can report about the visits for a name.
func (w *world) told(name string) []ledger.Visit {
	w.tb.Helper()
	l := &ledger.Ledger{Storage: w.storage, Prefix: ledger.Prefix("racent", "test"), Memory: new(ledger.Memory)}
	list, err := l.Visits(w.ctx, w.entry(name))
	if err != nil {
		w.tb.Fatal(err)
	}
	return list
}

// agents returns who came, with the servers that answered them.
func agents(list []ledger.Visit) (who []string) {
	for _, v := range list {
		who = append(who, v.UserAgent+" at "+v.Server)
	}
	return who
}

// visitFiles returns the keys of all files of visits.
func (w *world) visitFiles() (files []string) {
	for key := range w.storage.snapshot() {
		if strings.Contains(key, "/visits/") {
			files = append(files, path.Base(key))
		}
	}
	slices.Sort(files)
	return files
}

const visited = "visited.example.com"

func slowWorld(t *testing.T) *world {
	return newWorld(t, func(c *hostile.Config) { c.IssueDelay = 10 * time.Minute })
}

// TestVisitsInCluster: if the CA comes to a server that does not drive the order, any other server
// can report it, even when both are down, and the entry shows who came to the one that did.
func TestVisitsInCluster(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := slowWorld(t)
		driving, other := w.startServer("one.example"), w.startServer("two.example")
		w.reachedAt(other)
		driving.configure(visited)
		time.Sleep(20 * time.Second)
		driving.visit(visited, "a person")
		time.Sleep(2 * time.Minute)
		other.die()

		e := w.entry(visited)
		if files, want := w.visitFiles(), []string{e.Attempt.Reference + ".one.example.json", e.Attempt.Reference + ".two.example.json"}; !slices.Equal(files, want) {
			t.Errorf("files %q, want %q", files, want)
		}
		list := w.told(visited)
		if len(list) < 2 || !slices.IsSortedFunc(list, func(a, b ledger.Visit) int { return a.Time.Compare(b.Time) }) {
			t.Fatalf("visits %+v", list)
		}
		first := list[0]
		if first.Server != "two.example" || !strings.HasSuffix(first.Host, visited) || first.From != "192.0.2.1" || first.Status != 200 ||
			!strings.HasPrefix(first.UserAgent, "sandbox DCV") || first.Time.IsZero() {
			t.Errorf("the first visit is %+v", first)
		}

		driving.untilServed(time.Hour, visited)
		driving.die()
		visits := w.entry(visited).Attempt.Visits
		if visits == nil || visits.Total != 1 || !slices.Equal(agents(visits.Newest), []string{"a person at one.example"}) {
			t.Errorf("the entry has %+v", visits)
		}
		if got := w.told(visited); !slices.Equal(got, list) { // the visit that is in both places appears once
			t.Errorf("reported %v, want %v", agents(got), agents(list))
		}
		w.wantCharges(1)
	})
}

// TestVisitsOfQuickOrder: an order that is issued at once needs no extra operations. Its entry shows
// who came to the server that drove it.
func TestVisitsOfQuickOrder(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		driving, other := w.startServer("one.example"), w.startServer("two.example")
		w.reachedAt(driving)
		driving.configure(visited)
		driving.untilServed(time.Minute, visited)
		w.reachedAt(other)
		driving.configure("other.example.com")
		driving.untilServed(time.Minute, "other.example.com")
		time.Sleep(10 * time.Minute)
		for _, s := range []*server{driving, other} {
			if n := s.writes.reads.Load() + s.writes.stores.Load(); n > 0 {
				t.Errorf("%d operations at %s", n, s.server)
			}
		}
		if v := w.entry(visited).Attempt.Visits; v == nil || v.Total < 2 || v.Newest[0].Server != "one.example" {
			t.Errorf("the entry has %+v", v)
		}
		if v := w.entry("other.example.com").Attempt.Visits; v != nil {
			t.Errorf("the other entry has %+v", v)
		}
	})
}

// TestVisitsAfterCrash: when a server dies, only those visits are lost that it has not written yet.
func TestVisitsAfterCrash(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := slowWorld(t)
		driving, other := w.startServer("one.example"), w.startServer("two.example")
		w.reachedAt(driving)
		driving.configure(visited)
		time.Sleep(10 * time.Second)
		other.visit(visited, "first")
		time.Sleep(2 * time.Minute)
		other.visit(visited, "second")
		time.Sleep(10 * time.Second)
		other.die()
		other = w.startServer("two.example")
		other.visit(visited, "third")
		time.Sleep(2 * time.Minute)
		got := slices.DeleteFunc(agents(w.told(visited)), func(who string) bool { return strings.HasSuffix(who, "one.example") })
		if want := []string{"first at two.example", "third at two.example"}; !slices.Equal(got, want) {
			t.Errorf("reported %q, want %q", got, want)
		}
		driving.untilServed(time.Hour, visited)
		w.wantCharges(1)
	})
}

// TestVisitsCannotBeWritten: a storage that cannot take visits disturbs no order, and gets them once
// it can.
func TestVisitsCannotBeWritten(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, func(c *hostile.Config) { c.IssueDelay = 2 * time.Hour })
		driving := w.startServer("one.example")
		w.reachedAt(driving)
		driving.writes.broken.Store(true)
		driving.configure(visited)
		time.Sleep(time.Hour)
		const warning = "writing down who came for validation files failed; trying again"
		if n := w.logs.FilterMessage(warning).Len(); n != 1 || len(w.visitFiles()) > 0 {
			t.Errorf("%d warnings, files %q", n, w.visitFiles())
		}
		driving.writes.broken.Store(false)
		time.Sleep(2 * time.Minute)
		if n := len(w.told(visited)); n < 2 || len(w.visitFiles()) != 1 {
			t.Errorf("%d visits are reported, from %q", n, w.visitFiles())
		}
		driving.writes.broken.Store(true)
		driving.untilServed(day, visited)
		if v := w.entry(visited).Attempt.Visits; v == nil || v.Total < 2 {
			t.Errorf("the entry has %+v", v)
		}
		w.wantCharges(1)
	})
}

// TestVisitsOfStrangers: requests by strangers cost little: one file a minute for files that exist,
// and nothing for others.
func TestVisitsOfStrangers(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := slowWorld(t)
		driving, other := w.startServer("one.example"), w.startServer("two.example")
		w.reachedAt(driving)
		driving.configure(visited)
		time.Sleep(20 * time.Second)
		file := w.entry(visited).Attempt.Challenges[0].FileName
		for i := range 10_000 {
			other.fetch(visited, file, fmt.Sprint("stranger ", i), http.StatusOK)
			if i%100 == 0 {
				other.fetch(visited, fmt.Sprintf("%d.txt", i), "stranger", http.StatusNotFound)
				other.fetch(fmt.Sprintf("%d.example.com", i), file, "stranger", http.StatusNotFound)
				time.Sleep(time.Second)
			}
		}
		time.Sleep(100 * time.Second)
		if n := other.writes.stores.Load(); n < 2 || n > 4 { // in 200 seconds
			t.Errorf("%d files were written", n)
		}
		list := slices.DeleteFunc(w.told(visited), func(v ledger.Visit) bool { return v.Server == "one.example" })
		if len(list) != 64 || list[63].UserAgent != "stranger 9999" {
			t.Errorf("%d visits are reported, the last %+v", len(list), list[len(list)-1])
		}
		if n := len(w.visitFiles()); n != 2 {
			t.Errorf("files %q", w.visitFiles())
		}
		driving.untilServed(time.Hour, visited)
	})
}

// TestVisitsAreSwept: the files of visits are removed with the entry.
func TestVisitsAreSwept(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := slowWorld(t)
		s := w.startServer("one.example")
		w.reachedAt(s)
		s.configure(visited)
		s.untilServed(time.Hour, visited)
		time.Sleep(30 * day)
		if n := len(w.visitFiles()); n != 1 {
			t.Fatalf("files %q", w.visitFiles())
		}
		e := w.entry(visited)
		if _, err := s.ledger.Write(w.ctx, e, func(e *ledger.Entry) { e.State = ledger.Gone }); err != nil {
			t.Fatal(err)
		}
		s.site.deny = map[string]bool{visited: true}
		time.Sleep(6 * day)
		if n := len(w.visitFiles()); n > 0 {
			t.Errorf("files %q", w.visitFiles())
		}
	})
}
