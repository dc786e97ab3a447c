package vendortest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/csrtest"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// paidOnce is the most important scenario: an order is sent and paid for once, whatever becomes of
// its answer.
func paidOnce(s suite) {
	eachFault(s, RolePlace, func(req vendors.OrderRequest) error {
		_, err := s.Vendor.Place(s.ctx(), req)
		return err
	})
}

func renewedOnce(s suite) {
	renewer, ok := s.Vendor.(vendors.Renewer)
	if !ok {
		return
	}
	old := s.renewable()
	eachFault(s, RoleRenew, func(req vendors.OrderRequest) error {
		req.Names = old.req.Names
		req.CSR = csrtest.DER(s.t, req.Names...)
		_, err := renewer.Renew(s.ctx(), old.id, req)
		return err
	})
}

// eachFault makes a paid call under each fault, before and after its effect.
func eachFault(s suite, role Role, pay func(vendors.OrderRequest) error) {
	finder, _ := s.Vendor.(vendors.Finder)
	for _, kind := range broken {
		for _, after := range []bool{false, true} {
			req := s.prepared(s.request())
			charges, sent := s.Service.Charges(), s.Service.Sent(role)
			remove := s.Service.Inject(Fault{Role: role, Kind: kind, AfterEffect: after})
			err := pay(req)
			remove()
			if err == nil {
				s.t.Errorf("%s, carried out %v: no error", kind, after)
				continue
			}
			if s.failed(err, vendors.Uncertain); vendors.VerdictOf(err) != vendors.Uncertain {
				s.t.Logf("in this case: %s, carried out %v", kind, after)
			}
			if n := s.Service.Sent(role) - sent; n != 1 {
				s.t.Errorf("%s, carried out %v: sent %d times", kind, after, n)
			}
			want := 0
			if after {
				want = 1
			}
			if got := s.Service.Charges() - charges; got != want {
				s.t.Errorf("%s, carried out %v: charged %d times", kind, after, got)
			}
			if finder == nil {
				continue
			}
			ids, err := finder.Find(s.ctx(), lookup(req))
			if !after && errors.Is(err, vendors.ErrUndecidable) {
				continue // a vendor may not be able to prove that there is no order
			}
			if err != nil || len(ids) != want {
				s.t.Errorf("%s, carried out %v: found %v, %v", kind, after, ids, err)
			}
		}
	}
}

func hangs(s suite) {
	for _, after := range []bool{false, true} {
		req := s.prepared(s.request())
		remove := s.Service.Inject(Fault{Role: RolePlace, Kind: Hang, AfterEffect: after})
		arrived := s.Service.Arrived(RolePlace, after)
		ctx, cancel := context.WithCancel(s.ctx())
		var wg sync.WaitGroup
		wg.Go(func() { <-arrived; cancel() })
		_, err := s.Vendor.Place(ctx, req)
		cancel()
		wg.Wait()
		remove()
		if s.failed(err, vendors.Uncertain); !errors.Is(err, context.Canceled) {
			s.t.Errorf("error does not match context.Canceled: %v", err)
		}
	}
	if n := s.Service.Sent(RolePlace); n != 2 {
		s.t.Errorf("two orders were sent %d times", n)
	}
	s.charged(1)
}

func refusals(s suite) {
	req := s.request()
	req.Product = "no-such-product"
	s.failed(s.buy(s.Vendor, req), vendors.Permanent)

	req = s.request()
	req.CSR = []byte("not a request")
	s.failed(s.buy(s.Vendor, req), vendors.Permanent)

	known := s.prepared(s.request())
	err := s.buy(s.Stranger, s.request())
	if s.failed(err, vendors.Permanent); !errors.Is(err, vendors.ErrCredential) {
		s.t.Errorf("error does not match ErrCredential: %v", err)
	}
	_, err = s.Stranger.Place(s.ctx(), known)
	if s.failed(err, vendors.Permanent); !errors.Is(err, vendors.ErrCredential) {
		s.t.Errorf("error does not match ErrCredential: %v", err)
	}
	_, err = s.Stranger.Status(s.ctx(), "1")
	s.failed(err, vendors.Permanent)
	if finder, ok := s.Stranger.(vendors.Finder); ok {
		_, err = finder.Find(s.ctx(), lookup(known))
		s.failed(err, vendors.Permanent)
	}

	s.Service.Spend()
	err = s.buy(s.Vendor, s.request())
	if s.failed(err, vendors.Permanent); !errors.Is(err, vendors.ErrBalance) {
		s.t.Errorf("error does not match ErrBalance: %v", err)
	}
	s.charged(0)
}

func unreachable(s suite) {
	ctx := s.brief()
	req := s.prepared(s.request())
	_, err := s.Unreachable.Place(ctx, req)
	s.failed(err, vendors.Retryable)
	_, err = s.Unreachable.Status(ctx, "1")
	s.failed(err, vendors.Retryable)
	if finder, ok := s.Unreachable.(vendors.Finder); ok {
		_, err = finder.Find(ctx, lookup(req))
		s.failed(err, vendors.Retryable)
	}
}

// brief returns a context that ends before the pause between a vendor's attempts of a read does, so
// there is only one attempt.
func (s suite) brief() context.Context {
	ctx, cancel := context.WithTimeout(s.ctx(), time.Second)
	s.t.Cleanup(cancel)
	return ctx
}

func cancelledEarly(s suite) {
	req := s.prepared(s.request())
	ctx, cancel := context.WithCancel(s.ctx())
	cancel()
	_, err := s.Vendor.Place(ctx, req)
	if s.failed(err, vendors.Retryable); !errors.Is(err, context.Canceled) {
		s.t.Errorf("error does not match context.Canceled: %v", err)
	}
	if n := s.Service.Sent(RolePlace); n != 0 {
		s.t.Errorf("sent %d times", n)
	}
}

// readsFail: a fault must not look like "no such order", which would permit another purchase.
func readsFail(s suite) {
	req := s.prepared(s.request())
	order := s.place(req)
	finder, _ := s.Vendor.(vendors.Finder)
	for _, kind := range broken {
		remove := s.Service.Inject(Fault{Role: RoleStatus, Kind: kind})
		_, err := s.Vendor.Status(s.brief(), order.ID)
		remove()
		if s.failed(err, vendors.Retryable); errors.Is(err, vendors.ErrNotFound) {
			s.t.Errorf("%s: mistaken for an unknown order", kind)
		}
		if finder == nil {
			continue
		}
		remove = s.Service.Inject(Fault{Role: RoleFind, Kind: kind})
		ids, err := finder.Find(s.brief(), lookup(req))
		remove()
		if err == nil {
			s.t.Errorf("%s: found %v and no error", kind, ids)
			continue
		}
		s.failed(err, vendors.Retryable)
	}
}
