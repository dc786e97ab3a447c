// Package ledger remembers what was paid for, so that nothing is paid for twice. It
// knows storage, and calls no vendor.
//
// # Entries
//
// An [Entry] is one paid order and one file of certmagic's storage. Its ID and its names never
// change: a renewal is a new entry, and so is an order that was given up and is taken up again by
// hand. Everything that was agreed when it was paid for stands in it, and is never read from the
// configuration again. Writing that file is at once the intent to pay, the claim on each of its
// names, and the mark on the spending limit: there is no index beside it that could disagree with
// it, and no file that is half written.
//
// # States
//
// An entry is in one of four states, and goes from one to another like this:
//
//	asked -> open issued gone
//	open -> issued gone
//	issued -> asked open gone
//	gone -> open
//
// asked: a paid order or a free reissue was sent, or is about to be, and its answer is not known
// yet. The vendor is asked for it. open: the vendor has the order, and there is no certificate for
// the latest request. issued: there is. gone: there never was such an order, or it was given up. An
// entry that at once turned out to have bought nothing is deleted instead.
//
// A [Flag] on an entry asks a person: what became of it cannot be told, or it ended without what
// was paid for. The vendor is still asked once a day, and [Resolve] takes the person's answer. What
// the vendor has ended may be given up without a person, if the configuration allows paying for
// another order, unless a person has had it ended. When an entry's term has ended, it is over,
// whatever its state.
//
// # Paying once
//
// Safety does not come from locks. A process that wants to buy lists the entries, and an entry
// [Entry.Blocks] a name while more than a margin of its term is left, whatever its state, so that
// an outdated copy of it blocks too long and never too short. If nothing blocks, the process stores
// an entry, waits for as long as the storage may take to show a write, and lists again. Of two that
// did so at the same time, at least one sees the other and deletes its own entry; nothing was sent
// yet. Only an entry that stood through this is paid for, once. A process that finds an entry in
// the state asked that it did not write itself a moment ago looks it up at the vendor, and never
// pays for it.
//
// # The story of an order
//
// Each write adds to the entry what has changed by it, as [Event]s for people: nothing is decided
// by them. What a person has decided is told there, too.
//
// So are the requests for the validation files, see [Visit]. The server that drives the order adds
// those that it got with each write. For an order that is not issued at once, each server that got
// any keeps a file of its own, which goes with the entry; [Ledger.Visits] puts all together.
//
// # Many entries
//
// An account may have a hundred thousand of them. A process remembers little of one that is
// done with, see [Brief], and reads each once when it starts and then twice a day. What a
// purchase rests on is one listing, shared by all that wait for one, and the entries that are
// new, pending, or for its names.
package ledger
