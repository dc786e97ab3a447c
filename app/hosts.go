package app

import (
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddytls"

	"github.com/caddy-commercial/caddy-commercial/dcv"
)

// hosts tells for which names a config uses commercial issuers. It is never changed.
type hosts struct {
	ours     []bool              // by number of the policy, in the order of the config
	members  [][]Member          // likewise, our issuers of it
	first    []any               // likewise, the first of all its issuers
	subjects map[string]int      // the first policy that has the subject, maybe a wildcard
	catchAll int                 // the first policy for all names; len(ours) if there is none
	written  map[string]struct{} // names that the config spells out
}

// findHosts reads the automation policies and routes of the config.
func (a *App) findHosts() *hosts {
	h := &hosts{subjects: make(map[string]int), written: make(map[string]struct{})}
	tlsApp := a.tlsApp()
	if tlsApp == nil || tlsApp.Automation == nil {
		return h
	}
	policies := tlsApp.Automation.Policies
	h.catchAll = len(policies)
	for i, policy := range policies {
		members := a.membersOf(policy)
		h.ours, h.members = append(h.ours, len(members) > 0), append(h.members, members)
		var first any
		if len(policy.Issuers) > 0 {
			first = policy.Issuers[0]
		}
		h.first = append(h.first, first)
		for _, subject := range h.policyFor(i, policy.Subjects()) {
			h.spelledOut(subject)
		}
	}
	for _, name := range slices.Concat(dcv.RouteHosts(a.ctx), automated(tlsApp)) {
		h.spelledOut(dcv.NormalizeHost(name))
	}
	return h
}

// policyFor notes the subjects of policy i, and returns them normalized. It is called for the
// policies in their order. No subjects means all names.
func (h *hosts) policyFor(i int, subjects []string) []string {
	if len(subjects) == 0 {
		h.catchAll = min(h.catchAll, i)
	}
	normal := make([]string, 0, len(subjects))
	for _, subject := range subjects {
		subject = dcv.NormalizeHost(subject)
		if _, known := h.subjects[subject]; !known {
			h.subjects[subject] = i
		}
		normal = append(normal, subject)
	}
	return normal
}

func (h *hosts) spelledOut(name string) {
	if !strings.Contains(name, "*") {
		h.written[name] = struct{}{}
	}
}

// policy returns the number of the first policy that applies to the name, as the TLS app
// finds it (getAutomationPolicyForName), and len(ours) if none does.
func (h *hosts) policy(name string) int {
	first := h.catchAll
	look := func(subject string) {
		if i, ok := h.subjects[subject]; ok {
			first = min(first, i)
		}
	}
	look(name)
	// As certmagic.MatchWildcard does it: from the left, one label after the other.
	rest, stars := name, ""
	for {
		_, tail, more := strings.Cut(rest, ".")
		if !more {
			look(stars + "*")
			return first
		}
		stars += "*."
		look(stars + tail)
		rest = tail
	}
}

// FirstPolicy returns the number of the first automation policy that applies to the name, given
// the subjects of each, and -1 if none does. A policy without subjects is for all names.
func FirstPolicy(subjects [][]string, name string) int {
	h := &hosts{subjects: make(map[string]int), catchAll: len(subjects)}
	for i, list := range subjects {
		h.policyFor(i, list)
	}
	if i := h.policy(name); i < len(subjects) {
		return i
	}
	return -1
}

// Managed reports whether the config gets certificates for the host from one of our
// issuers, and whether the host is spelled out, as a host of a route, a subject of a
// policy or a name to automate, rather than covered by a wildcard or a policy for all
// names. The host must be normalized as by [dcv.NormalizeHost]. Before Start it is false
// for all hosts. It may be called from any goroutine.
func (a *App) Managed(host string) (ours, exact bool) {
	h := a.hosts.Load()
	if h == nil || host == "" {
		return false, false
	}
	i := h.policy(host)
	if i == len(h.ours) || !h.ours[i] {
		return false, false
	}
	_, exact = h.written[host]
	return true, exact
}

// Names returns the names, wildcards among them, that certmagic manages for this config
// and that have one of our issuers. They are known once WaitListening has returned; until
// then there are none. The slice must not be changed.
func (a *App) Names() []string {
	select {
	case <-a.listening:
		return a.names
	default:
		return nil
	}
}

func (a *App) findNames() []string {
	tlsApp, h := a.tlsApp(), a.hosts.Load()
	if tlsApp == nil || h == nil {
		return nil
	}
	names, ok := managing(tlsApp)
	if !ok {
		for subject := range h.subjects {
			names = append(names, subject)
		}
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		i := h.policy(dcv.NormalizeHost(name))
		return i == len(h.ours) || !h.ours[i]
	})
	slices.Sort(names)
	return names
}

// tlsApp returns the TLS app of the config, nil if it has none. It must not be called
// before Start.
func (a *App) tlsApp() *caddytls.TLS {
	mod, err := a.ctx.AppIfConfigured("tls")
	if err != nil {
		return nil
	}
	tlsApp, _ := mod.(*caddytls.TLS)
	return tlsApp
}
