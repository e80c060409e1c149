package monitoring

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// dashboard is the part of the JSON model of Grafana that the test reads.
type dashboard struct {
	SchemaVersion int `json:"schemaVersion"`
	Templating    struct {
		List []struct{ Name, Type, Definition string }
	}
	Panels []struct {
		ID      int
		Title   string
		Type    string
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ Expr string }
	}
}

// labelValues matches a query of a variable: the selector and the label.
var labelValues = regexp.MustCompile(`^label_values\((.+), ([a-z_]+)\)$`)

// grafanaVariable matches the use of a variable.
var grafanaVariable = regexp.MustCompile(`\$([a-z_]+)`)

// TestDashboard checks that the queries of the dashboard are valid, that their metrics and labels exist, that they use
// only variables that the dashboard defines, and that no panels overlap.
func TestDashboard(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(top, "contrib", "grafana", "criserver.json"))
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	known, variables := documented(t), make(map[string]bool)
	for _, v := range d.Templating.List {
		variables[v.Name] = true
		if v.Type != "query" {
			continue
		}
		m := labelValues.FindStringSubmatch(v.Definition)
		if m == nil {
			t.Errorf("variable %s: the query %q is not label_values(selector, label)", v.Name, v.Definition)
			continue
		}
		checkQuery(t, "variable "+v.Name, known, m[1])
	}
	queries := 0
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			queries++
			for _, m := range grafanaVariable.FindAllStringSubmatch(target.Expr, -1) {
				if m[1] != "__rate_interval" && !variables[m[1]] {
					t.Errorf("panel %q: the variable $%s is not defined", p.Title, m[1])
				}
			}
			checkQuery(t, "panel "+p.Title, known, target.Expr)
		}
	}
	if queries < 20 || !variables["instance"] {
		t.Errorf("got %d queries and the variables %v, want at least 20 queries and instance", queries, variables)
	}
	checkLayout(t, d)
}

func checkQuery(t *testing.T, where string, known series, query string) {
	t.Helper()
	expr, err := newParser().ParseExpr(strings.ReplaceAll(query, "$__rate_interval", "5m"))
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	for _, fault := range known.check(expr) {
		t.Errorf("%s: %s", where, fault)
	}
}

// checkLayout checks that each cell of the grid, which has 24 columns, belongs to one panel at most.
func checkLayout(t *testing.T, d dashboard) {
	t.Helper()
	cells, ids := make(map[[2]int]string), make(map[int]bool)
	for _, p := range d.Panels {
		if ids[p.ID] || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %q: the id %d is repeated, or the panel is too wide", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				cell := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other, taken := cells[cell]; taken {
					t.Fatalf("the panels %q and %q overlap", other, p.Title)
				}
				cells[cell] = p.Title
			}
		}
	}
}
