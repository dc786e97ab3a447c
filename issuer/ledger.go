package issuer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// recordVersion is the version of the record format that this code writes. It
// reads this one and refuses newer ones, because it could not keep what it does
// not understand.
const recordVersion = 1

// Record is what is known about the orders for a set of names. One record is one
// JSON value in certmagic's storage, at
//
//	commercial/<vendor>/<account>/orders/<first name>.json
//
// It holds no secret and no private key. It outlives certificates, configs and
// crashes, and is written before and after every call that could cost money.
type Record struct {
	Version int `json:"version"`

	// Revision grows by one with each write. A writer that read another
	// revision than the stored one loses and reads again.
	Revision int64 `json:"revision"`

	// Names are the names the record answers for. The first names the record.
	Names []string `json:"names"`

	State   State     `json:"state"`
	Updated time.Time `json:"updated"`

	// Attempt is the latest call that makes a certificate: an order, a renewal
	// or a reissue, whether still under way or done.
	Attempt *Attempt `json:"attempt,omitempty"`

	// Order is the paid order in force.
	Order *PaidOrder `json:"order,omitempty"`

	// Past holds earlier paid orders, the latest last, at most pastOrders.
	Past []PaidOrder `json:"past,omitempty"`

	// Hold is why and until when no paid call may be made for these names.
	Hold *Hold `json:"hold,omitempty"`

	// Problem is the last thing that went wrong, for people. Cleared by success.
	Problem string `json:"problem,omitempty"`
}

// pastOrders bounds the history of a record; a decade of yearly orders.
const pastOrders = 10

// AttemptKind tells what an attempt asks of the vendor.
type AttemptKind string

// The kinds of attempts. Orders and renewals cost money, reissues do not.
const (
	KindOrder   AttemptKind = "order"
	KindRenewal AttemptKind = "renewal"
	KindReissue AttemptKind = "reissue"

	// KindAdoption waits for an order bought elsewhere; it has no CSR of ours.
	KindAdoption AttemptKind = "adoption"
)

// Attempt is one request for a certificate, with all that is needed to find it
// again and to keep serving its proofs of control after a restart.
type Attempt struct {
	Kind AttemptKind `json:"kind"`

	// Reference is our own ID of the request, sent to the vendor with it.
	Reference string `json:"reference"`

	// Started is when the record was written, just before the request is sent.
	Started time.Time `json:"started"`

	// Names in the order in which they were sent; the first is the common name.
	Names []string `json:"names"`

	// CSR is the DER of the signing request, exactly as it was sent. Empty if
	// the order is for a CSR that is not ours.
	CSR []byte `json:"csr,omitempty"`

	Unique  string         `json:"unique,omitempty"`
	Product string         `json:"product,omitempty"`
	Method  vendors.Method `json:"method"`

	// PreparedID is the vendor's ID of a free preparation, recorded before it is
	// paid for.
	PreparedID string `json:"prepared_id,omitempty"`

	// PreviousID is the order that is reissued or renewed.
	PreviousID string `json:"previous_id,omitempty"`

	// Draft is whether the attempt's proofs may be published, but nothing was sent
	// to the vendor yet.
	Draft bool `json:"draft,omitempty"`

	// Challenges are the proofs to publish until the attempt is over.
	Challenges []vendors.Challenge `json:"challenges,omitempty"`
}

// PaidOrder is an order that was paid for.
type PaidOrder struct {
	// ID is the vendor's current handle; a reissue may have changed it.
	ID string `json:"id"`

	// Reference is that of the paid request. Empty for an adopted order.
	Reference string `json:"reference,omitempty"`

	// Names the order was placed for.
	Names []string `json:"names"`

	Product   string    `json:"product,omitempty"`
	CAOrderID string    `json:"ca_order_id,omitempty"`
	PaidAt    time.Time `json:"paid_at"`

	// TermEnds is the end of the paid term; until the vendor told it, it is
	// reckoned from the configured term.
	TermEnds time.Time `json:"term_ends"`

	// Adopted is whether the order was bought elsewhere.
	Adopted bool `json:"adopted,omitempty"`

	// Covered are the names in the latest certificate, Serial is its serial
	// number in hexadecimal, NotAfter its end.
	Covered  []string  `json:"covered,omitempty"`
	Serial   string    `json:"serial,omitempty"`
	NotAfter time.Time `json:"not_after,omitzero"`

	// Issued counts the certificates this order has given.
	Issued int `json:"issued,omitempty"`
}

// Hold keeps paid calls back after some that led to nothing.
type Hold struct {
	Failures int       `json:"failures"`
	Until    time.Time `json:"until"`
}

// primary is the name under which the record is stored.
func (r *Record) primary() string { return r.Names[0] }

// covers reports whether an order of this record is, or will be, good for name.
func (r *Record) covers(name string) bool {
	if slices.Contains(r.Names, name) {
		return true
	}
	return r.Order != nil && slices.Contains(r.Order.Covered, name)
}

// clone returns a copy that shares no memory with r that a step changes.
func (r *Record) clone() *Record {
	c := *r
	c.Names = slices.Clone(r.Names)
	c.Past = slices.Clone(r.Past)
	if r.Attempt != nil {
		a := *r.Attempt
		a.Challenges = slices.Clone(a.Challenges)
		c.Attempt = &a
	}
	if r.Order != nil {
		o := *r.Order
		c.Order = &o
	}
	if r.Hold != nil {
		h := *r.Hold
		c.Hold = &h
	}
	return &c
}

// errConflict says that another writer changed the record since it was read.
var errConflict = errors.New("ledger record was changed by another writer")

// DamagedRecordError is a ledger record that cannot be used. Nothing is bought for its names
// until a person has looked at it.
type DamagedRecordError struct {
	Key string // where the record is in storage
	Err error
}

func (e *DamagedRecordError) Error() string {
	return fmt.Sprintf("ledger record %s cannot be used, so nothing is bought for its names; "+
		"compare it with the vendor's list of orders and repair or remove it: %v", e.Key, e.Err)
}

func (e *DamagedRecordError) Unwrap() error { return e.Err }

// ledger keeps the records of one account at one vendor.
type ledger struct {
	storage certmagic.Storage
	prefix  string // commercial/<vendor>/<account>
}

func newLedger(storage certmagic.Storage, d vendors.Description) *ledger {
	return &ledger{
		storage: storage,
		prefix:  path.Join("commercial", certmagic.StorageKeys.Safe(d.Name), certmagic.StorageKeys.Safe(d.Account)),
	}
}

func (l *ledger) ordersPrefix() string { return path.Join(l.prefix, "orders") }

func (l *ledger) key(name string) string {
	return path.Join(l.ordersPrefix(), certmagic.StorageKeys.Safe(name)+".json")
}

// aliasKey is where it is noted that another name's record covers a name.
func (l *ledger) aliasKey(name string) string {
	return path.Join(l.prefix, "names", certmagic.StorageKeys.Safe(name)+".json")
}

// alias notes, in storage, under which name the record is that covers another name. It
// is only a hint: the record itself says whether it does.
type alias struct {
	Version int    `json:"version"`
	Record  string `json:"record"` // first name of the record
}

// coveredBy returns the record that is noted to cover the name, if any.
func (l *ledger) coveredBy(ctx context.Context, name string) (*Record, error) {
	key := l.aliasKey(name)
	data, err := l.storage.Load(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", key, err)
	}
	var a alias
	if err := json.Unmarshal(data, &a); err != nil || a.Version != recordVersion || a.Record == "" {
		return nil, &DamagedRecordError{key, errors.Join(err, fmt.Errorf("it names the record %q in version %d", a.Record, a.Version))}
	}
	return l.load(ctx, a.Record)
}

// noteAliases notes the record under the names other than its first that it covers.
func (l *ledger) noteAliases(ctx context.Context, rec *Record) error {
	names := slices.Clone(rec.Names)
	if rec.Order != nil {
		names = append(names, rec.Order.Covered...)
	}
	data, err := json.Marshal(alias{recordVersion, rec.primary()})
	if err != nil {
		return fmt.Errorf("encoding alias: %w", err)
	}
	for _, name := range names {
		if name == rec.primary() {
			continue
		}
		key := l.aliasKey(name)
		if have, err := l.storage.Load(ctx, key); err == nil && bytes.Equal(have, data) {
			continue
		}
		if err := l.storage.Store(ctx, key, data); err != nil {
			return fmt.Errorf("writing %s: %w", key, err)
		}
	}
	return nil
}

// load returns the record of name. A name without one gets a fresh record in
// StateNone.
func (l *ledger) load(ctx context.Context, name string) (*Record, error) {
	rec, err := l.loadKey(ctx, l.key(name))
	if errors.Is(err, fs.ErrNotExist) {
		return &Record{Version: recordVersion, Names: []string{name}, State: StateNone}, nil
	}
	if err != nil {
		return nil, err
	}
	if rec.primary() != name {
		return nil, &DamagedRecordError{l.key(name), fmt.Errorf("it is about %q", rec.primary())}
	}
	return rec, nil
}

func (l *ledger) loadKey(ctx context.Context, key string) (*Record, error) {
	data, err := l.storage.Load(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("reading ledger record %s: %w", key, err)
	}
	rec := new(Record)
	if err := json.Unmarshal(data, rec); err != nil {
		return nil, &DamagedRecordError{key, err}
	}
	if err := rec.check(); err != nil {
		return nil, &DamagedRecordError{key, err}
	}
	return rec, nil
}

// check refuses a record that this code could misread.
func (r *Record) check() error {
	switch {
	case r.Version > recordVersion:
		return fmt.Errorf("version %d is newer than this build understands (%d)", r.Version, recordVersion)
	case r.Version < 1:
		return fmt.Errorf("version %d is unknown", r.Version)
	case len(r.Names) == 0 || r.Names[0] == "":
		return errors.New("it names nothing")
	case transitions[r.State] == nil:
		return fmt.Errorf("state %q is unknown", r.State)
	case r.Attempt == nil && slices.Contains([]State{StateIntent, StatePending, StateReissuing}, r.State):
		return fmt.Errorf("state %q without an attempt", r.State)
	case (r.Order == nil || r.Order.ID == "") && slices.Contains([]State{StatePending, StateIssued, StateReissuing, StateDead}, r.State):
		return fmt.Errorf("state %q without an order", r.State)
	}
	return nil
}

// write stores the record if it is still the one that was read, and if its state
// may follow the stored one. It does its work even when ctx is cancelled, because
// what it records has usually happened already.
func (l *ledger) write(ctx context.Context, rec *Record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()

	key := l.key(rec.primary())
	lock := lockName(key)
	if err := l.storage.Lock(ctx, lock); err != nil {
		return fmt.Errorf("locking ledger record %s: %w", key, err)
	}
	// An error of Unlock leaves a lock that expires by itself; the write stands.
	defer func() { _ = l.storage.Unlock(ctx, lock) }()

	stored, err := l.load(ctx, rec.primary())
	if err != nil {
		return err
	}
	if stored.Revision != rec.Revision {
		return fmt.Errorf("%w: %s has revision %d, expected %d", errConflict, key, stored.Revision, rec.Revision)
	}
	if !canFollow(stored.State, rec.State) {
		return fmt.Errorf("ledger record %s cannot go from %q to %q", key, stored.State, rec.State)
	}
	rec.Version = recordVersion
	rec.Revision++
	rec.Updated = time.Now().UTC()
	data, err := json.MarshalIndent(rec, "", "  ")
	if err == nil {
		err = rec.check()
	}
	if err == nil && (rec.State == StateIntent || rec.State == StatePending || rec.State == StateIssued) {
		// First, so that no crash leaves a covered name without its note.
		err = l.noteAliases(ctx, rec)
	}
	if err == nil {
		err = l.storage.Store(ctx, key, data)
	}
	if err != nil {
		rec.Revision--
		return fmt.Errorf("writing ledger record %s: %w", key, err)
	}
	return nil
}

// all returns the records of the account, and an error for those that cannot be
// used. It reads all of them, so it is for what happens rarely.
func (l *ledger) all(ctx context.Context) ([]*Record, error) {
	keys, err := l.storage.List(ctx, l.ordersPrefix(), false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the ledger: %w", err)
	}
	slices.Sort(keys)
	var recs []*Record
	var problems []error
	for _, key := range keys {
		if !strings.HasSuffix(key, ".json") {
			continue
		}
		rec, err := l.loadKey(ctx, key)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			problems = append(problems, err)
			continue
		}
		recs = append(recs, rec)
	}
	return recs, errors.Join(problems...)
}

// lockPair locks two names against other claims on either.
func (l *ledger) lockPair(ctx context.Context, a, b string) (unlock func(), err error) {
	name := lockName(path.Join(l.prefix, "claim", certmagic.StorageKeys.Safe(min(a, b))))
	if err := l.storage.Lock(ctx, name); err != nil {
		return nil, fmt.Errorf("locking the claim on %s and %s: %w", a, b, err)
	}
	return func() {
		// A lock that stays behind expires by itself.
		_ = l.storage.Unlock(context.WithoutCancel(ctx), name)
	}, nil
}

// lockName makes a flat name for the storage's lock namespace, which some
// storages keep as one folder.
func lockName(key string) string { return strings.ReplaceAll(key, "/", "_") }
