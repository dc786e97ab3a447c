package issuer

import (
	"crypto/x509/pkix"
	"maps"
	"sync"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/poll"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/operator"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// account is what this process knows of one account at one vendor on one storage. It
// outlives configurations, and whatever is in it can be lost: what matters is in the ledger.
type account struct {
	ledger ledger.Memory

	mu       sync.Mutex
	wants    map[string]*want     // by name
	handed   map[string]*handover // by name
	looks    map[string]*look     // by the reference of an attempt
	paces    map[string]*pace     // by name
	reissues map[string]*reissues // by the ID of an entry
	driven   map[string]struct{}  // IDs of entries
	storing  map[string]struct{}  // names whose certificate is being stored
	waiting  int                  // calls of Issue

	purchases  purchases
	listings   listings
	explaining int       // looks at what keeps the CA from validating
	began      time.Time // by the wall clock
	takenUp    time.Time // when the last of the orders that were pending then is first looked at

	watching     sync.Mutex // held by the one that looks at issued orders
	suspects     suspects
	replacements replacements

	chains map[string]chain // the latest certificates, by serial number
	recent []string         // their serial numbers, oldest first

	phrases map[string]string // what the vendor has said lately of pending orders; each is its own key

	noRenew map[string]struct{} // IDs of orders whose renewal was refused

	condemned map[string]time.Time // IDs of entries that are being given up, and since when; monotonic

	told told

	stray map[string]time.Time // references of keys of no use, and since when

	trying, tried bool          // whether the storage is being tried, and whether that is over
	late          time.Duration // how late it was seen to show what was written
}

func newAccount() *account {
	return &account{
		wants: make(map[string]*want), handed: make(map[string]*handover), looks: make(map[string]*look), paces: make(map[string]*pace),
		reissues: make(map[string]*reissues), driven: make(map[string]struct{}), storing: make(map[string]struct{}), noRenew: make(map[string]struct{}),
		condemned: make(map[string]time.Time),
		chains:    make(map[string]chain), began: time.Now().Round(0),
	}
}

// want is a key for which certmagic wants a certificate, or wanted one: when its call has
// ended, the key is still good for the name.
type want struct {
	name   string
	key    string           // see keyID
	pem    []byte           // the private key; nil if it is not known
	csr    []byte           // DER, if the key is not known: nothing else can be sent
	extras []pkix.Extension // what the CSR asks for
	config any              // the configuration that asked last

	used bool        // an attempt has been made with the key
	why  error       // what it waits for, or what went wrong last
	done chan answer // holds one answer; nil once it was given
}

// answer ends a call of Issue.
type answer struct {
	got   chain
	entry *ledger.Entry
	err   error
}

// handover is a certificate that a call of Issue was given, until certmagic reports that it
// has stored it.
type handover struct {
	reference string
	at        time.Time
	stored    bool
}

// ask notes that certmagic wants a certificate for the name and key. If one is being stored
// for the name, or is on its way for the key of an earlier call, ours is false, and why tells
// how that one stands, as far as is known.
func (a *account) ask(w *want) (done <-chan answer, why error, ours bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, storing := a.storing[w.name]; storing {
		return nil, errDelivered, false
	}
	if old := a.wants[w.name]; old != nil {
		if old.used && old.key != w.key {
			old.config = w.config
			return nil, old.why, false
		}
		old.tell(answer{err: errSuperseded})
		w.used = old.used && old.key == w.key
	}
	call := make(chan answer, 1)
	w.done = call
	a.wants[w.name] = w
	return call, nil, true
}

// tell ends the call that waits, and reports whether there was one.
func (w *want) tell(with answer) bool {
	if w == nil || w.done == nil {
		return false
	}
	w.done <- with
	w.done = nil
	return true
}

// tell ends the call of Issue that waits for the name, if there is one.
func (a *account) tell(w *want, with answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.tell(with)
}

// asked reports whether the given configuration was the last to ask for the want.
func (a *account) asked(w *want, config any) bool {
	if w == nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return w.config == config
}

// store clears the way for storing a certificate for the name. Calls of Issue hold certmagic's
// lock for the name, so one that waits is ended, and those that come meanwhile do not wait. end
// is told whether the certificate was stored: if so, nothing more is wanted by the calls that
// came before, even a moment ago.
func (a *account) store(name string) (end func(stored bool)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wants[name].tell(answer{err: errDelivered})
	a.storing[name] = struct{}{}
	return func(stored bool) {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.storing, name)
		if stored {
			delete(a.wants, name)
		}
	}
}

// hangUp ends the wait of a call from its own side. If an answer came at that very moment, it
// is returned.
func (a *account) hangUp(w *want, done <-chan answer) (answer, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case with := <-done:
		return with, true
	default:
		w.done = nil
		return answer{}, false
	}
}

func (a *account) want(name string) *want {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.wants[name]
}

// use notes that an attempt is made with the key of the want.
func (a *account) use(w *want) {
	if w == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	w.used = true
}

// forget ends the want: the name has its certificate, or does not get one.
func (a *account) forget(w *want) {
	if w == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.wants[w.name] == w {
		delete(a.wants, w.name)
	}
}

// give hands the certificate to the call of Issue that waits for it, and reports whether there
// was one. The handover is noted first, because the caller goes on at once: certmagic reports
// that it has stored the certificate, and may ask for another one.
func (a *account) give(w *want, with answer) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w == nil || w.done == nil {
		return false
	}
	a.handed[w.name] = &handover{reference: with.entry.Attempt.Reference, at: time.Now()}
	if a.wants[w.name] == w {
		delete(a.wants, w.name)
	}
	return w.tell(with)
}

// stored notes that certmagic has stored a certificate for the name, and reports whether
// one was handed over for it.
func (a *account) stored(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.handed[name]
	if h != nil {
		h.stored = true
	}
	return h != nil
}

// takeHandover returns what was handed over for the name, and forgets it unless certmagic
// may still be about to store it.
func (a *account) takeHandover(name string) (h handover, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	have := a.handed[name]
	if have == nil {
		return handover{}, false
	}
	if have.stored || time.Since(have.at) >= handoverPatience {
		delete(a.handed, name)
	}
	return *have, true
}

// look is what this process has seen of an attempt.
type look struct {
	first     time.Time // when it was seen first, by the monotonic clock
	absences  int32     // denials in a row, when its answer is missing
	unknown   int32     // denials in a row of an order that was known
	stale     int32     // answers in a row that had another certificate than the one to come
	presented []vendors.Challenge
	config    any           // under which they were presented; nil if they were not yet
	turn      time.Time     // not before
	schedule  poll.Schedule // of an order that the vendor has
	slow      poll.Schedule // after answers that look final
	lookUps   poll.Schedule // of a request whose answer is missing
	by        string        // the name that asked the vendor last
	nudge     nudges
	reported  time.Time     // when a problem was logged last
	ended     *ending       // nil if the order lives
	explains  *explanations // nil until it takes long

	// What follows is protected by account.mu.
	at   time.Time // when the vendor was asked last
	said string    // what it said
	next time.Time // when the name that asked asks again
}

// ending is what the vendor has been saying, without interruption, of an order that it has ended.
type ending struct {
	says    vendors.Status
	first   time.Time // since when; monotonic
	flagged time.Time // since when a person has been asked
}

const (
	// maxSaid bounds what is remembered of the vendor's words about an order, in bytes.
	maxSaid = 200

	// maxPhrases bounds the words that orders share.
	maxPhrases = 64
)

// looked notes what the vendor has said of a pending order.
func (a *account) looked(l *look, said string) {
	said = vendors.OneLine(said, maxSaid)
	a.mu.Lock()
	defer a.mu.Unlock()
	l.at, l.said = time.Now(), a.phrase(said)
}

// phrase returns the words as other orders already have them in memory, if any do. The lock is held.
func (a *account) phrase(said string) string {
	if have, ok := a.phrases[said]; ok {
		return have
	}
	if a.phrases == nil || len(a.phrases) >= maxPhrases {
		a.phrases = make(map[string]string)
	}
	a.phrases[said] = said
	return said
}

// later notes that the name asks the vendor again after the wait. The other names of the order
// have no need to ask meanwhile.
func (a *account) later(l *look, name string, wait time.Duration) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	l.by, l.next = name, time.Now().Add(wait)
	return wait
}

// lookedAt tells what the vendor said of a request when this process last looked at its order,
// or why that look failed; when that was; and when the next one is, zero if none is planned. ok
// is false before the first look.
func (a *account) lookedAt(reference string) (said string, at, next time.Time, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.looks[reference]
	if l == nil || l.at.IsZero() {
		return "", time.Time{}, time.Time{}, false
	}
	if l.next.After(l.at) {
		next = l.next
	}
	return l.said, l.at, next, true
}

// look returns what is known of an attempt. Its fields belong to whoever drives the entry, who
// alone changes those that others read, too.
func (a *account) look(reference string) *look {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.looks[reference]
	if l == nil {
		l = &look{first: time.Now()}
		a.looks[reference] = l
	}
	return l
}

// takeUpEvery is the time between the first looks at orders that were pending already when
// this process began to work for the account: there may be thousands of them. Vendors take
// some calls per second.
const takeUpEvery = 250 * time.Millisecond

// takeUp returns when to look for the first time at an order that was placed at the given time;
// zero means now.
func (a *account) takeUp(placed time.Time) time.Time {
	if placed.After(a.began) {
		return time.Time{} // placed by this process, or by another server, whose certificate is waited for here, too
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if next, now := a.takenUp.Add(takeUpEvery), time.Now(); next.After(now) {
		a.takenUp = next
	} else {
		a.takenUp = now
	}
	return a.takenUp
}

// presented notes that the proofs of an attempt are presented under a configuration. The
// next configuration presents them again: it has listeners of its own.
func (a *account) presented(config any, reference string, challenges []vendors.Challenge) {
	l := a.look(reference)
	if len(challenges) > 0 {
		l.config, l.presented = config, challenges
	}
}

func (a *account) forgetLook(reference string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.looks, reference)
	delete(a.told.validations, reference)
}

// drive makes the caller the only one of this process that works on an entry.
func (a *account) drive(id string) (release func(), ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, busy := a.driven[id]; busy {
		return nil, false
	}
	a.driven[id] = struct{}{}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.driven, id)
	}, true
}

// pace grows with failures in a row of one name.
type pace struct {
	schedule poll.Schedule
	reported string // the last problem, as it was logged
}

// The bounds of the waits after failures that only time can mend.
const (
	retryMin = time.Minute
	retryMax = 6 * time.Hour
)

func (a *account) pace(name string) *pace {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.paces[name]
	if p == nil {
		p = new(pace)
		a.paces[name] = p
	}
	return p
}

// report notes what went wrong with a name, and reports whether it is something new.
func (a *account) report(name string, problem error) (isNew bool) {
	p, text := a.pace(name), problem.Error()
	a.mu.Lock()
	defer a.mu.Unlock()
	isNew = p.reported != text
	p.reported = text
	return isNew
}

// doing tells people what a name waits for, or what went wrong with it last.
func (a *account) doing(name string) (d operator.Doing) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var why error
	if w := a.wants[name]; w != nil {
		why = w.why
	}
	switch p := a.paces[name]; {
	case why != nil:
		d.Waits = why.Error()
	case p != nil:
		d.Waits = p.reported
	}
	return d
}

func (a *account) resetPace(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.paces, name)
}

// reissues paces the reissues in a row of one entry that have given no certificate for their key,
// whichever names asked. The time between two of them grows.
type reissues struct {
	schedule poll.Schedule
	next     time.Time // not before
}

// reissuing notes that an entry is reissued now.
func (a *account) reissuing(id string, random func() float64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.reissues[id]
	if r == nil {
		r = &reissues{schedule: poll.Schedule{Min: retryMin, Max: retryMax}}
		a.reissues[id] = r
	}
	r.next = time.Now().Add(r.schedule.Next(random))
}

// reissueWait is how long to wait before an entry may be reissued; zero or less if it may be now.
func (a *account) reissueWait(id string) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r := a.reissues[id]; r != nil {
		return time.Until(r.next)
	}
	return 0
}

// reissued notes that a reissue has given its certificate.
func (a *account) reissued(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.reissues, id)
}

// tidyReissues forgets the entries that were due for another reissue long ago and did not get one
// here: those that are over or given up, and those that another server has reissued.
func (a *account) tidyReissues() {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.reissues, func(_ string, r *reissues) bool { return time.Since(r.next) > tidyEvery })
}

// beginTrial reports whether the caller is to try the storage, being the only one that does, and
// whether the trial is over, so that nobody has to any more.
func (a *account) beginTrial() (begins, over bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	begins = !a.trying && !a.tried
	a.trying = a.trying || begins
	return begins, a.tried
}

func (a *account) endTrial(over bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.trying, a.tried = false, over
}

// inTrial reports whether the storage is being tried.
func (a *account) inTrial() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.trying
}

// seenLate notes that the storage was at least this late.
func (a *account) seenLate(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.late = max(a.late, d)
}

// storageIs notes how late the storage was in a whole trial.
func (a *account) storageIs(late time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.late = late
}

func (a *account) storageLate() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.late
}

func (a *account) refuseRenewal(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.noRenew[id] = struct{}{}
}

func (a *account) renewalRefused(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, refused := a.noRenew[id]
	return refused
}

// enter counts a call of Issue that is about to wait, unless too many do.
func (a *account) enter() (leave func(), ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waiting >= maxWaiting {
		return nil, false
	}
	a.waiting++
	return sync.OnceFunc(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.waiting--
	}), true
}

// beginExplaining counts a look at what keeps the CA from validating, unless too many are under way.
func (a *account) beginExplaining() (done func(), ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.explaining >= maxExplaining {
		return nil, false
	}
	a.explaining++
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.explaining--
	}, true
}

// maxWaiting bounds the calls of Issue that wait at a time for one account. certmagic has
// 1000 slots for jobs in the process, and each call that waits occupies one.
const maxWaiting = 100

// waitsFor reports whether a call of Issue waits for a certificate for the key.
func (a *account) waitsFor(w *want, key string) bool {
	if w == nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return w.done != nil && w.key == key
}

// note remembers why a call has to wait, for the error that ends its wait.
func (a *account) note(w *want, why error) {
	if w == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	w.why = why
}

func (a *account) why(w *want) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return w.why
}

// wanted returns the PEM of the private key for which certmagic wants a certificate for one of
// the names; nil if it does not.
func (a *account) wanted(names []string, key string) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, name := range names {
		if w := a.wants[name]; w != nil && w.key == key {
			return w.pem
		}
	}
	return nil
}

// maxChains bounds the certificates that are kept for the names that have yet to get
// them. Any other is fetched from the vendor again.
const maxChains = 256

func (a *account) keepChain(got chain) {
	a.mu.Lock()
	defer a.mu.Unlock()
	serial := serialOf(got.leaf())
	if _, known := a.chains[serial]; !known {
		a.recent = append(a.recent, serial)
	}
	a.chains[serial] = got
	if len(a.recent) > maxChains {
		delete(a.chains, a.recent[0])
		a.recent = a.recent[1:]
	}
}

func (a *account) chain(serial string) chain {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.chains[serial]
}
