package sandboxca

import (
	"encoding/json"
	"slices"
	"time"

	"go.uber.org/zap"
)

// Books are the CA's records. Only one goroutine at a time has them open, from CA.Open to
// Close. What they return may be changed while they are open, is stored by Save, and must
// not be used after Close. While they are open, no method of the CA itself may be called.
type Books struct{ c *CA }

// Record is something that a dialect keeps alongside the orders, such as requests that
// were never paid for. Only the dialect knows what it means.
type Record struct {
	Dialect string          `json:"dialect"`
	Key     string          `json:"key"`
	Data    json.RawMessage `json:"data"`
}

// Open opens the books, waiting until nobody else has them open.
func (c *CA) Open() Books {
	c.mu.Lock()
	return Books{c}
}

// Close lets others open the books.
func (b Books) Close() { b.c.mu.Unlock() }

// Now is the time by the CA's clock.
func (b Books) Now() time.Time { return b.c.cfg.Now() }

// Days scales a number of days to the length of a paid year.
func (b Books) Days(n int) time.Duration { return b.c.cfg.days(n) }

// Products is the catalogue. It must not be changed.
func (b Books) Products() []Product { return b.c.cfg.Products }

// Product finds a product by its code.
func (b Books) Product(code string) (Product, bool) {
	for _, p := range b.c.cfg.Products {
		if p.Code == code {
			return p, true
		}
	}
	return Product{}, false
}

// Balance is the money left in an account, in cents.
func (b Books) Balance(account string) int64 { return b.c.st.balances[account] }

// Order finds an order by its ID, nil if there is none.
func (b Books) Order(id string) *Order { return b.c.st.byID[id] }

// Find finds an order of an account of a dialect by its ID and brings it up to date.
func (b Books) Find(dialect, account, id string) *Order {
	o := b.c.st.byID[id]
	if o == nil || o.Account != account || o.Dialect != dialect {
		return nil
	}
	b.c.advance(o)
	return o
}

// ByReference finds the newest order of an account with this reference.
func (b Books) ByReference(dialect, account, ref string) *Order {
	return b.c.st.byRef[refKey{dialect, account, ref}]
}

// ByCertificate finds an order by the number that the CA gave its certificate.
func (b Books) ByCertificate(dialect, account, number string) *Order {
	o := b.c.st.byCert[number]
	if o == nil {
		return nil
	}
	return b.Find(dialect, account, o.ID)
}

// Term lists a paid order and its reissues, oldest first, up to date.
func (b Books) Term(paid string) []*Order {
	list := b.c.st.byPaid[paid]
	for _, o := range list {
		b.c.advance(o)
	}
	return list
}

// Orders lists the orders of an account of a dialect, newest first, up to date.
func (b Books) Orders(dialect, account string) []*Order {
	var list []*Order
	for _, o := range slices.Backward(b.c.st.orders) {
		if o.Account == account && o.Dialect == dialect {
			b.c.advance(o)
			list = append(list, o)
		}
	}
	return list
}

// Advance issues the certificate of an order if it is due.
func (b Books) Advance(o *Order) { b.c.advance(o) }

// Submitted reports whether the CA has received the order. Before, there are no
// validation values.
func (b Books) Submitted(o *Order) bool { return o.submitted(&b.c.cfg, b.Now()) }

// OrganizationChecked reports whether the organization of an order no longer needs
// checking.
func (b Books) OrganizationChecked(o *Order) bool {
	return o.Cert != nil || !b.Now().Before(o.organisationDone(&b.c.cfg))
}

// Save stores the changes to orders.
func (b Books) Save(orders ...*Order) *Refusal {
	return b.c.saved(change{Progress: progressOf(orders)})
}

// Charge debits the account of an order again.
func (b Books) Charge(o *Order, orderID string) *Refusal {
	left := b.Balance(o.Account) - o.Cents
	if left < 0 {
		return insufficient()
	}
	ch := change{
		Charges:  []Charge{o.charge(orderID, b.Now())},
		Balances: map[string]int64{o.Account: left},
	}
	ref := b.c.saved(ch)
	if ref == nil {
		b.c.st.apply(ch)
	}
	return ref
}

// Put stores a record, replacing any with the same key.
func (b Books) Put(r Record) *Refusal {
	ref := b.c.saved(change{Records: []Record{r}})
	if ref == nil {
		b.c.st.putRecord(r)
	}
	return ref
}

// Records lists the records of a dialect.
func (b Books) Records(dialect string) []Record {
	var list []Record
	for key, data := range b.c.st.records {
		if key.dialect == dialect {
			list = append(list, Record{Dialect: dialect, Key: key.key, Data: data})
		}
	}
	return list
}

// saved stores a change. A failure is logged and becomes a refusal.
func (c *CA) saved(ch change) *Refusal {
	if err := c.journal.write(ch, &c.st); err != nil {
		c.logger.Error("storing state failed", zap.Error(err))
		return &Refusal{Internal, "", "unexpected error"}
	}
	for id := range ch.Progress {
		c.st.track(c.st.byID[id])
	}
	return nil
}

// keep stores the changes to orders when nobody waits for an answer. A failure is logged.
func (c *CA) keep(orders ...*Order) { _ = c.saved(change{Progress: progressOf(orders)}) }

func progressOf(orders []*Order) map[string]*Progress {
	changed := make(map[string]*Progress, len(orders))
	for _, o := range orders {
		changed[o.ID] = &o.Progress
	}
	return changed
}
