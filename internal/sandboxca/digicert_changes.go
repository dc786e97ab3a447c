package sandboxca

import (
	"net/http"
	"strconv"
	"time"
)

// changes lists the orders whose status has changed in the last minutes, with the one that
// they have, and {} where there are none (both documented). When orders end is not known
// here, so that those are listed for ever.
func (d *digicert) changes(c *digicertCall) answer {
	minutes, err := strconv.Atoi(c.r.URL.Query().Get("minutes"))
	if err != nil || minutes < 1 || minutes > 10080 {
		return d.refuse(c, http.StatusBadRequest, "time_frame_too_long", "The time frame is too long.")
	}
	d.ca.mu.Lock()
	families := d.families(c)
	d.ca.mu.Unlock()
	for _, f := range families {
		c.args = []string{f.root.ID}
		d.lookAt(c, false) // the CA looks by itself
	}
	d.ca.mu.Lock()
	defer d.ca.mu.Unlock()
	rows, now := []any{}, d.ca.cfg.Now()
	for _, f := range d.families(c) {
		last, status := f.all[len(f.all)-1], f.status(now)
		changed := last.Created
		if last.Cert != nil {
			changed = last.Issued
		}
		switch recent := now.Sub(changed) <= time.Duration(minutes)*time.Minute; status {
		case "pending", "needs_approval", "issued", "reissue_pending":
			if !recent {
				continue
			}
		}
		rows = append(rows, map[string]any{"order_id": c.id(f.root.ID), "certificate_id": c.id(f.active().CACert), "status": status})
	}
	if len(rows) == 0 {
		return jsonAnswer(http.StatusOK, map[string]any{})
	}
	return jsonAnswer(http.StatusOK, map[string]any{"orders": rows})
}
