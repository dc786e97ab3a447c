package app

import (
	"slices"
	"sync"

	"github.com/caddy-commercial/caddy-commercial/operator"
)

// running are the apps that have started and not stopped, the newest last. There are several while
// one config takes the place of another. Requests to the admin endpoint look here, because asking
// Caddy might provision an app.
var running struct {
	mu   sync.Mutex
	apps []*App
}

func (a *App) enter() {
	running.mu.Lock()
	defer running.mu.Unlock()
	running.apps = append(running.apps, a)
}

func (a *App) leave() {
	running.mu.Lock()
	defer running.mu.Unlock()
	running.apps = slices.DeleteFunc(running.apps, func(other *App) bool { return other == a })
}

// Running is the app of the config that runs. Nil if none does, or if it has no commercial issuer.
func Running() *App {
	running.mu.Lock()
	defer running.mu.Unlock()
	if len(running.apps) == 0 {
		return nil
	}
	return running.apps[len(running.apps)-1]
}

// Desk shows the orders of all issuers, each account once, always in the order of the config: pages of
// a list go by it.
func (a *App) Desk() *operator.Desk {
	var accounts []operator.Account
	for _, m := range a.inOrder() {
		if account, ok := m.Account(); ok {
			accounts = append(accounts, account)
		}
	}
	return operator.NewDesk(accounts)
}

// inOrder are the issuers of the config's policies, each once. None before Start.
func (a *App) inOrder() (members []Member) {
	h := a.hosts.Load()
	if h == nil {
		return nil
	}
	for _, m := range slices.Concat(h.members...) {
		if !slices.Contains(members, m) {
			members = append(members, m)
		}
	}
	return members
}
