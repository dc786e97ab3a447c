// Package metrics has what the plugin counts and measures for Prometheus. Counters and
// histograms belong to the process: each config registers the same ones, so that a reload
// does not reset them.
package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
)

const namespace = "caddy_commercial"

const (
	minute = 60
	hour   = 60 * minute
	day    = 24 * hour
)

// What is counted where it happens.
var (
	// Charges counts orders whose payment a vendor has acknowledged.
	Charges = counter("charges_total", "Paid orders that the vendor has acknowledged.", "vendor")

	// OrderSeconds is observed when an order gives its first certificate.
	OrderSeconds = histogram("order_seconds", "Time from the order to its first certificate.",
		[]float64{minute, 2 * minute, 5 * minute, 10 * minute, 30 * minute, hour, 3 * hour, 6 * hour, 12 * hour, day, 2 * day, 4 * day, 7 * day, 14 * day, 30 * day}, "vendor")

	// ValidationRequests counts requests for validation files, by one of the outcomes below.
	ValidationRequests = counter("validation_requests_total", "Requests for validation files.", "outcome")

	// VendorRequestSeconds is observed for each attempt of a call, by the call's name, of which
	// there are few, and by one of the outcomes below.
	VendorRequestSeconds = histogram("vendor_request_seconds", "Time that a request to the API of a vendor took.",
		[]float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, minute, 2 * minute}, "vendor", "endpoint", "outcome")

	// LimiterWaitSeconds is observed for each request that had to respect the limits of a vendor.
	LimiterWaitSeconds = histogram("limiter_wait_seconds", "Time that a request waited for the limits of the vendor to leave room.",
		[]float64{.01, .1, .5, 1, 5, 10, 30, minute, 3 * minute, 10 * minute}, "vendor")
)

// The outcomes of ValidationRequests.
const (
	Served  = "served"  // the file was sent
	Probed  = "probed"  // it was sent to a probe of our own
	Missing = "missing" // there is no such file
	Failed  = "failed"  // the storage with the files of other servers could not be read
)

// The outcomes of VendorRequestSeconds, of which Failed is one, too.
const (
	OK         = "ok"         // a whole answer, which may still tell of a refusal
	Refused    = "refused"    // HTTP status 4xx
	Limited    = "limited"    // HTTP status 429
	Unanswered = "unanswered" // no answer came back, or the request was not sent
)

// What is told only when it is asked for, by the collector that Register is given.
var (
	Orders = desc("orders", "Orders in the ledger.", "vendor", "state")

	OldestOrderSeconds = desc("oldest_order_seconds", "Age of the oldest order that has not given its first certificate. Zero if there is none.", "vendor")

	CertificateExpirySeconds = desc("certificate_expiry_seconds", "Time until the first certificate of a site expires.", "vendor", "name")

	TermEndSeconds = desc("term_end_seconds", "Time until the first paid term of a site ends.", "vendor", "name")

	SchedulerWaiting = desc("scheduler_waiting", "Names with work that is due later, or that waits for a worker.")
)

func init() {
	// So that each outcome is there as zero, and its first request is an increase.
	for _, outcome := range []string{Served, Probed, Missing, Failed} {
		ValidationRequests.WithLabelValues(outcome)
	}
}

// Descs are the descriptions that the collector that Register is given must have.
func Descs() []*prometheus.Desc {
	return []*prometheus.Desc{Orders, OldestOrderSeconds, CertificateExpirySeconds, TermEndSeconds, SchedulerWaiting}
}

// Register adds all metrics to the registry of a config. Teller is the collector for Descs.
func Register(registry prometheus.Registerer, teller prometheus.Collector) error {
	for _, c := range []prometheus.Collector{Charges, OrderSeconds, ValidationRequests, VendorRequestSeconds, LimiterWaitSeconds, teller} {
		if err := registry.Register(c); err != nil {
			return err
		}
	}
	return nil
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

func histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets}, labels)
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
}
