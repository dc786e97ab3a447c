package issuer

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/check"
	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/issuer/proof"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// inspection looks at everything that the orders of a config need. Nothing of the config runs.
type inspection struct {
	config  *configuration
	running *configuration // the config of the Caddy that runs here; nil if none does
	within  time.Duration
	file    dcv.Challenge // the trial file of all names

	buyers   []*inspected
	releases []func()
	trials   sync.WaitGroup // of DNS records, until they are removed
}

// inspected is one issuer of a config, with those of its names that are inspected.
type inspected struct {
	iss     *Issuer
	names   []string
	first   bool // no other issuer comes before it
	ratio   float64
	storage certmagic.Storage
	ledger  *ledger.Ledger

	served   bool // somebody serves the trial file over HTTP
	unserved string

	mu    sync.Mutex
	quote []quoted
}

// inspect prepares an inspection of the names, or of all of the config. It must be ended.
func (c *configuration) inspect(ctx caddy.Context, names []string, vendor string) (_ *inspection, err error) {
	id := newTrialID()
	trial := proof.Trial(id, vendors.MethodHTTP, vendors.Description{})[0]
	in := &inspection{config: c, file: dcv.Challenge{
		ID: id, Path: dcv.PathPrefix + trial.FileName, Body: []byte(trial.FileContent), Expires: time.Now().Add(time.Hour),
	}}
	defer func() {
		if err != nil {
			in.end()
		}
	}()
	managed := c.managed()
	all := len(names) == 0
	if all {
		for name := range managed {
			names = append(names, name)
		}
		slices.Sort(names)
	}
	storages := make(map[string]certmagic.Storage)
	turns := make(map[string]chan struct{}) // by type of the DNS provider
	byIssuer := make(map[string]*inspected)
	for _, name := range names {
		p, i := c.policyOf(name)
		if i < 0 || !managed[name] && !p.OnDemand {
			continue
		}
		for _, raw := range p.ours(vendor) {
			storage, err := in.open(storages, p.Storage)
			if err != nil {
				return nil, err
			}
			key := string(raw) + " " + string(p.Storage)
			if byIssuer[key] == nil {
				b, err := c.inspected(ctx, raw)
				if err != nil {
					return nil, fmt.Errorf("loading the issuer of %s: %w", name, err)
				}
				b.storage, b.ratio, b.first = storage, p.Ratio, string(p.Issuers[0]) == string(raw)
				b.ledger = &ledger.Ledger{Storage: storage, Prefix: ledger.Prefix(b.iss.about.Name, b.iss.about.Account), Memory: new(ledger.Memory)}
				if records := b.iss.proofs.DNS; records != nil {
					provider := fmt.Sprintf("%T", records.Provider)
					if turns[provider] == nil {
						turns[provider] = make(chan struct{}, trialsAtOnce)
					}
					records.Turns = turns[provider]
				}
				byIssuer[key] = b
				in.buyers = append(in.buyers, b)
			}
			if b := byIssuer[key]; !slices.Contains(b.names, name) {
				b.names = append(b.names, name)
			}
		}
	}
	if len(in.buyers) == 0 {
		if all {
			names = nil
		}
		return nil, c.nothingToInspect(names, vendor)
	}
	return in, nil
}

// trialsAtOnce is how many trial records are added or removed at once with one DNS provider. Providers
// allow a few requests per second (Route 53 allows 5, Cloudflare 1200 in 5 minutes), and answer
// one within some tenths of a second. A name takes about four, so ten names take a few seconds.
const trialsAtOnce = 4

func (c *configuration) nothingToInspect(names []string, vendor string) error {
	if len(names) == 0 {
		return c.noBuyer(nil, vendor)
	}
	return fmt.Errorf("the config has no commercial issuer for %s (the sandbox is none); without names, all of the config are checked", strings.Join(names, ", "))
}

func (in *inspection) open(storages map[string]certmagic.Storage, raw json.RawMessage) (certmagic.Storage, error) {
	if len(raw) == 0 {
		raw = in.config.Storage
	}
	if storage := storages[string(raw)]; storage != nil {
		return storage, nil
	}
	storage, end, err := loadStorage(raw)
	if err == nil {
		storages[string(raw)] = storage
		in.releases = append(in.releases, end)
	}
	return storage, err
}

// inspected provisions an issuer of the config, as far as that is needed.
func (c *configuration) inspected(ctx caddy.Context, raw json.RawMessage) (*inspected, error) {
	iss := new(Issuer)
	if err := json.Unmarshal(raw, iss); err != nil {
		return nil, fmt.Errorf("reading it: %w", err)
	}
	if iss.DCV != nil && iss.DCV.Method == vendors.MethodDNS && len(iss.DCV.ProviderRaw) == 0 {
		iss.DCV.ProviderRaw = c.Apps.TLS.DNS
	}
	if err := iss.settings(ctx); err != nil {
		return nil, err
	}
	if err := iss.provisionProofs(caddy.NewReplacer()); err != nil {
		return nil, err
	}
	if len(iss.proofs.Resolvers) == 0 {
		iss.proofs.Resolvers = c.Apps.TLS.Resolvers
		if iss.proofs.DNS != nil {
			iss.proofs.DNS.Resolvers = iss.proofs.Resolvers
		}
	}
	return &inspected{iss: iss}, dcv.CheckResolvers(iss.proofs.Resolvers)
}

// end removes whatever the inspection has stored or started.
func (in *inspection) end() {
	in.trials.Wait()
	for _, release := range slices.Backward(in.releases) {
		release()
	}
}

// askRunning reads the config of the Caddy that runs here, if one does.
func (in *inspection) askRunning(ctx context.Context, address string) error {
	d := &desk{address: address}
	if !d.answers(ctx) {
		return nil
	}
	var running *configuration
	var err error
	asked := make(chan struct{})
	go func() { // a Caddy that is loading a config answers only afterwards, and the request cannot be cancelled
		defer close(asked)
		running, err = runningConfig(address)
	}()
	select {
	case <-asked:
		in.running = running
		return err
	case <-ctx.Done():
		return fmt.Errorf("the Caddy at %s does not tell its config: %w", address, context.Cause(ctx))
	}
}

func runningConfig(address string) (*configuration, error) {
	resp, err := caddycmd.AdminAPIRequest(address, http.MethodGet, "/config/", nil, nil)
	if err != nil {
		return nil, adminError(address, err)
	}
	defer resp.Body.Close()
	c := new(configuration)
	if err := json.NewDecoder(resp.Body).Decode(c); err != nil {
		return nil, fmt.Errorf("reading the config of the Caddy at %s: %w", address, err)
	}
	return c, nil
}

// has reports whether a config gets a certificate for the name from one of our issuers.
func (c *configuration) has(name string) bool {
	p, i := c.policyOf(name)
	return i >= 0 && len(p.ours("")) > 0 && (c.managed()[name] || p.OnDemand)
}

// port is where this machine serves validation files over HTTP.
func (in *inspection) port(b *inspected) int {
	return cmp.Or(b.iss.HTTPPort, in.config.Apps.HTTP.Port, certmagic.HTTPPort)
}

// serve sees to it that the trial file is served: by the Caddy that runs, which finds it in the
// storage, or else by this process.
func (in *inspection) serve(ctx context.Context) {
	listening := make(map[int]error)
	for _, b := range in.buyers {
		if b.iss.order.Method == vendors.MethodDNS {
			continue
		}
		if in.running != nil {
			file := in.file
			file.Hosts = b.names
			store := dcv.NewStore()
			err := store.Present(ctx, b.storage, file)
			in.releases = append(in.releases, func() {
				_ = store.CleanUp(context.WithoutCancel(ctx), b.storage, file.ID, file.Hosts) // it expires by itself
			})
			if b.served = err == nil; err != nil {
				b.unserved = "the trial file could not be written to the storage: " + err.Error()
			}
			continue
		}
		if b.iss.order.Method == vendors.MethodHTTPS {
			b.unserved = "no Caddy runs here that could serve it over HTTPS"
			continue
		}
		port := in.port(b)
		err, known := listening[port]
		if !known {
			var end func()
			if end, err = check.Serve(ctx, b.iss.Bind, port, in.file); err == nil {
				in.releases = append(in.releases, end)
			}
			listening[port] = err
		}
		if b.served = err == nil; err != nil {
			b.unserved = "nobody serves the trial file: " + err.Error()
		}
	}
}

// tasks are all checks.
func (in *inspection) tasks() []check.Task {
	var tasks []check.Task
	seen := make(map[string]bool)
	for _, b := range in.buyers {
		if records := b.iss.proofs.DNS; records != nil {
			records.PropagationTimeout = max(in.within-3*time.Second, time.Second)
		}
		tasks = append(tasks, in.accountTasks(b, seen)...)
		for _, name := range b.names {
			tasks = append(tasks, in.nameTasks(b, name)...)
		}
	}
	return tasks
}

// one makes a task of a check with one result.
func one(name, about string, do func(context.Context) check.Result) check.Task {
	return check.Task{Check: name, Name: about, Do: func(ctx context.Context) []check.Result { return []check.Result{do(ctx)} }}
}

// accountTasks are those about an issuer. seen has the tasks that other issuers have already, such
// as those of the same account.
func (in *inspection) accountTasks(b *inspected, seen map[string]bool) []check.Task {
	iss := b.iss
	about := iss.about.Name + "/" + iss.about.Account
	account := check.Account{Vendor: iss.vendor, About: iss.about, Order: iss.order}
	orders := b.orders()
	tasks := []check.Task{
		one("fields", about, func(context.Context) check.Result {
			if err := cmp.Or(iss.DCV.check(), iss.rules.check(iss.order.Method), iss.checkListen(), iss.checkMargin(), iss.checkLooks()); err != nil {
				return check.Result{Verdict: check.Stop, Message: err.Error(), Advice: "correct the options of the issuer"}
			}
			return account.Fields()
		}),
		one("credential", about, func(ctx context.Context) check.Result {
			req, err := b.trialRequest(orders[0])
			if err != nil {
				return check.Result{Verdict: check.Warning, Message: err.Error()}
			}
			return account.Credentials(ctx, req)
		}),
		{Check: "product", Name: about, Do: func(ctx context.Context) []check.Result { return account.Product(ctx, orders) }},
		one("term", about, func(context.Context) check.Result { return check.Term(iss.order.Term, time.Now()) }),
		one("quote", about, func(ctx context.Context) check.Result { return in.quoteFor(ctx, b, orders) }),
	}
	once := func(key string, task check.Task) {
		if !seen[key] {
			seen[key] = true
			tasks = append(tasks, task)
		}
	}
	key := iss.IssuerKey()
	once("balance "+key, one("balance", about, account.Balance))
	once("clock "+key, one("clock", about, account.Clock))
	once("storage "+key+ledger.StorageIdentity(b.storage), one("storage", about, func(ctx context.Context) check.Result { return b.tryStorage(ctx) }))
	if iss.order.Method == vendors.MethodHTTP {
		port := in.port(b)
		once(fmt.Sprint("port ", port), one("port", fmt.Sprint(port), func(ctx context.Context) check.Result {
			if b.served && in.running == nil {
				return check.Result{Verdict: check.OK, Message: fmt.Sprintf("port %d is free; Caddy can listen there", port)}
			}
			return check.Port(ctx, port, in.running != nil)
		}))
	}
	return tasks
}

// nameTasks are those about a name.
func (in *inspection) nameTasks(b *inspected, name string) []check.Task {
	iss := b.iss
	resolvers := check.Resolvers{List: iss.proofs.Resolvers}
	lenient := iss.rules.probe == proof.ModeWarn || iss.rules.probe == proof.ModeOff
	legal := b.legal(name)
	tasks := []check.Task{one("name", name, func(context.Context) check.Result { return legal })}
	if legal.Verdict == check.Stop {
		return tasks // there is nothing to be found out about it
	}
	add := func(name, about string, do func(context.Context) []check.Result) {
		tasks = append(tasks, check.Task{Check: name, Name: about, Do: do})
	}
	if iss.order.Method == vendors.MethodDNS {
		if !iss.about.AnyName {
			add("dns", name, func(ctx context.Context) []check.Result { return resolvers.CheckZone(ctx, name, lenient) })
			if place := b.place(name); place.Override != "" || place.Label != "" && !place.Taken {
				add("alias", name, func(ctx context.Context) []check.Result { return resolvers.CheckPlace(ctx, place, lenient) })
			}
		}
		add("record", name, func(ctx context.Context) []check.Result { return []check.Result{in.tryRecord(ctx, b, name)} })
	} else {
		site := check.Site{Name: name, Resolvers: resolvers, AnyName: iss.about.AnyName, Lenient: lenient, Unserved: b.unserved, Prober: in.prober(b)}
		if b.served {
			site.File = &in.file
			if in.running != nil && !in.running.has(name) {
				site.Unserved = "the Caddy that runs does not have the name in its configuration yet; load it, and check again"
			}
		}
		add("dns", name, site.Check)
		if twin := dcv.Twin(name); twin != "" && iss.about.CoversTwin && !iss.about.AnyName && !slices.Contains(b.names, twin) {
			add("twin", twin, func(ctx context.Context) []check.Result { return site.Twin(ctx, twin) })
		}
	}
	if iss.about.AnyName {
		return tasks
	}
	add("nameservers", name, func(ctx context.Context) []check.Result { return resolvers.Servers(ctx, name) })
	add("caa", name, func(ctx context.Context) []check.Result {
		return resolvers.CAA(ctx, dcv.CAAQuestion{Name: name, Identities: iss.proofs.Identities, Methods: proof.ValidationMethods(iss.order.Method)}, lenient)
	})
	return tasks
}

// legal judges a name without asking anybody.
func (b *inspected) legal(name string) check.Result {
	if err := b.iss.checkSubjects(&x509.CertificateRequest{DNSNames: []string{name}}); err != nil {
		return check.Result{Verdict: check.Stop, Message: err.Error(), Advice: "correct the name or the issuer"}
	}
	if b.iss.about.AnyName {
		return check.Result{Verdict: check.OK, Message: "a test service takes any name"}
	}
	return check.Legal(name)
}

// prober fetches from where the CA does.
func (in *inspection) prober(b *inspected) dcv.Prober {
	about, p := b.iss.about, dcv.Prober{Timeout: max(in.within-time.Second, time.Second)}
	switch {
	case b.iss.order.Method == vendors.MethodHTTPS:
		p.HTTPS, p.Port = true, about.HTTPSPort
	case about.HTTPPort == 0 && about.AnyName:
		p.Port = in.port(b)
	default:
		p.Port = about.HTTPPort
	}
	return p
}

// orders are the names of the orders that the issuer would place for all of its names.
func (b *inspected) orders() (orders [][]string) {
	done := make(map[string]bool)
	f := &flow{rules: b.iss.rules}
	for _, name := range b.names {
		if done[name] {
			continue
		}
		group := f.group(name)
		for _, n := range group {
			done[n] = true
		}
		orders = append(orders, group)
	}
	return orders
}

// trialRequest is an order that is shown to the vendor, and never placed.
func (b *inspected) trialRequest(names []string) (vendors.OrderRequest, error) {
	req := vendors.OrderRequest{OrderConfig: b.iss.order, Reference: b.ledger.NewReference(), Names: names}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return req, fmt.Errorf("making a key: %w", err)
	}
	if req.CSR, err = orderCSR(names, nil, key); err != nil {
		return req, err
	}
	if b.iss.about.NeedsUnique {
		req.Unique = (&flow{ledger: b.ledger}).newUnique()
	}
	return req, nil
}

// place is where the CA would look for the record of a name.
func (b *inspected) place(name string) check.Place {
	p := proof.Proof{Names: []string{name}, Method: vendors.MethodDNS}
	if v, ok := b.iss.vendor.(vendors.Predictor); ok {
		if req, err := b.trialRequest(p.Names); err == nil {
			p.Challenges, _ = v.Predict(req) // or else it is not known
		}
	}
	return proof.Place(b.iss.about, b.iss.proofs.Override, p, name)
}

// tryRecord adds a trial record to the zone of a name, looks for it, and removes it.
func (in *inspection) tryRecord(ctx context.Context, b *inspected, name string) check.Result {
	in.trials.Add(1)
	defer in.trials.Done()
	if err := ctx.Err(); err != nil {
		return check.Result{Verdict: check.Warning, Message: "not tried in time", Advice: "give it more time with --timeout"}
	}
	config := b.iss.proofs
	config.Mode, config.Identities, config.About.AnyName = proof.ModeStrict, nil, true // these have checks of their own
	prove := proof.New(config)
	defer prove.Close()
	id := newTrialID()
	p := proof.Proof{ID: id, Names: []string{name}, Method: vendors.MethodDNS, Trial: proof.Trial(id, vendors.MethodDNS, b.iss.about)}
	r := lookForRecord(ctx, prove, p)
	if left := prove.Remove(ctx, p); len(left) > 0 && r.Verdict != check.Stop {
		return check.Result{Verdict: check.Warning, Message: fmt.Sprintf("the record %s was added and could not be removed", left[0]),
			Advice: "remove it by hand, and look at what the DNS provider allows; orders leave such records, too"}
	}
	return r
}

// lookForRecord adds a trial record and looks for it.
func lookForRecord(ctx context.Context, prove proof.Prover, p proof.Proof) check.Result {
	if err := prove.Present(ctx, p); err != nil {
		if ctx.Err() != nil {
			return check.Result{Verdict: check.Warning, Message: "the DNS provider did not add a record in time", Advice: "give it more time with --timeout"}
		}
		return check.Result{Verdict: check.Stop, Message: err.Error(), Advice: "look at the credential of the DNS provider, and whether the zone is its"}
	}
	err := prove.Wait(ctx, p)
	seen, ok := errors.AsType[*dcv.PropagationError](err)
	switch {
	case err == nil:
		return check.Result{Verdict: check.OK, Message: "a record was added, seen at all name servers, and removed"}
	case ok:
		return check.Result{Verdict: check.Warning, Message: "a record was added and removed, but not seen everywhere: " + strings.Join(seen.Answers, "; "),
			Advice: "zones can be slow: give it more time with --timeout; before an order, propagation_timeout counts"}
	case ctx.Err() != nil:
		return check.Result{Verdict: check.Warning, Message: "a record was added and removed, but not seen everywhere in time",
			Advice: "zones can be slow: give it more time with --timeout; before an order, propagation_timeout counts"}
	}
	return check.Result{Verdict: check.Stop, Message: err.Error()}
}

// tryStorage reads the ledger, and tries the storage as a server does after its start.
func (b *inspected) tryStorage(ctx context.Context) check.Result {
	failed := func(verdict check.Verdict, advice, format string, args ...any) check.Result {
		return check.Result{Verdict: verdict, Message: fmt.Sprintf(format, args...), Advice: advice}
	}
	if err := b.ledger.Refresh(ctx); err != nil {
		return failed(check.Stop, "nothing is bought while the ledger cannot be read", "the ledger cannot be read: %v", err)
	}
	other, end, err := openAgain(ctx, b.storage)
	if err != nil {
		other, end = b.storage, func() {}
	}
	defer end()
	late, err := ledger.Lateness(ctx, b.storage, other, nil)
	settle := b.iss.rules.settle
	switch {
	case ctx.Err() != nil:
		return failed(check.Warning, "run the check again, or give it more time with --timeout", "the storage could not be tried in time")
	case err != nil:
		return failed(check.Stop, "look at the storage and its permissions", "the storage does not keep what is written: %v", err)
	case settle > 0 && late > settle:
		return failed(check.Stop, "set settle "+suggestedSettle(late).String(), "what is written to the storage can be read only after %s, and settle is %s", late.Round(time.Millisecond), settle)
	}
	excludes, err := ledger.Excludes(ctx, b.storage, other)
	switch {
	case err != nil && ctx.Err() == nil:
		return failed(check.Warning, "look at the storage", "the locks of the storage could not be tested: %v", err)
	case err == nil && !excludes:
		return failed(check.Warning, "nothing is paid for twice, but servers may do the same work at the same time", "the locks of the storage do not keep other servers out")
	}
	return check.Result{Verdict: check.OK, Message: "the ledger can be read, and the storage keeps what is written"}
}
