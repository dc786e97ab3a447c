package fault

import (
	"bytes"
	"maps"
	"net/http"
	"strconv"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
)

// answer is an HTTP response before it is sent. It implements http.ResponseWriter for
// the CA.
type answer struct {
	status   int // zero means 200
	header   http.Header
	body     bytes.Buffer
	declared int // Content-Length if it is not the body's
}

func newAnswer() *answer { return &answer{header: make(http.Header)} }

func fromDialect(a sandboxca.Answer) *answer {
	ans := newAnswer()
	ans.status = a.Status
	maps.Copy(ans.header, a.Header)
	ans.body.Write(a.Body)
	return ans
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }

func (a *answer) with(body []byte) *answer {
	ans := newAnswer()
	ans.status = a.status
	maps.Copy(ans.header, a.header)
	ans.body.Write(body)
	return ans
}

func (a *answer) send(w http.ResponseWriter) {
	maps.Copy(w.Header(), a.header)
	length := a.body.Len()
	if a.declared > 0 {
		length = a.declared
	}
	w.Header().Set("Content-Length", strconv.Itoa(length))
	if a.status != 0 {
		w.WriteHeader(a.status)
	}
	_, _ = w.Write(a.body.Bytes()) // it does not matter if the client has gone away
}
