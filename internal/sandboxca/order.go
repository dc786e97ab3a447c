package sandboxca

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// Status words of an order.
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

// Method is a way to prove control of a name.
type Method string

// The methods.
const (
	MethodHTTP  Method = "http"
	MethodHTTPS Method = "https"
	MethodCNAME Method = "cname"
	MethodTXT   Method = "txt"
	MethodEmail Method = "email"
)

// Name is one name of an order and the proof of its control.
type Name struct {
	Name     string `json:"name"`
	Method   Method `json:"method"`
	Email    string `json:"email,omitempty"`
	Verified bool   `json:"verified,omitempty"`

	// Validated is when the CA saw the proof, perhaps for another order.
	Validated time.Time `json:"validated,omitzero"`
}

// Proof is what has to be published to prove control of a name.
type Proof struct {
	FileName    string `json:"file_name"`
	FileContent string `json:"file_content"`
	DNSLabel    string `json:"dns_label"`
	DNSTarget   string `json:"dns_target"`
}

// Order is one certificate, issued or not yet: a paid order, or a reissue or replacement
// within its term. What is here never changes once the order is taken; what may change is
// in Progress.
type Order struct {
	ID      string `json:"id"`
	Number  string `json:"number"`
	CAOrder string `json:"ca_order"`
	CACert  string `json:"ca_cert"`
	Dialect string `json:"dialect"` // the name of the dialect that took it
	Account string `json:"account"` // the account's key
	RefID   string `json:"ref_id,omitempty"`
	Kind    string `json:"kind"`
	Parent  string `json:"parent,omitempty"` // the order this one renews or replaces
	Paid    string `json:"paid"`             // the order that paid for this one, maybe itself

	Product    string        `json:"product"`
	Years      int           `json:"years"`
	Cents      int64         `json:"cents"` // what this order cost
	Bonus      time.Duration `json:"bonus,omitempty"`
	NeedsOV    bool          `json:"needs_ov,omitempty"`
	ClipToTerm bool          `json:"clip_to_term,omitempty"` // certificates end with the term at the latest

	CSR     []byte          `json:"csr"` // DER
	Unique  string          `json:"unique,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"` // as the customer sent them
	Extra   json.RawMessage `json:"extra,omitempty"`  // what only the dialect knows
	Created time.Time       `json:"created"`

	Progress

	looking  bool      // a check of this order is under way
	lastLook time.Time // when the last check began
}

// Progress is what changes in an order.
type Progress struct {
	Status     string  `json:"status"`
	ReplacedBy string  `json:"replaced_by,omitempty"`
	Names      []*Name `json:"names"`
	Twin       *Name   `json:"twin,omitempty"` // the name that the CA adds if it can be proven
	Proof      Proof   `json:"proof"`

	// ProofEnds is when the CA stops looking for the proof, zero for never.
	ProofEnds time.Time `json:"proof_ends,omitzero"`

	// Held keeps the CA from checking the order until somebody has approved it.
	Held bool `json:"held,omitempty"`

	Validated time.Time `json:"validated,omitzero"` // zero until every name is proven
	Issued    time.Time `json:"issued,omitzero"`
	TermEnd   time.Time `json:"term_end,omitzero"` // zero until issued

	Cert      []byte    `json:"cert,omitempty"` // DER of the leaf
	Serial    string    `json:"serial,omitempty"`
	NotBefore time.Time `json:"not_before,omitzero"`
	NotAfter  time.Time `json:"not_after,omitzero"`
	Revoked   bool      `json:"revoked,omitempty"`
	RevokedAt time.Time `json:"revoked_at,omitzero"`
	Refunded  bool      `json:"refunded,omitempty"`
}

// OrderInfo is what a test may want to know about an order.
type OrderInfo struct {
	ID      string `json:"id"`
	RefID   string `json:"reference,omitempty"`
	Kind    string `json:"kind"`
	Product string `json:"product"`
	Years   int    `json:"years"`
	Status  string `json:"status"`

	Names    []string `json:"names"`
	Methods  []string `json:"methods"`            // proof of control per name: http, https, cname, txt, email
	Verified []string `json:"verified,omitempty"` // the proven names

	// Twin is the name that the CA adds if it can be proven.
	Twin         string `json:"twin,omitempty"`
	TwinVerified bool   `json:"twin_verified,omitempty"`

	CSRSHA256   string `json:"csr_sha256"` // hexadecimal, of the DER
	UniqueValue string `json:"unique_value,omitempty"`
	FileName    string `json:"file_name"`
	FileContent string `json:"file_content"`
	DNSLabel    string `json:"dns_label"`
	DNSTarget   string `json:"dns_target"`

	Parent     string `json:"parent,omitempty"`      // the order this one renews, reissues or replaces
	ReplacedBy string `json:"replaced_by,omitempty"` // the reissue or replacement of this one
	PaidBy     string `json:"paid_by"`               // the order whose charge covers this one
	Cents      int64  `json:"cents"`                 // what this order cost; zero for reissues
	Refunded   bool   `json:"refunded,omitempty"`
	Revoked    bool   `json:"revoked,omitempty"`

	Created   time.Time `json:"created"`
	Validated time.Time `json:"validated,omitzero"`
	Issued    time.Time `json:"issued,omitzero"`
	TermEnd   time.Time `json:"term_end,omitzero"`

	Serial    string    `json:"serial,omitempty"` // hexadecimal
	NotBefore time.Time `json:"not_before,omitzero"`
	NotAfter  time.Time `json:"not_after,omitzero"`
}

func (o *Order) info() OrderInfo {
	sum := sha256.Sum256(o.CSR)
	info := OrderInfo{
		ID: o.ID, RefID: o.RefID, Kind: o.Kind, Product: o.Product, Years: o.Years, Status: o.Status,
		Names:     o.NameList(),
		CSRSHA256: hex.EncodeToString(sum[:]), UniqueValue: o.Unique,
		FileName: o.Proof.FileName, FileContent: o.Proof.FileContent,
		DNSLabel: o.Proof.DNSLabel, DNSTarget: o.Proof.DNSTarget,
		Parent: o.Parent, ReplacedBy: o.ReplacedBy, PaidBy: o.Paid,
		Cents: o.Cents, Refunded: o.Refunded, Revoked: o.Revoked,
		Created: o.Created, Validated: o.Validated, Issued: o.Issued, TermEnd: o.TermEnd,
		Serial: o.Serial, NotBefore: o.NotBefore, NotAfter: o.NotAfter,
	}
	if o.Twin != nil {
		info.Twin, info.TwinVerified = o.Twin.Name, o.Twin.Verified
	}
	for _, n := range o.Names {
		info.Methods = append(info.Methods, string(n.Method))
		if n.Verified {
			info.Verified = append(info.Verified, n.Name)
		}
	}
	return info
}

// Clone is a copy that is safe to read and change: what it shares with the original
// never changes.
func (o *Order) Clone() *Order {
	c := *o
	c.Names = make([]*Name, len(o.Names))
	for i, n := range o.Names {
		name := *n
		c.Names[i] = &name
	}
	if o.Twin != nil {
		twin := *o.Twin
		c.Twin = &twin
	}
	return &c
}

// Successor is the common part of a reissue and a replacement of an order.
func (o *Order) Successor(kind, ref, unique string) *Order {
	return &Order{
		Dialect: o.Dialect, Account: o.Account, RefID: ref, Kind: kind, Parent: o.ID,
		Product: o.Product, Years: o.Years, NeedsOV: o.NeedsOV, Unique: unique,
	}
}

// NameList lists the names, the common name first.
func (o *Order) NameList() []string {
	names := make([]string, len(o.Names))
	for i, n := range o.Names {
		names[i] = n.Name
	}
	return names
}

// Name finds a name of the order, nil if it is not there.
func (o *Order) Name(name string) *Name {
	i := slices.IndexFunc(o.Names, func(n *Name) bool { return n.Name == name })
	if i < 0 {
		return nil
	}
	return o.Names[i]
}

// SetMethod changes the method of a name. A proven name stays proven, even by another
// method.
func (o *Order) SetMethod(n *Name, m Method, email string) {
	n.Method, n.Email = m, email
	if o.Twin != nil {
		o.Twin.Method = m
	}
}

// AddTwin adds the www or apex twin to an order for a single-name product.
func (o *Order) AddTwin(p Product) {
	if n := o.Names[0]; !p.SAN && !IsIP(n.Name) {
		o.Twin = &Name{Name: twinOf(n.Name), Method: n.Method}
	}
}

// Revoke revokes the certificate of the order, if there is one.
func (o *Order) Revoke(now time.Time) {
	if o.Cert != nil && !o.Revoked {
		o.Revoked, o.RevokedAt = true, now
	}
}

// settle derives Validated from the names.
func (o *Order) settle(now time.Time) {
	all := !slices.ContainsFunc(o.Names, func(n *Name) bool { return !n.Verified })
	switch {
	case !all:
		o.Validated = time.Time{}
	case o.Validated.IsZero():
		o.Validated = now
	}
}

// Pending reports whether the order waits for its certificate.
func (o *Order) Pending() bool { return o.Status == StatusPending }

// checkable reports whether the CA may check the proofs of the order now.
func (o *Order) checkable(cfg *Config, now time.Time) bool {
	return o.Pending() && !o.looking && !o.Held && o.submitted(cfg, now) &&
		(o.ProofEnds.IsZero() || now.Before(o.ProofEnds))
}

// submitted reports whether the CA has received the order.
func (o *Order) submitted(cfg *Config, now time.Time) bool {
	return o.Cert != nil || !now.Before(o.Created.Add(cfg.SubmitDelay))
}

// organisationDone is when the check of the organization ends.
func (o *Order) organisationDone(cfg *Config) time.Time {
	at := o.Created.Add(cfg.SubmitDelay)
	if o.NeedsOV {
		at = at.Add(cfg.OVDelay)
	}
	return at
}

// twinOf is the name that the CA adds to a single-name certificate: the apex of a www
// name or of a wildcard, else the www name.
func twinOf(name string) string {
	if base, ok := strings.CutPrefix(name, "*."); ok {
		return base
	}
	if base, ok := strings.CutPrefix(name, "www."); ok {
		return base
	}
	return "www." + name
}
