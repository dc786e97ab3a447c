package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-commercial/caddy-commercial/issuer"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

func init() {
	caddy.RegisterModule(new(slowVendor))
}

// benchPending places orders that stay pending, until all of them are waited for in the
// background, and reports what each one costs meanwhile.
func benchPending(ctx context.Context, o options) ([]row, error) {
	ports, err := freePorts(ctx, 1)
	if err != nil {
		return nil, err
	}
	cfg, err := issuerConfig(map[string]any{"name": "bench"}, ports[0])
	if err != nil {
		return nil, err
	}
	cfg.MaxWait = caddy.Duration(time.Millisecond)
	cfg.PollMin = caddy.Duration(time.Hour)
	storage := newStorage(o.dir)
	storage.locker = new(memoryLocks)
	s, err := newServer(storage, cfg)
	if err != nil {
		return nil, err
	}
	defer s.close()

	// The first one starts the listener.
	if err := s.order(ctx, 0); err != nil {
		return nil, err
	}
	orders := pick(o, 1000, 50)
	before, goroutines := memory(), runtime.NumGoroutine()
	var reads int64
	var last time.Duration
	for i := 1; i <= orders; i++ {
		readsBefore, started := s.storage.loads.Load(), time.Now()
		if err := s.order(ctx, i); err != nil {
			return nil, err
		}
		reads, last = s.storage.loads.Load()-readsBefore, time.Since(started)
	}
	after, now := memory(), runtime.NumGoroutine()
	perOrder := func(before, after uint64) float64 { return (float64(after) - float64(before)) / float64(orders) }
	heap, stack := perOrder(before.HeapAlloc, after.HeapAlloc), perOrder(before.StackInuse, after.StackInuse)
	return []row{
		{
			claim: fmt.Sprintf("heap of a pending order, at %d of them", orders),
			ours:  fmt.Sprintf("%s KiB, and %s KiB of stack", number(heap/1024), number(stack/1024)), peer: "-", value: heap / 1024, unit: " KiB", want: bound{atMost, 4, 0.1},
		},
		{
			claim: "goroutines of a pending order",
			ours:  fmt.Sprintf("%d in all", now-goroutines), peer: "-", value: float64(now-goroutines) / float64(orders),
		},
		{
			claim: fmt.Sprintf("storage reads of an order for a new name, with %d others in the ledger", orders),
			ours:  fmt.Sprintf("%d in %s", reads, last.Round(time.Millisecond/10)), peer: "-", value: float64(reads),
		},
	}, nil
}

// memory collects garbage twice, because what finalizers hold is freed only by the second
// collection.
func memory() (m runtime.MemStats) {
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m
}

// order places an order and returns when it is waited for in the background.
func (s *server) order(ctx context.Context, i int) error {
	csr, err := s.request(fmt.Sprintf("pending%d.example.com", i))
	if err != nil {
		return err
	}
	asked := statusAsked.Load()
	_, err = s.Issue(ctx, csr)
	if _, ok := errors.AsType[*issuer.PendingError](err); !ok {
		return errors.Join(errors.New("the order is not pending"), err)
	}
	// The vendor is asked once before the long wait.
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for tick := time.NewTicker(time.Millisecond); statusAsked.Load() < asked+1; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the order is not polled: %w", ctx.Err())
		}
	}
	return nil
}

// slowVendor is a vendor whose orders stay pending forever. It remembers nothing, so all
// memory that an order takes is the plugin's.
type slowVendor struct{}

// statusAsked counts the calls of Status of all slow vendors.
var statusAsked atomic.Int64

// CaddyModule returns the Caddy module information.
func (*slowVendor) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  vendors.Namespace + ".bench",
		New: func() caddy.Module { return new(slowVendor) },
	}
}

// Describe implements vendors.Vendor.
func (*slowVendor) Describe() vendors.Description {
	return vendors.Description{
		Name: "bench", Account: "bench", Portal: "http://127.0.0.1",
		Methods: []vendors.Method{vendors.MethodHTTP}, AnyName: true,
	}
}

// Place implements vendors.Vendor. The reference serves as ID.
func (v *slowVendor) Place(_ context.Context, req vendors.OrderRequest) (vendors.Order, error) {
	return pendingOrder(req.Reference), nil
}

// Status implements vendors.Vendor.
func (v *slowVendor) Status(_ context.Context, orderID string) (vendors.Order, error) {
	statusAsked.Add(1)
	return pendingOrder(orderID), nil
}

func pendingOrder(id string) vendors.Order {
	return vendors.Order{
		ID: id, Status: vendors.StatusPending, RawStatus: "PENDING",
		Challenges: []vendors.Challenge{{Method: vendors.MethodHTTP, FileName: fileName, FileContent: fileBody}},
	}
}

// Interface guard
var _ vendors.Vendor = (*slowVendor)(nil)
