package hostile

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"syscall"
)

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
	if err := t.ca.begin(); err != nil {
		return nil, err
	}
	go func() {
		defer t.ca.calls.Done()
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
		if rec == nil && req.Context().Err() != nil {
			return nil, context.Cause(req.Context()) // which aborted the handler
		}
		if rec == nil {
			return nil, syscall.ECONNRESET
		}
		return rec.response(req), nil
	case <-req.Context().Done():
		return nil, context.Cause(req.Context())
	}
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
