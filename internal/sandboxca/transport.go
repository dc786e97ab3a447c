package sandboxca

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"syscall"
)

// Transport carries requests to the CA without a network, as tests under
// testing/synctest need it. An aborted handler is a reset connection, an answer
// shorter than declared ends with io.ErrUnexpectedEOF. As behind a real
// connection, a call that its client gave up goes on; Close waits for it.
func (c *CA) Transport() http.RoundTripper { return inProcess{c} }

type inProcess struct{ ca *CA }

func (t inProcess) RoundTrip(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		var err error
		body, err = io.ReadAll(req.Body)
		_ = req.Body.Close()
		if err != nil {
			return nil, err
		}
	}
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	in := req.Clone(req.Context())
	in.Body = io.NopCloser(bytes.NewReader(body))
	in.RemoteAddr = "127.0.0.1:1"
	in.RequestURI = req.URL.RequestURI()
	if in.Host == "" {
		in.Host = req.URL.Host
	}

	done := make(chan *recorder, 1)
	if !t.ca.begin() {
		return nil, errors.New("the sandbox is closed")
	}
	go func() {
		defer t.ca.wg.Done()
		rec := &recorder{header: make(http.Header), status: http.StatusOK}
		defer func() {
			if v := recover(); v != nil {
				if err, ok := v.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
					panic(v)
				}
				rec = nil
			}
			done <- rec
		}()
		t.ca.ServeHTTP(rec, in)
	}()
	select {
	case rec := <-done:
		if rec == nil {
			return nil, syscall.ECONNRESET
		}
		return rec.response(req), nil
	case <-req.Context().Done():
		return nil, context.Cause(req.Context())
	}
}

// begin counts a call in flight, unless the CA is closed.
func (c *CA) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.wg.Add(1)
	return true
}

// recorder collects an answer.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }

func (r *recorder) response(req *http.Request) *http.Response {
	length := int64(r.body.Len())
	body := io.Reader(&r.body)
	if n, err := strconv.ParseInt(r.header.Get("Content-Length"), 10, 64); err == nil && n > length {
		length, body = n, io.MultiReader(body, brokenReader{})
	}
	return &http.Response{
		Status:     strconv.Itoa(r.status) + " " + http.StatusText(r.status),
		StatusCode: r.status,
		Proto:      "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        r.header,
		Body:          io.NopCloser(body),
		ContentLength: length,
		Request:       req,
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
