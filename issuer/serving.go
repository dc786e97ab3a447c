package issuer

import (
	"context"
	"net"
	"strconv"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/issuer/proof"
)

// serving is how the names of one config are proven, and where its validation files are
// served.
type serving struct {
	*proof.ByMethod

	ctx      caddy.Context
	logger   *zap.Logger
	unmanage func()
}

func newServing(ctx caddy.Context, storage certmagic.Storage, iss *Issuer) *serving {
	config := iss.proofs
	config.Storage = storage
	config.Port = func() int {
		if iss.HTTPPort != 0 {
			return iss.HTTPPort
		}
		return dcv.HTTPPort(ctx)
	}
	config.Listen = func(listenCtx context.Context) (func(), error) {
		if dcv.HTTPServed(ctx) {
			return func() {}, nil
		}
		return listen(listenCtx, iss.Bind, config.Port(), iss.logger)
	}
	// The hosts are known only once the config is provisioned, and first needed
	// when a request comes in.
	managed := sync.OnceValue(func() func(string) bool { return dcv.HostMatcher(managedHosts(ctx)) })
	return &serving{
		ByMethod: proof.New(config), ctx: ctx, logger: iss.logger,
		unmanage: dcv.Live.Manage(storage, func(host string) (bool, bool) { return managed()(host), false }),
	}
}

// listen serves validation files on a port of some addresses, or of all.
func listen(ctx context.Context, hosts []string, port int, logger *zap.Logger) (release func(), err error) {
	if len(hosts) == 0 {
		hosts = []string{""}
	}
	var releases []func()
	release = func() {
		for _, each := range releases {
			each()
		}
	}
	for _, host := range hosts {
		one, err := dcv.Serve(ctx, net.JoinHostPort(host, strconv.Itoa(port)), logger)
		if err != nil {
			release()
			return nil, err
		}
		releases = append(releases, one)
	}
	return release, nil
}

// managedHosts are the names in the config's routes and automation policies.
func managedHosts(ctx caddy.Context) []string {
	hosts := dcv.ManagedHosts(ctx)
	app, err := ctx.AppIfConfigured("tls")
	if err != nil {
		return hosts
	}
	if tlsApp, ok := app.(*caddytls.TLS); ok && tlsApp.Automation != nil {
		for _, policy := range tlsApp.Automation.Policies {
			hosts = append(hosts, policy.Subjects()...)
		}
	}
	return hosts
}

// attach puts the handler on Caddy's servers.
func (s *serving) attach() {
	if err := dcv.Attach(s.ctx); err != nil {
		s.logger.Error("cannot serve validation files from the servers of this config; add the dcv directive to a site on the HTTP port", zap.Error(err))
	}
}

// close withdraws nothing: pending orders still need their files, and the next
// config goes on with them.
func (s *serving) close() {
	s.unmanage()
	s.Close()
}
