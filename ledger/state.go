package ledger

import "slices"

// State is where an entry stands. It is stored, so its values never change their meaning.
type State string

// The states of an entry. See the diagram in the package documentation.
const (
	// Asked: a request was sent, or is about to be, whose answer is not known.
	Asked State = "asked"

	// Open: the vendor has the order, and no certificate for the latest request yet.
	Open State = "open"

	// Issued: the order has a certificate for the latest request.
	Issued State = "issued"

	// Gone: there is no such order at the vendor, or it was given up.
	Gone State = "gone"
)

// transitions lists, for each state, those that may follow it. The ledger writes nothing
// else, and the diagram in the package documentation is checked against it.
var transitions = map[State][]State{
	Asked:  {Open, Issued, Gone},
	Open:   {Issued, Gone},
	Issued: {Asked, Open, Gone},
	Gone:   {Open},
}

// canFollow reports whether an entry may go from one state to the other. Staying is
// always allowed.
func canFollow(from, to State) bool { return from == to || slices.Contains(transitions[from], to) }
