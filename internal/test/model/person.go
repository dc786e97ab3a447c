package model

import (
	"context"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Resolver is a System in which a person can settle what time does not.
type Resolver interface {
	// Flagged lists what a person must decide.
	Flagged(ctx context.Context) ([]Flag, error)

	// Resolve settles one of them. An error means that it was refused; the person comes
	// back.
	Resolve(ctx context.Context, f Flag, truth Truth) error
}

// Flag is something that a person must decide.
type Flag struct {
	ID        string // the system's own, of the entry
	Vendor    int
	Account   string
	Reference string    // of the request whose answer was lost
	OrderID   string    // the order as it is followed, empty if not known
	Since     time.Time // by the clock of the server that set it; zero if not known
}

// Truth is what a person finds out at the vendor.
type Truth struct {
	// OrderID is the order as it is to be followed.
	OrderID string

	// Gone is whether there is no order that can ever give a certificate.
	Gone bool
}

// person looks now and then at what was flagged for about a day, and tells the truth.
func (w *World) person() {
	for n := 0; ; n++ {
		w.sleep(w.p.Person)
		if w.over() {
			return
		}
		var p *Process
		var r Resolver
		w.inLoop(func() {
			if p = w.servers[n%len(w.servers)].up; p != nil {
				r, _ = p.system.(Resolver)
			}
		})
		if r == nil {
			continue
		}
		flags, err := r.Flagged(p.ctx)
		if err != nil {
			continue
		}
		for _, f := range flags {
			if time.Since(f.Since) < day-2*time.Hour {
				continue
			}
			var truth Truth
			w.inLoop(func() { truth = w.sellers[f.Vendor].truth(f) })
			err := r.Resolve(p.ctx, f, truth)
			w.inLoop(func() {
				w.result.Persons++
				w.say("person on %+v: %+v: %v", f, truth, err)
			})
		}
	}
}

// inLoop does something in the loop.
func (w *World) inLoop(do func()) {
	_ = w.do(context.Background(), nil, "event", "", func(o *op) {
		do()
		w.finish(o, nil)
	})
}

func (w *World) over() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ended
}

// truth is what a person sees in the vendor's portal.
func (s *seller) truth(f Flag) Truth {
	o := s.find(f.Account, f.OrderID, f.Reference)
	if o == nil {
		return Truth{Gone: true}
	}
	s.look(o)
	switch o.status {
	case vendors.StatusRejected, vendors.StatusExpired, vendors.StatusCancelled, vendors.StatusRevoked:
		o.root.dismissed = true
		return Truth{Gone: true}
	default:
		return Truth{OrderID: o.id}
	}
}

// find is the order of an ID or a reference, as it is to be followed; nil if there is none.
func (s *seller) find(account, id, reference string) *order {
	s.w.readBooks(nil)
	o := s.orders[s.key(account, id)]
	if o == nil {
		for _, x := range s.byRef[reference] {
			if x.account == account {
				o = x
			}
		}
	}
	if o == nil {
		return nil
	}
	for o.next != nil {
		o = o.next
	}
	return o
}
