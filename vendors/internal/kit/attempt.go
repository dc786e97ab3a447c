package kit

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/internal/metrics"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// try sends the request once.
func (c *Client) try(ctx context.Context, req Request, attempt int) (*Response, *failure) {
	queued := time.Now()
	end, err := c.limiter.begin(ctx, req.Class)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if c.limiter != nil {
		metrics.LimiterWaitSeconds.WithLabelValues(c.about.Name).Observe(start.Sub(queued).Seconds())
	}
	var bytesRead, status int
	var wish time.Duration
	defer func() { end(status, wish) }() // also after a panic, which the rounds of the issuer survive
	resp, err := c.exchange(ctx, req, &bytesRead)
	if err != nil {
		status, wish = err.status, err.retryAfter
	} else {
		status = resp.Status
	}
	metrics.VendorRequestSeconds.WithLabelValues(c.about.Name, req.Name, outcome(err)).Observe(time.Since(start).Seconds())
	if ce := c.Logger.Check(zap.DebugLevel, "vendor call"); ce != nil {
		fields := []zap.Field{
			zap.String("vendor", c.about.Name),
			zap.String("endpoint", req.Name),
			zap.Int("attempt", attempt),
			zap.Duration("elapsed", time.Since(start)),
			zap.Int("bytes", bytesRead),
		}
		if err != nil {
			fields = append(fields, zap.Int("http_status", err.status), zap.String("error", c.secrets.scrub(err.Error())))
		} else {
			fields = append(fields, zap.Int("http_status", resp.Status))
		}
		ce.Write(fields...)
	}
	return resp, err
}

// outcome is the word of the metrics for how a request ended.
func outcome(failed *failure) string {
	switch {
	case failed == nil:
		return metrics.OK
	case failed.status == 0:
		return metrics.Unanswered
	case failed.status == http.StatusTooManyRequests:
		return metrics.Limited
	case failed.status/100 == 4:
		return metrics.Refused
	}
	return metrics.Failed
}

func (c *Client) exchange(ctx context.Context, req Request, bytesRead *int) (*Response, *failure) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, errTimeout)
	defer cancel()

	var sent atomic.Bool
	httpReq, err := c.build(ctx, req, &sent)
	if err != nil {
		return nil, &failure{noEffect: true, err: err}
	}
	transport := c.effects
	if req.Class == Read {
		transport = c.reads
	}
	// The transport is used without an http.Client: that one would follow
	// redirects, and there is nothing else in it that we want.
	httpResp, err := transport.RoundTrip(httpReq)
	if err != nil {
		return nil, &failure{noEffect: !sent.Load(), err: cause(ctx, err), again: retryableFailure(ctx)}
	}
	defer httpResp.Body.Close()

	most := cmp.Or(req.MaxBody, MaxBody)
	body, err := io.ReadAll(io.LimitReader(httpResp.Body, int64(most)+1))
	*bytesRead = len(body)
	if len(body) > most {
		err = tooLargeError(most)
	}
	isJSON := err == nil && json.Valid(trimBOM(body))
	resp := &Response{Status: httpResp.StatusCode, Header: httpResp.Header, Body: trimBOM(body)}
	failed := judge(httpResp, body, err, req.Raw || isJSON, c.secrets)
	switch {
	case failed == nil:
		return resp, nil
	case err != nil && !errors.Is(err, errTooLarge):
		failed.err = joinCause(failed.err, cause(ctx, err))
		failed.again = retryableFailure(ctx)
	}
	if !isJSON {
		resp = nil
	}
	return resp, failed
}

// build makes the HTTP request and arranges for sent to become true before the
// first byte of it can leave.
func (c *Client) build(ctx context.Context, req Request, sent *atomic.Bool) (*http.Request, error) {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		// Called when dialling and the TLS handshake are over. What fails
		// earlier had no effect.
		GotConn: func(httptrace.GotConnInfo) { sent.Store(true) },
	})
	method := req.Method
	if method == "" {
		method = http.MethodPost
	}
	httpReq, err := http.NewRequestWithContext(ctx, method, c.base+req.Path, nil)
	if err != nil {
		return nil, errors.New("cannot make the HTTP request")
	}
	if req.Header != nil {
		httpReq.Header = req.Header.Clone()
	}
	if len(req.Body) > 0 {
		// A plain reader in a type of our own, and no GetBody: so net/http has
		// no means to send the body a second time, whatever it thinks of the
		// connection.
		body := &onceBody{Reader: bytes.NewReader(req.Body), sent: sent}
		if req.Class == Effect {
			body.check = func() error { return vendors.LastCheck(ctx) }
		}
		httpReq.Body = body
		httpReq.ContentLength = int64(len(req.Body))
	}
	if req.ContentType != "" {
		httpReq.Header.Set("Content-Type", req.ContentType)
	}
	httpReq.Header.Set("Accept", "application/json")
	httpReq.Header.Set("User-Agent", "caddy-commercial")
	return httpReq, nil
}

// onceBody marks the request as sent when somebody reads it, for transports
// that do not report to httptrace.
type onceBody struct {
	io.Reader
	sent  *atomic.Bool
	check func() error // nil, or asked before the first byte
}

func (b *onceBody) Read(p []byte) (int, error) {
	if b.check != nil {
		// net/http holds the head of the request back until there is some of its body.
		if err := b.check(); err != nil {
			b.sent.Store(false)
			return 0, err
		}
		b.check = nil
	}
	b.sent.Store(true)
	return b.Reader.Read(p)
}

func (b *onceBody) Close() error { return nil }

// cause tells our own time limit apart from the caller's context, which net/http
// reports alike.
func cause(ctx context.Context, err error) error {
	switch why := context.Cause(ctx); {
	case why == nil:
		return err
	case errors.Is(why, errTimeout) || errors.Is(why, ctx.Err()):
		return why
	default:
		return fmt.Errorf("%w: %w", ctx.Err(), why)
	}
}

// retryableFailure reports whether a failed exchange is worth another attempt.
// After a time limit it is not: the caller asks again later anyway, and three
// times the limit is longer than some callers have.
func retryableFailure(ctx context.Context) bool { return ctx.Err() == nil }

// delay returns how long to wait after the given attempt: the vendor's wish if
// it has one, otherwise 1 s doubling, both with up to a quarter added so that
// many names do not come back in step.
func delay(attempt int, wish time.Duration) time.Duration {
	d := wish
	if d <= 0 {
		d = firstDelay << (attempt - 1)
	}
	return d + rand.N(d/4+1) //nolint:gosec // it spreads waits, and protects nothing
}

// wait waits and reports whether the whole time could pass before ctx ends.
func wait(ctx context.Context, d time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// retryAfter reads the Retry-After header in both its forms (RFC 9110, section
// 10.2.3), bounded by MaxRetryAfter. Zero if absent or senseless.
func retryAfter(h http.Header) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if value == "" {
		return 0
	}
	var d time.Duration
	if seconds, err := strconv.Atoi(value); err == nil {
		if seconds > int(MaxRetryAfter/time.Second) {
			return MaxRetryAfter
		}
		d = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		d = time.Until(at)
	}
	return max(0, min(d, MaxRetryAfter))
}
