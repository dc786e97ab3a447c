package digicert

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
)

// orderBody is the body of an order; a reissue uses a part of it. Fields that
// are not here are refused.
type orderBody struct {
	Certificate struct {
		CommonName     string          `json:"common_name"`
		DNSNames       []string        `json:"dns_names"`
		CSR            string          `json:"csr"`
		SignatureHash  string          `json:"signature_hash"`
		ServerPlatform idBody          `json:"server_platform"`
		CertValidity   json.RawMessage `json:"cert_validity"`
	} `json:"certificate"`
	Validity struct {
		Years int `json:"years"`
		Days  int `json:"days"`
	} `json:"order_validity"`
	DCVMethod     string          `json:"dcv_method"`
	SkipApproval  bool            `json:"skip_approval"`
	Comments      string          `json:"comments"`
	Organization  *idBody         `json:"organization"`
	Technical     json.RawMessage `json:"technical_contact"`
	Container     *idBody         `json:"container"`
	PaymentMethod string          `json:"payment_method"`
	AlternativeID string          `json:"alternative_order_id"`
	RenewalOf     int64           `json:"renewal_of_order_id"`
	Locale        string          `json:"locale"`
}

type idBody struct {
	ID int64 `json:"id"`
}

// methods are the methods that a program can automate, and email.
var methods = map[string]sandboxca.Method{
	"http-token": sandboxca.MethodHTTP, "dns-txt-token": sandboxca.MethodTXT, "dns-cname-token": sandboxca.MethodCNAME, "email": sandboxca.MethodEmail,
}

func methodWord(m sandboxca.Method) string {
	for word, have := range methods {
		if have == m {
			return word
		}
	}
	return ""
}

// alternativeID is assumed; which values the field takes is not documented.
var alternativeID = regexp.MustCompile(`^[0-9A-Za-z-]{1,36}$`)

// order places an order, or renews one.
func (d *Dialect) order(c *call) sandboxca.Answer {
	var body orderBody
	if bad := d.read(c, &body); bad != nil {
		return *bad
	}
	p, ok := d.ca.Product(c.args[0])
	if !ok || p.Vendor != brand {
		return d.unknown(c, "product")
	}
	o := &sandboxca.Order{
		Account: c.key, Kind: sandboxca.KindPlace, Product: p.Code, NeedsOV: p.ValidationType != sandboxca.DV,
		RefID: body.AlternativeID, Dialect: Name, ClipToTerm: true,
	}
	o.Held = !body.SkipApproval || c.quirks.NeedsApproval
	kept := extra{Comments: body.Comments, Payment: body.PaymentMethod}
	for _, check := range []func() *sandboxca.Answer{
		func() *sandboxca.Answer { return d.takeTerm(c, o, p, body) },
		func() *sandboxca.Answer { return d.takeMoney(c, o, body) },
		func() *sandboxca.Answer { return d.takeOrganization(c, &kept, p, body) },
		func() *sandboxca.Answer { return d.takeCertificate(c, o, p, body) },
		func() *sandboxca.Answer { return d.takeRenewal(c, o, body) },
	} {
		if bad := check(); bad != nil {
			return *bad
		}
	}
	kept.keep(o)
	return d.create(c, o)
}

// takeTerm sets the paid term and its price. Days are charged as years, rounded up.
func (d *Dialect) takeTerm(c *call, o *sandboxca.Order, p sandboxca.Product, body orderBody) *sandboxca.Answer {
	years, days := body.Validity.Years, body.Validity.Days
	switch {
	case (years == 0) == (days == 0):
		return d.invalid(c, "order_validity", "Give either years or days.")
	case years < 0 || years > p.Term():
		return d.invalid(c, "validity_years", "Validity years is out of range.")
	case days < 0 || days > p.Term()*366:
		return d.invalid(c, "validity_days", "Validity days is out of range.")
	}
	paid := years
	if days > 0 {
		paid = min((days+364)/365, p.Term())
	}
	o.Years, o.Cents = years, p.PriceCents[12*paid]
	books := d.ca.Open()
	defer books.Close()
	o.Bonus = books.Days(days)
	return nil
}

func (d *Dialect) takeMoney(c *call, o *sandboxca.Order, body orderBody) *sandboxca.Answer {
	switch body.PaymentMethod {
	case "", "balance", "profile":
	default:
		return d.invalid(c, "payment_method", "The payment method cannot be used.")
	}
	if o.RefID != "" && !alternativeID.MatchString(o.RefID) {
		return d.invalid(c, "alternative_order_id", "The alternative order id is not valid.")
	}
	if body.Container != nil && body.Container.ID <= 0 {
		return d.invalid(c, "container", "The container id is not valid.")
	}
	return nil
}

func (d *Dialect) takeOrganization(c *call, kept *extra, p sandboxca.Product, body orderBody) *sandboxca.Answer {
	switch {
	case p.ValidationType == sandboxca.DV && body.Organization != nil:
		return d.invalid(c, "organization", "The product does not take an organization.")
	case p.ValidationType == sandboxca.DV:
		return nil
	case body.Organization == nil:
		return d.invalid(c, "organization", "The organization is required.")
	case !slices.Contains(c.account.Organizations, body.Organization.ID):
		ans := d.unknown(c, "organization")
		return &ans
	}
	kept.Organization = body.Organization.ID
	return nil
}

// takeCertificate sets names, methods and CSR. The names in the CSR are ignored.
func (d *Dialect) takeCertificate(c *call, o *sandboxca.Order, p sandboxca.Product, body orderBody) *sandboxca.Answer {
	cert := body.Certificate
	names := []string{strings.ToLower(cert.CommonName)}
	for _, name := range cert.DNSNames {
		if name = strings.ToLower(name); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	m := methods[body.DCVMethod]
	if m == "" {
		return d.invalid(c, "dcv_method", "The DCV method is not valid.")
	}
	if len(names) > p.Domains() {
		return d.invalid(c, "dns_names", "There are too many names.")
	}
	for _, name := range names {
		base, wildcard := strings.CutPrefix(name, "*.")
		switch {
		case !sandboxca.ValidDomain(base):
			return d.invalid(c, "dns_names", fmt.Sprintf("%q is not a domain.", name))
		case wildcard && m == sandboxca.MethodHTTP:
			ans := d.refuse(c, http.StatusBadRequest, "invalid_wildcard_dcv_method", "The DCV method cannot be used for wildcard domains.")
			return &ans
		case wildcard && !p.Wildcard, !wildcard && !p.Standard:
			return d.invalid(c, "dns_names", fmt.Sprintf("The product does not take %q.", name))
		}
		o.Names = append(o.Names, &sandboxca.Name{Name: name, Method: m})
	}
	if cert.SignatureHash != "" && cert.SignatureHash != "sha256" && cert.SignatureHash != "sha384" && cert.SignatureHash != "sha512" {
		return d.invalid(c, "signature_hash", "The signature hash is not valid.")
	}
	csr, err := sandboxca.ParseBareCSR(cert.CSR)
	if err != nil {
		ans := d.refuse(c, http.StatusBadRequest, "csr_invalid_cannot_parse", "The CSR cannot be parsed: "+err.Error())
		return &ans
	}
	o.CSR = csr.Raw
	return nil
}

// takeRenewal makes an order the renewal of another. The core checks whether that order
// may be renewed.
func (d *Dialect) takeRenewal(c *call, o *sandboxca.Order, body orderBody) *sandboxca.Answer {
	if body.RenewalOf == 0 {
		return nil
	}
	books := d.ca.Open()
	defer books.Close()
	f := d.family(books, c, strconv.FormatInt(body.RenewalOf, 10))
	if f == nil {
		ans := d.unknown(c, "order")
		return &ans
	}
	o.Kind, o.Parent = sandboxca.KindRenew, f.root.ID
	return nil
}

// reissue asks for another certificate of an order, free of charge.
func (d *Dialect) reissue(c *call) sandboxca.Answer {
	var body orderBody
	if bad := d.read(c, &body); bad != nil {
		return *bad
	}
	books := d.ca.Open()
	f := d.family(books, c, c.args[0])
	var had []string
	var o *sandboxca.Order
	state := ""
	if f != nil {
		state, had = f.status(books.Now()), f.active().NameList()
		o = &sandboxca.Order{
			Account: c.key, Kind: sandboxca.KindReissue, Parent: f.root.ID, Product: f.root.Product,
			Years: f.root.Years, NeedsOV: f.root.NeedsOV, Dialect: Name, ClipToTerm: true,
		}
		o.Held = !body.SkipApproval
	}
	books.Close()
	switch {
	case f == nil:
		return d.unknown(c, "order")
	case state != "issued":
		// What is answered during reissue_pending is not documented.
		return d.refuse(c, http.StatusBadRequest, "invalid_order_status", "The order is "+state+".")
	case body.AlternativeID != "" || body.PaymentMethod != "" || body.RenewalOf != 0 || body.Validity.Years != 0 || body.Validity.Days != 0:
		return *d.invalid(c, "order_validity", "A reissue takes no fields about money.")
	}
	p, ok := d.ca.Product(o.Product)
	if !ok {
		return d.unknown(c, "product")
	}
	if bad := d.takeCertificate(c, o, p, body); bad != nil {
		return *bad
	}
	for _, name := range o.NameList() {
		if !slices.Contains(had, name) {
			// The seller would charge for it.
			return *d.invalid(c, "dns_names", "The order does not have "+name+".")
		}
	}
	extra{Comments: body.Comments, DropsNames: len(o.Names) < len(had)}.keep(o)
	return d.create(c, o)
}

// rules are how DigiCert takes an order: a reference is only a note, and orders keep
// their status when they are reissued.
var rules = sandboxca.Rules{NewID: func(sequence int64, _ time.Time) string {
	return strconv.FormatInt(firstID+sequence, 10)
}}

// create hands an order to the core and answers as the seller does.
func (d *Dialect) create(c *call, o *sandboxca.Order) sandboxca.Answer {
	books := d.ca.Open()
	setValue(books, o)
	books.Reuse(o)
	if c.quirks.Immediate {
		for _, n := range o.Names {
			n.Verified = true
		}
		o.Validated = books.Now()
	}
	books.Close()

	id, ref := d.ca.Create(o, rules)
	if ref != nil {
		return d.core(c, ref)
	}
	books = d.ca.Open()
	defer books.Close()
	books.Advance(o)
	if o.Kind == sandboxca.KindReissue {
		id = o.Paid
	}
	data := map[string]any{"id": c.id(id), "requests": []any{map[string]any{"id": c.id(o.CAOrder), "status": requestStatus(o)}}}
	switch {
	case o.Held:
	case o.Cert != nil:
		data["certificate_id"] = c.id(o.CACert)
		var chain []any
		for _, der := range books.FullChain(o) {
			member := map[string]string{"pem": strings.ReplaceAll(sandboxca.CertificatePEM(der), "\n", "\r\n")}
			if cert, err := x509.ParseCertificate(der); err == nil {
				member["subject_common_name"] = cert.Subject.CommonName
			}
			chain = append(chain, member)
		}
		data["certificate_chain"] = chain
	default:
		data["certificate_id"] = c.id(o.CACert)
		if o.Names[0].Method != sandboxca.MethodEmail {
			data["dcv_random_value"] = o.Proof.FileContent
		}
	}
	return sandboxca.JSON(http.StatusCreated, data)
}

// setValue gives an order a random value: 32 lower-case letters and digits, as in current
// examples.
func setValue(books sandboxca.Books, o *sandboxca.Order) {
	value := sandboxca.RandomText("abcdefghijklmnopqrstuvwxyz0123456789", 32)
	o.Proof = sandboxca.Proof{
		FileName: fileName, FileContent: value,
		DNSLabel: dnsLabel, DNSTarget: value + dnsSuffix,
	}
	o.ProofEnds = books.Now().Add(books.Days(randomValueDays))
}

func requestStatus(o *sandboxca.Order) string {
	switch {
	case o.Status == sandboxca.StatusCancelled || o.Status == sandboxca.StatusFailed:
		return "rejected"
	case o.Held:
		return "pending"
	}
	return "approved"
}
