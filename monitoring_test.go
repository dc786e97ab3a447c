package caddycommercial

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-commercial/caddy-commercial/internal/metrics/metricstest"
)

// TestMetricsAreDocumented compares the metrics with the table of docs/monitoring.md.
func TestMetricsAreDocumented(t *testing.T) {
	documented := make(map[string]string)
	rows := regexp.MustCompile("(?m)^\\| `(caddy_commercial_\\w+)` \\| (\\w+) \\| ([^|]*)\\|").FindAllStringSubmatch(read(t, filepath.Join("docs", "monitoring.md")), -1)
	for _, row := range rows {
		documented[row[1]] = strings.TrimSpace(row[2] + " " + row[3])
	}
	for _, m := range metricstest.All(t) {
		var labels []string
		for _, label := range m.Labels {
			labels = append(labels, "`"+label+"`")
		}
		if want := strings.TrimSpace(m.Type + " " + strings.Join(labels, ", ")); documented[m.Name] != want {
			t.Errorf("%s is documented as %q, but is %q", m.Name, documented[m.Name], want)
		}
		delete(documented, m.Name)
	}
	for name := range documented {
		t.Errorf("%s is documented, but there is no such metric", name)
	}
}

// TestAlertsAndDashboard checks that alerts and dashboard use existing metrics.
func TestAlertsAndDashboard(t *testing.T) {
	known := make(map[string]string)
	for _, m := range metricstest.All(t) {
		known[m.Name] = m.Type
	}
	parts := regexp.MustCompile(`_(bucket|count|sum)$`)
	for _, file := range []string{"alerts.yml", "alerts_test.yml", "grafana.json"} {
		names := regexp.MustCompile(`caddy_commercial_\w+`).FindAllString(read(t, filepath.Join("docs", file)), -1)
		if len(names) < 8 {
			t.Errorf("%s uses only %d metrics", file, len(names))
		}
		for _, name := range names {
			of := parts.ReplaceAllString(name, "")
			if histogram := known[of] == "histogram"; known[of] == "" || histogram != (of != name) {
				t.Errorf("%s has %s, but there is no such series", file, name)
			}
		}
	}
	named := func(file, pattern string) (names []string) {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(read(t, filepath.Join("docs", file)), -1) {
			names = append(names, m[1])
		}
		slices.Sort(names)
		return slices.Compact(names)
	}
	alerts := named("alerts.yml", `alert: (\w+)`)
	for file, pattern := range map[string]string{"monitoring.md": "(?m)^\\| `(Commercial\\w+)`", "alerts_test.yml": `(?m)alertname: (\w+)\n\s+exp_alerts`} {
		if got := named(file, pattern); !slices.Equal(got, alerts) {
			t.Errorf("%s has %q, but the alerts are %q", file, got, alerts)
		}
	}
}

// TestDashboardIsImportable reads the dashboard as Grafana does.
func TestDashboardIsImportable(t *testing.T) {
	var dashboard struct {
		Title  string `json:"title"`
		Panels []struct {
			ID      int    `json:"id"`
			Title   string `json:"title"`
			Targets []struct {
				Expr string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	if err := json.Unmarshal([]byte(read(t, filepath.Join("docs", "grafana.json"))), &dashboard); err != nil {
		t.Fatal(err)
	}
	if dashboard.Title == "" || len(dashboard.Panels) == 0 {
		t.Errorf("it is empty: %+v", dashboard)
	}
	for i, p := range dashboard.Panels {
		if p.ID != i+1 || p.Title == "" || len(p.Targets) == 0 || strings.Count(p.Targets[0].Expr, "(") != strings.Count(p.Targets[0].Expr, ")") {
			t.Errorf("panel %+v", p)
		}
	}
}

// TestAlerts lets Prometheus itself check and test the rules.
func TestAlerts(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed; on Debian: apt-get install prometheus")
	}
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = "docs"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
