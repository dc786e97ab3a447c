package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/dcv"
)

const (
	helloHost   = "hello.example.com"
	hello       = "hello"
	siteClients = 8 // connections, each with one request at a time

	// siteNoise is the noise that is allowed for on a quiet machine. If two equal servers
	// differ by more than that, their difference is allowed for.
	siteNoise = 0.02

	// maxSiteNoise is where noise stops being an excuse. The few short rounds of a quick
	// run are excused for ten times as much.
	maxSiteNoise = 0.05
)

// siteCaddyfile has a site on plain HTTP, which is measured, and one that makes Caddy set
// up automatic HTTPS and so attach the plugin's route. No certificate is ever requested.
const siteCaddyfile = `{
	admin off
	http_port %d
	https_port %d
	default_bind 127.0.0.1
	persist_config off
	skip_install_trust
	auto_https disable_certs
	storage file_system %s
	log {
		level ERROR
	}
	cert_issuer %s
}
http://` + helloHost + ` {
	respond "` + hello + `"
}
secure.example.com {
	respond "secure"
}
`

// siteIssuer is the plugin's issuer. It is never asked for a certificate.
const siteIssuer = `commercial racent bench {
		product comodo-positivessl
		contact {
			first_name Ada
			last_name Lovelace
			email ada@example.com
			phone +44.2012345678
			organization "Analytical Engines"
			job_title Analyst
			address "12 St James's Square"
			city London
			state London
			postal_code SW1Y
			country GB
		}
	}`

// benchSite serves a site with the plugin's issuer and without it, from processes of the
// same binary that differ only in that line of their config. Two of them run without it:
// the difference between those two is noise, from the machine and from where a process
// happens to lie in memory.
func benchSite(ctx context.Context, o options) (rows []row, err error) {
	binary, err := build(ctx, o, "cmd/caddy")
	if err != nil {
		return nil, err
	}
	var sides []*site
	defer func() {
		for _, s := range sides {
			err = errors.Join(err, s.stop())
		}
	}()
	for i, side := range []struct{ issuer, validation string }{
		{siteIssuer, fileBody}, {"internal", hello}, {"internal", hello},
	} {
		s, err := startSite(ctx, binary, subdir(o, i), side.issuer)
		if err != nil {
			return nil, err
		}
		sides = append(sides, s)
		if err := s.checkValidation(ctx, side.validation); err != nil {
			return nil, err
		}
	}

	rates, err := loadInTurn(ctx, sides, pick(o, 150, 10), pick(o, 100*time.Millisecond, 50*time.Millisecond))
	if err != nil {
		return nil, err
	}
	cpu := make([]float64, len(sides))
	for i, s := range sides {
		if err := s.stop(); err != nil {
			return nil, err
		}
		used := s.cmd.ProcessState.UserTime() + s.cmd.ProcessState.SystemTime()
		cpu[i] = used.Seconds() * 1e6 / float64(s.served)
	}
	compare := func(claim string, a, b int, want bound) row {
		return row{
			claim: claim, ours: number(median(rates[a])) + "/s", peer: number(median(rates[b])) + "/s",
			value: medianRatio(rates[a], rates[b]), unit: "×", want: want,
		}
	}
	noise := math.Abs(1 - medianRatio(rates[2], rates[1]))
	return []row{
		compare("requests per second of a site over plain HTTP, with the plugin's issuer, against the same without", 0, 1,
			bound{atLeast, 0.98, min(max(siteNoise, noise), pick(o, maxSiteNoise, 10*maxSiteNoise))}),
		compare("noise: the same, without against without", 2, 1, bound{}),
		{
			claim: "processor time of the server for a request, start and end included, with against without",
			ours:  number(cpu[0]) + " µs", peer: number((cpu[1]+cpu[2])/2) + " µs",
			value: cpu[0] / ((cpu[1] + cpu[2]) / 2), unit: "×",
		},
	}, nil
}

// loadInTurn puts load on one site after the other, starting with another one and
// changing direction each round, and returns each site's answers per second, round by
// round. The first two rounds only warm up.
func loadInTurn(ctx context.Context, sites []*site, rounds int, length time.Duration) ([][]float64, error) {
	rates := make([][]float64, len(sites))
	for round := range rounds + 2 {
		for i := range sites {
			if round%2 == 1 {
				i = len(sites) - 1 - i
			}
			i = (i + round/2) % len(sites)
			rate, err := sites[i].load(ctx, length)
			if err != nil {
				return nil, err
			}
			if round >= 2 {
				rates[i] = append(rates[i], rate)
			}
		}
	}
	return rates, nil
}

// site is a Caddy process and the connections to it.
type site struct {
	cmd     *exec.Cmd
	output  bytes.Buffer
	ended   chan error
	stopped bool
	storage string
	clients []*client
	served  int
}

func startSite(ctx context.Context, binary, home, issuerLine string) (*site, error) {
	ports, err := freePorts(ctx, 2)
	if err != nil {
		return nil, err
	}
	s := &site{storage: filepath.Join(home, "storage"), ended: make(chan error, 1)}
	if err := os.MkdirAll(s.storage, 0o700); err != nil {
		return nil, err
	}
	config := filepath.Join(home, "Caddyfile")
	text := fmt.Sprintf(siteCaddyfile, ports[0], ports[1], s.storage, issuerLine)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	s.cmd = exec.CommandContext(ctx, binary, "run", "--config", config) //nolint:gosec // paths of our own
	s.cmd.Dir = home
	s.cmd.Env = []string{"HOME=" + home, "XDG_DATA_HOME=" + home, "XDG_CONFIG_HOME=" + home}
	s.cmd.Stdout, s.cmd.Stderr = &s.output, &s.output
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { s.ended <- s.cmd.Wait() }()
	if err := s.connect(ctx, fmt.Sprintf("127.0.0.1:%d", ports[0])); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

// connect waits until the server listens.
func (s *site) connect(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for len(s.clients) < siteClients {
		c, err := dial(ctx, addr)
		if err == nil {
			s.clients = append(s.clients, c)
			continue
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case ended := <-s.ended:
			s.ended <- ended
			return fmt.Errorf("caddy has exited: %w\n%s", errors.Join(ended, err), s.output.String())
		case <-ctx.Done():
			return err
		}
	}
	return nil
}

// stop ends the process, if it has not been stopped yet.
func (s *site) stop() error {
	if s.stopped {
		return nil
	}
	s.stopped = true
	for _, c := range s.clients {
		c.close()
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	if err := <-s.ended; err != nil {
		return fmt.Errorf("caddy has exited: %w\n%s", err, s.output.String())
	}
	return nil
}

// load returns the requests per second that all clients together got answered.
func (s *site) load(ctx context.Context, length time.Duration) (float64, error) {
	var wg sync.WaitGroup
	counts, errs := make([]int, len(s.clients)), make([]error, len(s.clients))
	started := time.Now()
	for i, c := range s.clients {
		wg.Go(func() {
			for time.Since(started) < length && ctx.Err() == nil && errs[i] == nil {
				errs[i] = c.wantBody(helloHost, "/", hello)
				counts[i]++
			}
		})
	}
	wg.Wait()
	seconds := time.Since(started).Seconds()
	if err := errors.Join(errors.Join(errs...), ctx.Err()); err != nil {
		return 0, fmt.Errorf("%w\n%s", err, s.output.String())
	}
	sum := 0
	for _, n := range counts {
		sum += n
	}
	s.served += sum
	return float64(sum) / seconds, nil
}

// checkValidation presents a validation file as another server of a cluster does, in the
// storage, and checks what this one answers for it. Otherwise equal servers might be
// compared.
func (s *site) checkValidation(ctx context.Context, want string) error {
	ch, err := dcv.NewChallenge("bench-site", []string{helloHost}, fileName, fileBody)
	if err != nil {
		return err
	}
	store, storage := dcv.NewStore(), &certmagic.FileStorage{Path: s.storage}
	if err := store.Present(ctx, storage, ch); err != nil {
		return err
	}
	if err := s.clients[0].wantBody(helloHost, ch.Path, want); err != nil {
		return fmt.Errorf("asking for a validation file: %w", err)
	}
	return store.CleanUp(ctx, storage, ch.ID, ch.Hosts)
}
