package quirk

import (
	"bytes"
	"encoding/json"
	"net/http"
	"regexp"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/fault"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/racent"
)

// Answers is a dialect whose answers have quirks.
type Answers struct {
	fault.Dialect
	ca      *sandboxca.CA
	current func() Quirks
}

// Wrap gives the answers of a dialect the current quirks.
func Wrap(ca *sandboxca.CA, d fault.Dialect, current func() Quirks) *Answers {
	return &Answers{Dialect: d, ca: ca, current: current}
}

// Serve implements sandboxca.Dialect.
func (a *Answers) Serve(path string, r *http.Request) sandboxca.Answer {
	q, ans := a.current(), a.Dialect.Serve(path, r)
	if a.Name() == racent.Name {
		ans = q.racent(a.ca, path, ans)
	}
	if q.BareLists || q.KeylessLists {
		ans.Body = q.dropLists(ans.Body)
	}
	if q.CRLF {
		ans.Body = certificates.ReplaceAllFunc(ans.Body, withCRLF)
	}
	if q.UnknownFields {
		ans.Body = fault.AddFields(ans.Body)
	}
	return ans
}

// dropLists leaves lists out of the outermost object of an answer.
func (q Quirks) dropLists(body []byte) []byte {
	var env object
	if json.Unmarshal(body, &env) != nil {
		return body
	}
	dropped := false
	for _, field := range []string{"data", "orders", "products"} {
		var list []json.RawMessage
		if json.Unmarshal(env[field], &list) == nil && list != nil && (len(list) == 0 || q.KeylessLists) {
			delete(env, field)
			dropped = true
		}
	}
	if !dropped {
		return body
	}
	out, _ := json.Marshal(env) // what was just decoded
	return out
}

// certificates are PEM texts, plain or inside JSON strings.
var certificates = regexp.MustCompile(`(?s)-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----(\\n|\n)?`)

func withCRLF(text []byte) []byte {
	for _, end := range [][2]string{{`\r\n`, `\n`}, {`\n`, `\r\n`}, {"\r\n", "\n"}, {"\n", "\r\n"}} {
		text = bytes.ReplaceAll(text, []byte(end[0]), []byte(end[1]))
	}
	return text
}
