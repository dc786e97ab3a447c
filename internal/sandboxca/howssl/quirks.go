package howssl

import "time"

// Fields are the names of createOrder's fields that the seller's public documents do not
// show: they must be configured here as they are in the client. That both agree proves
// nothing about the seller.
type Fields struct {
	// Domain is required. Default "domains".
	Domain string

	// CheckWay is the proof of control, required. Default "check_way", as in
	// updateDCV.
	CheckWay string

	// Others are accepted and ignored.
	Others []string
}

func (f Fields) withDefaults() Fields {
	if f.Domain == "" {
		f.Domain = "domains"
	}
	if f.CheckWay == "" {
		f.CheckWay = "check_way"
	}
	return f
}

// Quirks are choices where the documents of HowSSL leave one, and deviations
// from them. The zero value is the choice that is harsher for a client.
type Quirks struct {
	// Fields are the undocumented names.
	Fields Fields

	// RefuseSecondCommit refuses commitOrder for a check_id that was committed.
	// Without it, the second commit charges again.
	RefuseSecondCommit bool

	// CommitQueue delays the effect of a commit by this much. The answer is a success
	// without an order ID.
	CommitQueue time.Duration

	// CommitWithoutID leaves order_id out of the answer of commitOrder.
	CommitWithoutID bool

	// CommitRefusedAfterCharge answers a commit that was carried out with a failure.
	CommitRefusedAfterCharge bool

	// CommitValidInfo is the form of valid_info in the answer of commitOrder: empty for
	// the documented object, or "string", "null", "absent".
	CommitValidInfo string

	// ValidInfoText sends valid_info as JSON inside a string, like other fields.
	ValidInfoText bool

	// OrderStatus replaces the order_status of orders under review.
	OrderStatus string

	// StatusAsText sends order_status as text.
	StatusAsText bool

	// RefusalCode is the code of failures other than about the token. Zero leaves
	// it out.
	RefusalCode int

	// RefuseDraftInfo refuses getOrderInfo for orders that are not committed.
	RefuseDraftInfo bool

	// NamelessDrafts leaves out the names of orders that are not committed.
	NamelessDrafts bool

	// EscapedContent escapes the line ends of validation files twice.
	EscapedContent bool

	// HostileFileName names validation files with a path.
	HostileFileName bool

	// RandomProof asks for other CAs' kind of proof: fileauth.txt, or a TXT record
	// at _dnsauth.
	RandomProof bool

	// ReissueSuccess answers Reissue/submit with success. Without it, status is false
	// despite the reissue_id, as printed in the documents.
	ReissueSuccess bool

	// ReissueRecords shows the proofs of a reissue in validity_record, which is null
	// otherwise.
	ReissueRecords bool

	// EnglishProducts serves the product list only under the English book's spelling
	// instead of the Chinese one's.
	EnglishProducts bool
}
