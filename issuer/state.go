package issuer

import "slices"

// State is where a record of the ledger stands. It is stored, so its values
// never change their meaning.
type State string

// The states of a record. See the diagram in the package documentation.
const (
	// StateNone: nothing is bought or being bought. The zero value is read as it.
	StateNone State = "none"

	// StateIntent: a paid call is about to be sent, was sent, or its answer was
	// lost. Left only by an answer, or by a look-up of its reference.
	StateIntent State = "intent"

	// StatePending: the vendor has an order of ours that has no certificate yet.
	StatePending State = "pending"

	// StateIssued: the paid order has a certificate for the CSR in the record.
	StateIssued State = "issued"

	// StateReissuing: a free reissue is about to be sent, was sent, or its answer
	// was lost.
	StateReissuing State = "reissuing"

	// StateUncertain: it cannot be told whether money was spent, or under which
	// ID an order lives on. A person decides.
	StateUncertain State = "uncertain"

	// StateDead: the paid order ended without what was paid for: rejected,
	// cancelled, revoked. A person decides, or the paid term runs out.
	StateDead State = "dead"
)

// transitions lists, for each state, the states that may follow it. It is the
// only place that says so: ledger.write refuses anything else, the diagram in
// the package documentation is checked against it, and so is the model test.
var transitions = map[State][]State{
	StateNone:      {StateIntent, StatePending},
	StateIntent:    {StatePending, StateNone, StateUncertain, StateIssued},
	StatePending:   {StateIssued, StateDead},
	StateIssued:    {StateReissuing, StateIntent, StateDead, StatePending},
	StateReissuing: {StatePending, StateIssued, StateUncertain, StateDead},
	StateUncertain: {StateNone, StatePending, StateIssued},
	StateDead:      {StateNone, StatePending},
}

// canFollow reports whether a record may go from one state to the other.
// Staying in a state is always allowed.
func canFollow(from, to State) bool {
	return from == to || slices.Contains(transitions[from], to)
}

// live reports whether the record has a paid order in force.
func (r *Record) live() bool {
	switch r.State {
	case StatePending, StateIssued, StateReissuing:
		return true
	case StateNone, StateIntent, StateUncertain, StateDead:
	}
	return false
}
