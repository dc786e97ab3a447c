package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// formatVersion is the version of the entry format that this code writes. It reads this
// one and refuses newer ones, because it could not keep what it does not understand.
const formatVersion = 2

// Entry is one paid order. It holds no secret and no private key. An Entry that the ledger handed
// out must not be changed, see [Ledger.Write].
type Entry struct {
	Version int `json:"version"`

	// ID is made of the time at which it was made and a random part; that of an order
	// bought elsewhere is made of the order's ID.
	ID string `json:"id"`

	// Revision grows by one with each write. A writer that read another revision than
	// the stored one reads again.
	Revision int64 `json:"revision"`

	// Names are what was paid for. The first is the common name.
	Names []string `json:"names"`

	// Maybe are names that the CA may add by itself. They count until the first
	// certificate tells.
	Maybe []string `json:"maybe,omitempty"`

	// Covered are the names of the latest certificate. Empty before the first.
	Covered []string `json:"covered,omitempty"`

	State   State     `json:"state"`
	Updated time.Time `json:"updated"`

	// Flag says that a person is asked to decide. Nil if nobody is needed.
	Flag *Flag `json:"flag,omitempty"`

	// Problem is the last thing that went wrong, for people. Cleared by success.
	Problem string `json:"problem,omitempty"`

	// Product, Term and Method are those that were paid for.
	Product string         `json:"product,omitempty"`
	Term    vendors.Term   `json:"term"`
	Method  vendors.Method `json:"method"`

	// Paid is when the intent to pay was stored, by the clock of the server that did.
	Paid time.Time `json:"paid"`

	// Ends is the end of the paid term; until the vendor tells it, it is reckoned from Paid and
	// Term.
	Ends time.Time `json:"ends"`

	// OrderID is the vendor's handle of the order, which a reissue may change. RootID is the one
	// under which it was paid for. Empty until the vendor tells.
	OrderID   string `json:"order_id,omitempty"`
	RootID    string `json:"root_id,omitempty"`
	CAOrderID string `json:"ca_order_id,omitempty"`

	// GivenUp is whether the plugin gave the order up, because the vendor had ended it and the
	// configuration allows placing another one. It is then gone.
	GivenUp bool `json:"given_up,omitempty"`

	// EndedByHand is what a person has had done to the order, or was about to: Cancelled or
	// Revoked. Nothing takes the place of such an order before a person says so.
	EndedByHand Ending `json:"ended_by_hand,omitempty"`

	// Adopted is whether the order was bought elsewhere.
	Adopted bool `json:"adopted,omitempty"`

	// Substitute is whether a person has put another order, bought elsewhere, in the place of the one
	// that was paid for.
	Substitute bool `json:"substitute,omitempty"`

	// Attempt is the latest request for a certificate, done or under way.
	Attempt Attempt `json:"attempt"`

	// Certificate is the latest certificate. Nil before the first.
	Certificate *Certificate `json:"certificate,omitempty"`

	// Issued counts the certificates that this order has given.
	Issued int `json:"issued,omitempty"`

	// Story is what has happened to it, oldest first, for people. Nothing is decided by it.
	Story []Event `json:"story,omitempty"`
}

// Ending is a way in which a person ends an order. Empty is none.
type Ending string

// The ways.
const (
	Cancelled Ending = "cancelled"
	Revoked   Ending = "revoked"
)

// Kind tells what an attempt asks of the vendor.
type Kind string

// The kinds of attempts. Orders cost money, reissues and adoptions do not.
const (
	KindOrder   Kind = "order"
	KindReissue Kind = "reissue"

	// KindAdoption waits for an order whose CSR is not ours.
	KindAdoption Kind = "adoption"
)

// Attempt is one request for a certificate, with all that is needed to find it again and
// to go on presenting its proofs of control.
type Attempt struct {
	Kind Kind `json:"kind"`

	// Reference is our own ID of the request, sent to the vendor with it.
	Reference string `json:"reference"`

	// Started is when the entry was stored, just before the request was sent.
	Started time.Time `json:"started"`

	// AbsenceAge is how long after the request was sent the vendor's denial proves that
	// it had no effect.
	AbsenceAge time.Duration `json:"absence_age,omitempty"`

	// CSR is the DER of the signing request, exactly as it was sent. Empty if the
	// certificate will be for a key that is not ours.
	CSR []byte `json:"csr,omitempty"`

	// AnyKey is whether the order may be for a key that is not ours. Its certificate is
	// then reissued.
	AnyKey bool `json:"any_key,omitempty"`

	Unique string `json:"unique,omitempty"`

	// PreparedID is the vendor's ID of a free preparation, PreviousID the order that is
	// reissued or renewed.
	PreparedID string `json:"prepared_id,omitempty"`
	PreviousID string `json:"previous_id,omitempty"`

	// Challenges are the proofs to present until the attempt is over.
	Challenges []vendors.Challenge `json:"challenges,omitempty"`

	// Visits are those to the servers that drove the order, for people. Nil before the first.
	Visits *Visits `json:"visits,omitempty"`

	// Unproven is why the CA has not validated the names yet, for people. Nil if it has, or if
	// nobody has found out.
	Unproven *Unproven `json:"unproven,omitempty"`
}

// Unproven is why a CA has not validated a name, as far as could be seen.
type Unproven struct {
	Cause  string `json:"cause"` // a word for programs
	Name   string `json:"name"`
	Reason string `json:"reason"` // for people, with what to do
}

// Certificate is what the ledger knows of a certificate.
type Certificate struct {
	// Serial is the serial number in hexadecimal.
	Serial    string    `json:"serial"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`

	// Key is the SHA-256 of the public key, in hexadecimal. Reference is that of the
	// attempt that gave it.
	Key       string `json:"key"`
	Reference string `json:"reference,omitempty"`

	// Lost is whether it is of no use: it was revoked, with the order or while that lives
	// on, or the vendor has another one in its place, or a person asked for another one.
	Lost bool `json:"lost,omitempty"`

	// Unwanted is whether it is lost only because a person asked for another one. Nothing is
	// bought for that.
	Unwanted bool `json:"unwanted,omitempty"`
}

// Flag says since when and why a person is asked to decide about an order.
type Flag struct {
	Since  time.Time `json:"since"`
	Reason string    `json:"reason"`

	// Ended is whether the order as it is known gives no certificate any more, so that
	// only another ID, or another order, helps.
	Ended bool `json:"ended,omitempty"`
}

// maybeFor is how long names that the CA may add block an order of their own. Orders
// that take longer are rare, and the names must not wait for them.
const maybeFor = 24 * time.Hour

// Speaks reports whether the order is, or may turn out to be, for the name.
func (e *Entry) Speaks(name string) bool {
	if slices.Contains(e.Names, name) {
		return true
	}
	if e.Issued == 0 {
		return slices.Contains(e.Maybe, name)
	}
	return slices.Contains(e.Covered, name)
}

// Over reports whether the paid term has ended.
func (e *Entry) Over(now time.Time) bool { return !now.Before(e.Ends) }

// LostCertificate reports whether the latest certificate is of no use.
func (e *Entry) LostCertificate() bool { return e.Certificate != nil && e.Certificate.Lost }

// BoughtElsewhere reports whether somebody else bought the order, so that it is not known what it is
// for but the names.
func (e *Entry) BoughtElsewhere() bool { return e.Adopted || e.Substitute }

// WhyEnded tells why the order has ended, given what the vendor says of it.
func (e *Entry) WhyEnded(says string) string {
	if e.EndedByHand == "" {
		return says
	}
	return fmt.Sprintf("%s by hand: %s", e.EndedByHand, says)
}

// DeadCertificate reports whether the latest certificate is of no use, whatever a person wants.
func (e *Entry) DeadCertificate() bool { return e.LostCertificate() && !e.Certificate.Unwanted }

// UnwantedCertificate reports whether the latest certificate is lost only because a person asked
// for another one.
func (e *Entry) UnwantedCertificate() bool { return e.LostCertificate() && e.Certificate.Unwanted }

// Unissued reports whether the first certificate is still to come.
func (e *Entry) Unissued() bool { return e.Issued == 0 && e.State != Gone }

// Margin is how much of the order's term may be given up for the next order: the wanted
// margin, but never more than half of the term, so that a large margin or a short term
// cannot make each attempt buy.
func (e *Entry) Margin(wanted time.Duration) time.Duration {
	return min(wanted, EndOfTerm(e.Paid, e.Term).Sub(e.Paid)/2)
}

// Blocks reports whether the order forbids another one for the name.
func (e *Entry) Blocks(name string, margin time.Duration, now time.Time) bool {
	if e.State == Gone || !e.Speaks(name) {
		return false
	}
	if e.Issued == 0 && !slices.Contains(e.Names, name) && (e.Flag != nil || now.Sub(e.Paid) > maybeFor) {
		return false
	}
	return e.Ends.Sub(now) > e.Margin(margin)
}

// MayBeReplaced reports whether another order may be bought in place of one that the vendor has
// ended, given all entries for its names: it was not bought elsewhere, no person has ended it, and
// it is not itself in the place of one that was given up within its term.
func (e *Entry) MayBeReplaced(about []*Entry, now time.Time) bool {
	return !e.BoughtElsewhere() && e.EndedByHand == "" && !slices.ContainsFunc(about, func(other *Entry) bool {
		return other.ID != e.ID && other.GivenUp && !other.Over(now)
	})
}

// RenewalBegins is when certmagic would renew a certificate: when the last part of its life
// begins, of the given ratio. Zero means certmagic's default.
func RenewalBegins(notBefore, notAfter time.Time, ratio float64) time.Time {
	return notAfter.Add(-time.Duration(float64(notAfter.Sub(notBefore)) * cmp.Or(ratio, certmagic.DefaultRenewalWindowRatio)))
}

// EndOfTerm reckons the end of a paid term.
func EndOfTerm(from time.Time, t vendors.Term) time.Time { return from.AddDate(t.Years, 0, t.Days) }

// clone returns a copy that shares no memory with e that a change could touch.
func (e *Entry) clone() *Entry {
	c := *e
	c.Covered = slices.Clone(e.Covered)
	c.Attempt.Challenges = slices.Clone(e.Attempt.Challenges)
	if e.Flag != nil {
		f := *e.Flag
		c.Flag = &f
	}
	if e.Certificate != nil {
		cert := *e.Certificate
		c.Certificate = &cert
	}
	return &c
}

// check refuses an entry that this code could misread.
func (e *Entry) check() error {
	switch {
	case e.Version > formatVersion:
		return fmt.Errorf("version %d is newer than this build understands (%d)", e.Version, formatVersion)
	case e.Version != formatVersion:
		return fmt.Errorf("version %d is unknown", e.Version)
	case e.ID == "" || strings.ContainsAny(e.ID, "/\\"):
		return fmt.Errorf("ID %q cannot be used", e.ID)
	case len(e.Names) == 0 || slices.Contains(e.Names, ""):
		return errors.New("it has no names")
	case transitions[e.State] == nil:
		return fmt.Errorf("state %q is unknown", e.State)
	case e.Ends.IsZero() || e.Paid.IsZero():
		return errors.New("it has no term")
	case e.OrderID == "" && (e.State == Open || e.State == Issued):
		return fmt.Errorf("state %q without an order ID", e.State)
	case e.State == Issued && e.Certificate == nil:
		return errors.New("state issued without a certificate")
	}
	return nil
}
