package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-commercial/caddy-commercial/dcv"
)

const (
	floodRequests = 10_000
	floodHosts    = 1_000
	floodVisitors = 500 // at the same time

	// floodRead is how long after the start of a read the same thing may be read again.
	floodRead = 50 * time.Millisecond
)

// benchFlood has strangers ask for files that do not exist, and counts how often that
// reaches the storage. The count is judged by the time it took, so no machine is too busy
// to pass.
func benchFlood(ctx context.Context, o options) ([]row, error) {
	storage := newStorage(o.dir)
	release := dcv.Live.Manage(storage, func(host string) (managed, exact bool) {
		return host == siteHost || strings.HasSuffix(host, ".example.net"), host == siteHost
	})
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
	// The answers do not matter, as long as nobody is given a file.
	ours := func(w http.ResponseWriter, r *http.Request) error { return handler.ServeHTTP(w, r, notServed) }
	peer := func(w http.ResponseWriter, r *http.Request) error { zero.ServeHTTP(w, r); return nil }

	var rows []row
	for _, c := range []struct {
		claim string
		host  func(i int) string
		limit float64 // storage operations per floodRead
	}{
		// One read of the host's folder, and one of its twin's.
		{"storage operations per 50 ms while 10,000 unknown files of one host are asked for", func(int) string { return siteHost }, 2},
		{"the same of 1,000 hosts that a wildcard covers", func(i int) string { return fmt.Sprintf("host%d.example.net", i%floodHosts) }, 1},
		{"the same of 1,000 hosts that are not managed", func(i int) string { return fmt.Sprintf("host%d.example.org", i%floodHosts) }, 0},
	} {
		mine, took, err := flood(ctx, storage, c.host, ours)
		if err != nil {
			return nil, err
		}
		theirs, _, err := flood(ctx, storage, c.host, peer)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row{
			claim: c.claim,
			ours:  fmt.Sprintf("%d in %.1f s", mine, took.Seconds()), peer: fmt.Sprintf("%d (certmagic's ZeroSSL issuer)", theirs),
			// The first read is at the start, so an interval that has begun counts as a
			// whole one.
			value: float64(mine) / math.Ceil(float64(took)/float64(floodRead)), want: bound{kind: atMost, limit: c.limit},
		})
	}
	return rows, nil
}

// flood sends the requests of all visitors, and returns how often they reached the
// storage and how long they took.
func flood(ctx context.Context, storage *countingStorage, host func(i int) string, serve func(http.ResponseWriter, *http.Request) error) (int64, time.Duration, error) {
	before, started := storage.all(), time.Now()
	var sent atomic.Int64
	var visitors sync.WaitGroup
	errs := make([]error, floodVisitors)
	for v := range errs {
		visitors.Go(func() {
			w := newWriter()
			for errs[v] == nil {
				i := int(sent.Add(1))
				if i > floodRequests {
					return
				}
				w.reset()
				r := request(host(i), fmt.Sprintf("%sunknown%d.txt", dcv.PathPrefix, i)).WithContext(ctx)
				errs[v] = errors.Join(ctx.Err(), serve(w, r))
				if w.written > 0 && w.status == http.StatusOK {
					errs[v] = fmt.Errorf("request %d was given a file", i)
				}
			}
		})
	}
	visitors.Wait()
	return storage.all() - before, time.Since(started), errors.Join(errs...)
}
