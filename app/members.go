package app

import (
	"context"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddytls"

	"github.com/caddy-commercial/caddy-commercial/dcv"
)

// membersOf are the registered issuers of a policy, in its order.
func (a *App) membersOf(policy *caddytls.AutomationPolicy) []Member {
	var list []Member
	for _, issuer := range policy.Issuers {
		if m, ok := issuer.(Member); ok && a.members[m] != nil {
			list = append(list, m)
		}
	}
	return list
}

// Peers are the other registered issuers that work for the same account.
func (a *App) Peers(m Member) []Member {
	var peers []Member
	for other := range a.members {
		if other != m && other.IssuerKey() == m.IssuerKey() {
			peers = append(peers, other)
		}
	}
	return peers
}

// membersFor are our issuers that the config has for the name.
func (h *hosts) membersFor(name string) []Member {
	if i := h.policy(dcv.NormalizeHost(name)); i < len(h.members) {
		return h.members[i]
	}
	return nil
}

// Allows reports whether the config uses the issuer for the name, and whether it spells the
// name out. Before Start, both are false.
func (a *App) Allows(m Member, name string) (ours, exact bool) {
	h := a.hosts.Load()
	if h == nil || !slices.Contains(h.membersFor(name), m) {
		return false, false
	}
	_, exact = h.written[dcv.NormalizeHost(name)]
	return true, exact
}

// Manages reports whether the config has a site, or something else, that needs a certificate
// for the name, and has the issuer for it. Allows is also true for names that nothing in the
// config asks for, if the issuer's policy is for all names.
func (a *App) Manages(m Member, name string) bool {
	ours, exact := a.Allows(m, name)
	if !ours || exact {
		return ours
	}
	h := a.hosts.Load()
	_, written := h.written[name]
	_, subject := h.subjects[name]
	_, managed := slices.BinarySearch(a.Names(), name)
	return written || subject || managed
}

// First reports whether the issuer is the first one of the name's policy. If it is not, a
// certificate from another issuer is as good.
func (a *App) First(m Member, name string) bool {
	h := a.hosts.Load()
	if h == nil {
		return false
	}
	i := h.policy(dcv.NormalizeHost(name))
	return i < len(h.first) && h.first[i] == any(m)
}

// NamesOf returns those of Names that have the issuer.
func (a *App) NamesOf(m Member) []string {
	h := a.hosts.Load()
	if h == nil {
		return nil
	}
	var names []string
	for _, name := range a.Names() {
		if slices.Contains(h.membersFor(name), m) {
			names = append(names, name)
		}
	}
	return names
}

// Written returns the names, and wildcards, that the config spells out and that have the
// issuer. Unlike Names, they are known when the app starts.
func (a *App) Written(m Member) []string {
	h := a.hosts.Load()
	if h == nil {
		return nil
	}
	var names []string
	for name := range h.written {
		if slices.Contains(h.membersFor(name), m) {
			names = append(names, name)
		}
	}
	for subject := range h.subjects {
		if _, written := h.written[subject]; !written && slices.Contains(h.membersFor(subject), m) {
			names = append(names, subject)
		}
	}
	slices.Sort(names)
	return names
}

// Worker returns the worker for the line of an account. It leaves each name to the issuer of
// that account that the config has for it.
func (a *App) Worker(issuerKey string) Worker { return dispatcher{a, issuerKey} }

type dispatcher struct {
	app       *App
	issuerKey string
}

// Round implements Worker.
func (d dispatcher) Round(ctx context.Context, name string) (again time.Duration, more bool) {
	h := d.app.hosts.Load()
	if h == nil {
		return time.Second, true
	}
	for _, m := range h.membersFor(name) {
		if m.IssuerKey() == d.issuerKey {
			return m.Round(ctx, name)
		}
	}
	return 0, false
}
