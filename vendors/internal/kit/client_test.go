package kit

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// secret has every character that some notation escapes.
const secret = `s3cr"et/<&>+\ tok=en`

// newTestClient returns a client of the handler, the number of requests that the handler has
// received, and the logs.
func newTestClient(t *testing.T, handler http.HandlerFunc) (*Client, *atomic.Int32, *observer.ObservedLogs) {
	t.Helper()
	var calls atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		handler(w, r)
	}))
	t.Cleanup(srv.Close)
	core, logs := observer.New(zap.DebugLevel)
	c, err := NewClient(Config{Description: vendors.Description{Name: "tester"}, Endpoint: srv.URL + "/", Secret: secret, Logger: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, &calls, logs
}

func effect() Request {
	return Request{Call: Call{Name: "place", Path: "/place"}, Body: []byte("token=" + secret), ContentType: "text/plain"}
}

func read() Request {
	r := effect()
	r.Class = Read
	return r
}

// mustFail returns the error of a call as an *vendors.Error without secrets.
func mustFail(t *testing.T, c *Client, ctx context.Context, req Request) *vendors.Error {
	t.Helper()
	resp, err := c.Do(ctx, req)
	if err == nil {
		t.Fatalf("no error, answer %q", resp.Body)
	}
	e, ok := errors.AsType[*vendors.Error](err)
	if !ok {
		t.Fatalf("error is a %T: %v", err, err)
	}
	if e.Endpoint != req.Name {
		t.Errorf("endpoint = %q", e.Endpoint)
	}
	for _, text := range []string{e.Error(), fmt.Sprintf("%+v", e.Err), fmt.Sprintf("%#v", e.Err)} {
		if strings.Contains(text, "s3cr") {
			t.Errorf("error leaks the secret: %s", text)
		}
	}
	return e
}

func TestCheckEndpoint(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"https://portal.example/ssl/", "https://portal.example/ssl"},
		{"HTTPS://Portal.Example:443/SSL/", "https://portal.example/SSL"}, // the host names the ledger
		{"https://[::1]:443", "https://[::1]"},
		{"https://127.0.0.1:8443", "https://127.0.0.1:8443"},
		{"http://127.0.0.1:80/ssl", "http://127.0.0.1:80/ssl"},
		{"http://[::1]:1", "http://[::1]:1"},
		{"http://localhost/x", "http://localhost/x"},
		{"http://portal.example/ssl", ""},
		{"http://localhost.example", ""},
		{"http://192.168.0.1", ""},
		{"ftp://127.0.0.1", ""},
		{"portal.example/ssl", ""},
		{"https://", ""},
		{"https://:443", ""},
		{"https://user:pw@portal.example", ""},
		{"https://portal.example/?api_token=x", ""},
		{"https://portal.example/#x", ""},
		{"https://portal.example/ssl?", ""},
		{"", ""},
		{"https://%zz", ""},
	} {
		got, err := CheckEndpoint(tt.in)
		if got != tt.want || (err == nil) == (tt.want == "") {
			t.Errorf("%q: got %q, %v", tt.in, got, err)
		}
		if err != nil && (!strings.HasPrefix(err.Error(), "endpoint: ") || strings.Contains(err.Error(), "pw")) {
			t.Errorf("%q: err = %v", tt.in, err)
		}
	}
}

func TestRequestArrivesAsGiven(t *testing.T) {
	c, calls, logs := newTestClient(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method != "POST" || r.URL.String() != "/place" || string(body) != "token="+secret ||
			r.ContentLength != int64(len(body)) || r.Header.Get("Content-Type") != "text/plain" ||
			r.Header.Get("User-Agent") != "caddy-commercial" || r.Header.Get("X-Key") != "k" {
			t.Errorf("got %s %s %q %v", r.Method, r.URL, body, r.Header)
		}
		io.WriteString(w, "\xef\xbb\xbf{\"ok\":true}\r\n")
	})
	req := effect()
	req.Header = http.Header{"X-Key": {"k"}}
	resp, err := c.Do(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if string(resp.Body) != "{\"ok\":true}\r\n" || resp.Status != 200 || calls.Load() != 1 {
		t.Errorf("answer %q, %d calls", resp.Body, calls.Load())
	}
	if len(req.Header) != 1 {
		t.Errorf("the caller's header was changed: %v", req.Header)
	}
	entries := logs.FilterMessage("vendor call").All()
	if len(entries) != 1 {
		t.Fatalf("%d log lines", len(entries))
	}
	got := entries[0].ContextMap()
	for _, field := range []string{"vendor", "endpoint", "http_status", "elapsed", "bytes"} {
		if _, ok := got[field]; !ok {
			t.Errorf("log line misses %s: %v", field, got)
		}
	}
}

// faults are answers that cannot be used.
var faults = map[string]struct {
	handler  http.HandlerFunc
	want     string
	noEffect bool // for an Effect: whether it certainly had none
	attempts int32
}{
	"html 502": {func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(502)
		io.WriteString(w, "<html>\r\n<h1>Bad\x00 Gateway</h1></html>")
	}, `place: HTTP 502: answer is HTML instead of JSON: "<html> <h1>Bad Gateway</h1></html>"`, false, 3},
	"html 200":  {answer(200, "<html>login</html>"), `answer is HTML instead of JSON: "<html>login</html>"`, false, 1},
	"empty":     {answer(200, ""), "place: answer is empty", false, 1},
	"spaces":    {answer(200, " \r\n"), "place: answer is empty", false, 1},
	"empty 500": {answer(500, ""), "place: HTTP 500: answer is empty", false, 3},
	"json 500":  {answer(500, `{"x":1}`), `place: HTTP 500: answer: "{\"x\":1}"`, false, 3},
	"json 403":  {answer(403, `{"x":1}`), `place: HTTP 403: answer: "{\"x\":1}"`, false, 1},
	"not json":  {answer(200, "Service is busy"), `instead of JSON: "Service is busy"`, false, 1},
	"broken":    {answer(200, `{"code":1,"data":{"cert`), "answer is JSON that is broken or cut off after 23 bytes", false, 1},
	"too many":  {answer(429, "slow down"), "place: HTTP 429: too many requests:", false, 3},
	"huge": {func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"x":"`+strings.Repeat("a", 10<<20)+`"}`)
	}, "answer is larger than 4 MiB", false, 1},
	"cut off": {func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "500")
		io.WriteString(w, `{"code":1,`)
	}, `answer was cut off after 10 bytes: "{\"code\":1,"`, false, 3},
	"redirect": {func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "/place?token="+secret)
		w.WriteHeader(307)
	}, `HTTP 307: redirected to "/place?token=[redacted]", which is not followed`, false, 1},
	"reset": {func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_ = conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		}
	}, "place: ", false, 3},
	"echo":     {answer(200, "no access with "+secret+" today"), "no access with [redacted] today", false, 1},
	"echo cut": {answer(200, "no access with "+secret[:9]), `no access with [redacted]"`, false, 1},
	"echo json": {answer(400, `{"e":"s3cr\"et/\u003c\u0026\u003e+\\ tok=en"}`),
		`{\"e\":\"[redacted]\"}`, false, 1},
}

func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

func TestEffectIsSentOnceUnderEveryFault(t *testing.T) {
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			c, calls, logs := newTestClient(t, f.handler)
			e := mustFail(t, c, t.Context(), effect())
			if (e.Verdict == vendors.Retryable) != f.noEffect {
				t.Errorf("retryable = %v", (e.Verdict == vendors.Retryable))
			}
			if !strings.Contains(e.Error(), f.want) {
				t.Errorf("got  %v\nwant %s", e, f.want)
			}
			if n := calls.Load(); n != 1 {
				t.Errorf("sent %d times", n)
			}
			for _, entry := range logs.All() {
				if text := fmt.Sprint(entry.Message, entry.ContextMap()); strings.Contains(text, "s3cr") {
					t.Errorf("log leaks the secret: %s", text)
				}
			}
		})
	}
}

// TestOnceIsSentOnceAndNeverUncertain: a request of the class Once is sent once, and may be followed
// by another one, whatever its outcome. It is not a paid call, so nobody is asked before it is sent.
func TestOnceIsSentOnceAndNeverUncertain(t *testing.T) {
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			c, calls, _ := newTestClient(t, f.handler)
			req := effect()
			req.Class = Once
			ctx := vendors.BeforeSending(t.Context(), func() error { return errors.New("asked") })
			if e := mustFail(t, c, ctx, req); e.Verdict != vendors.Retryable || calls.Load() != 1 {
				t.Errorf("%v, sent %d times: %v", e.Verdict, calls.Load(), e)
			}
		})
	}
	c, _, _ := newTestClient(t, answer(200, "{}"))
	for class, want := range map[Class]vendors.Verdict{Effect: vendors.Uncertain, Read: vendors.Retryable, Once: vendors.Retryable} {
		if e := c.Fail(Call{Name: "place", Class: class}, "", "", nil); e.Verdict != want {
			t.Errorf("class %d: %v", class, e.Verdict)
		}
	}
}

// TestCausesHoldNoSecret: the cause of an error may repeat what a vendor has said, such as an ID.
func TestCausesHoldNoSecret(t *testing.T) {
	c, _, _ := newTestClient(t, answer(200, "{}"))
	if _, ok := errors.AsType[*net.AddrError](c.Fail(Call{Name: "status"}, "", "", &net.AddrError{Err: "order 7"})); !ok {
		t.Error("a cause without a secret was changed")
	}
	for _, e := range []*vendors.Error{
		c.Fail(Call{Name: "status"}, "", "", fmt.Errorf("%w: order %s", vendors.ErrWrongState, secret)),
		c.Refuse(Call{Name: "status"}, fmt.Errorf("%w: order %q", vendors.ErrWrongState, secret)),
	} {
		if text := fmt.Sprintf("%v %#v", e, e.Err); strings.Contains(text, "s3cr") || !errors.Is(e, vendors.ErrWrongState) {
			t.Errorf("%s", text)
		}
	}
}

// handlerTransport answers from a handler without a network, so that a synctest
// bubble can skip the waits between attempts.
type handlerTransport struct{ http.Handler }

func (h handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	io.Copy(io.Discard, r.Body)
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return rec.Result(), nil
}

func TestReadRepeatsOnlyWhatMayPass(t *testing.T) {
	for name, f := range faults {
		if name == "reset" || name == "cut off" {
			continue // need a connection: TestReadRepeatsBrokenConnections
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var calls int32
				c := bubbleClient(t, func(w http.ResponseWriter, r *http.Request) {
					calls++
					f.handler(w, r)
				})
				e := mustFail(t, c, t.Context(), read())
				if e.Verdict != vendors.Retryable || calls != f.attempts {
					t.Errorf("retryable = %v, %d attempts, want %d", (e.Verdict == vendors.Retryable), calls, f.attempts)
				}
			})
		})
	}
}

func bubbleClient(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	c, err := NewClient(Config{Description: vendors.Description{Name: "tester"}, Endpoint: "https://127.0.0.1", Secret: secret, Transport: handlerTransport{h}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestReadSucceedsAtTheThirdAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, calls := time.Now(), 0
		c := bubbleClient(t, func(w http.ResponseWriter, _ *http.Request) {
			if calls++; calls < 3 {
				w.WriteHeader(503)
				return
			}
			io.WriteString(w, `{}`)
		})
		if _, err := c.Do(t.Context(), read()); err != nil {
			t.Fatal(err)
		}
		if elapsed := time.Since(start); elapsed < 3*time.Second || elapsed > 3750*time.Millisecond {
			t.Errorf("waited %v, want 1 s and 2 s plus at most a quarter", elapsed)
		}
	})
}

func TestRetryAfterIsHonouredAndBounded(t *testing.T) {
	for _, tt := range []struct {
		header string
		want   time.Duration // after one wait
	}{
		{"7", 7 * time.Second},
		{"86400", MaxRetryAfter},
		{"99999999999999999999", firstDelay},
		{"-5", firstDelay},
		{"soon", firstDelay},
		{"Sat, 01 Jan 2000 00:00:20 GMT", 20 * time.Second}, // the bubble starts at midnight on that day
		{"Sat, 01 Jan 2050 00:00:00 GMT", MaxRetryAfter},
	} {
		t.Run(tt.header, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, calls := time.Now(), 0
				c := bubbleClient(t, func(w http.ResponseWriter, _ *http.Request) {
					if calls++; calls == 1 {
						w.Header().Set("Retry-After", tt.header)
						w.WriteHeader(429)
						return
					}
					io.WriteString(w, `{}`)
				})
				if _, err := c.Do(t.Context(), read()); err != nil {
					t.Fatal(err)
				}
				if elapsed := time.Since(start); elapsed < tt.want || elapsed > tt.want*5/4 {
					t.Errorf("waited %v, want %v", elapsed, tt.want)
				}
			})
		})
	}
}

func TestEffectTellsRetryAfterWithoutWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		c := bubbleClient(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "30")
			w.WriteHeader(429)
		})
		e := mustFail(t, c, t.Context(), effect())
		if e.RetryAfter != 30*time.Second || time.Since(start) != 0 {
			t.Errorf("RetryAfter = %v after %v", e.RetryAfter, time.Since(start))
		}
	})
}

func TestReadGivesUpWhenTheWaitDoesNotFit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		start, calls := time.Now(), 0
		c := bubbleClient(t, func(w http.ResponseWriter, _ *http.Request) {
			calls++
			w.Header().Set("Retry-After", "30")
			w.WriteHeader(503)
		})
		_ = mustFail(t, c, ctx, read())
		if calls != 1 || time.Since(start) != 0 {
			t.Errorf("%d calls, gave up after %v", calls, time.Since(start))
		}
	})
}

func TestReadStopsWaitingWhenCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		start, calls := time.Now(), 0
		c := bubbleClient(t, func(w http.ResponseWriter, _ *http.Request) {
			calls++
			time.AfterFunc(time.Second/2, cancel)
			w.WriteHeader(503)
		})
		_ = mustFail(t, c, ctx, read())
		if calls != 1 || time.Since(start) != time.Second/2 {
			t.Errorf("%d calls, gave up after %v", calls, time.Since(start))
		}
	})
}

func TestNothingSentIsNoEffect(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "http://" + ln.Addr().String()
	ln.Close()
	plain := httptest.NewServer(answer(200, "{}"))
	defer plain.Close()
	selfSigned := httptest.NewTLSServer(answer(200, "{}"))
	defer selfSigned.Close()
	selfSigned.Config.ErrorLog = nil

	for name, base := range map[string]string{
		"refused":                 closed,
		"not TLS":                 strings.Replace(plain.URL, "http:", "https:", 1),
		"certificate not trusted": selfSigned.URL,
	} {
		t.Run(name, func(t *testing.T) {
			c, err := NewClient(Config{Description: vendors.Description{Name: "tester"}, Endpoint: base, Secret: secret})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if e := mustFail(t, c, t.Context(), effect()); e.Verdict != vendors.Retryable || e.HTTPStatus != 0 {
				t.Errorf("retryable = %v: %v", (e.Verdict == vendors.Retryable), e)
			}
		})
	}
}

func TestCancelBeforeAndDuring(t *testing.T) {
	arrived := make(chan struct{})
	c, calls, _ := newTestClient(t, func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		close(arrived)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e := mustFail(t, c, ctx, effect())
	if e.Verdict != vendors.Retryable || !errors.Is(e, context.Canceled) || calls.Load() != 0 {
		t.Errorf("before: retryable = %v, %d calls, %v", (e.Verdict == vendors.Retryable), calls.Load(), e)
	}

	ctx, cancelCause := context.WithCancelCause(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { <-arrived; cancelCause(errors.New("shutting down")) })
	e = mustFail(t, c, ctx, effect())
	wg.Wait()
	if (e.Verdict == vendors.Retryable) || !errors.Is(e, context.Canceled) || !strings.Contains(e.Error(), "shutting down") {
		t.Errorf("during: retryable = %v, %v", (e.Verdict == vendors.Retryable), e)
	}
}

func TestTimeoutIsOursAndNotRepeated(t *testing.T) {
	c, calls, _ := newTestClient(t, func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	c.timeout = 20 * time.Millisecond
	e := mustFail(t, c, t.Context(), effect())
	if (e.Verdict == vendors.Retryable) || errors.Is(e, context.DeadlineExceeded) || !strings.Contains(e.Error(), "time limit") {
		t.Errorf("retryable = %v, %v", (e.Verdict == vendors.Retryable), e)
	}
	_ = mustFail(t, c, t.Context(), read())
	if n := calls.Load(); n != 2 {
		t.Errorf("%d calls, want one per Do", n)
	}
}

func TestSlowBodyRunsIntoTheTimeout(t *testing.T) {
	c, _, _ := newTestClient(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, `{"code":`)
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	c.timeout = 50 * time.Millisecond
	e := mustFail(t, c, t.Context(), effect())
	if (e.Verdict == vendors.Retryable) || !strings.Contains(e.Error(), "time limit") {
		t.Errorf("retryable = %v, %v", (e.Verdict == vendors.Retryable), e)
	}
}

// TestEffectsDoNotReuseConnections: when a server closes kept connections, net/http repeats requests
// that it can replay. An Effect must not be repeated by chance.
func TestEffectsDoNotReuseConnections(t *testing.T) {
	var mu sync.Mutex
	conns := map[string]int{}
	c, _, _ := newTestClient(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		conns[r.RemoteAddr]++
		mu.Unlock()
		io.WriteString(w, "{}")
	})
	for range 3 {
		if _, err := c.Do(t.Context(), read()); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Do(t.Context(), effect()); err != nil {
			t.Fatal(err)
		}
	}
	if len(conns) != 4 {
		t.Errorf("6 requests over connections %v, want one for the reads and one for each effect", conns)
	}
}

// A vendor's server speaks HTTP/2, too, and then takes nothing else on such a connection.
func TestEffectsSpeakHTTP1OverTLS(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%q", r.Proto)
	}))
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	c, err := NewClient(Config{Description: vendors.Description{Name: "tester"}, Endpoint: srv.URL, Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, rt := range []http.RoundTripper{c.reads, c.effects} {
		rt.(*http.Transport).TLSClientConfig.RootCAs = roots
	}
	for want, req := range map[string]Request{`"HTTP/2.0"`: read(), `"HTTP/1.1"`: effect()} {
		resp, err := c.Do(t.Context(), req)
		if err != nil || string(resp.Body) != want {
			t.Errorf("got %+v, %v, want %s", resp, err, want)
		}
	}
}

func TestReadRepeatsBrokenConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		c := bubbleClient(t, nil)
		c.reads = roundTripFunc(func(r *http.Request) (*http.Response, error) {
			if calls++; calls == 1 {
				return nil, errors.New("connection reset with " + secret)
			}
			body := io.MultiReader(strings.NewReader(`{"a":`), errReader{io.ErrUnexpectedEOF})
			return &http.Response{StatusCode: 200, Body: io.NopCloser(body)}, nil
		})
		e := mustFail(t, c, t.Context(), read())
		if calls != maxAttempts || !strings.Contains(e.Error(), "cut off after 5 bytes") {
			t.Errorf("%d calls, %v", calls, e)
		}
	})
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

// TestRequestWithoutBodyCountsAsSent: without a body, only the connection shows that something was sent.
func TestRequestWithoutBodyCountsAsSent(t *testing.T) {
	c, _, _ := newTestClient(t, faults["reset"].handler)
	if e := mustFail(t, c, t.Context(), Request{Call: Call{Name: "place", Method: http.MethodPut, Path: "/orders"}}); e.Verdict == vendors.Retryable {
		t.Errorf("it counts as never sent: %v", e)
	}
}

// TestForeignTransportCountsAsSent: with a transport that does not report connections, a body that
// was read counts as sent.
func TestForeignTransportCountsAsSent(t *testing.T) {
	for _, sends := range []bool{true, false} {
		c := bubbleClient(t, nil)
		c.effects = roundTripFunc(func(r *http.Request) (*http.Response, error) {
			if r.GetBody != nil {
				t.Error("the body can be sent again")
			}
			if sends {
				_, _ = r.Body.Read(make([]byte, 1))
			}
			return nil, errors.New("broken")
		})
		if e := mustFail(t, c, t.Context(), effect()); (e.Verdict == vendors.Retryable) == sends {
			t.Errorf("sent %v: retryable = %v", sends, (e.Verdict == vendors.Retryable))
		}
	}
}

func TestRawAnswerNeedsNoJSON(t *testing.T) {
	c, _, _ := newTestClient(t, answer(200, "-----BEGIN"))
	req := read()
	req.Raw = true
	resp, err := c.Do(t.Context(), req)
	if err != nil || string(resp.Body) != "-----BEGIN" {
		t.Errorf("%v, %v", resp, err)
	}
}

func TestErrorKeepsJSONBody(t *testing.T) {
	c, _, _ := newTestClient(t, answer(400, `{"code":-4}`))
	_ = mustFail(t, c, t.Context(), effect())
	if resp, err := c.Do(t.Context(), effect()); err == nil || resp == nil || string(resp.Body) != `{"code":-4}` {
		t.Errorf("%+v, %v", resp, err)
	}
}

func TestIsMissing(t *testing.T) {
	for status, want := range map[int]bool{404: true, 405: true, 403: false, 400: false, 500: false} {
		c, _, _ := newTestClient(t, answer(status, "<html>"))
		if err := mustFail(t, c, t.Context(), effect()); IsMissing(err) != want {
			t.Errorf("HTTP %d: %v", status, err)
		}
	}
	if IsMissing(nil) || IsMissing(errors.New("404")) {
		t.Error("it is not a vendor's error")
	}
}

func TestScrub(t *testing.T) {
	c, _, _ := newTestClient(t, answer(200, "{}"))
	for _, text := range []string{
		secret, strings.ToUpper(secret), `s3cr%22et%2F%3C%26%3E%2B%5C+tok%3Den`, `s3cr%22et%2f%3c%26%3e%2b%5c+tok%3den`,
		`s3cr%22et%2F%3C&%3E+%5C%20tok=en`, `s3cr\"et/\u003c\u0026\u003e+\\ tok=en`, `s3cr\"et/<&>+\\ tok=en`,
		`s3cr&#34;et/&lt;&amp;&gt;+\ tok=en`,
	} {
		if got := c.Text("a " + text + " b"); got != "a [redacted] b" {
			t.Errorf("%s: got %s", text, got)
		}
	}
}

// TestTextHasNoControls: what a vendor says is shown to people, possibly on a terminal, which it
// must not control.
func TestTextHasNoControls(t *testing.T) {
	c, _, _ := newTestClient(t, answer(200, "{}"))
	if got := c.Text("a\x1b[2J\tb\x00\u009b3m\r\nc\x7f"); got != "a [2J b 3m c" {
		t.Errorf("got %q", got)
	}
}

func TestDecode(t *testing.T) {
	c, _, _ := newTestClient(t, nil)
	var v struct{ A string }
	if err := c.Decode(read().Call, &Response{Status: 200, Body: []byte(`{"a":1}`)}, &v); err != nil || v.A != "1" {
		t.Errorf("%+v, %v", v, err)
	}
	for class, want := range map[Class]vendors.Verdict{Read: vendors.Retryable, Effect: vendors.Uncertain} {
		err := c.Decode(Call{Name: "x", Class: class}, &Response{Status: 201, Body: []byte(`[]`)}, &v)
		if e, ok := errors.AsType[*vendors.Error](err); !ok || e.Verdict != want || e.HTTPStatus != 201 || e.Endpoint != "x" {
			t.Errorf("class %d: %v", class, err)
		}
	}
}

func TestCallWith(t *testing.T) {
	call := Call{Name: "status", Path: "/orders/%s/certificates/%s?page=1"}
	if got := call.With("a/b?c#%s", 7).Path; got != "/orders/a%2Fb%3Fc%23%25s/certificates/7?page=1" {
		t.Errorf("path is %s", got)
	}
	if got := (Call{Path: "/list"}).With().Path; got != "/list" || call.Path != "/orders/%s/certificates/%s?page=1" {
		t.Errorf("path is %s, and that of the call %s", got, call.Path)
	}
}
