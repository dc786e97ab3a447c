package ledger

import (
	"slices"
	"strings"
	"time"
)

// Event is something that has happened to an order, as it is told to people.
type Event struct {
	Time time.Time `json:"time"`
	What What      `json:"what"`

	// Words say more: an ID, a serial number, or what a vendor or a person said.
	Words string `json:"words,omitempty"`
}

// What kind of an event it is. The values are stored, so they never change their meaning.
type What string

// The events of an order. All but Decided follow from what has changed in its entry.
const (
	Requested What = "requested" // a certificate, of a new order or of a reissue
	Adopted   What = "adopted"   // bought elsewhere
	Placed    What = "placed"    // the vendor has the order; Words is its ID
	Proving   What = "proving"   // proofs of control are presented; Words names them
	Given     What = "issued"    // Words is the serial number
	Lost      What = "lost"      // the certificate is of no use any more
	Flagged   What = "flagged"   // a person is asked
	Unflagged What = "unflagged" // nobody is asked any more
	Failed    What = "failed"    // Words is the problem
	TermMoved What = "term"      // the end of the paid term was told or changed
	Renamed   What = "renamed"   // the order goes on under another ID
	WentBack  What = "stands"    // the request came to nothing; the certificate before stands
	Delayed   What = "delayed"   // the CA has not validated a name; Words is why
	Ended     What = "ended"     // the vendor has ended an order that had given a certificate
	Vanished  What = "gone"      // there is no such order, or it was given up
	CameBack  What = "found"     // it is there after all
	Decided   What = "decided"   // by a person; Words is the command and what came of it
)

const (
	// maxStory is how many events are kept. The first few stay, because they tell how the order
	// began; of the others, the oldest go.
	maxStory  = 48
	keptStory = 4

	// maxWords bounds the words of an event, in bytes.
	maxWords = 400
)

// Decide notes what a person has decided.
func (e *Entry) Decide(now time.Time, words string) { e.tell(now, Decided, words) }

// cut cuts words to what is kept of them.
func cut(words string) string {
	if words = strings.ToValidUTF8(words, ""); len(words) <= maxWords {
		return words
	}
	return strings.ToValidUTF8(words[:maxWords], "") + "…"
}

func (e *Entry) tell(now time.Time, what What, words string) {
	words = cut(words)
	if n := len(e.Story); n >= maxStory {
		e.Story = slices.Delete(slices.Clone(e.Story), keptStory, keptStory+n-maxStory+1)
	}
	e.Story = append(slices.Clip(e.Story), Event{now.UTC().Truncate(time.Second), what, words})
}

// tellChanges adds to the story of e what has changed since before, which is nil for a new entry.
func (e *Entry) tellChanges(before *Entry, now time.Time) {
	if before == nil {
		if e.Adopted {
			e.tell(now, Adopted, e.OrderID)
			if e.Certificate != nil {
				e.tell(now, Given, e.Certificate.Serial)
			}
			return
		}
		e.tell(now, Requested, string(e.Attempt.Kind)+" "+e.Attempt.Reference)
		return
	}
	if e.Attempt.Reference != before.Attempt.Reference && e.State == Asked {
		e.tell(now, Requested, string(e.Attempt.Kind)+" "+e.Attempt.Reference)
	}
	switch {
	case before.State == Asked && e.State == Open && before.Attempt.Kind == KindOrder:
		e.tell(now, Placed, e.OrderID)
	case before.State == Gone && e.State != Gone:
		e.tell(now, CameBack, e.OrderID)
	case before.OrderID != e.OrderID && e.OrderID != "":
		e.tell(now, Renamed, e.OrderID)
	}
	if names := fileNames(e); names != "" && names != fileNames(before) {
		e.tell(now, Proving, names)
	}
	if why, was := e.Attempt.Unproven, before.Attempt.Unproven; why != nil && (was == nil || was.Cause != why.Cause || was.Name != why.Name) {
		e.tell(now, Delayed, why.Reason)
	}
	gave := e.Certificate != nil && (before.Certificate == nil || e.Certificate.Serial != before.Certificate.Serial)
	switch {
	case gave:
		e.tell(now, Given, e.Certificate.Serial)
	case e.State == Issued && before.State != Issued:
		e.tell(now, WentBack, e.Problem)
	}
	if e.DeadCertificate() && (gave || !before.DeadCertificate()) {
		e.tell(now, Lost, e.Certificate.Serial)
	}
	if before.State == Issued && e.State == Open {
		e.tell(now, Ended, e.Problem)
	}
	if e.State == Gone && before.State != Gone {
		e.tell(now, Vanished, e.Problem)
	}
	if e.Ends != before.Ends {
		e.tell(now, TermMoved, e.Ends.UTC().Format(time.RFC3339))
	}
	switch {
	case e.Flag != nil && (before.Flag == nil || e.Flag.Reason != before.Flag.Reason):
		e.tell(now, Flagged, e.Flag.Reason)
	case e.Flag == nil && before.Flag != nil:
		e.tell(now, Unflagged, "")
	case e.Problem != "" && e.Problem != before.Problem && len(e.Story) > 0 && e.Story[len(e.Story)-1].Words != cut(e.Problem):
		e.tell(now, Failed, e.Problem)
	}
}

// fileNames names the proofs that are presented for an entry.
func fileNames(e *Entry) string {
	var names []string
	for _, c := range e.Attempt.Challenges {
		for _, name := range []string{c.FileName, c.RecordName} {
			if name != "" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return strings.Join(names, ", ")
}
