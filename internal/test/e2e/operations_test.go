package e2e

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// maxOperations is how many storage operations an issuance may take.
const maxOperations = 12

// TestOperations counts the storage operations of a plain issuance, from the first read
// of the ledger until nothing is left to do. Those of certmagic are only logged.
func TestOperations(t *testing.T) {
	t.Parallel()
	const name = "shop.localhost"
	w := newWorld(t, nil)
	journal := filepath.Join(w.dir, "operations")
	config := strings.Replace(w.simple(w.node, name), w.hooks+"/point", w.hooks+"/point "+journal, 1)
	s := w.start(config)
	s.served(name)
	w.nothingForgotten()
	w.charges(1)
	ops := w.operations(journal)
	ours := ofOrder(ops)
	if len(ours) == 0 {
		t.Fatalf("nothing was recorded: %q", ops)
	}
	certmagics := make(map[string]int)
	for _, op := range ops {
		if !strings.HasPrefix(op.key, "commercial") {
			certmagics[op.what]++
		}
	}
	t.Logf("ours, %d: %v", len(ours), ours)
	var told []string
	for _, what := range slices.Sorted(maps.Keys(certmagics)) {
		told = append(told, fmt.Sprintf("%d %s", certmagics[what], what))
	}
	t.Logf("of Caddy and certmagic, start included: %s", strings.Join(told, ", "))
	if len(ours) > maxOperations {
		t.Errorf("an issuance took %d storage operations, want at most %d", len(ours), maxOperations)
	}
}

// ofOrder are the operations on this plugin's own part of the storage that an order makes. Some
// seconds after a start, the server also lists all entries, and once a day it asks for the price,
// which may come in between: an issuance lists twice, before and after its entry is stored.
func ofOrder(ops []operation) []operation {
	lists := 0
	return slices.DeleteFunc(slices.Clone(ops), func(op operation) bool {
		if !strings.HasPrefix(op.key, "commercial") || strings.HasSuffix(op.key, "/prices.json") {
			return true
		}
		if op.what == "list" {
			lists++
		}
		return op.what == "list" && lists > 2
	})
}

// operation is one call of the storage.
type operation struct {
	at        time.Time
	what, key string
}

func (o operation) String() string { return o.what + " " + o.key }

// operations reads what a server's storage has recorded.
func (w *world) operations(journal string) []operation {
	w.t.Helper()
	data, err := os.ReadFile(journal)
	if err != nil {
		w.t.Fatal(err)
	}
	var ops []operation
	for line := range strings.Lines(string(data)) {
		var nanos int64
		var op operation
		if n, err := fmt.Sscan(line, &nanos, &op.what, &op.key); n < 2 {
			w.t.Fatal(errors.Join(fmt.Errorf("line %q", line), err))
		}
		op.at = time.Unix(0, nanos)
		ops = append(ops, op)
	}
	return ops
}
