package reseller

import (
	"slices"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
)

// FieldErrors are messages by field.
type FieldErrors map[string][]string

// Add adds a message.
func (e FieldErrors) Add(field, text string) { e[field] = append(e[field], text) }

// List lists all messages, sorted by field.
func (e FieldErrors) List() []string {
	fields := make([]string, 0, len(e))
	for field := range e {
		fields = append(fields, field)
	}
	slices.Sort(fields)
	var all []string
	for _, field := range fields {
		all = append(all, e[field]...)
	}
	return all
}

// String is all messages in one line.
func (e FieldErrors) String() string { return strings.Join(e.List(), "; ") }

// CheckName checks one name against its method and the product. What is wrong is
// added under path and the field's name.
func CheckName(path string, n *sandboxca.Name, p sandboxca.Product, errs FieldErrors) {
	field := path + ".domainName"
	base, wildcard := strings.CutPrefix(n.Name, "*.")
	switch ip := sandboxca.IsIP(n.Name); {
	case ip && !p.IP:
		errs.Add(field, "The product does not support ip type("+n.Name+")")
	case ip:
	case wildcard && !p.Wildcard:
		errs.Add(field, "The product does not support wildcard type("+n.Name+")")
	case !wildcard && !p.Standard:
		errs.Add(field, "The product does not support normal type("+n.Name+")")
	case !sandboxca.ValidDomain(base):
		errs.Add(field, "domainName is not a valid name ("+n.Name+")")
	}
	CheckMethod(path, n, errs)
}

// CheckMethod applies the rules of the CA/Browser Forum on which names can be proven by
// which methods.
func CheckMethod(path string, n *sandboxca.Name, errs FieldErrors) {
	base, wildcard := strings.CutPrefix(n.Name, "*.")
	byFile := n.Method == sandboxca.MethodHTTP || n.Method == sandboxca.MethodHTTPS
	switch {
	case wildcard && byFile:
		errs.Add(path+"dcvMethod", "a wildcard name cannot be validated by file ("+n.Name+")")
	case sandboxca.IsIP(n.Name) && !byFile:
		errs.Add(path+"dcvMethod", "an IP address can only be validated by file ("+n.Name+")")
	case n.Method == sandboxca.MethodEmail:
		box, domain, _ := strings.Cut(n.Email, "@")
		if !slices.Contains(sandboxca.Mailboxes, box) || (domain != base && !strings.HasSuffix(base, "."+domain)) {
			errs.Add(path+"dcvEmail", "dcvEmail is required and must be an approved mailbox of the domain")
		}
	}
}
