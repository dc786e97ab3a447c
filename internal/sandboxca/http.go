package sandboxca

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"

	"go.uber.org/zap"
)

// MaxRequestBytes bounds a request; the largest legal one carries a picture of
// two megabytes.
const MaxRequestBytes = 4 << 20

// CRLPath is where Handler serves the list of revoked certificates.
const CRLPath = "/revoked.crl"

// Banner is what people see when they open the sandbox in a browser.
const Banner = "caddy-commercial SANDBOX certificate authority.\n" +
	"Nothing here is real: no money is charged, and its certificates are trusted by nobody.\n"

// Dialect is one seller's API on top of the core. It reads and writes the CA's [Books],
// creates orders with [CA.Create] under its own [Rules], validates them with [CA.Look],
// and keeps what only it knows in Order.Extra and in a [Record].
type Dialect interface {
	// Name distinguishes the dialect's orders and records from those of others.
	Name() string

	// Prefix is the path below which the dialect is served, with both slashes.
	Prefix() string

	// Serve answers a call. The path is what follows the prefix. The request's body has
	// been read into memory.
	Serve(path string, r *http.Request) Answer
}

// Answer is an HTTP response before it is sent.
type Answer struct {
	Status int // zero means 200
	Header http.Header
	Body   []byte
}

// JSON encodes what a dialect made itself, which cannot fail.
func JSON(status int, v any) Answer {
	body, err := json.Marshal(v)
	if err != nil {
		return Text(http.StatusInternalServerError, "encoding answer: "+err.Error())
	}
	return Answer{Status: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: body}
}

// Text is an answer in plain text.
func Text(status int, text string) Answer {
	return Answer{Status: status, Header: http.Header{"Content-Type": {"text/plain; charset=utf-8"}}, Body: []byte(text)}
}

// Handler serves API calls below the prefix of each dialect, and GET requests for
// / (a banner), /root.pem, CRLPath and /charges (JSON).
func (c *CA) Handler(dialects ...Dialect) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		closed := c.closed
		c.mu.Unlock()
		if closed {
			Text(http.StatusServiceUnavailable, "the sandbox is closed\n").send(w)
			return
		}
		for _, d := range dialects {
			if path, ok := strings.CutPrefix(r.URL.Path, d.Prefix()); ok {
				c.serveCall(w, r, d, path)
				return
			}
		}
		c.page(r).send(w)
	})
}

func (c *CA) serveCall(w http.ResponseWriter, r *http.Request, d Dialect, path string) {
	if err := BufferBody(w, r); err != nil {
		Text(http.StatusRequestEntityTooLarge, "the request cannot be read\n").send(w)
		return
	}
	ans := d.Serve(path, r)
	c.logger.Debug("call served", zap.String("dialect", d.Name()), zap.String("path", path), zap.Int("status", ans.Status))
	ans.send(w)
}

// BufferBody reads a request's body into memory, up to a bound. Only then can the server
// notice that the client has gone away.
func BufferBody(w http.ResponseWriter, r *http.Request) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxRequestBytes))
	r.Body = io.NopCloser(bytes.NewReader(body))
	return err
}

// page answers requests that are not API calls.
func (c *CA) page(r *http.Request) Answer {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return Text(http.StatusMethodNotAllowed, "only GET\n")
	}
	switch r.URL.Path {
	case "/":
		return Text(http.StatusOK, Banner)
	case "/root.pem":
		return Answer{Header: http.Header{"Content-Type": {"application/x-pem-file"}}, Body: c.RootPEM()}
	case CRLPath:
		crl, err := c.CRL()
		if err != nil {
			return Text(http.StatusInternalServerError, err.Error()+"\n")
		}
		return Answer{Header: http.Header{"Content-Type": {"application/pkix-crl"}}, Body: crl}
	case "/charges":
		return JSON(http.StatusOK, c.Charges())
	}
	return Text(http.StatusNotFound, "not found\n")
}

func (a Answer) send(w http.ResponseWriter) {
	maps.Copy(w.Header(), a.Header)
	w.Header().Set("Content-Length", strconv.Itoa(len(a.Body)))
	if a.Status != 0 {
		w.WriteHeader(a.Status)
	}
	_, _ = w.Write(a.Body) // it does not matter if the client has gone away
}
