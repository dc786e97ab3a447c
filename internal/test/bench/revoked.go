package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// revokedEach is each order's share of the interval: somewhat more than the time
	// between two checks, so a round takes one interval.
	revokedEach  = 330 * time.Millisecond
	leastRevoked = time.Minute // the shortest interval at a vendor
)

// benchRevoked makes the CA revoke all certificates at once while two servers of a
// cluster serve them, and kills one of the two when a quarter has been replaced.
// Meanwhile both are visited, each time under another name.
func benchRevoked(ctx context.Context, o options) (rows []row, err error) {
	o.names = o.revoked
	m := &many{options: o}
	if err := m.build(ctx, &m.caddy, &m.sandbox); err != nil {
		return nil, err
	}
	w, err := m.newHoster(ctx, "revoked", ours, o.names, 0)
	if err != nil {
		return nil, err
	}
	defer w.close()
	w.watch = max(time.Duration(o.names)*revokedEach, pick(o, leastRevoked, 4*time.Second))
	w.test = o.quick
	if h, err := w.issueAll(ctx); err != nil || h.issued < o.names {
		return nil, errors.Join(err, fmt.Errorf("%d of %d names have a certificate", h.issued, o.names))
	}
	first, err := w.startCaddy(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, first.stop()) }()
	twin, err := w.another(ctx)
	if err != nil {
		return nil, err
	}
	second, err := twin.startCaddy(ctx)
	if err != nil {
		return nil, err
	}
	defer second.kill()
	r := revocation{hoster: w, servers: []*child{first, second}}
	revoked := make(map[string]string) // the serial numbers, by name
	for _, port := range []int{w.ports[1], twin.ports[1]} {
		if err := r.awaitAll(ctx, port, func(name string, leaf *x509.Certificate) bool {
			revoked[name] = leaf.SerialNumber.String()
			return true
		}); err != nil {
			return nil, err
		}
	}
	for _, c := range r.servers {
		if err := c.settle(ctx, pick(o, restLength, restLength/4)); err != nil {
			return nil, err
		}
	}
	if err := r.run(ctx, twin); err != nil {
		return nil, err
	}
	if err := r.awaitAll(ctx, w.ports[1], func(name string, leaf *x509.Certificate) bool { return leaf.SerialNumber.String() != revoked[name] }); err != nil {
		return nil, err
	}
	charges, err := w.countCharges(ctx)
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("%d certificates revoked at once, at two servers of which one is killed meanwhile: ", o.names)
	return []row{
		{claim: what + "not replaced", ours: fmt.Sprint(o.names - r.replaced), peer: "-", value: float64(o.names - r.replaced), want: bound{kind: atMost}},
		{claim: what + "charges", ours: fmt.Sprint(charges - o.names), peer: "-", value: float64(charges - o.names), want: bound{kind: atMost}},
		{
			claim: what + "handshakes that failed",
			ours:  fmt.Sprintf("%d of %d", r.failed, r.handshakes), peer: "-", value: float64(r.failed), want: bound{kind: atMost},
		},
		{
			claim: what + "time until the last one is noticed, against the option watch",
			ours:  fmt.Sprintf("%s of %s", r.noticed.Round(time.Second), w.watch), peer: "-",
			value: r.noticed.Seconds() / w.watch.Seconds(), unit: "×", want: bound{atMost, 1, 0.1},
		},
		{
			claim: what + "time until all are replaced; processor time of the server that lives, for each",
			ours:  fmt.Sprintf("%s; %s ms", r.wall.Round(time.Second), number(r.cpu.Seconds()*1e3/float64(o.names))), peer: "-",
			value: r.wall.Seconds() / w.watch.Seconds(), unit: "× watch",
		},
	}, nil
}

// another is the second server of the same cluster. The CA fetches validation files from
// the first one only.
func (w *hoster) another(ctx context.Context) (*hoster, error) {
	ports, err := freePorts(ctx, 3)
	if err != nil {
		return nil, err
	}
	twin := *w
	twin.ports, twin.file = ports, "second.json"
	return &twin, nil
}

// revocation is what happens then.
type revocation struct {
	*hoster
	servers       []*child
	replaced      int
	noticed, wall time.Duration
	cpu           time.Duration

	mu                 sync.Mutex
	handshakes, failed int
}

// run revokes, kills, and waits until all are replaced.
func (r *revocation) run(ctx context.Context, twin *hoster) error {
	before, err := r.servers[0].usage()
	if err != nil {
		return err
	}
	visiting, end := context.WithCancel(ctx)
	defer end()
	var visitors sync.WaitGroup
	defer visitors.Wait()
	defer end()
	visitors.Go(func() { r.visit(visiting, r.ports[1]) })
	toTwin, endTwin := context.WithCancel(visiting)
	defer endTwin()
	twins := make(chan struct{})
	go func() { defer close(twins); r.visit(toTwin, twin.ports[1]) }()

	var answer struct{ Revoked int }
	if err := r.control(ctx, http.MethodPost, "/revoke-all", nil, &answer); err != nil || answer.Revoked != len(r.names) {
		return errors.Join(err, fmt.Errorf("%d certificates are revoked", answer.Revoked))
	}
	started := time.Now()
	folder, err := r.certificates()
	if err != nil {
		return err
	}
	noticed, killed := 0, false
	for left := r.names; len(left) > 0; {
		if time.Since(started) > manyPatience+3*r.watch {
			return fmt.Errorf("%d of %d are replaced\n%s", r.replaced, len(r.names), r.servers[0].tail())
		}
		if err := r.servers[0].sleep(ctx, 2*look); err != nil {
			return err
		}
		if noticed < len(r.names) {
			if n := r.noticedSoFar(); n > noticed {
				noticed, r.noticed = n, time.Since(started)
			}
		}
		left = slices.DeleteFunc(slices.Clone(left), func(name string) bool {
			written, ok := certificateOf(folder, name)
			return ok && written.After(started)
		})
		r.replaced, r.wall = len(r.names)-len(left), time.Since(started)
		if !killed && 4*r.replaced > len(r.names) {
			killed = true
			endTwin()
			<-twins // its visitors stop before it is killed
			r.servers[1].kill()
		}
	}
	after, err := r.servers[0].usage()
	if err != nil {
		return err
	}
	r.cpu = after.cpu - before.cpu
	return nil
}

// noticedSoFar is how many certificates the servers have reported to be revoked.
func (r *revocation) noticedSoFar() (n int) {
	for _, c := range r.servers {
		n += c.said("the certificate of a paid order was revoked, so clients that check")
	}
	return n
}

// visit sends visitors to a server, each to a random name, until the context ends.
func (r *revocation) visit(ctx context.Context, port int) {
	var all sync.WaitGroup
	defer all.Wait()
	for tick := time.NewTicker(visitEvery); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return
		}
		all.Go(func() {
			name := r.names[rand.IntN(len(r.names))] //nolint:gosec // no secret
			// A visit that has begun goes on when the context ends.
			_, err := leafOf(context.WithoutCancel(ctx), port, name)
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.handshakes++; err != nil {
				r.failed++
				fmt.Fprintf(os.Stderr, "revoked: a handshake for %s failed: %v\n", name, err)
			}
		})
	}
}

// awaitAll waits until a server serves a good certificate for each name.
func (r *revocation) awaitAll(ctx context.Context, port int, good func(name string, leaf *x509.Certificate) bool) error {
	deadline := time.Now().Add(manyStall)
	for left := slices.Clone(r.names); ; {
		var last error
		left = slices.DeleteFunc(left, func(name string) bool {
			leaf, err := leafOf(ctx, port, name)
			if err != nil {
				last = err
				return false
			}
			return good(name, leaf)
		})
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("%d of %d names are not served as they should be, such as %s", len(left), len(r.names), left[0]), last)
		}
		if err := r.servers[0].sleep(ctx, look); err != nil {
			return err
		}
	}
}

// leafOf is the certificate that a server serves for a name.
func leafOf(ctx context.Context, port int, name string) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{ServerName: name, InsecureSkipVerify: true}} //nolint:gosec // of a CA that nobody trusts; the name is checked
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	c, ok := conn.(*tls.Conn)
	if !ok {
		return nil, fmt.Errorf("a %T", conn)
	}
	leaf := c.ConnectionState().PeerCertificates[0]
	return leaf, leaf.VerifyHostname(name)
}
