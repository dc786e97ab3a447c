package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/internal/test/e2e/journal"
)

func init() {
	caddy.RegisterModule(Storage{})
}

// Storage keeps everything in a directory, as Caddy's own does, and reports each write
// that matters to a test, before and after it is done. The test answers when the server
// may go on, or never, if it kills the server there.
type Storage struct {
	// Directory of the files.
	Root string `json:"root,omitempty"`

	// URL to report writes to. Empty means that none are reported.
	Report string `json:"report,omitempty"`

	// File to record each call in, see package journal. Empty means that none are
	// recorded.
	Journal string `json:"journal,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (Storage) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "caddy.storage.e2e_points",
		New: func() caddy.Module { return new(Storage) },
	}
}

// CertMagicStorage implements caddy.StorageConverter.
func (s *Storage) CertMagicStorage() (certmagic.Storage, error) {
	files := &reporting{&certmagic.FileStorage{Path: s.Root}, s.Report}
	if s.Journal == "" {
		return files, nil
	}
	return journal.Note(files, s.Journal)
}

// UnmarshalCaddyfile sets up the storage from Caddyfile tokens.
//
//	e2e_points <root> [<report url> [<journal>]]
func (s *Storage) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume module name
	if !d.Args(&s.Root) {
		return d.ArgErr()
	}
	if d.NextArg() {
		s.Report = d.Val()
	}
	if d.NextArg() {
		s.Journal = d.Val()
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

type reporting struct {
	*certmagic.FileStorage
	url string
}

// Store implements certmagic.Storage.
func (s *reporting) Store(ctx context.Context, key string, value []byte) error {
	return s.around(ctx, "write", key, func() error { return s.FileStorage.Store(ctx, key, value) })
}

// Delete implements certmagic.Storage.
func (s *reporting) Delete(ctx context.Context, key string) error {
	return s.around(ctx, "delete", key, func() error { return s.FileStorage.Delete(ctx, key) })
}

func (s *reporting) around(ctx context.Context, what, key string, do func() error) error {
	matters := strings.HasPrefix(key, "commercial/") || strings.HasPrefix(key, "certificates/")
	if s.url == "" || !matters {
		return do()
	}
	if err := s.report(ctx, "before "+what, key); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return s.report(ctx, "after "+what, key)
}

func (s *reporting) report(ctx context.Context, point, key string) error {
	form := url.Values{"point": {point}, "key": {key}}
	// A write may record something that has already happened, so it goes on after ctx.
	req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodPost, s.url, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("reporting a write: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("reporting a write: status %s", resp.Status)
	}
	return nil
}

// Interface guards
var (
	_ caddy.StorageConverter = (*Storage)(nil)
	_ caddyfile.Unmarshaler  = (*Storage)(nil)
	_ certmagic.Storage      = (*reporting)(nil)
	_ certmagic.TryLocker    = (*reporting)(nil)
)
