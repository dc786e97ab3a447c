package issuer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/app"
	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/internal/poll"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// probeMode says what a failed probe means.
type probeMode string

const (
	probeDefault probeMode = ""       // a wrong answer stops, no connection warns
	probeStrict  probeMode = "strict" // both stop
	probeWarn    probeMode = "warn"   // both warn
	probeOff     probeMode = "off"    // not done
)

// abandonedAfter is when a published file is taken for forgotten, if nobody withdraws
// it. It is longer than any order stays pending.
const abandonedAfter = 90 * 24 * time.Hour

// files proves control of names by validation files. It is the prover of an issuer
// for the life of one config.
type files struct {
	app     *app.App
	storage certmagic.Storage
	mode    probeMode
	port    int // of our own listener; 0 is Caddy's HTTP port
	bind    []string
	about   vendors.Description

	// identities are how the CA recognizes itself in CAA records. Empty if unknown.
	identities []string
	logger     *zap.Logger

	born time.Time

	mu        sync.Mutex
	released  bool
	unmanage  func()
	listening map[string]*listening // by challenge ID
}

// listening is what Listen of the app gave for a challenge.
type listening struct {
	release func()
	problem error // why not all addresses are served; the probe decides
}

func newFiles(storage certmagic.Storage, iss *Issuer) *files {
	f := &files{
		app: iss.app, storage: storage, mode: iss.rules.probe, port: iss.HTTPPort, bind: iss.Bind,
		about: iss.about, logger: iss.logger, born: time.Now(),
		listening: make(map[string]*listening),
	}
	if v, ok := iss.vendor.(vendors.CAAIdentifier); ok {
		f.identities = v.CAAIdentities(iss.order.Product)
	}
	f.unmanage = dcv.Live.Manage(storage, iss.manages)
	return f
}

// attach puts the handler on Caddy's servers.
func (f *files) attach(iss *Issuer) {
	if err := f.app.Attach(iss); err != nil {
		f.logger.Error("cannot serve validation files from the servers of this config; add the dcv directive to a site on the HTTP port", zap.Error(err))
	}
}

// close withdraws nothing: pending orders still need their files, and the next
// config goes on with them. The app sees to the listeners.
func (f *files) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.released = true
	f.unmanage()
}

// Publish serves the files, from our own listener if Caddy has none on the port.
func (f *files) Publish(ctx context.Context, p proof) error {
	list, err := fileChallenges(p)
	if err != nil {
		return err
	}
	for _, ch := range list {
		if err := dcv.Live.Publish(ctx, f.storage, ch); err != nil {
			return err
		}
	}
	if len(list) == 0 || p.method != vendors.MethodHTTP {
		return nil
	}
	return f.listen(ctx, p.id)
}

func (f *files) listen(ctx context.Context, id string) error {
	f.mu.Lock()
	known := f.released || f.listening[id] != nil
	f.mu.Unlock()
	if known {
		return nil
	}
	release, err := f.app.Listen(ctx, f.bind, f.listenPort())
	problem, warning := errors.AsType[*dcv.ListenError](err)
	if err != nil && !warning {
		return err
	}
	if problem != nil {
		f.logger.Warn("validation files are not served on an address; they may be reached in another way", zap.Error(err))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.released || f.listening[id] != nil {
		release()
		return nil
	}
	f.listening[id] = &listening{release, err}
	return nil
}

// unlisten is called with the mutex held.
func (f *files) unlisten(id string) {
	if l := f.listening[id]; l != nil {
		l.release()
	}
	delete(f.listening, id)
}

// listenProblem is what kept the files of a challenge from being served on an address.
func (f *files) listenProblem(id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if l := f.listening[id]; l != nil {
		return l.problem
	}
	return nil
}

// fileChallenges turns what a vendor asks for into files. Challenges for other
// methods are left out; a vendor may send several kinds.
func fileChallenges(p proof) ([]dcv.Challenge, error) {
	var list []dcv.Challenge
	for _, ch := range p.challenges {
		if ch.Method != vendors.MethodHTTP && ch.Method != vendors.MethodHTTPS {
			continue
		}
		hosts := p.names
		if ch.Name != "" {
			hosts = []string{ch.Name}
		}
		file, err := dcv.NewChallenge(p.id, hosts, ch.FileName, ch.FileContent)
		if err != nil {
			return nil, fmt.Errorf("the vendor's validation file for %s: %w", strings.Join(hosts, ", "), err)
		}
		file.Expires = time.Now().Add(abandonedAfter)
		list = append(list, file)
	}
	return list, nil
}

// Probe fetches the published files as the CA will. Where the CA's file is not known
// yet, it fetches one of its own from the same folder.
func (f *files) Probe(ctx context.Context, p proof) error {
	if f.mode == probeOff {
		return nil
	}
	if err := f.checkCAA(ctx, p.names); err != nil {
		return err
	}
	if len(p.challenges) == 0 {
		p.id += "-probe"
		p.challenges = []vendors.Challenge{{Method: p.method, FileName: p.id + ".txt", FileContent: newUnique()}}
		defer f.Withdraw(ctx, p)
		if err := f.Publish(ctx, p); err != nil {
			return err
		}
	}
	list, err := fileChallenges(p)
	if err != nil {
		return err
	}
	prober := &dcv.Prober{Port: f.fetchPort(p.method), HTTPS: p.method == vendors.MethodHTTPS}
	for _, ch := range list {
		for _, host := range ch.Hosts {
			err := f.fetch(ctx, prober, host, ch)
			if problem := f.listenProblem(p.id); err != nil && problem != nil && f.mode != probeWarn {
				return fmt.Errorf("%w; %w", err, problem)
			}
			if err := f.judge(host, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// fetch probes, and more than once if the config is so young that its servers may not
// be up, or the old ones not down yet.
func (f *files) fetch(ctx context.Context, prober *dcv.Prober, host string, ch dcv.Challenge) error {
	for {
		err := prober.Probe(ctx, host, ch)
		if err == nil || time.Since(f.born) > settleTime {
			return err
		}
		if poll.Wait(ctx, settleTime/10) != nil {
			return err
		}
	}
}

// settleTime is how long after it is loaded a config may take to serve.
const settleTime = 3 * time.Second

// checkCAA stops what DNS forbids the CA to issue. A resolver that cannot be asked is
// no reason to stop: the CA asks for itself.
func (f *files) checkCAA(ctx context.Context, names []string) error {
	if len(f.identities) == 0 || f.about.AnyName {
		return nil
	}
	for _, name := range names {
		err := new(dcv.CAAChecker).Check(ctx, name, f.identities)
		if err == nil {
			continue
		}
		if _, forbidden := errors.AsType[*dcv.CAAError](err); forbidden && f.mode != probeWarn {
			return err
		}
		f.logger.Warn("the CAA records do not settle that the CA may issue; it will look for itself",
			zap.String("identifier", name), zap.Error(err))
	}
	return nil
}

// fetchPort is where the CA fetches: the standard port, unless it is a test service,
// which may fetch from where this config listens.
func (f *files) fetchPort(method vendors.Method) int {
	switch {
	case method == vendors.MethodHTTPS:
		return f.about.HTTPSPort
	case f.about.HTTPPort == 0 && f.about.AnyName:
		return f.listenPort()
	}
	return f.about.HTTPPort
}

func (f *files) listenPort() int {
	if f.port != 0 {
		return f.port
	}
	return f.app.HTTPPort()
}

func (f *files) judge(host string, err error) error {
	if err == nil {
		return nil
	}
	problem, ok := errors.AsType[*dcv.ProbeError](err)
	if !ok {
		return err
	}
	if f.mode == probeStrict || f.mode == probeDefault && problem.Wrong() {
		return err
	}
	f.logger.Warn("the validation file could not be fetched from here; the CA may succeed all the same",
		zap.String("identifier", host), zap.Error(err))
	return nil
}

// Withdraw takes the files away.
func (f *files) Withdraw(ctx context.Context, p proof) {
	if err := dcv.Live.Withdraw(ctx, f.storage, p.id, p.names); err != nil {
		f.logger.Warn("removing validation files from storage failed; they expire by themselves", zap.Strings("identifiers", p.names), zap.Error(err))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unlisten(p.id)
}

// Seen sums up who came for the files.
func (f *files) Seen(p proof) string {
	total := dcv.Live.VisitCount(p.id)
	if total == 0 {
		return "nobody has fetched the validation file from this server"
	}
	visits := dcv.Live.Visits(p.id)
	var from []string
	for _, v := range visits {
		addr, _, err := net.SplitHostPort(v.RemoteAddr)
		if err != nil {
			addr = v.RemoteAddr
		}
		if !slices.Contains(from, addr) {
			from = append(from, addr)
		}
	}
	return fmt.Sprintf("the validation file was fetched %d times from %d addresses", total, len(from))
}

// Interface guard
var _ prover = (*files)(nil)
