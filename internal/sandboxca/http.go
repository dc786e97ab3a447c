package sandboxca

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"

	"go.uber.org/zap"
)

// maxRequestBytes bounds a request; the largest legal one carries a picture of
// two megabytes.
const maxRequestBytes = 4 << 20

// Banner is what a person sees who opens the sandbox in a browser.
const Banner = "caddy-commercial SANDBOX certificate authority.\n" +
	"Nothing here is real: no money is charged, and its certificates are trusted by nobody.\n"

// dialect is one seller's API on top of the core.
type dialect interface {
	// prefix is the path below which the dialect is served, with both slashes.
	prefix() string

	// serve answers a call. The request's body is complete and in memory.
	serve(endpoint string, r *http.Request) answer

	// failure is an answer in the seller's own form, for faults.
	failure(code int, errs any) answer
}

// namer is a dialect whose paths hold more than the name of a call. Faults and
// counters use that name.
type namer interface {
	callName(method, path string) string
}

// answer is an HTTP response before it is sent.
type answer struct {
	status   int // zero means 200
	header   http.Header
	body     []byte
	declared int // Content-Length if it is not the body's
}

// jsonAnswer encodes what a dialect made itself, which cannot fail.
func jsonAnswer(status int, v any) answer {
	body, err := json.Marshal(v)
	if err != nil {
		return textAnswer(http.StatusInternalServerError, "encoding answer: "+err.Error())
	}
	return answer{status: status, header: http.Header{"Content-Type": {"application/json"}}, body: body}
}

func textAnswer(status int, text string) answer {
	return answer{status: status, header: http.Header{"Content-Type": {"text/plain; charset=utf-8"}}, body: []byte(text)}
}

// ServeHTTP answers API calls below each dialect's prefix, and GET requests for
// / (a banner), /root.pem and /charges (JSON).
func (c *CA) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		textAnswer(http.StatusServiceUnavailable, "the sandbox is closed\n").send(w)
		return
	}
	for _, d := range c.dialects {
		if endpoint, ok := strings.CutPrefix(r.URL.Path, d.prefix()); ok {
			c.serveCall(w, r, d, endpoint)
			return
		}
	}
	c.page(r).send(w)
}

// serveCall takes one API call through its phases. The body is read first: only
// then can the server notice that a client has gone.
func (c *CA) serveCall(w http.ResponseWriter, r *http.Request, d dialect, path string) {
	endpoint := path
	if n, ok := d.(namer); ok {
		endpoint = n.callName(r.Method, path)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequestBytes))
	if err != nil {
		textAnswer(http.StatusRequestEntityTooLarge, "the request cannot be read\n").send(w)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))

	c.mu.Lock()
	c.calls[endpoint]++
	hook := c.onCall
	c.mu.Unlock()

	if hook != nil {
		hook(endpoint, BeforeEffect)
	}
	if ans := c.apply(w, r, d, endpoint, BeforeEffect, answer{}); ans != nil {
		ans.send(w)
		return
	}
	ans := d.serve(path, r)
	c.logger.Debug("call served", zap.String("endpoint", endpoint), zap.Int("status", ans.status))
	if hook != nil {
		hook(endpoint, AfterEffect)
	}
	if spoilt := c.apply(w, r, d, endpoint, AfterEffect, ans); spoilt != nil {
		ans = *spoilt
	}
	ans.send(w)
}

// page answers what is not an API call.
func (c *CA) page(r *http.Request) answer {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return textAnswer(http.StatusMethodNotAllowed, "only GET\n")
	}
	switch r.URL.Path {
	case "/":
		return textAnswer(http.StatusOK, Banner)
	case "/root.pem":
		return answer{header: http.Header{"Content-Type": {"application/x-pem-file"}}, body: c.RootPEM()}
	case "/charges":
		return jsonAnswer(http.StatusOK, c.Charges())
	}
	return textAnswer(http.StatusNotFound, "not found\n")
}

func (a answer) send(w http.ResponseWriter) {
	for key, values := range a.header {
		w.Header()[key] = values
	}
	length := len(a.body)
	if a.declared > 0 {
		length = a.declared
	}
	w.Header().Set("Content-Length", strconv.Itoa(length))
	if a.status != 0 {
		w.WriteHeader(a.status)
	}
	_, _ = w.Write(a.body) // a client that has gone is no matter
}
