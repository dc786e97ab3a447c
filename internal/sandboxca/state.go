package sandboxca

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"maps"
	"slices"
)

// state is everything that survives a restart, with indexes over it.
type state struct {
	sequence int64
	balances map[string]int64 // cents by account key
	orders   []*Order         // oldest first
	charges  []Charge         // oldest first
	records  map[recordKey]json.RawMessage

	byID   map[string]*Order
	byRef  map[refKey]*Order // the newest
	byPaid map[string][]*Order
	byCert map[string]*Order
	csrs   map[[sha256.Size]byte]bool
	open   map[*Order]bool // the pending ones
}

type (
	recordKey struct{ dialect, key string }
	refKey    struct{ dialect, account, ref string }
)

func newState() state {
	return state{
		balances: make(map[string]int64), records: make(map[recordKey]json.RawMessage),
		byID: make(map[string]*Order), byRef: make(map[refKey]*Order), byPaid: make(map[string][]*Order),
		byCert: make(map[string]*Order), csrs: make(map[[sha256.Size]byte]bool), open: make(map[*Order]bool),
	}
}

// apply applies a change that was written. Progress of an unknown order is skipped.
func (st *state) apply(ch change) {
	st.sequence = max(st.sequence, ch.Sequence)
	for _, o := range ch.Orders {
		st.add(o)
	}
	for id, p := range ch.Progress {
		if o := st.byID[id]; o != nil {
			o.Progress = *p
			st.track(o)
		}
	}
	st.charges = append(st.charges, ch.Charges...)
	maps.Copy(st.balances, ch.Balances)
	for _, r := range ch.Records {
		st.putRecord(r)
	}
}

func (st *state) putRecord(r Record) { st.records[recordKey{r.Dialect, r.Key}] = r.Data }

func (st *state) add(o *Order) {
	st.orders = append(st.orders, o)
	st.byID[o.ID], st.byCert[o.CACert] = o, o
	st.byPaid[o.Paid] = append(st.byPaid[o.Paid], o)
	st.csrs[csrKey(o)] = true
	if o.RefID != "" {
		st.byRef[refKey{o.Dialect, o.Account, o.RefID}] = o
	}
	st.track(o)
}

// track updates the set of pending orders.
func (st *state) track(o *Order) {
	if o.Pending() {
		st.open[o] = true
	} else {
		delete(st.open, o)
	}
}

// pending lists the pending orders, oldest first.
func (st *state) pending() []*Order {
	return slices.SortedFunc(maps.Keys(st.open), func(a, b *Order) int { return cmp.Compare(a.CAOrder, b.CAOrder) })
}

// used reports whether a CSR was ordered before with the same unique value, by any
// customer. Cancelled orders count, too.
func (st *state) used(o *Order) bool { return st.csrs[csrKey(o)] }

func csrKey(o *Order) [sha256.Size]byte {
	return sha256.Sum256(slices.Concat([]byte(o.Unique), []byte{0}, o.CSR))
}
