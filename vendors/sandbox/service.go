package sandbox

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
	dialect "github.com/caddy-commercial/caddy-commercial/internal/sandboxca/racent"
)

// pool keeps the CAs and their listeners across config reloads. It is keyed by
// serviceKey and frontKey.
var pool = caddy.NewUsagePool()

func release(key any) error {
	_, err := pool.Delete(key)
	return err
}

type serviceKey struct{ dir string }

// service is the CA of one data directory. There must never be two: both would
// write its files.
type service struct {
	dir string
	ca  *sandboxca.CA

	handler http.Handler // of the CA and its dialect
}

func (s *service) key() any { return serviceKey{s.dir} }

// Destruct implements caddy.Destructor.
func (s *service) Destruct() error {
	s.ca.Close()
	return nil
}

// acquireService starts or joins the CA of a directory and applies the settings.
func acquireService(dir string, apply func(*sandboxca.Config)) (*service, error) {
	value, loaded, err := pool.LoadOrNew(serviceKey{dir}, func() (caddy.Destructor, error) {
		var cfg sandboxca.Config
		apply(&cfg)
		ca, err := sandboxca.New(cfg)
		if err != nil {
			return nil, err
		}
		return &service{dir: dir, ca: ca, handler: ca.Handler(dialect.New(ca))}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("starting sandbox in %s: %w", dir, err)
	}
	s := value.(*service)
	if loaded {
		if err := s.ca.Update(apply); err != nil {
			_ = release(s.key()) // closing a CA does not fail
			return nil, fmt.Errorf("updating sandbox in %s: %w", dir, err)
		}
	}
	return s, nil
}

type frontKey struct{ dir, listen string }

// front is an address where the CA of a directory is served. A config that
// changes the address gets a front of its own, and the old one stays for as long
// as the old config does.
type front struct {
	dir, listen string
	listener    net.Listener
	server      *http.Server
	done        chan struct{}
}

func (f *front) key() any { return frontKey{f.dir, f.listen} }

func (f *front) url() string { return "http://" + f.listener.Addr().String() }

// Destruct implements caddy.Destructor.
func (f *front) Destruct() error {
	err := f.server.Close()
	<-f.done
	return err
}

func acquireFront(s *service, listen string) (*front, error) {
	value, _, err := pool.LoadOrNew(frontKey{s.dir, listen}, func() (caddy.Destructor, error) {
		var lc net.ListenConfig
		ln, err := lc.Listen(context.Background(), "tcp", listen)
		if err != nil {
			return nil, err
		}
		f := &front{
			dir: s.dir, listen: listen, listener: ln, done: make(chan struct{}),
			server: &http.Server{Handler: s.handler, ReadHeaderTimeout: 10 * time.Second},
		}
		go func() {
			defer close(f.done)
			_ = f.server.Serve(ln) // always ends with the error of being closed
		}()
		return f, nil
	})
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return value.(*front), nil
}

// checkLoopback refuses an address that others could reach: an order there needs
// no credential worth the name. Names are not accepted, as they could resolve to
// anything.
func checkLoopback(listen string) error {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("listen: %s is not a loopback address such as 127.0.0.1", host)
	}
	return nil
}
