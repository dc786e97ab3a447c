package proof

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/check"
	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/internal/poll"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// abandonedAfter is how long after Present a file that nobody has cleaned up expires.
// It is longer than any order stays pending.
const abandonedAfter = 90 * 24 * time.Hour

// files proves control of names by validation files.
type files struct {
	mode    Mode
	about   vendors.Description
	store   *dcv.Store
	group   string
	storage certmagic.Storage
	port    func() int
	listen  func(ctx context.Context) (release func(), err error)
	dial    func(ctx context.Context, network, addr string) (net.Conn, error)
	logger  *zap.Logger

	mu     sync.Mutex
	closed bool
	live   map[string]*liveFiles // by ID of the proof
}

// liveFiles are what this process presents for one proof.
type liveFiles struct {
	list    []dcv.Challenge
	release func() // of our own listener; nil if there is none
	deaf    error  // why there is none, though there should be
}

// close lets go of the port.
func (f *files) close() {
	f.mu.Lock()
	var releases []func()
	for _, own := range f.live {
		if own.release != nil {
			releases = append(releases, own.release)
			own.release = nil
		}
	}
	f.closed = true
	f.mu.Unlock()
	for _, release := range releases {
		release()
	}
}

// Present implements Prover.
func (f *files) Present(ctx context.Context, p Proof) error {
	list, err := fileChallenges(p)
	if err != nil {
		return err
	}
	for i := range list {
		list[i].Group = f.group
	}
	before := f.listOf(p.ID)
	if err := f.put(ctx, list); err != nil {
		f.remove(ctx, p.ID, hostsOf(list))
		if restoring := f.put(context.WithoutCancel(ctx), before); restoring != nil {
			f.logger.Warn("the validation files that were to be replaced could not be put back", zap.Strings("identifiers", p.Names), zap.Error(restoring))
		}
		return err
	}
	kept := hostsOf(list)
	if gone := slices.DeleteFunc(hostsOf(before), func(host string) bool { return slices.Contains(kept, host) }); len(gone) > 0 {
		f.remove(ctx, p.ID, gone)
	}
	f.note(p.ID, list)
	if len(list) > 0 && p.Method == vendors.MethodHTTP {
		f.open(ctx, p)
	}
	return nil
}

func (f *files) listOf(id string) []dcv.Challenge {
	f.mu.Lock()
	defer f.mu.Unlock()
	if own := f.live[id]; own != nil {
		return own.list
	}
	return nil
}

func (f *files) note(id string, list []dcv.Challenge) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.live == nil {
		f.live = make(map[string]*liveFiles)
	}
	if f.live[id] == nil {
		f.live[id] = new(liveFiles)
	}
	f.live[id].list = list
}

func (f *files) put(ctx context.Context, list []dcv.Challenge) error {
	if len(list) == 0 {
		return nil
	}
	return f.store.Present(ctx, f.storage, list...)
}

func (f *files) remove(ctx context.Context, id string, hosts []string) {
	if len(hosts) == 0 {
		return
	}
	if err := f.store.CleanUp(ctx, f.storage, id, hosts); err != nil {
		f.logger.Warn("removing validation files from storage failed; they expire by themselves", zap.Strings("identifiers", hosts), zap.Error(err))
	}
}

// open has the port served while the proof is live. If it cannot be, somebody else may
// serve it, in front of this instance or beside it.
func (f *files) open(ctx context.Context, p Proof) {
	f.mu.Lock()
	own := f.live[p.ID]
	needless := f.listen == nil || f.closed || own == nil || own.release != nil
	f.mu.Unlock()
	if needless {
		return
	}
	release, err := f.listen(ctx)
	if err != nil && ctx.Err() == nil {
		f.logger.Warn("cannot listen for the CA; its requests for the validation file have to be served elsewhere",
			zap.Strings("identifiers", p.Names), zap.Error(err))
	}
	f.mu.Lock()
	own = f.live[p.ID]
	if own != nil && own.release == nil {
		own.deaf = err
		if release != nil && !f.closed {
			// Even after an error: listening is tried again until then.
			own.release, release = release, nil
		}
	}
	f.mu.Unlock()
	if release != nil {
		release()
	}
}

var errNoFile = errors.New("the vendor asks for proofs of control, but for no validation file")

// fileChallenges turns what is to be presented into files. Challenges for other methods
// are left out; a vendor may send several kinds.
func fileChallenges(p Proof) ([]dcv.Challenge, error) {
	var list []dcv.Challenge
	for _, ch := range p.challenges() {
		if ch.Method != vendors.MethodHTTP && ch.Method != vendors.MethodHTTPS {
			continue
		}
		hosts := p.Names
		if ch.Name != "" {
			hosts = []string{ch.Name}
		}
		file, err := dcv.NewChallenge(p.ID, hosts, ch.FileName, ch.FileContent)
		if err != nil {
			return nil, fmt.Errorf("the vendor's validation file for %s: %w", strings.Join(hosts, ", "), err)
		}
		file.Expires = time.Now().Add(abandonedAfter)
		list = append(list, file)
	}
	if len(list) == 0 && len(p.Challenges) > 0 {
		return nil, errNoFile
	}
	return list, nil
}

// hostsOf returns the names of the challenges.
func hostsOf(list []dcv.Challenge) []string {
	var hosts []string
	for _, ch := range list {
		hosts = append(hosts, ch.Hosts...)
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// target is one file on one host, at one of its addresses if they are known.
type target struct {
	host string
	at   netip.Addr
	file dcv.Challenge
}

// way is how to get to a host.
type way struct {
	host string
	six  bool // over IPv6
}

func (t target) way() way { return way{t.host, t.at.Is6()} }

// targetsOf are all that the CA may come to: it may choose any address of a host.
func targetsOf(list []dcv.Challenge, known places) (targets []target) {
	for _, ch := range list {
		for _, host := range ch.Hosts {
			if len(known.addresses[host]) == 0 && !known.gone[host] {
				targets = append(targets, target{host: host, file: ch})
			}
			for _, addr := range known.addresses[host] {
				targets = append(targets, target{host, addr, ch})
			}
		}
	}
	return targets
}

// settleTime is how long after Present it may take until a file is found: a config that
// was just loaded may not serve yet, the previous one may still do so, and the other
// instances of a cluster learn of the file through the storage.
const settleTime = 3 * time.Second

// Wait implements Prover.
func (f *files) Wait(ctx context.Context, p Proof) error { return f.wait(ctx, p, places{}) }

// wait fetches the files as the CA will, from each address of a host that is known.
func (f *files) wait(ctx context.Context, p Proof, known places) error {
	list, err := fileChallenges(p)
	if err != nil || f.mode == ModeOff {
		return err
	}
	if p.Method == vendors.MethodHTTP {
		f.open(ctx, p) // unless Present did
	}
	port := f.fetchPort(p.Method)
	settled := time.Now().Add(settleTime)
	var served sync.Map // the ways over which a file was fetched
	return forAll(targetsOf(list, known), func(t target) error {
		prober := &dcv.Prober{Port: port, HTTPS: p.Method == vendors.MethodHTTPS, Address: t.at, Dial: f.dial}
		for {
			err := prober.Probe(ctx, t.host, t.file)
			if f.elsewhere(ctx, t, known.addresses[t.host], err) {
				prober.Address = netip.Addr{}
				continue
			}
			if err == nil {
				served.Store(t.way(), true)
				return nil
			}
			if time.Now().After(settled) || poll.Wait(ctx, settleTime/10) != nil {
				return err
			}
		}
	}, func(t target, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		_, same := served.Load(t.way())
		_, other := served.Load(way{t.host, !t.at.Is6()})
		return f.judge(p.ID, t, same, other, err)
	})
}

// elsewhere reports whether an address that does not answer is one to which this machine itself does
// not resolve the name: behind NAT, people lead the machine to the name another way, such as by a
// line in the hosts file.
func (f *files) elsewhere(ctx context.Context, t target, known []netip.Addr, err error) bool {
	problem, ok := errors.AsType[*dcv.ProbeError](err)
	if !ok || !problem.Address.IsValid() || problem.Wrong() || f.dial != nil {
		return false // another network has no such file
	}
	own, err := net.DefaultResolver.LookupNetIP(ctx, "ip", t.host)
	return err == nil && !slices.ContainsFunc(own, func(addr netip.Addr) bool { return slices.Contains(known, addr.Unmap()) })
}

// judge says what a failed probe means. That the file cannot be fetched from here need
// not mean anything, except where nothing listens to serve it, or where another address of the
// host has it, of the same family or of the other, which shows that this machine can reach the host
// from the inside. Behind a router, an address of the other family does not show that.
func (f *files) judge(id string, t target, same, other bool, err error) error {
	problem, ok := errors.AsType[*dcv.ProbeError](err)
	if !ok {
		return err
	}
	f.mu.Lock()
	var deaf error
	if own := f.live[id]; own != nil {
		deaf = own.deaf
	}
	f.mu.Unlock()
	if deaf != nil {
		err = fmt.Errorf("%w; and %w", err, deaf)
	}
	wrong := problem.Wrong() && !t.at.IsPrivate() // no CA gets to that one
	elsewhere := (same || other && !problem.Inside()) && check.Public(t.at)
	if f.mode.stops(wrong || deaf != nil || elsewhere) && !problem.NoRoute() {
		return err
	}
	f.logger.Warn("the validation file could not be fetched from here; the CA may succeed all the same",
		zap.String("identifier", t.host), zap.Error(err))
	return nil
}

// fetchPort is the port from which the CA fetches: zero, for the standard port, except for test
// services, which may fetch from where this instance listens.
func (f *files) fetchPort(method vendors.Method) int {
	switch {
	case method == vendors.MethodHTTPS:
		return f.about.HTTPSPort
	case f.about.HTTPPort == 0 && f.about.AnyName && f.port != nil:
		return f.port()
	}
	return f.about.HTTPPort
}

// CleanUp implements Prover.
func (f *files) CleanUp(ctx context.Context, p Proof) {
	f.mu.Lock()
	own := f.live[p.ID]
	delete(f.live, p.ID)
	f.mu.Unlock()
	hosts := slices.Clone(p.Names)
	for _, ch := range slices.Concat(p.Challenges, p.Trial) {
		if ch.Name != "" {
			hosts = append(hosts, ch.Name)
		}
	}
	if own != nil {
		hosts = append(hosts, hostsOf(own.list)...)
		if own.release != nil {
			own.release()
		}
	}
	slices.Sort(hosts)
	f.remove(ctx, p.ID, slices.Compact(hosts))
}

// Seen implements Prover.
func (f *files) Seen(p Proof) string {
	total := f.store.VisitCount(p.ID)
	if total == 0 {
		return "nobody has asked this server for the validation file"
	}
	var from []string
	for _, v := range f.store.Visits(p.ID) {
		addr, _, err := net.SplitHostPort(v.RemoteAddr)
		if err != nil {
			addr = v.RemoteAddr
		}
		if !slices.Contains(from, addr) {
			from = append(from, addr)
		}
	}
	plural := "es"
	if len(from) == 1 {
		plural = ""
	}
	return fmt.Sprintf("the validation file was asked for %d times from %d address%s", total, len(from), plural)
}
