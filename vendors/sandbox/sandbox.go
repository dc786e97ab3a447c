// Package sandbox is a vendor that sells nothing: a whole commercial CA inside
// this process, for trying the plugin without an account and without money. It is
// a real HTTP service on a loopback address, which really fetches validation
// files, and its certificates are trusted by nobody.
package sandbox

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/internal/options"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
	dialect "github.com/caddy-commercial/caddy-commercial/internal/sandboxca/racent"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/resolver"
	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/racent"
)

func init() {
	caddy.RegisterModule(new(Sandbox))
}

// Sandbox is a commercial CA for tests and demos that runs in this process and
// speaks the dialect of the racent vendor. Nothing it does costs money, and no
// browser trusts its certificates: never use it in production.
//
// Instances with the same data directory are one CA, also across config reloads;
// the settings that were loaded last apply to all of them.
type Sandbox struct {
	// Address to listen on, which must be a loopback address. Default:
	// 127.0.0.1:0, which lets the system choose a port.
	Listen string `json:"listen,omitempty"`

	// Directory of the CA's keys, orders and charges. The root certificate is
	// root.pem in it. Default: commercial-sandbox in Caddy's data directory.
	// Placeholders are supported.
	DataDir string `json:"data_dir,omitempty"`

	// Validity of one issued certificate. Default: 199 days.
	Lifetime caddy.Duration `json:"lifetime,omitempty"`

	// How long one paid year lasts, so that renewals can be watched. Default:
	// 365 days.
	Year caddy.Duration `json:"year,omitempty"`

	// Time from validation to the issuance of the certificate. Default: none.
	Delay caddy.Duration `json:"delay,omitempty"`

	// Port on which validation files are fetched over HTTP. Default: the HTTP app's
	// HTTP port, or else 80.
	HTTPPort int `json:"http_port,omitempty"`

	// Port on which validation files are fetched over HTTPS. Default: the HTTP app's
	// HTTPS port, or else 443.
	HTTPSPort int `json:"https_port,omitempty"`

	// Where DNS records are looked up: a recursive resolver, as an IP address with an
	// optional port. With it, `dcv dns` can be tried, and CAA records count. Default:
	// none, and names are proven by files only.
	Resolver string `json:"resolver,omitempty"`

	// Opening balance of the account, in cents of no currency. It applies to a
	// new data directory only. Default: 10000000.
	Balance int `json:"balance,omitempty"`

	*racent.Orders `json:"-"`

	ctx     caddy.Context
	records *resolver.Resolver // nil without a resolver
	service *service
	front   *front
	ports   sync.Once
}

const (
	moduleName     = "sandbox"
	defaultListen  = "127.0.0.1:0"
	defaultYear    = 365 * 24 * time.Hour
	defaultBalance = 10_000_000

	// token is the credential of the only account. It is no secret.
	token = "sandbox"

	// absenceAge is short because nothing is on the way for long within one
	// process. A paid call may take half of it, which must be more than the two
	// seconds that the sandbox may wait for a slow validation.
	absenceAge = 20 * time.Second
)

// CaddyModule returns the Caddy module information.
func (*Sandbox) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  vendors.Namespace + "." + moduleName,
		New: func() caddy.Module { return new(Sandbox) },
	}
}

// Provision starts the CA, or joins the one that runs on the same directory.
func (s *Sandbox) Provision(ctx caddy.Context) error {
	s.ctx = ctx
	if err := s.setDefaults(); err != nil {
		return err
	}
	var err error
	if s.service, err = acquireService(s.DataDir, s.apply); err != nil {
		return err
	}
	if s.front, err = acquireFront(s.service, s.Listen); err != nil {
		return err
	}
	block, _ := pem.Decode(s.service.ca.RootPEM())
	if block == nil {
		return errors.New("the sandbox has no root certificate")
	}
	// The account is named after the root, so that a CA that was started anew
	// after its directory was wiped, and knows none of the orders, is another one.
	root := sha256.Sum256(block.Bytes)
	s.Orders, err = racent.New(racent.Config{
		Secret:   token,
		Endpoint: s.front.url() + "/ssl",
		Logger:   ctx.Logger(),
		Description: vendors.Description{
			Name:        moduleName,
			Account:     moduleName + "/" + hex.EncodeToString(root[:6]),
			Portal:      s.front.url(),
			AbsenceAge:  absenceAge,
			RenewWindow: time.Duration(s.Year) * 90 / 365,
			AnyName:     true,
			HTTPPort:    s.HTTPPort,
			HTTPSPort:   s.HTTPSPort,
		},
	}, racent.Options{})
	if err != nil {
		return err
	}
	ctx.Logger().Warn("SANDBOX certificate authority in use: not for production, its certificates are not trusted by anyone",
		zap.String("root", filepath.Join(s.DataDir, "root.pem")),
		zap.String("url", s.front.url()))
	return nil
}

func (s *Sandbox) setDefaults() error {
	if s.Listen == "" {
		s.Listen = defaultListen
	}
	if err := checkLoopback(s.Listen); err != nil {
		return err
	}
	dir, err := options.Resolve(caddy.NewReplacer(), "data_dir", s.DataDir)
	if err != nil {
		return err
	}
	if dir == "" {
		dir = filepath.Join(caddy.AppDataDir(), "commercial-sandbox")
	}
	if s.DataDir, err = filepath.Abs(dir); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	if s.Resolver != "" {
		if s.records, err = resolver.New(s.Resolver); err != nil {
			return err
		}
	}
	if s.Lifetime < 0 || s.Year < 0 || s.Delay < 0 || s.Balance < 0 {
		return errors.New("lifetime, year, delay and balance must not be negative")
	}
	if s.Year == 0 {
		s.Year = caddy.Duration(defaultYear)
	}
	if s.Balance == 0 {
		s.Balance = defaultBalance
	}
	return nil
}

// apply writes the settings into the CA's configuration.
func (s *Sandbox) apply(cfg *sandboxca.Config) {
	cfg.Dir = s.DataDir
	cfg.Accounts = []sandboxca.Account{{Token: token, Balance: int64(s.Balance)}}
	cfg.Products = dialect.Products()
	cfg.Lifetime = time.Duration(s.Lifetime)
	cfg.Year = time.Duration(s.Year)
	cfg.IssueDelay = time.Duration(s.Delay)
	cfg.HTTPPort, cfg.HTTPSPort = s.HTTPPort, s.HTTPSPort
	cfg.LookupCNAME, cfg.LookupTXT, cfg.LookupCAA = nil, nil, nil
	if s.records != nil {
		s.records.Serve(cfg)
	}
	cfg.Logger = s.ctx.Logger()
}

// setPorts takes the ports that are not configured from the HTTP app. The app cannot
// be asked before all apps are provisioned, as they are when an order is placed.
func (s *Sandbox) setPorts() {
	s.ports.Do(func() {
		app, err := s.ctx.AppIfConfigured("http")
		if err != nil {
			return
		}
		httpApp, ok := app.(*caddyhttp.App)
		if !ok {
			return
		}
		err = s.service.ca.Update(func(cfg *sandboxca.Config) {
			if s.HTTPPort == 0 {
				cfg.HTTPPort = httpApp.HTTPPort
			}
			if s.HTTPSPort == 0 {
				cfg.HTTPSPort = httpApp.HTTPSPort
			}
		})
		if err != nil {
			s.ctx.Logger().Error("setting the ports for validation failed", zap.Error(err))
		}
	})
}

// Place implements vendors.Vendor.
func (s *Sandbox) Place(ctx context.Context, req vendors.OrderRequest) (vendors.Order, error) {
	s.setPorts()
	return s.Orders.Place(ctx, req)
}

// Status implements vendors.Vendor.
func (s *Sandbox) Status(ctx context.Context, orderID string) (vendors.Order, error) {
	s.setPorts()
	return s.Orders.Status(ctx, orderID)
}

// Reissue implements vendors.Reissuer.
func (s *Sandbox) Reissue(ctx context.Context, oldOrderID string, req vendors.OrderRequest) (vendors.Order, error) {
	s.setPorts()
	return s.Orders.Reissue(ctx, oldOrderID, req)
}

// Renew implements vendors.Renewer.
func (s *Sandbox) Renew(ctx context.Context, oldOrderID string, req vendors.OrderRequest) (vendors.Order, error) {
	s.setPorts()
	return s.Orders.Renew(ctx, oldOrderID, req)
}

// Cleanup leaves the CA, and stops it if nobody else uses it.
func (s *Sandbox) Cleanup() error {
	var errs []error
	if s.Orders != nil {
		s.Close()
	}
	if s.front != nil {
		errs = append(errs, release(s.front.key()))
		s.front = nil
	}
	if s.service != nil {
		errs = append(errs, release(s.service.key()))
		s.service = nil
	}
	return errors.Join(errs...)
}

// Describe implements vendors.Vendor. Without a resolver, names are proven by files only.
func (s *Sandbox) Describe() vendors.Description {
	about := s.Orders.Describe()
	if s.records == nil {
		about.Methods = []vendors.Method{vendors.MethodHTTP, vendors.MethodHTTPS}
	}
	return about
}

// UnmarshalCaddyfile sets up the vendor from Caddyfile tokens.
//
//	sandbox {
//	    listen     <address>
//	    data_dir   <directory>
//	    lifetime   <duration>
//	    year       <duration>
//	    delay      <duration>
//	    http_port  <port>
//	    https_port <port>
//	    resolver   <address>
//	    balance    <cents>
//	}
func (s *Sandbox) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume vendor name
	return options.Parse(d, options.Table{
		"listen":     options.String(&s.Listen),
		"data_dir":   options.String(&s.DataDir),
		"lifetime":   options.Duration(&s.Lifetime),
		"year":       options.Duration(&s.Year),
		"delay":      options.Duration(&s.Delay),
		"http_port":  options.Port(&s.HTTPPort),
		"https_port": options.Port(&s.HTTPSPort),
		"resolver":   options.String(&s.Resolver),
		"balance":    options.Int(&s.Balance, 1, 1_000_000_000),
	})
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Sandbox)(nil)
	_ caddy.CleanerUpper    = (*Sandbox)(nil)
	_ caddyfile.Unmarshaler = (*Sandbox)(nil)
	_ vendors.Vendor        = (*Sandbox)(nil)
	_ vendors.Reissuer      = (*Sandbox)(nil)
	_ vendors.Renewer       = (*Sandbox)(nil)
)
