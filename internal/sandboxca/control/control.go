// Package control is an HTTP API to a sandbox for whoever tests a client against it, in
// any language: what was ordered, charged and fetched; faults, revocations, balances,
// quirks and the clock. The README of cmd/order-sandbox documents it.
package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/fault"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
)

// maxBodyBytes bounds what a caller may send.
const maxBodyBytes = 1 << 20

// API is the control API of a sandbox.
type API struct {
	ca    *hostile.CA
	clock *Clock
	seed  uint64
	mux   *http.ServeMux

	mu     sync.Mutex // also serializes changes of quirks
	faults map[int]*injected
	last   int
}

// injected is a fault as it was posted, and how to remove it.
type injected struct {
	ID int `json:"id"`
	Fault
	remove func()
}

// New makes the control API of a sandbox that runs on the clock. The seed is the default
// for its own faults.
func New(ca *hostile.CA, clock *Clock, seed uint64) *API {
	a := &API{ca: ca, clock: clock, seed: seed, mux: http.NewServeMux(), faults: make(map[int]*injected)}
	for pattern, call := range map[string]func(*http.Request) (any, error){
		"GET /orders":                          a.orders,
		"GET /charges":                         func(*http.Request) (any, error) { return ca.Charges(), nil },
		"GET /fetches":                         func(*http.Request) (any, error) { return ca.Fetches(), nil },
		"GET /calls":                           func(*http.Request) (any, error) { return ca.AllCalls(), nil },
		"POST /orders/{id}/status":             a.setStatus,
		"POST /orders/{id}/approve":            a.approve,
		"POST /orders/{id}/revoke-certificate": a.revokeCertificate,
		"POST /orders/{id}/end":                a.end,
		"POST /revoke-all":                     a.revokeAll,
		"POST /end-all":                        a.endAll,
		"POST /balance":                        a.setBalance,
		"GET /clock":                           a.now,
		"POST /clock":                          a.advance,
		"GET /faults":                          a.listFaults,
		"POST /faults":                         a.inject,
		"DELETE /faults":                       a.removeAll,
		"DELETE /faults/{id}":                  a.remove,
		"GET /quirks":                          a.quirks,
		"PATCH /quirks":                        a.changeQuirks,
		"POST /hostility":                      a.setHostility,
		"POST /limit":                          a.setLimit,
	} {
		a.mux.HandleFunc(pattern, answering(call))
	}
	return a
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
	a.mux.ServeHTTP(w, r)
}

// errNotFound is answered with 404, every other error with 400.
var errNotFound = errors.New("not found")

// answering makes a handler of a call whose answer is JSON.
func answering(call func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		status := http.StatusOK
		v, err := call(r)
		if err != nil {
			status, v = http.StatusBadRequest, map[string]string{"error": err.Error()}
		}
		if errors.Is(err, errNotFound) {
			status = http.StatusNotFound
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v) // it does not matter if the client has gone away
	}
}

// read decodes a body strictly.
func read(r *http.Request, v any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading the body: %w", err)
	}
	return nil
}

func done() (any, error) { return map[string]bool{"ok": true}, nil }

func (a *API) orders(*http.Request) (any, error) { return a.ca.Orders(), nil }

// known finds the order that a path names.
func (a *API) known(r *http.Request) (string, error) {
	id := r.PathValue("id")
	if _, ok := a.ca.Order(id); !ok {
		return "", fmt.Errorf("order %q: %w", id, errNotFound)
	}
	return id, nil
}

func (a *API) setStatus(r *http.Request) (any, error) {
	var body struct {
		Status string `json:"status"`
	}
	id, err := a.known(r)
	if err != nil {
		return nil, err
	}
	if err := read(r, &body); err != nil {
		return nil, err
	}
	if body.Status == "" {
		return nil, errors.New("status is missing")
	}
	if err := a.ca.SetStatus(id, body.Status); err != nil {
		return nil, err
	}
	return done()
}

func (a *API) approve(r *http.Request) (any, error) {
	var body struct {
		Name string `json:"name"`
	}
	id, err := a.known(r)
	if err != nil {
		return nil, err
	}
	if err := read(r, &body); err != nil {
		return nil, err
	}
	if err := a.ca.Approve(id, body.Name); err != nil {
		return nil, err
	}
	return done()
}

func (a *API) revokeCertificate(r *http.Request) (any, error) {
	id, err := a.known(r)
	if err != nil {
		return nil, err
	}
	if err := a.ca.RevokeCertificate(id); err != nil {
		return nil, err
	}
	return done()
}

func (a *API) revokeAll(*http.Request) (any, error) {
	n, err := a.ca.RevokeAll()
	return map[string]int{"revoked": n}, err
}

// ending is how orders end.
type ending struct {
	Status string `json:"status"`
}

func (a *API) end(r *http.Request) (any, error) {
	var body ending
	id, err := a.known(r)
	if err == nil {
		err = read(r, &body)
	}
	if err == nil {
		err = a.ca.EndOrder(id, body.Status)
	}
	if err != nil {
		return nil, err
	}
	return done()
}

func (a *API) endAll(r *http.Request) (any, error) {
	var body ending
	if err := read(r, &body); err != nil {
		return nil, err
	}
	n, err := a.ca.EndAll(body.Status)
	return map[string]int{"ended": n}, err
}

func (a *API) setBalance(r *http.Request) (any, error) {
	var body struct {
		Token string `json:"token"`
		Cents int64  `json:"cents"`
	}
	if err := read(r, &body); err != nil {
		return nil, err
	}
	if err := a.ca.SetBalance(body.Token, body.Cents); err != nil {
		return nil, err
	}
	return done()
}

func (a *API) now(*http.Request) (any, error) {
	return map[string]time.Time{"now": a.clock.Now()}, nil
}

func (a *API) advance(r *http.Request) (any, error) {
	var body struct {
		Advance Duration `json:"advance"`
	}
	if err := read(r, &body); err != nil {
		return nil, err
	}
	a.clock.Advance(time.Duration(body.Advance))
	return a.now(r)
}

func (a *API) quirks(*http.Request) (any, error) {
	return a.ca.Quirks(), nil
}

// changeQuirks changes the quirks that the body names, and leaves the others alone.
func (a *API) changeQuirks(r *http.Request) (any, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	next := a.ca.Quirks()
	if err := read(r, &next); err != nil {
		return nil, err
	}
	if err := a.ca.Update(func(cfg *hostile.Config) { cfg.Quirks = next }); err != nil {
		return nil, err
	}
	return next, nil
}

func (a *API) setHostility(r *http.Request) (any, error) {
	var body struct {
		Hostile bool    `json:"hostile"`
		Seed    *uint64 `json:"seed"`
	}
	if err := read(r, &body); err != nil {
		return nil, err
	}
	if body.Seed == nil {
		body.Seed = &a.seed
	}
	if !body.Hostile {
		a.ca.SetSource(nil)
		return done()
	}
	a.ca.SetSource(fault.Mild(*body.Seed))
	return done()
}

func (a *API) setLimit(r *http.Request) (any, error) {
	var body struct {
		Calls int      `json:"calls"`
		Per   Duration `json:"per"`
		Block Duration `json:"block"`
	}
	if err := read(r, &body); err != nil {
		return nil, err
	}
	if body.Calls < 0 || body.Calls > 0 && body.Per <= 0 {
		return nil, errors.New("calls must not be negative, and per must be a duration above 0s")
	}
	a.ca.SetLimit(fault.Limit{Calls: body.Calls, Per: time.Duration(body.Per), Block: time.Duration(body.Block)})
	return done()
}

func (a *API) inject(r *http.Request) (any, error) {
	var body Fault
	if err := read(r, &body); err != nil {
		return nil, err
	}
	f, err := body.fault()
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last++
	a.faults[a.last] = &injected{ID: a.last, Fault: body, remove: a.ca.Inject(f)}
	return map[string]int{"id": a.last}, nil
}

func (a *API) listFaults(*http.Request) (any, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]*injected, 0, len(a.faults))
	for id := 1; id <= a.last; id++ {
		if f := a.faults[id]; f != nil {
			list = append(list, f)
		}
	}
	return list, nil
}

func (a *API) remove(r *http.Request) (any, error) {
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil {
		return nil, fmt.Errorf("fault %q: %w", r.PathValue("id"), errNotFound)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	f := a.faults[id]
	if f == nil {
		return nil, fmt.Errorf("fault %d: %w", id, errNotFound)
	}
	f.remove()
	delete(a.faults, id)
	return done()
}

func (a *API) removeAll(*http.Request) (any, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, f := range a.faults {
		f.remove()
	}
	clear(a.faults)
	return done()
}
