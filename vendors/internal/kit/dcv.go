package kit

import (
	"regexp"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// DCV are proofs of control in the words that resellers of Sectigo have in common
// (documented by Racent, NicSRS and HowSSL): a file and a DNS record, either of which may
// be missing. What they tell is published as it is.
type DCV struct {
	FileName    string `json:"DCVfileName" kit:"exact"`
	FileContent string `json:"DCVfileContent" kit:"exact"`
	DNSHost     string `json:"DCVdnsHost" kit:"exact"`
	DNSType     string `json:"DCVdnsType"`
	DNSValue    string `json:"DCVdnsValue" kit:"exact"`
}

// Challenges are the file and the record, as far as they are there.
func (d DCV) Challenges() []vendors.Challenge {
	var list []vendors.Challenge
	if file, ok := d.File(); ok {
		list = append(list, file)
	}
	if record, ok := d.Record(); ok {
		list = append(list, record)
	}
	return list
}

// For is what a method needs, if it is there. Without a method it is the file, or else the
// record.
func (d DCV) For(method vendors.Method) (ch vendors.Challenge, ok bool) {
	if ch, ok = d.File(); method == vendors.MethodDNS || method == "" && !ok {
		return d.Record()
	}
	if method != "" {
		ch.Method = method
	}
	return ch, ok
}

// File is the file, if there is one that can be right.
func (d DCV) File() (vendors.Challenge, bool) {
	content, ok := fileContent(d.FileContent)
	return vendors.Challenge{Method: vendors.MethodHTTP, FileName: d.FileName, FileContent: content}, ok && d.FileName != ""
}

// Record is the record, if there is one of a type that a proof can have. Without a type it
// is a CNAME, which all documented examples have.
func (d DCV) Record() (vendors.Challenge, bool) {
	kind := strings.ToUpper(d.DNSType)
	if kind == "" {
		kind = "CNAME"
	}
	return vendors.Challenge{Method: vendors.MethodDNS, RecordName: d.DNSHost, RecordType: kind, RecordValue: d.DNSValue},
		(kind == "CNAME" || kind == "TXT") && d.DNSHost != "" && d.DNSValue != ""
}

// escapedLines is the content of a file whose line ends were escaped twice, as in some
// documented examples: hash, CA and perhaps a unique value.
var escapedLines = regexp.MustCompile(`^[0-9a-fA-F]{64}\\n[a-z0-9.-]+(\\n[0-9a-zA-Z]{1,20})?$`)

// fileContent returns the content of a validation file exactly as it was told, except
// for line ends that were escaped twice. Other content with escapes in it cannot be
// right, and is refused.
func fileContent(s string) (content string, ok bool) {
	switch {
	case strings.Contains(s, "\n") || !strings.Contains(s, `\n`):
		return s, s != ""
	case escapedLines.MatchString(s):
		return strings.ReplaceAll(s, `\n`, "\n"), true
	}
	return "", false
}
