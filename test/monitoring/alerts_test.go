package monitoring

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"go.yaml.in/yaml/v3"
)

// TestAlerts checks that Prometheus accepts the rules, that their metrics and labels exist, and that each alert says
// what to do and has a runbook.
func TestAlerts(t *testing.T) {
	groups, errs := rulefmt.ParseFile(filepath.Join(top, "contrib", "prometheus", "alerts.yaml"), false, model.UTF8Validation, newParser(), slog.New(slog.DiscardHandler))
	for _, err := range errs {
		t.Error(err)
	}
	if t.Failed() {
		return
	}
	known, headings := documented(t), runbooks(t)
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			expr, err := newParser().ParseExpr(r.Expr)
			if err != nil {
				t.Errorf("%s: %v", r.Alert, err)
				continue
			}
			for _, fault := range known.check(expr) {
				t.Errorf("%s: %s", r.Alert, fault)
			}
			if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
				t.Errorf("%s: severity %q, want critical, warning or info", r.Alert, r.Labels["severity"])
			}
			for _, key := range []string{"summary", "description"} {
				if r.Annotations[key] == "" {
					t.Errorf("%s: the annotation %s is missing", r.Alert, key)
				}
			}
			if want := "docs/monitoring.md#" + strings.ToLower(r.Alert); r.Annotations["runbook"] != want {
				t.Errorf("%s: runbook %q, want %q", r.Alert, r.Annotations["runbook"], want)
			}
			if !headings[r.Alert] {
				t.Errorf("%s: docs/monitoring.md has no section", r.Alert)
			}
			delete(headings, r.Alert)
		}
	}
	for name := range headings {
		t.Errorf("docs/monitoring.md has the section %s, and there is no such alert", name)
	}
}

// runbooks returns the headings of the sections about alerts.
func runbooks(t *testing.T) map[string]bool {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(top, "docs", "monitoring.md"))
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]bool)
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "### "); ok {
			all[name] = true
		}
	}
	return all
}

// TestEveryAlertIsTested checks that a test for promtool expects each alert, and that the series of the tests exist.
func TestEveryAlertIsTested(t *testing.T) {
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert string `yaml:"alert"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	}
	var tests struct {
		Tests []struct {
			Input []struct {
				Series string `yaml:"series"`
			} `yaml:"input_series"`
			Exprs []struct {
				Samples []struct {
					Labels string `yaml:"labels"`
				} `yaml:"exp_samples"`
			} `yaml:"promql_expr_test"`
		} `yaml:"tests"`
	}
	for file, into := range map[string]any{"alerts.yaml": &rules, "alerts_test.yaml": &tests} {
		b, err := os.ReadFile(filepath.Join(top, "contrib", "prometheus", file))
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(b, into); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	fires, known := make(map[string]bool), documented(t)
	for _, test := range tests.Tests {
		for _, e := range test.Exprs {
			for _, sample := range e.Samples {
				fires[sample.Labels] = true
			}
		}
		for _, in := range test.Input {
			expr, err := newParser().ParseExpr(in.Series)
			if err != nil {
				t.Errorf("input series %s: %v", in.Series, err)
				continue
			}
			for _, fault := range known.check(expr) {
				t.Errorf("input series %s: %s", in.Series, fault)
			}
		}
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if !fires[`{alertname="`+r.Alert+`"}`] {
				t.Errorf("%s: no test expects the alert", r.Alert)
			}
		}
	}
}
