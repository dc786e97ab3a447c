package ledger

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// TestStory: the story shows what each write has changed, in order.
func TestStory(t *testing.T) {
	l := testLedger(newMemStorage())
	e := create(t, l, asked(l, "a.example"))
	write := func(change func(*Entry)) {
		t.Helper()
		var err error
		if e, err = l.Write(t.Context(), e, change); err != nil {
			t.Fatal(err)
		}
	}
	write(func(e *Entry) { e.Problem = "no answer" })
	write(func(e *Entry) { placed("7")(e); e.Problem = "" })
	write(issued("0a"))
	write(func(e *Entry) { e.Certificate.Lost, e.Problem = true, "revoked" })
	write(func(e *Entry) { e.State, e.Attempt.Reference, e.Attempt.Kind = Asked, "r-2", KindReissue })
	write(func(e *Entry) { e.State, e.Problem = Issued, strings.Repeat("ü", maxWords) })
	write(func(e *Entry) { e.State, e.Problem = Open, "cancelled" })
	write(func(e *Entry) { e.Flag = &Flag{Reason: "cancelled"} })
	write(func(e *Entry) {
		e.Decide(l.Time(), "caddy commercial resolve")
		e.State, e.Flag, e.Problem = Gone, nil, ""
	})
	write(func(e *Entry) { e.State = Open })
	var got []string
	for _, event := range e.Story {
		got = append(got, string(event.What))
		if len(event.Words) > maxWords+len("…") || !utf8.ValidString(event.Words) {
			t.Errorf("%q", event.Words)
		}
	}
	want := "requested failed placed issued lost failed requested stands ended flagged decided gone unflagged found"
	if got := strings.Join(got, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestStoryIsBounded: however much happens, an entry stays small, and shows how it began and what
// happened last.
func TestStoryIsBounded(t *testing.T) {
	e := new(Entry)
	for i := range 1000 {
		e.tell(time.Unix(int64(i), 0), Failed, strings.Repeat("x", 10_000))
	}
	if len(e.Story) != maxStory || e.Story[0].Time.Unix() != 0 || e.Story[keptStory-1].Time.Unix() != keptStory-1 || e.Story[maxStory-1].Time.Unix() != 999 ||
		!slices.IsSortedFunc(e.Story, func(a, b Event) int { return a.Time.Compare(b.Time) }) {
		t.Errorf("%d events", len(e.Story))
	}
	before := e.clone()
	e.tell(time.Unix(2000, 0), Given, "")
	if before.Story[maxStory-1].Time.Unix() != 999 {
		t.Error("a copy was changed")
	}
}
