// Package kit is what all vendors share, so that a vendor reads as what it is: its
// endpoints, its wire types, its words.
//
//   - [Account] is the part of the configuration that every vendor has. It cleans up.
//   - [Client] is the one way in which vendors speak HTTP, and is embedded in
//     them. Every call has a class: a [Read] may be repeated and is, a few times;
//     an [Effect] may cost money and is sent at most once, and so is what is free,
//     but leaves something behind ([Once]). Answers are judged before anyone
//     decodes them: status, size, completeness, and whether they are JSON at all.
//     All errors are *vendors.Error, and no secret is in one; neither headers nor
//     bodies are ever logged.
//   - [Limiter] keeps the requests of one credential within its vendor's limits, for all
//     configurations of the process.
//   - [Unmarshal] reads JSON into plain structs however its kinds of values differ from
//     what the vendor's documents say.
//   - [Form] and [JSON] make the bodies of requests, [Reason] what is said in them, and
//     [Call.With] their paths; [CSR], [ReadCSR] and [Deliver] read and write PEM; [Time],
//     [Flatten] and [IsEmpty] read what has many forms.
//   - [Client.CheckOrder], [Missing], [Years], [Country], [NoPapers] and [FileField] judge a
//     configuration.
//   - [SectigoProofs], [SectigoCAA], [IsSectigo] and [DCV] are what resellers of Sectigo
//     have in common.
package kit
