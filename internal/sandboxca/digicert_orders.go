package sandboxca

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// digicertBody is the body of an order; a reissue uses a part of it. Fields that
// are not here are refused.
type digicertBody struct {
	Certificate struct {
		CommonName     string          `json:"common_name"`
		DNSNames       []string        `json:"dns_names"`
		CSR            string          `json:"csr"`
		SignatureHash  string          `json:"signature_hash"`
		ServerPlatform digicertID      `json:"server_platform"`
		CertValidity   json.RawMessage `json:"cert_validity"`
	} `json:"certificate"`
	Validity struct {
		Years int `json:"years"`
		Days  int `json:"days"`
	} `json:"order_validity"`
	DCVMethod     string          `json:"dcv_method"`
	SkipApproval  bool            `json:"skip_approval"`
	Comments      string          `json:"comments"`
	Organization  *digicertID     `json:"organization"`
	Technical     json.RawMessage `json:"technical_contact"`
	Container     *digicertID     `json:"container"`
	PaymentMethod string          `json:"payment_method"`
	AlternativeID string          `json:"alternative_order_id"`
	RenewalOf     int64           `json:"renewal_of_order_id"`
	Locale        string          `json:"locale"`
}

type digicertID struct {
	ID int64 `json:"id"`
}

// digicertMethods are the methods that a program can serve, and mail.
var digicertMethods = map[string]method{
	"http-token": methodHTTP, "dns-txt-token": methodTXT, "dns-cname-token": methodCNAME, "email": methodEmail,
}

func digicertMethod(m method) string {
	for word, have := range digicertMethods {
		if have == m {
			return word
		}
	}
	return ""
}

// alternativeID is assumed; no page tells what the field takes.
var alternativeID = regexp.MustCompile(`^[0-9A-Za-z-]{1,36}$`)

// order places an order, or renews one.
func (d *digicert) order(c *digicertCall) answer {
	var body digicertBody
	if bad := d.read(c, &body); bad != nil {
		return *bad
	}
	p, ok := d.ca.product(c.args[0])
	if !ok || p.Vendor != digicertBrand {
		return d.unknown(c, "product")
	}
	o := &order{
		Account: c.key, Kind: KindPlace, Product: p.Code, NeedsOV: p.ValidationType != DV,
		RefID: body.AlternativeID, DigiCert: &digicertOrder{
			Comments: body.Comments, Payment: body.PaymentMethod,
			Unapproved: !body.SkipApproval || c.quirks.DigiCert.NeedsApproval,
		},
	}
	for _, check := range []func() *answer{
		func() *answer { return d.takeTerm(c, o, p, body) },
		func() *answer { return d.takeMoney(c, o, body) },
		func() *answer { return d.takeOrganization(c, o, p, body) },
		func() *answer { return d.takeCertificate(c, o, p, body) },
		func() *answer { return d.takeRenewal(c, o, body) },
	} {
		if bad := check(); bad != nil {
			return *bad
		}
	}
	return d.create(c, o)
}

// takeTerm sets the paid term and its price. Days are paid like the years they are
// a part of.
func (d *digicert) takeTerm(c *digicertCall, o *order, p Product, body digicertBody) *answer {
	years, days := body.Validity.Years, body.Validity.Days
	switch {
	case (years == 0) == (days == 0):
		return d.invalid(c, "order_validity", "Give either years or days.")
	case years < 0 || years > p.maxYears():
		return d.invalid(c, "validity_years", "Validity years is out of range.")
	case days < 0 || days > p.maxYears()*366:
		return d.invalid(c, "validity_days", "Validity days is out of range.")
	}
	paid := years
	if days > 0 {
		paid = min((days+364)/365, p.maxYears())
	}
	o.Years, o.Cents = years, p.PriceCents[12*paid]
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	o.Bonus = d.ca.cfg.days(days)
	return nil
}

func (d *digicert) takeMoney(c *digicertCall, o *order, body digicertBody) *answer {
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

func (d *digicert) takeOrganization(c *digicertCall, o *order, p Product, body digicertBody) *answer {
	switch {
	case p.ValidationType == DV && body.Organization != nil:
		return d.invalid(c, "organization", "The product does not take an organization.")
	case p.ValidationType == DV:
		return nil
	case body.Organization == nil:
		return d.invalid(c, "organization", "The organization is required.")
	case !slices.Contains(c.account.Organizations, body.Organization.ID):
		ans := d.unknown(c, "organization")
		return &ans
	}
	o.DigiCert.Organization = body.Organization.ID
	return nil
}

// takeCertificate sets names, methods and CSR. The CSR's own names count for nothing.
func (d *digicert) takeCertificate(c *digicertCall, o *order, p Product, body digicertBody) *answer {
	cert := body.Certificate
	names := []string{strings.ToLower(cert.CommonName)}
	for _, name := range cert.DNSNames {
		if name = strings.ToLower(name); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	m := digicertMethods[body.DCVMethod]
	if m == "" {
		return d.invalid(c, "dcv_method", "The DCV method is not valid.")
	}
	if len(names) > p.maxDomains() {
		return d.invalid(c, "dns_names", "There are too many names.")
	}
	for _, name := range names {
		base, wildcard := strings.CutPrefix(name, "*.")
		switch {
		case !validDomain(base):
			return d.invalid(c, "dns_names", fmt.Sprintf("%q is not a domain.", name))
		case wildcard && m == methodHTTP:
			ans := d.refuse(c, http.StatusBadRequest, "invalid_wildcard_dcv_method", "The DCV method cannot be used for wildcard domains.")
			return &ans
		case wildcard && !p.Wildcard, !wildcard && !p.Standard:
			return d.invalid(c, "dns_names", fmt.Sprintf("The product does not take %q.", name))
		}
		o.Names = append(o.Names, &orderName{Name: name, Method: m})
	}
	if cert.SignatureHash != "" && cert.SignatureHash != "sha256" && cert.SignatureHash != "sha384" && cert.SignatureHash != "sha512" {
		return d.invalid(c, "signature_hash", "The signature hash is not valid.")
	}
	csr, err := parseBareCSR(cert.CSR)
	if err != nil {
		ans := d.refuse(c, http.StatusBadRequest, "csr_invalid_cannot_parse", "The CSR cannot be parsed: "+err.Error())
		return &ans
	}
	o.CSR = csr.Raw
	return nil
}

// takeRenewal makes an order the renewal of another. The core checks whether that
// is one to renew.
func (d *digicert) takeRenewal(c *digicertCall, o *order, body digicertBody) *answer {
	if body.RenewalOf == 0 {
		return nil
	}
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	f := d.family(c, strconv.FormatInt(body.RenewalOf, 10))
	if f == nil {
		ans := d.unknown(c, "order")
		return &ans
	}
	o.Kind, o.Parent = KindRenew, f.root.ID
	return nil
}

// reissue asks for another certificate of an order, free of charge.
func (d *digicert) reissue(c *digicertCall) answer {
	var body digicertBody
	if bad := d.read(c, &body); bad != nil {
		return *bad
	}
	d.ca.mu.Lock()
	f := d.family(c, c.args[0])
	var had []string
	var o *order
	state := ""
	if f != nil {
		state, had = f.status(d.ca.cfg.Now()), f.active().names()
		o = &order{
			Account: c.key, Kind: KindReissue, Parent: f.root.ID, Product: f.root.Product,
			Years: f.root.Years, NeedsOV: f.root.NeedsOV,
			DigiCert: &digicertOrder{Comments: body.Comments, Unapproved: !body.SkipApproval},
		}
	}
	d.ca.mu.Unlock()
	switch {
	case f == nil:
		return d.unknown(c, "order")
	case state != "issued":
		// What is answered during reissue_pending is not documented.
		return d.refuse(c, http.StatusBadRequest, "invalid_order_status", "The order is "+state+".")
	case body.AlternativeID != "" || body.PaymentMethod != "" || body.RenewalOf != 0 || body.Validity.Years != 0 || body.Validity.Days != 0:
		return *d.invalid(c, "order_validity", "A reissue takes no fields about money.")
	}
	p, ok := d.ca.product(o.Product)
	if !ok {
		return d.unknown(c, "product")
	}
	if bad := d.takeCertificate(c, o, p, body); bad != nil {
		return *bad
	}
	for _, name := range o.names() {
		if !slices.Contains(had, name) {
			// The seller would charge for it.
			return *d.invalid(c, "dns_names", "The order does not have "+name+".")
		}
	}
	o.DigiCert.DropsNames = len(o.Names) < len(had)
	return d.create(c, o)
}

// create hands an order to the core and answers as the seller does.
func (d *digicert) create(c *digicertCall, o *order) answer {
	value, err := randomValue()
	if err != nil {
		return d.core(c, &refusal{internal, "", "unexpected error"})
	}
	d.ca.mu.Lock()
	now := d.ca.cfg.Now()
	d.setValue(o, value, now)
	if c.quirks.DigiCert.Immediate {
		for _, n := range o.Names {
			n.Verified = true
		}
		o.Validated = now
	}
	d.ca.mu.Unlock()

	id, ref := d.ca.create(o)
	if ref != nil {
		return d.core(c, ref)
	}
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	if !o.DigiCert.Unapproved {
		d.ca.advance(o)
	}
	if o.Kind == KindReissue {
		id = o.Paid
	}
	data := map[string]any{"id": c.id(id), "requests": []any{map[string]any{"id": c.id(o.CAOrder), "status": requestStatus(o)}}}
	switch {
	case o.DigiCert.Unapproved:
	case o.Cert != nil:
		data["certificate_id"] = c.id(o.CACert)
		var chain []any
		for _, der := range d.chain(c, o) {
			member := map[string]string{"pem": strings.ReplaceAll(string(certPEM(der)), "\n", "\r\n")}
			if cert, err := x509.ParseCertificate(der); err == nil {
				member["subject_common_name"] = cert.Subject.CommonName
			}
			chain = append(chain, member)
		}
		data["certificate_chain"] = chain
	default:
		data["certificate_id"] = c.id(o.CACert)
		if o.Names[0].Method != methodEmail {
			data["dcv_random_value"] = o.Challenge.FileContent
		}
	}
	return jsonAnswer(http.StatusCreated, data)
}

// setValue gives an order a random value. The lock is held.
func (d *digicert) setValue(o *order, value string, now time.Time) {
	o.Challenge = challenge{
		FileName: digicertFile, FileContent: value,
		DNSLabel: digicertLabel, DNSTarget: value + digicertSuffix,
	}
	o.DigiCert.ValueExpires = now.Add(d.ca.cfg.days(randomValueDays))
}

// randomValue is 32 lower-case letters and digits, as current examples are.
func randomValue() (string, error) {
	const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
	var b strings.Builder
	for range 32 {
		i, err := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet))))
		if err != nil {
			return "", err
		}
		b.WriteByte(alphabet[i.Int64()])
	}
	return b.String(), nil
}

func requestStatus(o *order) string {
	switch {
	case o.Status == StatusCancelled || o.Status == StatusFailed:
		return "rejected"
	case o.DigiCert.Unapproved:
		return "pending"
	}
	return "approved"
}
