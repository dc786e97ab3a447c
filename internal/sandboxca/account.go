package sandboxca

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"time"
)

// Account is a customer of the sandbox.
type Account struct {
	// Token is the API credential.
	Token string

	// Balance is the opening balance in cents. A balance stored in Config.Dir takes
	// precedence.
	Balance int64

	// Organizations are the IDs of the validated organizations that orders may
	// name.
	Organizations []int64

	// AllowedIPs lists the addresses or prefixes (CIDR) the token may be used
	// from. Empty means anywhere.
	AllowedIPs []string
}

// Charge is one debit of an account.
type Charge struct {
	Time      time.Time `json:"time"`
	OrderID   string    `json:"order_id"`
	Reference string    `json:"reference,omitempty"`
	Product   string    `json:"product"`
	Names     []string  `json:"names"`
	Cents     int64     `json:"cents"`
	Kind      string    `json:"kind"` // KindPlace or KindRenew
}

// Balance is the money left in the account with this token, in cents. An
// unknown account has none.
func (c *CA) Balance(token string) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.st.balances[Account{Token: token}.Key()]
}

// SetBalance changes the money left in an account. It does not count as a charge.
func (c *CA) SetBalance(token string, cents int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := Account{Token: token}.Key()
	if _, known := c.st.balances[key]; !known {
		return errors.New("no such account")
	}
	c.st.balances[key] = cents
	return c.saved(change{Balances: map[string]int64{key: cents}}).Err()
}

// openAccounts gives new accounts their opening balance. The lock is held, or not
// needed yet.
func (c *CA) openAccounts(accounts []Account) error {
	opened := make(map[string]int64)
	for _, acc := range accounts {
		if _, known := c.st.balances[acc.Key()]; !known {
			opened[acc.Key()] = acc.Balance
		}
	}
	if len(opened) == 0 {
		return nil
	}
	maps.Copy(c.st.balances, opened)
	if err := c.journal.write(change{Balances: opened}, &c.st); err != nil {
		return fmt.Errorf("storing accounts: %w", err)
	}
	return nil
}

// Key names the account in orders and on disk, where the token must not appear.
func (a Account) Key() string {
	sum := sha256.Sum256([]byte(a.Token))
	return hex.EncodeToString(sum[:8])
}

func (a Account) allows(remoteAddr string) bool {
	if len(a.AllowedIPs) == 0 {
		return true
	}
	from, err := netip.ParseAddrPort(remoteAddr)
	if err != nil {
		return false
	}
	ip := from.Addr().Unmap()
	return slices.ContainsFunc(a.AllowedIPs, func(allowed string) bool {
		prefix, err := parsePrefix(allowed)
		return err == nil && prefix.Contains(ip)
	})
}

func parsePrefix(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return addr.Prefix(addr.BitLen())
	}
	return netip.ParsePrefix(s)
}

// Authenticate returns the account of a token, or nil if the caller may not use it.
func (c *CA) Authenticate(r *http.Request, token string) *Account {
	c.mu.Lock()
	accounts := c.cfg.Accounts
	c.mu.Unlock()
	for i := range accounts {
		acc := &accounts[i]
		if subtle.ConstantTimeCompare([]byte(acc.Token), []byte(token)) == 1 && acc.allows(r.RemoteAddr) {
			return acc
		}
	}
	return nil
}

func checkAccounts(accounts []Account) error {
	seen := make(map[string]bool)
	for i, acc := range accounts {
		if acc.Token == "" {
			return fmt.Errorf("account %d has no token", i)
		}
		if seen[acc.Token] {
			return fmt.Errorf("account %d has the token of an earlier account", i)
		}
		seen[acc.Token] = true
		for _, allowed := range acc.AllowedIPs {
			if _, err := parsePrefix(allowed); err != nil {
				return fmt.Errorf("account %d: allowed address %q is neither an address nor a prefix", i, allowed)
			}
		}
	}
	return nil
}

func cloneCharges(charges []Charge) []Charge {
	out := make([]Charge, len(charges))
	for i, ch := range charges {
		ch.Names = slices.Clone(ch.Names)
		out[i] = ch
	}
	return out
}
