// Package issuer turns names into certificates that are paid for, paying at most once per
// name and term. It is the Caddy module tls.issuance.commercial.
//
// # Who does the work
//
// certmagic calls [Issuer.Issue] with a CSR for a new key, holding a lock for the name and
// one of its slots for jobs. Issue submits the name to the scheduler of the process and
// waits for a while. The work is done in rounds, which the scheduler's workers make: a round
// does for one name what can be done now, and says when to come back. If Issue does not wait
// long enough, the rounds get the certificate all the same, and store it through certmagic.
// They also follow orders that were paid for before a restart, serve what another server has
// got, and renew certificates for names that certmagic does not renew them for.
//
// # What a round does
//
// It looks in the ledger for entries that speak for the name. An entry is one paid order.
// One whose answer is missing is looked up at the vendor; one that is open is asked for its
// certificate; one that is issued gives its certificate to the name, or is reissued, free of
// charge, when that is due. If no entry blocks the name, and the rules allow it, an order
// is placed: proofs of control are presented and looked for, the vendor's free checks are
// passed, the entry is stored, no other order is found for its names, and then the paid call
// is sent, once.
//
// Each step of a round returns a change of the entry. One place writes it, and then removes
// the proofs that the new state has no use for.
//
// # Writers
//
// Any number of processes may work on one storage, whose locks may or may not exclude.
// Every write compares the stored revision with the one that was read; the loser reads
// again and goes on from what the winner did. See package ledger for why nothing is paid
// for twice.
//
// # Files of the package
//
//	issuer.go config.go caddyfile.go dcv.go   the module, its defaults, its syntax
//	issue.go sweep.go unserved.go        certmagic's calls, and what certmagic does not ask for
//	flow.go drive.go                     rounds and steps
//	limits.go queue.go request.go        what may be bought, in which order, and what is sent
//	watch.go suspects.go replacements.go   orders that have their certificates
//	buy.go lookup.go follow.go reissue.go adopt.go   what is done with orders
//	account.go                           what a process remembers between rounds
//	site.go keys.go chain.go             certmagic's side, keys, certificates
//	storage.go tidy.go                   how late the storage is; keys that were left behind
//	explain.go visits.go                 why names are not validated, and who came for files
//	events.go prices.go                  what metrics and handlers of events are told
//	command*.go products.go errors.go    what people see and say
//	desk.go inspect.go quote.go          what commands look at
//	import.go purchased.go configured.go takeover.go   what was bought elsewhere, with its key
package issuer
