package main

import (
	"encoding/json"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/internal/test/e2e/journal"
)

func init() {
	caddy.RegisterModule(new(Storage))
}

// Storage keeps everything in Redis, like the storages that Caddys in a cluster commonly
// share: what is written is visible at once, and locks are leases.
type Storage struct {
	// Address of Redis.
	Addr string `json:"addr,omitempty"`

	// File to record each call in, see package journal. Empty means that none are
	// recorded.
	Journal string `json:"journal,omitempty"`

	// How late other connections see what this one writes or deletes: those of other
	// servers, and of the same one after a reload. If it is set, locks do nothing, as in
	// a storage that only replicates.
	Late caddy.Duration `json:"late,omitempty"`

	store *store
}

// CaddyModule returns the Caddy module information.
func (*Storage) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "caddy.storage.e2e_redis",
		New: func() caddy.Module { return new(Storage) },
	}
}

// Provision implements caddy.Provisioner.
func (s *Storage) Provision(ctx caddy.Context) error {
	s.store = newStore(s.Addr, time.Duration(s.Late), ctx.Logger())
	return nil
}

// Cleanup implements caddy.CleanerUpper.
func (s *Storage) Cleanup() error { return s.store.close() }

// CertMagicStorage implements caddy.StorageConverter.
func (s *Storage) CertMagicStorage() (certmagic.Storage, error) {
	if s.Journal == "" {
		return &handle{s.store, s}, nil
	}
	noted, err := journal.Note(s.store, s.Journal)
	return &handle{noted, s}, err
}

// handle is the storage that certmagic gets. Like the common storages, it is its own
// module and can be marshalled, so the plugin can open it a second time.
type handle struct {
	journal.Storage
	module *Storage
}

// CaddyModule returns the Caddy module information.
func (h *handle) CaddyModule() caddy.ModuleInfo { return h.module.CaddyModule() }

// MarshalJSON implements json.Marshaler.
func (h *handle) MarshalJSON() ([]byte, error) { return json.Marshal(h.module) }

// UnmarshalCaddyfile sets up the storage from Caddyfile tokens.
//
//	e2e_redis <address> [<journal> [<late>]]
func (s *Storage) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume module name
	if !d.Args(&s.Addr) {
		return d.ArgErr()
	}
	if d.NextArg() {
		s.Journal = d.Val()
	}
	if d.NextArg() {
		late, err := caddy.ParseDuration(d.Val())
		if err != nil {
			return d.Errf("parsing a duration: %v", err)
		}
		s.Late = caddy.Duration(late)
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner      = (*Storage)(nil)
	_ caddy.CleanerUpper     = (*Storage)(nil)
	_ caddy.StorageConverter = (*Storage)(nil)
	_ caddyfile.Unmarshaler  = (*Storage)(nil)
	_ caddy.Module           = (*handle)(nil)
	_ json.Marshaler         = (*handle)(nil)
)
