package statuspage

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/ledger"
)

// Benchmark10000 measures the processor time of pages with ten thousand orders: the first one, which
// reads all of them; one soon after; the second page; a search for a name; and a story.
func Benchmark10000(b *testing.B) {
	o := newOffice(b)
	template := o.enter("racent", "portal.example", "site.example", nil)
	for i := range 10_000 {
		e, c := *template, *template.Certificate
		paid := template.Paid.Add(-time.Duration(i) * 40 * time.Minute)
		e.ID, e.Names, e.Covered = fmt.Sprintf("%s-%016x", paid.Format("20060102t150405"), i), []string{fmt.Sprintf("site%05d.example", i)}, nil
		e.OrderID, e.CAOrderID, e.Attempt.CSR = fmt.Sprint("order", i), fmt.Sprint(3_000_000_000+i), make([]byte, 340)
		e.Paid, e.Ends, c.NotBefore, c.NotAfter = paid, paid.AddDate(1, 0, 0), paid, paid.Add(199*day)
		e.Certificate = &c
		data, err := json.MarshalIndent(&e, "", "  ")
		if err == nil {
			// This does not wait for the disk, as the storage would for each entry.
			err = os.WriteFile(filepath.Join(o.storage.Path, ledger.Prefix("racent", "portal.example"), "entries", e.ID+".json"), data, 0o600)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	for _, bb := range []struct {
		name, target string
		fresh        bool
	}{
		{"first", "/", true},
		{"again", "/", false},
		{"later page", "/?after=000/" + ledger.Prefix("racent", "portal.example") + "/entries/20260801", false},
		{"name", "/?about=site09999.example", false},
		{"order", "/?order=" + template.ID, false},
	} {
		b.Run(bb.name, func(b *testing.B) {
			o.get("", http.StatusOK)
			o.orders.until = o.orders.until.Add(time.Hour)
			before := processorTime(b)
			for b.Loop() {
				if bb.fresh {
					o.orders = newReader()
				}
				if w := o.do(request(http.MethodGet, bb.target)); w.Code != http.StatusOK {
					b.Fatal(w.Body)
				}
			}
			b.ReportMetric(float64((processorTime(b)-before).Milliseconds())/float64(b.N), "cpu-ms/op")
		})
	}
}

func processorTime(b *testing.B) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
