package sandboxca

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// Status words of an order, as Racent spells them.
const (
	StatusPending   = "PENDING"
	StatusComplete  = "COMPLETE"
	StatusCancelled = "CANCELLED"
	StatusFailed    = "FAILED"
	StatusReissued  = "REISSUED"
	StatusRevoked   = "REVOKED"
)

// Kinds of orders. Only the first two cost money.
const (
	KindPlace   = "place"
	KindRenew   = "renew"
	KindReissue = "reissue"
	KindReplace = "replace"
)

// method is a proof of control.
type method string

const (
	methodHTTP  method = "http"
	methodHTTPS method = "https"
	methodCNAME method = "cname"
	methodTXT   method = "txt"
	methodEmail method = "email"
)

// orderName is one name of an order and the proof of its control.
type orderName struct {
	Name     string `json:"name"`
	Method   method `json:"method"`
	Email    string `json:"email,omitempty"`
	Verified bool   `json:"verified"`
}

// challenge is what has to be published to prove control of a name.
type challenge struct {
	FileName    string `json:"file_name"`
	FileContent string `json:"file_content"`
	DNSLabel    string `json:"dns_label"`
	DNSTarget   string `json:"dns_target"`
}

// order is one certificate being made or made: a paid order, or a reissue or
// replacement within the term of one.
type order struct {
	ID         string `json:"id"`
	Number     string `json:"number"`
	CAOrder    string `json:"ca_order"`
	CACert     string `json:"ca_cert"`
	Account    string `json:"account"`
	RefID      string `json:"ref_id,omitempty"`
	Kind       string `json:"kind"`
	Parent     string `json:"parent,omitempty"` // the order this one renews or replaces
	ReplacedBy string `json:"replaced_by,omitempty"`
	Paid       string `json:"paid"` // the order that paid for this one, maybe itself
	Status     string `json:"status"`

	Product string        `json:"product"`
	Years   int           `json:"years"`
	Cents   int64         `json:"cents"` // what this order cost
	Bonus   time.Duration `json:"bonus,omitempty"`
	NeedsOV bool          `json:"needs_ov,omitempty"`

	CSR       []byte          `json:"csr"` // DER
	Unique    string          `json:"unique,omitempty"`
	Params    json.RawMessage `json:"params"`
	Names     []*orderName    `json:"names"`
	Twin      *orderName      `json:"twin,omitempty"`
	Challenge challenge       `json:"challenge"`

	// DigiCert is what only that dialect knows of an order, nil for the others.
	DigiCert *digicertOrder `json:"digicert,omitempty"`

	Created   time.Time `json:"created"`
	LastLook  time.Time `json:"last_look"`
	Validated time.Time `json:"validated"` // zero until every name is proven
	Issued    time.Time `json:"issued"`
	TermEnd   time.Time `json:"term_end"` // zero until issued

	Cert      []byte    `json:"cert,omitempty"` // DER of the leaf
	Serial    string    `json:"serial,omitempty"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Revoked   bool      `json:"revoked,omitempty"`
	Refunded  bool      `json:"refunded,omitempty"`

	looking bool // fetches of this order are under way
}

// OrderInfo is what a test may want to know about an order.
type OrderInfo struct {
	ID, RefID, Kind, Product, Status string

	Names    []string
	Methods  []string // proof of control per name: http, https, cname, email
	Verified []string // the proven names

	CSRSHA256   string // hexadecimal, of the DER
	UniqueValue string
	FileName    string
	FileContent string

	Parent     string // the order this one renews, reissues or replaces
	ReplacedBy string // the reissue or replacement of this one
	PaidBy     string // the order whose charge covers this one
	Cents      int64  // what this order cost; zero for reissues
	Refunded   bool
	Revoked    bool

	Created, Validated, Issued, TermEnd time.Time

	Serial              string // hexadecimal
	NotBefore, NotAfter time.Time
}

func (o *order) info() OrderInfo {
	sum := sha256.Sum256(o.CSR)
	info := OrderInfo{
		ID: o.ID, RefID: o.RefID, Kind: o.Kind, Product: o.Product, Status: o.Status,
		Names:     o.names(),
		CSRSHA256: hex.EncodeToString(sum[:]), UniqueValue: o.Unique,
		FileName: o.Challenge.FileName, FileContent: o.Challenge.FileContent,
		Parent: o.Parent, ReplacedBy: o.ReplacedBy, PaidBy: o.Paid,
		Cents: o.Cents, Refunded: o.Refunded, Revoked: o.Revoked,
		Created: o.Created, Validated: o.Validated, Issued: o.Issued, TermEnd: o.TermEnd,
		Serial: o.Serial, NotBefore: o.NotBefore, NotAfter: o.NotAfter,
	}
	for _, n := range o.Names {
		info.Methods = append(info.Methods, string(n.Method))
		if n.Verified {
			info.Verified = append(info.Verified, n.Name)
		}
	}
	return info
}

func (o *order) names() []string {
	names := make([]string, len(o.Names))
	for i, n := range o.Names {
		names[i] = n.Name
	}
	return names
}

func (o *order) name(name string) *orderName {
	i := slices.IndexFunc(o.Names, func(n *orderName) bool { return n.Name == name })
	if i < 0 {
		return nil
	}
	return o.Names[i]
}

// setMethod changes the proof of a name. A proof once given stays: changing the
// method of a proven name, or asking for the same again, costs nothing.
func (o *order) setMethod(n *orderName, m method, email string) {
	n.Method, n.Email = m, email
	if o.Twin != nil {
		o.Twin.Method = m
	}
}

// settle derives Validated from the names.
func (o *order) settle(now time.Time) {
	all := !slices.ContainsFunc(o.Names, func(n *orderName) bool { return !n.Verified })
	switch {
	case !all:
		o.Validated = time.Time{}
	case o.Validated.IsZero():
		o.Validated = now
	}
}

func (o *order) pending() bool { return o.Status == StatusPending }

// submitted tells whether the CA has the order.
func (o *order) submitted(cfg *Config, now time.Time) bool {
	return !now.Before(o.Created.Add(cfg.SubmitDelay))
}

// organisationDone tells when the check of the organisation ends.
func (o *order) organisationDone(cfg *Config) time.Time {
	at := o.Created.Add(cfg.SubmitDelay)
	if o.NeedsOV {
		at = at.Add(cfg.OVDelay)
	}
	return at
}

// twinOf is the name which the CA adds to a single-name certificate: the apex
// of a www name or of a wildcard, else the www name.
func twinOf(name string) string {
	if base, ok := strings.CutPrefix(name, "*."); ok {
		return base
	}
	if base, ok := strings.CutPrefix(name, "www."); ok {
		return base
	}
	return "www." + name
}
