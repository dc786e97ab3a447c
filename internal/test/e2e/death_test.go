package e2e

import (
	"cmp"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
)

const mortal = "shop.localhost"

// life is what happens to a server that may be killed along the way.
type life struct {
	title string

	// before sets up the past, in which nobody dies.
	before func(w *world)

	// charges is how many charges the whole life costs.
	charges int
}

var lives = []life{
	{"first order", func(*world) {}, 1},

	// The order is paid and issued, but its certificate is gone.
	{"reissue", (*world).losesCertificate, 1},

	// The same when all but a few days of the paid term are over.
	{"renewal", func(w *world) {
		const day = 24 * time.Hour
		w.update(func(c *hostile.Config) {
			c.Now = func() time.Time { return time.Now().Add(-345 * day) }
			c.Lifetime = 365 * day
		})
		w.losesCertificate()
		w.update(func(c *hostile.Config) { c.Now = time.Now })
	}, 2},
}

func (w *world) losesCertificate() {
	s := w.start(w.simple(w.node, mortal))
	s.served(mortal)
	s.stop()
	if err := os.RemoveAll(filepath.Join(w.storage, "certificates")); err != nil {
		w.t.Fatal(err)
	}
}

// watch calls visit at each point of a life from now on: before and after every call
// reaches the vendor and every write reaches the storage. The n-th visit to a point is
// numbered n. An order is polled once in vain before it is issued, so there are points
// while it is pending.
func (w *world) watch(visit func(point string)) {
	var mu sync.Mutex
	visits := make(map[string]int)
	numbered := func(point string) {
		mu.Lock()
		visits[point]++
		point = fmt.Sprintf("%s #%d", point, visits[point])
		mu.Unlock()
		visit(point)
	}
	// Only now, because the past should not be slow.
	w.update(neverIssue)
	w.ca.OnCall(func(endpoint string, phase hostile.Phase) {
		if phase == hostile.BeforeEffect {
			numbered("before call " + endpoint)
			return
		}
		if endpoint == "collect" {
			w.issueNow()
		}
		numbered("after call " + endpoint)
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.onPoint = func(point string) { numbered(w.nameless(point)) }
}

// randomParts are the parts of storage keys that are different in each life.
var randomParts = regexp.MustCompile(`(entries|keys|drafts|visits|commercial/dcv/[^/]+)/[^/]+$`)

// nameless is a point without what differs from one life to another.
func (w *world) nameless(point string) string {
	return randomParts.ReplaceAllString(strings.ReplaceAll(point, w.account(), "ACCOUNT"), "$1/FILE")
}

// pointsOf lists the points of an undisturbed life. They come from what the code does, so
// a new step is automatically a new point.
func pointsOf(t *testing.T, l life) []string {
	w := newWorld(t, nil)
	l.before(w)
	var mu sync.Mutex
	var points []string // calls may come even after this has returned
	w.watch(func(point string) {
		mu.Lock()
		defer mu.Unlock()
		points = append(points, point)
	})
	w.start(w.simple(w.node, mortal)).served(mortal)
	w.charges(l.charges)
	mu.Lock()
	defer mu.Unlock()
	return slices.DeleteFunc(slices.Clone(points), inSomeLives)
}

// inSomeLives reports whether a point need not be in the next life. A key that is no longer needed may
// be removed twice, by two that finish at the same moment. The price is asked for once a day, some
// seconds after a start, which may be after the life.
func inSomeLives(point string) bool {
	return strings.HasSuffix(point, "/keys/FILE #2") && strings.Contains(point, " delete ") ||
		strings.Contains(point, " call productList ") || strings.Contains(point, "/prices.json ")
}

// death is one way to die.
type death struct {
	point string

	// unheard is whether the call that was just sent is lost, too. Otherwise the
	// vendor acts on it after the caller's death.
	unheard bool
}

func (d death) String() string {
	if d.unheard {
		return d.point + ", lost on the way"
	}
	return d.point
}

func deathsAt(points []string) (deaths []death) {
	for _, point := range points {
		deaths = append(deaths, death{point: point})
		if strings.HasPrefix(point, "before call ") {
			deaths = append(deaths, death{point, true})
		}
	}
	return deaths
}

// TestDeathAtEveryPoint kills the server at every point of its life at which it could
// leave the vendor and the storage in disagreement, and starts it again. Whatever the
// point, the site is served in the end, and no order is paid twice or forgotten.
func TestDeathAtEveryPoint(t *testing.T) {
	t.Parallel()
	var table deathTable
	t.Run("all", func(t *testing.T) {
		for _, l := range lives {
			t.Run(l.title, func(t *testing.T) {
				t.Parallel()
				points := pointsOf(t, l)
				if len(points) < 20 {
					t.Fatalf("only %d points in a life; is anything watched? %q", len(points), points)
				}
				for n, d := range deathsAt(points) {
					t.Run(fmt.Sprintf("%02d", n), func(t *testing.T) {
						t.Parallel()
						defer func() { table.add(t, l.title, n, d) }()
						w := dieAndReturn(t, l, d)
						table.charged(l.title, n, len(w.ca.Charges()))
					})
				}
			})
		}
	})
	table.print(t)
}

// dieAndReturn lives a life up to the given death, and goes on with another server.
func dieAndReturn(t *testing.T, l life, d death) *world {
	w := newWorld(t, nil)
	l.before(w)
	config := w.simple(w.node, mortal)
	var once sync.Once
	started, died := make(chan *server, 1), make(chan struct{})
	w.watch(func(point string) {
		if point != d.point {
			return
		}
		fatal := false
		once.Do(func() {
			fatal = true
			(<-started).kill()
			close(died)
		})
		if fatal && d.unheard {
			panic(http.ErrAbortHandler)
		}
	})
	s := w.start(config)
	started <- s
	select {
	case <-died:
	case <-time.After(patience):
		t.Fatalf("the server never reached %s", d.point)
	}

	w.start(config).served(mortal)
	w.charges(l.charges)
	w.nothingForgotten()
	return w
}

// deathTable is the outcome of all deaths.
type deathTable struct {
	mu   sync.Mutex
	rows map[string]*deathRow
}

type deathRow struct {
	key, life, death, outcome string
	charges                   int
}

func (d *deathTable) row(life string, n int) *deathRow {
	key := fmt.Sprintf("%s %03d", life, n)
	if d.rows == nil {
		d.rows = make(map[string]*deathRow)
	}
	if d.rows[key] == nil {
		d.rows[key] = &deathRow{key: key, life: life, charges: -1}
	}
	return d.rows[key]
}

func (d *deathTable) charged(life string, n, charges int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.row(life, n).charges = charges
}

func (d *deathTable) add(t *testing.T, life string, n int, how death) {
	d.mu.Lock()
	defer d.mu.Unlock()
	row := d.row(life, n)
	row.death, row.outcome = how.String(), "served"
	if t.Failed() {
		row.outcome = "FAILED"
	}
}

// print writes the table to the test's log, and to the file that MATRIX_E2E names.
func (d *deathTable) print(t *testing.T) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var rows []*deathRow
	for _, row := range d.rows {
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b *deathRow) int { return cmp.Compare(a.key, b.key) })
	var out strings.Builder
	out.WriteString("| life | killed | charges | outcome |\n|---|---|---|---|\n")
	for _, row := range rows {
		fmt.Fprintf(&out, "| %s | %s | %d | %s |\n", row.life, row.death, row.charges, row.outcome)
	}
	t.Logf("%d deaths:\n%s", len(rows), out.String())
	file := os.Getenv("MATRIX_E2E")
	if file == "" {
		return
	}
	if err := os.WriteFile(file, []byte(out.String()), 0o600); err != nil {
		t.Error(err)
	}
}
