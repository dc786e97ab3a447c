package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strconv"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/internal/test/tlsconfig"
	"github.com/caddy-commercial/caddy-commercial/issuer"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// server is an issuer as a config has it: loaded by Caddy, with a certmagic config
// and a storage of its own.
type server struct {
	*issuer.Issuer
	magic   *certmagic.Config
	storage *countingStorage
	cache   *certmagic.Cache
	release func()
}

// newServer loads an issuer. It has no HTTP server of Caddy's, so it listens by itself
// while an order is pending.
func newServer(storage *countingStorage, cfg *issuer.Issuer) (*server, error) {
	raw := caddyconfig.JSONModuleObject(cfg, "module", "commercial", nil)
	config, err := tlsconfig.NewLogging(quietLogging(), "", raw)
	if err != nil {
		return nil, err
	}
	release := config.Close
	iss, ok := config.Issuers[0].(*issuer.Issuer)
	if !ok {
		release()
		return nil, fmt.Errorf("module %T is not an issuer", config.Issuers[0])
	}
	s := &server{Issuer: iss, storage: storage, release: release}
	s.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return s.magic, nil },
		Logger:           zap.NewNop(),
	})
	s.magic = certmagic.New(s.cache, certmagic.Config{
		Storage: s.storage, Logger: zap.NewNop(), Issuers: []certmagic.Issuer{iss},
	})
	iss.SetConfig(s.magic)
	if err := config.Start(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *server) close() {
	s.release()
	s.cache.Stop()
}

// request makes what certmagic hands to an issuer: a CSR for a new key.
func (s *server) request(name string) (*x509.CertificateRequest, error) {
	key, err := s.magic.KeySource.GenerateKey()
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("key %T cannot sign", key)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{name}}, signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificateRequest(der)
}

// issuerConfig is a config that buys from the vendor and spends freely.
func issuerConfig(vendor map[string]any, httpPort int) (*issuer.Issuer, error) {
	raw, err := json.Marshal(vendor)
	if err != nil {
		return nil, err
	}
	return &issuer.Issuer{
		VendorRaw: raw,
		Product:   "comodo-positivessl",
		Contact: &vendors.Contact{
			FirstName: "Ada", LastName: "Lovelace", Email: "ada@example.com", Phone: "+44.2012345678",
			Organization: "Analytical Engines", JobTitle: "Analyst", Address: "12 St James's Square",
			City: "London", State: "London", PostalCode: "SW1Y 4LB", Country: "GB",
		},
		SpendLimit: &issuer.SpendLimit{Orders: 1_000_000},
		Probe:      "off",
		HTTPPort:   httpPort,
		Bind:       []string{"127.0.0.1"},
	}, nil
}

// freePorts returns n different ports on which nobody listens at the moment.
func freePorts(ctx context.Context, n int) ([]int, error) {
	var config net.ListenConfig
	ports := make([]int, 0, n)
	for range n {
		ln, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer ln.Close()
		addr, ok := ln.Addr().(*net.TCPAddr)
		if !ok {
			return nil, fmt.Errorf("listening at %s, which has no port", ln.Addr())
		}
		ports = append(ports, addr.Port)
	}
	return ports, nil
}

func subdir(o options, i int) string { return filepath.Join(o.dir, strconv.Itoa(i)) }
