package main

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/caddy-commercial/caddy-commercial/dcv"
)

const (
	floodRequests = 10_000
	floodHosts    = 1_000 // that nobody manages
)

// benchFlood lets strangers ask for files that do not exist, and counts how often
// that reaches the storage.
func benchFlood(ctx context.Context, o options) ([]row, error) {
	storage := newStorage(o.dir)
	release := dcv.Live.Manage(storage, dcv.HostMatcher([]string{siteHost}))
	defer release()
	handler, releaseHandler, err := newHandler()
	if err != nil {
		return nil, err
	}
	defer releaseHandler()
	zero, err := zeroSSL(ctx, storage, siteHost, dcv.PathPrefix+fileName)
	if err != nil {
		return nil, err
	}
	// The answers do not matter; that nobody is given a file goes without saying.
	ours := func(w http.ResponseWriter, r *http.Request) error { return handler.ServeHTTP(w, r, notServed) }
	peer := func(w http.ResponseWriter, r *http.Request) error { zero.ServeHTTP(w, r); return nil }
	managed := func(int) string { return siteHost }
	others := func(i int) string { return fmt.Sprintf("host%d.example.net", i%floodHosts) }

	// Long enough for several permitted reads of the managed host.
	lasting := pick(o, 3500*time.Millisecond, 1500*time.Millisecond)
	var rows []row
	for _, c := range []struct {
		claim   string
		host    func(i int) string
		lasting time.Duration
		limit   float64
	}{
		{"storage reads per second while 10,000 unknown files of a managed host are asked for", managed, lasting, 1},
		{"the same of 1,000 hosts that are not managed", others, 0, 0},
	} {
		mine, seconds, err := flood(ctx, storage, c.host, c.lasting, ours)
		if err != nil {
			return nil, err
		}
		theirs, _, err := flood(ctx, storage, c.host, 0, peer)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row{
			claim: c.claim,
			ours:  fmt.Sprintf("%d reads in %.1f s", mine, seconds), peer: fmt.Sprintf("%d reads (certmagic's ZeroSSL issuer)", theirs),
			// The first read is at the start, so a second that has begun counts whole.
			value: float64(mine) / math.Ceil(seconds), unit: "/s", want: bound{kind: atMost, limit: c.limit},
		})
	}
	return rows, nil
}

// flood spreads the requests over the given time, or sends them at once.
func flood(ctx context.Context, storage *countingStorage, host func(i int) string, lasting time.Duration,
	serve func(http.ResponseWriter, *http.Request) error,
) (reads int64, seconds float64, err error) {
	w := newWriter()
	before, started := storage.loads.Load(), time.Now()
	for i := range floodRequests {
		due := lasting * time.Duration(i) / floodRequests
		// In small bursts, because timers are too coarse for single requests.
		if early := due - time.Since(started); early > 10*time.Millisecond {
			time.Sleep(early)
		}
		if err := ctx.Err(); err != nil {
			return 0, 0, err
		}
		w.reset()
		r := request(host(i), fmt.Sprintf("%sunknown%d.txt", dcv.PathPrefix, i)).WithContext(ctx)
		if err := serve(w, r); err != nil {
			return 0, 0, err
		}
		if w.written > 0 && w.status == http.StatusOK {
			return 0, 0, fmt.Errorf("request %d was given a file", i)
		}
	}
	return storage.loads.Load() - before, time.Since(started).Seconds(), nil
}
