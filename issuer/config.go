package issuer

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/app"
	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/internal/options"
	"github.com/caddy-commercial/caddy-commercial/issuer/proof"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Defaults of the rules.
const (
	defaultMaxWait = 10 * time.Minute
	defaultTerm    = "1y"

	// defaultSettle is how late a storage may show a write. A file system or Redis shows it
	// at once.
	defaultSettle = time.Second

	// defaultWatch is how often issued orders are looked at. A shorter interval than minWatch,
	// or a shorter wait between two looks than minPoll, is for test services.
	defaultWatch = time.Hour
	minWatch     = time.Minute
	minPoll      = time.Second
)

// provisionOrder resolves the part of the configuration that goes into orders.
func (iss *Issuer) provisionOrder(repl *caddy.Replacer) error {
	var err error
	if iss.order.Product, err = options.Resolve(repl, "product", iss.Product); err != nil {
		return err
	}
	text := iss.Term
	if text == "" {
		text = defaultTerm
	}
	if iss.order.Term, err = parseTerm(text); err != nil {
		return fmt.Errorf("term: %w", err)
	}
	iss.order.Method = vendors.MethodHTTP
	if iss.DCV != nil && iss.DCV.Method != "" {
		iss.order.Method = iss.DCV.Method
	}
	if iss.Contact != nil {
		if iss.order.Contact, err = resolveContact(repl, "contact", *iss.Contact); err != nil {
			return err
		}
	}
	if iss.order.Tech, err = resolveOptional(repl, "tech_contact", iss.TechContact, resolveContact); err != nil {
		return err
	}
	if iss.order.Billing, err = resolveOptional(repl, "billing_contact", iss.BillingContact, resolveContact); err != nil {
		return err
	}
	iss.order.Organization, err = resolveOptional(repl, "organization", iss.Organization, resolveOrganization)
	return err
}

// provisionRules fills in the bounds that were not configured.
func (iss *Issuer) provisionRules() error {
	iss.rules = rules{
		pace:          iss.pace(),
		prices:        true,
		maxWait:       orDefault(iss.MaxWait, defaultMaxWait),
		renewMargin:   time.Duration(iss.RenewMargin),
		settle:        defaultSettle,
		spend:         SpendLimit{defaultSpendOrders, caddy.Duration(defaultSpendPer)},
		allowOnDemand: iss.AllowOnDemand,
		watch:         orDefault(iss.Watch, defaultWatch),
		replaceEnded:  iss.ReplaceEndedOrders,
		probe:         proof.Mode(iss.Probe),
	}
	switch {
	case iss.Settle != nil:
		iss.rules.settle = time.Duration(*iss.Settle)
	case iss.about.AnyName:
		iss.rules.settle = 0 // nothing is at stake at a test service
	}
	if l := iss.SpendLimit; l != nil {
		if l.Orders != 0 {
			iss.rules.spend.Orders = l.Orders
		}
		iss.rules.spend.Per = caddy.Duration(orDefault(l.Per, defaultSpendPer))
	}
	for _, group := range iss.OneOrder {
		names, err := normalNames("one_order", group)
		if err != nil {
			return err
		}
		if len(names) < 2 {
			return fmt.Errorf("one_order: a group needs at least two names, got %q", names)
		}
		iss.rules.groups = append(iss.rules.groups, names)
	}
	for _, o := range iss.Orders {
		names, err := normalNames("order", o.Names)
		if err != nil {
			return err
		}
		if o.ID == "" || len(names) == 0 {
			return fmt.Errorf("order: an order ID and at least one name are required")
		}
		iss.rules.adopted = append(iss.rules.adopted, AdoptedOrder{o.ID, names})
	}
	return nil
}

func orDefault(d caddy.Duration, fallback time.Duration) time.Duration {
	if d == 0 {
		return fallback
	}
	return time.Duration(d)
}

// checkMargin refuses a margin that would leave nothing of the term. The default is always
// shorter.
func (iss *Issuer) checkMargin() error {
	now := time.Now()
	if term := ledger.EndOfTerm(now, iss.order.Term).Sub(now); iss.rules.renewMargin >= term {
		return fmt.Errorf("renew_margin: %s is not shorter than the paid term, %s; each certificate would be bought anew",
			iss.rules.renewMargin, cmp.Or(iss.Term, defaultTerm))
	}
	return nil
}

// checkListen refuses what nothing could listen on.
func (iss *Issuer) checkListen() error {
	if p := iss.HTTPPort; p < 0 || p > 65535 {
		return fmt.Errorf("http_port: must be 1 to 65535, got %d", p)
	}
	for _, host := range iss.Bind {
		if _, err := netip.ParseAddr(host); err != nil && (host == "" || strings.ContainsAny(host, ":[]{}/ ")) {
			return fmt.Errorf("bind: %q is not an address or a host name", host)
		}
	}
	return nil
}

// checkLooks refuses looks that are too frequent for vendors. Test services take any.
func (iss *Issuer) checkLooks() error {
	if w := iss.rules.watch; w > 0 && w < minWatch && !iss.about.AnyName {
		return fmt.Errorf("watch: %s is too short, the shortest interval is %s", w, minWatch)
	}
	if p := iss.rules.pace.Min; p < minPoll && !iss.about.AnyName {
		return fmt.Errorf("poll: %s is too short, the shortest wait is %s", p, minPoll)
	}
	return nil
}

// checkPeers refuses issuers of one account that disagree about what the account may spend.
func (iss *Issuer) checkPeers() error {
	for _, peer := range iss.app.Peers(iss) {
		other, ok := peer.(*Issuer)
		if ok && other.rules.spend != iss.rules.spend {
			return fmt.Errorf("spend_limit: it holds for a whole account, and two issuers for the account %s at %s have different ones, "+
				"%d per %s and %d per %s; give both the same", iss.about.Account, iss.about.Name,
				other.rules.spend.Orders, time.Duration(other.rules.spend.Per), iss.rules.spend.Orders, time.Duration(iss.rules.spend.Per))
		}
	}
	return nil
}

// checkAdopted checks whether another order holds the names of the option order. While
// another configuration runs, that keeps this one from being loaded; when Caddy starts,
// it is no reason to stay down.
func (iss *Issuer) checkAdopted() error {
	if len(iss.rules.adopted) == 0 || iss.ctx.Storage() == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(iss.ctx, adoptedPatience)
	defer cancel()
	storage := iss.ctx.Storage()
	line := app.Process.Line(iss.lineKeyOn(storage), newMemory) // what the running configuration knows is not read again
	defer line.Release()
	l := &ledger.Ledger{Storage: storage, Prefix: ledger.Prefix(iss.about.Name, iss.about.Account), Memory: &line.Memory().(*account).ledger}
	var names []string
	for _, a := range iss.rules.adopted {
		names = append(names, a.Names...)
	}
	var about []*ledger.Entry
	err := l.Refresh(ctx)
	if err == nil {
		about, err = l.About(ctx, names...)
	}
	if err != nil {
		iss.logger.Warn("finding out whether other orders have the names of the option order failed", zap.Error(err))
		return nil
	}
	for _, a := range iss.rules.adopted {
		for _, name := range a.Names {
			for _, e := range about {
				if e.RootID == a.ID || e.OrderID == a.ID || !e.Blocks(name, iss.rules.margin(e), time.Now()) {
					continue
				}
				err := fmt.Errorf("order: %s is given for %s, but order %s of the ledger is for that name until %s (entry %s); "+
					"remove the name from the option, or give up the order in the ledger: caddy commercial resolve %s --entry %s --none",
					a.ID, name, cmp.Or(e.OrderID, e.Attempt.Reference), e.Ends.Format(time.DateOnly), e.ID, name, e.ID)
				if _, running := caddy.ActiveContext().AppIfConfigured("tls"); running == nil {
					return err
				}
				iss.logger.Error("the option order contradicts the ledger", zap.Error(err))
			}
		}
	}
	return nil
}

// adoptedPatience bounds the look into the ledger while a configuration is loaded.
const adoptedPatience = 10 * time.Second

// check judges the rules.
func (r rules) check(method vendors.Method) error {
	if r.pace.Min <= 0 || r.pace.Max < r.pace.Min {
		return fmt.Errorf("poll: the longest wait (%s) must not be shorter than the shortest (%s)", r.pace.Max, r.pace.Min)
	}
	for _, d := range []struct {
		option string
		value  time.Duration
	}{{"max_wait", r.maxWait}, {"renew_margin", r.renewMargin}, {"settle", r.settle}} {
		if d.value < 0 {
			return fmt.Errorf("%s: must not be negative, got %s", d.option, d.value)
		}
	}
	if r.spend.Per < 0 || r.spend.Orders < 0 {
		return fmt.Errorf("spend_limit: must not be negative, got %d per %s", r.spend.Orders, time.Duration(r.spend.Per))
	}
	switch r.probe {
	case proof.ModeDefault, proof.ModeStrict, proof.ModeWarn, proof.ModeOff:
	default:
		return fmt.Errorf("probe: must be strict, warn or off, got %q", r.probe)
	}
	owner := make(map[string]string)
	claim := func(option string, names []string) error {
		for _, name := range names {
			if other, taken := owner[name]; taken {
				return fmt.Errorf("%s: %s is already in an option %s", option, name, other)
			}
			owner[name] = option
		}
		return nil
	}
	for _, group := range r.groups {
		if err := claim("one_order", group); err != nil {
			return err
		}
		wild := slices.IndexFunc(group, func(name string) bool { return strings.HasPrefix(name, "*.") })
		if wild >= 0 && method != vendors.MethodDNS {
			return fmt.Errorf("one_order: %s is a wildcard, which CAs do not validate by a file (dcv %s), so the whole order of %s could not be; use dcv dns",
				group[wild], method, strings.Join(group, ", "))
		}
	}
	for _, a := range r.adopted {
		if err := claim("order", a.Names); err != nil {
			return err
		}
	}
	return nil
}

func normalNames(option string, names []string) ([]string, error) {
	var normal []string
	for _, name := range names {
		n := dcv.NormalizeHost(name)
		if n == "" {
			return nil, fmt.Errorf("%s: %q is not a name", option, name)
		}
		normal = append(normal, n)
	}
	return normal, nil
}

// parseTerm reads a paid term such as 1y or 365d.
func parseTerm(text string) (vendors.Term, error) {
	fail := fmt.Errorf("must be a number of years or days such as 1y or 365d, got %q", text)
	if len(text) < 2 {
		return vendors.Term{}, fail
	}
	n, err := strconv.Atoi(text[:len(text)-1])
	if err != nil || n < 1 {
		return vendors.Term{}, fail
	}
	switch text[len(text)-1] {
	case 'y':
		return vendors.Term{Years: n}, nil
	case 'd':
		return vendors.Term{Days: n}, nil
	}
	return vendors.Term{}, fail
}

// defaultPace is used where the vendor gives none. Most DV orders are issued within minutes;
// those that are not wait for people, or for somebody to mend a site. Sectigo asks clients of
// its own API for three hours between two looks (docs.sectigo.com, "Collect SSL"); resellers
// give no number.
var defaultPace = vendors.Pace{Min: 5 * time.Second, Max: 10 * time.Minute, Fresh: 2 * time.Hour, Slow: time.Hour}

// pace is what is configured, or else the vendor's, or else the default.
func (iss *Issuer) pace() vendors.Pace {
	of := iss.about.Pace
	p := vendors.Pace{
		Min:   cmp.Or(time.Duration(iss.PollMin), of.Min, defaultPace.Min),
		Max:   cmp.Or(time.Duration(iss.PollMax), of.Max, defaultPace.Max),
		Fresh: cmp.Or(of.Fresh, defaultPace.Fresh),
		Slow:  cmp.Or(time.Duration(iss.PollMax), of.Slow, defaultPace.Slow),
	}
	if iss.PollMax == 0 {
		p.Max, p.Slow = max(p.Max, p.Min), max(p.Slow, p.Max, p.Min)
	}
	return p
}

func resolveOptional[T any](repl *caddy.Replacer, field string, v *T, resolve func(*caddy.Replacer, string, T) (T, error)) (*T, error) {
	if v == nil {
		return nil, nil
	}
	out, err := resolve(repl, field, *v)
	return &out, err
}

func resolveContact(repl *caddy.Replacer, field string, c vendors.Contact) (vendors.Contact, error) {
	err := resolveAll(repl, field, c.Fields())
	return c, err
}

func resolveOrganization(repl *caddy.Replacer, field string, o vendors.Organization) (vendors.Organization, error) {
	err := resolveAll(repl, field, o.Fields())
	return o, err
}

func resolveAll(repl *caddy.Replacer, block string, fields []vendors.Field) error {
	for _, f := range fields {
		resolved, err := options.Resolve(repl, block+" "+f.Name, *f.Value)
		if err != nil {
			return err
		}
		*f.Value = resolved
	}
	return nil
}

// checkSubjects refuses names that no order could be placed for.
func (iss *Issuer) checkSubjects(csr *x509.CertificateRequest) error {
	if len(csr.IPAddresses) > 0 {
		return fmt.Errorf("%s is an IP address; %s is asked for certificates of host names only",
			joinIPs(csr.IPAddresses), iss.about.Name)
	}
	if len(csr.EmailAddresses) > 0 || len(csr.URIs) > 0 || len(csr.DNSNames) == 0 {
		return fmt.Errorf("the CSR is not for a host name")
	}
	for _, name := range csr.DNSNames {
		if strings.HasPrefix(name, "*.") && iss.order.Method != vendors.MethodDNS {
			return fmt.Errorf("%s is a wildcard, which CAs do not validate by a file (dcv %s); use dcv dns", name, iss.order.Method)
		}
		if iss.about.NeedsCommonName && len(name) > maxCommonName {
			return fmt.Errorf("%s has %d bytes, but %s needs it as common name, which holds at most %d (RFC 5280, ub-common-name)",
				name, len(name), iss.about.Name, maxCommonName)
		}
		public := strings.Contains(name, ".") && certmagic.SubjectQualifiesForPublicCert(name)
		if !iss.about.AnyName && !public {
			return fmt.Errorf("%s is not a public name, so no commercial CA certifies it (the sandbox does)", name)
		}
	}
	return nil
}

func joinIPs(ips []net.IP) string {
	texts := make([]string, 0, len(ips))
	for _, ip := range ips {
		texts = append(texts, ip.String())
	}
	return strings.Join(texts, ", ")
}

// SpendLimit bounds how many paid orders may be placed in a span of time.
type SpendLimit struct {
	// How many new paid orders are allowed within the span. Default: 20
	Orders int `json:"orders,omitempty"`

	// The span of time, counted back from now. Default: 24h
	Per caddy.Duration `json:"per,omitempty"`
}

// The default limit is far above what a normal site needs and far below what a
// runaway loop could spend unnoticed.
const (
	defaultSpendOrders = 20
	defaultSpendPer    = 24 * time.Hour
)
