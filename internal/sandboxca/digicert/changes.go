package digicert

import (
	"net/http"
	"strconv"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
)

// maxChangeMinutes bounds what can be asked for: a week.
const maxChangeMinutes = 10_080

// changes lists the orders whose status has changed in the given number of minutes, with
// their current status, and answers {} if there are none (both documented). When an order
// ended is not known here, so orders that have ended are always listed.
func (d *Dialect) changes(c *call) sandboxca.Answer {
	minutes, err := strconv.Atoi(c.r.URL.Query().Get("minutes"))
	if err != nil || minutes < 1 || minutes > maxChangeMinutes {
		return d.refuse(c, http.StatusBadRequest, "time_frame_too_long", "The time frame is too long.")
	}
	books := d.ca.Open()
	families := d.families(books, c)
	books.Close()
	for _, f := range families {
		c.args = []string{f.root.ID}
		d.lookAt(c, false) // the CA checks by itself
	}
	books = d.ca.Open()
	defer books.Close()
	rows := []any{}
	for _, f := range d.families(books, c) {
		if f.changedWithin(c, books, time.Duration(minutes)*time.Minute) {
			rows = append(rows, map[string]any{
				"order_id": c.id(f.root.ID), "certificate_id": c.id(f.active().CACert), "status": f.status(books.Now()),
			})
		}
	}
	if len(rows) == 0 {
		return sandboxca.JSON(http.StatusOK, map[string]any{})
	}
	return sandboxca.JSON(http.StatusOK, map[string]any{"orders": rows})
}

// changedWithin reports whether an active order was taken or issued within a span of
// time, or its certificate revoked; that revocations are listed is not documented. An
// order that has ended always counts.
func (f *family) changedWithin(c *call, books sandboxca.Books, span time.Duration) bool {
	switch f.status(books.Now()) {
	case "pending", "needs_approval", "issued", "reissue_pending":
	default:
		return true
	}
	last := f.all[len(f.all)-1]
	changed := last.Created
	if last.Cert != nil {
		changed = last.Issued
	}
	if at := f.active().RevokedAt; at.After(changed) && !c.quirks.UnlistedRevocations {
		changed = at
	}
	return books.Now().Sub(changed) <= span
}
