package operator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// TestReconcileBreaksOff: a comparison that is interrupted says so, and adopts nothing.
func TestReconcileBreaksOff(t *testing.T) {
	o := newOffice(t)
	v := o.selling()
	v.orders["7"] = vendors.Order{ID: "7", Status: vendors.StatusIssued, RawStatus: "ISSUED", TermEnds: today.Add(200 * day)}
	row := vendors.ListedOrder{ID: "7", Names: []string{"b.example"}, Status: vendors.StatusIssued}
	for _, says := range []string{"503", "may be cut"} { // what was adopted stays
		err, problem := errors.New(says), says == "503"
		if !problem {
			err = fmt.Errorf("%w: %s", vendors.ErrUndecidable, says)
		}
		o.Accounts[0].Vendor = listing{able{v}, []vendors.ListedOrder{row}, err}
		audits, err := o.Reconcile(t.Context(), Reconciliation{Vendor: "racent", Adopt: true, Confirm: true})
		if err != nil || len(audits) != 1 || strings.Contains(audits[0].Problem, says) != problem {
			t.Fatalf("%+v, %v", audits, err)
		}
		if adopted := len(o.rows(Query{})) == 1; adopted == problem {
			t.Errorf("%s: adopted %v", says, adopted)
		}
		var text bytes.Buffer
		if err := WriteAudits(&text, audits); err != nil || !strings.Contains(text.String(), says) {
			t.Errorf("%v\n%s", err, text.String())
		}
	}
	if _, err := o.Reconcile(t.Context(), Reconciliation{Vendor: "howssl"}); err == nil || !strings.Contains(err.Error(), "its commercial issuers are of racent/portal.example") {
		t.Error(err)
	}
}

// listing is a vendor with a list of orders.
type listing struct {
	able
	rows []vendors.ListedOrder
	err  error
}

func (v listing) ListOrders(_ context.Context, yield func(vendors.ListedOrder) error) error {
	for _, row := range v.rows {
		if err := yield(row); err != nil {
			return err
		}
	}
	return v.err
}

// TestReconcileFindsWhatWasTakenForNeverPlaced: a paid order whose answer was lost, and that was
// considered never placed, is found and restored.
func TestReconcileFindsWhatWasTakenForNeverPlaced(t *testing.T) {
	o := newOffice(t)
	o.enter("racent", "portal.example", "a.example", func(e *ledger.Entry) {
		e.State, e.OrderID, e.Certificate, e.Covered, e.Issued = ledger.Gone, "", nil, nil, 0
	})
	v := o.selling()
	v.orders["7"] = vendors.Order{ID: "7", Status: vendors.StatusIssued, RawStatus: "ISSUED", TermEnds: today.Add(200 * day)}
	row := vendors.ListedOrder{ID: "7", Names: []string{"a.example"}, Status: vendors.StatusIssued, Reference: "r-a.example"}
	o.Accounts[0].Vendor = listing{able{v}, []vendors.ListedOrder{row}, nil}
	audits, err := o.Reconcile(t.Context(), Reconciliation{Vendor: "racent", Adopt: true, Confirm: true})
	if err != nil || len(audits) != 1 || len(audits[0].Findings) != 1 || !audits[0].Findings[0].Adopted {
		t.Fatalf("%+v, %v", audits, err)
	}
	if rows := o.rows(Query{About: "a.example"}); !slices.ContainsFunc(rows, func(r Row) bool { return r.OrderID == "7" && r.State == "open" }) {
		t.Errorf("%+v", rows)
	}
}
