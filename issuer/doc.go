// Package issuer turns CSRs into certificates that are paid for, paying at most
// once per name and term. It is the Caddy module tls.issuance.commercial.
//
// # The life of an order
//
// certmagic calls [Issuer.Issue] with a CSR for a new key, under its own lock for
// the name. The issuer opens the name's [Record] in the ledger and does what its
// state calls for, step by step, until there is a certificate for that key:
//
//	none -> intent pending
//	intent -> pending none uncertain issued
//	pending -> issued dead
//	issued -> reissuing intent dead pending
//	reissuing -> pending issued uncertain dead
//	uncertain -> none pending issued
//	dead -> none pending
//
// Before money moves the proofs of control are published and fetched, the vendor's
// free checks are passed, the spending limit is reserved, and the record is
// written with the state intent. Then the paid call is sent, once. Its answer
// leads to pending; a clear refusal leads back.
//
// An intent whose answer is not in the ledger (a crash, a lost answer) is looked
// up at the vendor by its reference. Found, it becomes pending. It counts as
// absent when the vendor has denied it twice, the last time so late that the
// request cannot be on its way any more. Where a vendor cannot tell, the state is
// uncertain, and a person decides with [Resolve].
//
// A pending order is polled until it is issued. certmagic makes a new key for
// every attempt, so the order may well belong to a key that is gone: then the
// issued order is reissued, free, for the key at hand. Renewals within the paid
// term are reissues, too. Only when what is left of the term is shorter than the
// margin is a new order placed.
//
// # Writers
//
// Several processes may work on one storage, and the lease of certmagic's lock may
// run out while an order waits. Every write of a record therefore compares the
// stored revision with the one that was read, and every paid call is preceded by such
// a write. The loser reads again and goes on from what the winner did.
//
// # Files of the package
//
//	issuer.go config.go caddyfile.go   the module, its defaults, its syntax
//	state.go ledger.go spend.go        what is remembered
//	flow.go buy.go follow.go reissue.go adopt.go guard.go   what is done
//	records_config.go serving.go proof/   proofs of control through package dcv
//	keys.go chain.go                   keys, CSRs, certificates
//	watch.go resume.go                 orders that take longer than one call may
//	resolve.go command.go errors.go    what people see and say
package issuer
