package sandboxca

import (
	"crypto/x509"
	"fmt"
	"maps"
	"math/big"
	"slices"
)

// What a test may see and do that a customer may not.

// RootPEM is the root certificate.
func (c *CA) RootPEM() []byte { return certPEM(c.authority.root.Raw) }

// Roots is a pool that holds only the root certificate.
func (c *CA) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.authority.root)
	return pool
}

// Charges lists every charge ever made, oldest first.
func (c *CA) Charges() []Charge {
	c.mu.Lock()
	defer c.mu.Unlock()
	return cloneCharges(c.st.charges)
}

// Orders lists every order, reissue and replacement, oldest first.
func (c *CA) Orders() []OrderInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advanceAll()
	infos := make([]OrderInfo, 0, len(c.st.orders))
	for _, o := range c.st.orders {
		infos = append(infos, o.info())
	}
	return infos
}

// Order returns the order with this ID, and whether there is one.
func (c *CA) Order(id string) (OrderInfo, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.st.byID[id]
	if o == nil {
		return OrderInfo{}, false
	}
	c.advance(o)
	return o.info(), true
}

// Fetches lists the validation fetches since New, oldest first; only the newest
// ten thousand are kept.
func (c *CA) Fetches() []Fetch {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Fetch{}, c.fetches...)
}

// Revoked reports whether the certificate with this serial number was revoked, in
// whatever way.
func (c *CA) Revoked(serial *big.Int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.st.orders {
		if o.Revoked && o.Serial == serial.Text(16) {
			return true
		}
	}
	return false
}

// CRL is the list of all revoked certificates, in DER.
func (c *CA) CRL() ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var entries []x509.RevocationListEntry
	listed := make(map[string]bool) // by a quirk, two orders may share a certificate
	for _, o := range c.st.orders {
		serial, ok := new(big.Int).SetString(o.Serial, 16)
		if !ok || !o.Revoked || listed[o.Serial] {
			continue
		}
		listed[o.Serial] = true
		entries = append(entries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: o.RevokedAt})
	}
	return c.authority.revocations(entries, c.cfg.Now())
}

// SetStatus changes an order behind the client's back, as the seller's staff may. The
// status is stored as given; CANCELLED and REVOKED also revoke the certificate.
func (c *CA) SetStatus(orderID, status string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.st.byID[orderID]
	if o == nil {
		return fmt.Errorf("no order %q", orderID)
	}
	c.advance(o)
	o.Status = status
	if status == StatusCancelled || status == StatusRevoked {
		o.Revoke(c.cfg.Now())
	}
	return c.store(o)
}

// RevokeCertificate revokes the certificate of an order behind the client's back, as a CA
// does when it finds that it was misissued. The order stays active and may be reissued.
func (c *CA) RevokeCertificate(orderID string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.st.byID[orderID]
	if o == nil {
		return fmt.Errorf("no order %q", orderID)
	}
	if c.advance(o); o.Cert == nil {
		return fmt.Errorf("order %q has no certificate", orderID)
	}
	o.Revoke(c.cfg.Now())
	return c.store(o)
}

// RevokeAll revokes all certificates at once, as after an incident at the CA, and returns
// how many there were. The orders stay active.
func (c *CA) RevokeAll() (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advanceAll()
	var revoked []*Order
	for _, o := range c.st.orders {
		if o.Cert != nil && !o.Revoked {
			o.Revoke(c.cfg.Now())
			revoked = append(revoked, o)
		}
	}
	return len(revoked), c.saved(change{Progress: progressOf(revoked)}).Err()
}

// EndOrder ends a paid order and its reissues behind the client's back, as the seller's
// staff may: StatusRevoked revokes its certificates, StatusCancelled refunds it, too.
func (c *CA) EndOrder(orderID, status string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.st.byID[orderID]
	if o == nil {
		return fmt.Errorf("no order %q", orderID)
	}
	return c.end([]*Order{c.st.byID[o.Paid]}, status)
}

// EndAll does the same to all active orders at once, and returns how many there were.
func (c *CA) EndAll(status string) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advanceAll()
	living := make(map[*Order]bool)
	for _, o := range c.st.orders {
		if o.Status == StatusPending || o.Status == StatusComplete {
			living[c.st.byID[o.Paid]] = true
		}
	}
	return len(living), c.end(slices.Collect(maps.Keys(living)), status)
}

// end ends paid orders. The lock is held.
func (c *CA) end(paid []*Order, status string) error {
	if status != StatusCancelled && status != StatusRevoked {
		return fmt.Errorf("an order ends as %s or %s, not as %q", StatusCancelled, StatusRevoked, status)
	}
	ch := change{Balances: make(map[string]int64)}
	var changed []*Order
	for _, root := range paid {
		for _, o := range c.st.byPaid[root.ID] {
			if o.Status != StatusReissued {
				o.Status = status
			}
			o.Revoke(c.cfg.Now())
			changed = append(changed, o)
		}
		if status == StatusCancelled && !root.Refunded {
			root.Refunded = true
			c.st.balances[root.Account] += root.Cents
			ch.Balances[root.Account] = c.st.balances[root.Account]
		}
	}
	ch.Progress = progressOf(changed)
	return c.saved(ch).Err()
}

// Approve proves one name of a pending order, as a click on the link in a
// validation mail would.
func (c *CA) Approve(orderID, name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.st.byID[orderID]
	if o == nil {
		return fmt.Errorf("no order %q", orderID)
	}
	n := o.Name(name)
	if n == nil {
		return fmt.Errorf("order %q has no name %q", orderID, name)
	}
	n.Verified = true
	o.settle(c.cfg.Now())
	c.advance(o)
	return c.store(o)
}

// store stores the changes to an order. The lock is held.
func (c *CA) store(o *Order) error {
	return c.saved(change{Progress: progressOf([]*Order{o})}).Err()
}
