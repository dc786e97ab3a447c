// Package model is the world of the model test: servers that crash and whose clocks
// differ, a storage without compare-and-swap, vendors whose answers get lost, a person
// who looks twice a day, and a judge who knows the truth. The code under test is
// plugged in as a [System] and runs under testing/synctest.
//
// A history is one run of the world, decided by a [Tape] of choices. First comes chaos,
// with changes of config, crashes and faults; then calm, without any, at the end of which
// every name must have its certificate at every server. At each paid order the judge
// compares what was bought before, with the vendor's truth and the true time.
//
// # Words
//
//   - server: a machine with a clock of its own; it has one process at a time.
//   - process: one life of a server's program, from its start to its crash. Its memory is
//     lost with it, what it left in the storage is not.
//   - operation: a call of storage, lock or vendor. A process may die before or after the
//     effect of each of its operations.
//   - line: one account of one vendor; orders are compared within a line.
//   - charge: an order that was paid.
//   - true time: the bubble's clock. A server's wall clock may differ from it.
//
// # The office
//
// With Params.Office, a person acts on orders at any moment, at any server and by its clock,
// through the desk of package operator. The person is honest: says that there is no order only
// after the vendor's list has shown none, and names one only if it is there. What such a
// decision lets the system buy, and what it forbids from then on, is in the judge's books: an
// order that is dead and was given up by a person may be followed by another one, and one that
// was bought by hand counts once the command has reported success.
//
// # Vendors
//
// The vendors are the model's own, whose traits the tape draws, unless Params.Market
// replaces them: with the clients of real vendors, say, and what keeps their books.
//
// # How to plug a system in
//
// A [Factory] makes a System for a [Process], which gives it the storage, the vendors,
// the wall clock and the logger. [Check] runs histories and reports the first one that
// breaks a rule, shrunk, together with the flags that repeat it.
package model
