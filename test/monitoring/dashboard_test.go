package monitoring

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// dashboard is the part of the JSON model of Grafana that the test reads.
type dashboard struct {
	Title, UID    string
	ID            json.RawMessage // of a database; Grafana does not import a dashboard with an id
	SchemaVersion int             `json:"schemaVersion"`
	Templating    struct {
		List []struct {
			Name, Type, Definition string
			Query                  json.RawMessage // the type of the data source, or an object
			Datasource             datasource
			Multi                  bool
		}
	}
	Panels []panel
}

type panel struct {
	ID          int
	Title       string
	Type        string
	Datasource  datasource
	GridPos     struct{ X, Y, W, H int }
	FieldConfig struct {
		Defaults struct{ Unit string }
	}
	Targets []struct {
		Expr, RefID string
		Datasource  datasource
	}
}

type datasource struct{ Type, UID string }

// prometheusSource is the data source of all queries: the variable lets a user of Grafana choose it.
var prometheusSource = datasource{"prometheus", "${datasource}"}

// panelTypes are the types of panels that every Grafana has and the dashboard may use.
var panelTypes = []string{"row", "stat", "timeseries", "table", "gauge", "bargauge", "heatmap", "text"}

// units are the ids of Grafana's units that the dashboard may use. Grafana shows an unknown id as a suffix of the
// value.
var units = []string{"none", "short", "s", "ms", "bytes", "decbytes", "Bps", "binBps", "ops", "reqps", "percent", "percentunit"}

// labelValues matches a query of a variable: the selector and the label.
var labelValues = regexp.MustCompile(`^label_values\((.+), ([a-z_]+)\)$`)

// validUID matches the ids that Grafana accepts in the address of a dashboard.
var validUID = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,40}$`)

// grafanaVariable matches the use of a variable.
var grafanaVariable = regexp.MustCompile(`\$([a-z_]+)`)

// TestDashboard checks that the queries of the dashboard are valid, that their metrics and labels exist, that they use
// only variables that the dashboard defines, and that the panels follow the rules of Grafana and do not overlap.
func TestDashboard(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(top, "contrib", "grafana", "criserver.json"))
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	known, variables, multi := documented(t), make(map[string]bool), make(map[string]bool)
	for _, v := range d.Templating.List {
		if variables[v.Name] {
			t.Errorf("variable %s is defined twice", v.Name)
		}
		variables[v.Name], multi[v.Name] = true, v.Multi
		if v.Type == "datasource" {
			if string(v.Query) != `"prometheus"` || "${"+v.Name+"}" != prometheusSource.UID {
				t.Errorf("variable %s: the query %s does not select a data source of Prometheus", v.Name, v.Query)
			}
			continue
		}
		if v.Type != "query" || v.Datasource != prometheusSource {
			t.Errorf("variable %s: type %q, data source %v, want a query of %v", v.Name, v.Type, v.Datasource, prometheusSource)
			continue
		}
		m := labelValues.FindStringSubmatch(v.Definition)
		if m == nil {
			t.Errorf("variable %s: the query %q is not label_values(selector, label)", v.Name, v.Definition)
			continue
		}
		// Grafana runs the query and shows the definition.
		var query struct{ Query, RefID string }
		if err := json.Unmarshal(v.Query, &query); err != nil || query.Query != v.Definition || query.RefID == "" {
			t.Errorf("variable %s: the query %s is not the definition with a refId: %v", v.Name, v.Query, err)
		}
		checkQuery(t, "variable "+v.Name, known, m[1])
		checkVariables(t, "variable "+v.Name, v.Definition, variables, multi)
	}
	queries := 0
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			queries++
			checkVariables(t, "panel "+p.Title, target.Expr, variables, multi)
			checkQuery(t, "panel "+p.Title, known, target.Expr)
		}
	}
	if queries < 20 || !variables["instance"] || !variables["datasource"] {
		t.Errorf("got %d queries and the variables %v, want at least 20 queries, datasource and instance", queries, variables)
	}
	if len(d.ID) > 0 && string(d.ID) != "null" {
		t.Errorf("the dashboard has the id %s, want none or null", d.ID)
	}
	if d.Title == "" || !validUID.MatchString(d.UID) || d.SchemaVersion < 30 {
		t.Errorf("title %q, uid %q, schema version %d: want a title, a uid of at most 40 letters, digits, hyphens and underscores, and a version of Grafana 8 or later", d.Title, d.UID, d.SchemaVersion)
	}
	for _, p := range d.Panels {
		checkPanel(t, p)
	}
	checkLayout(t, d)
}

// checkPanel checks a panel against the rules of Grafana, which accepts a panel that breaks them and shows nothing in
// it.
func checkPanel(t *testing.T, p panel) {
	t.Helper()
	if p.ID <= 0 || p.Title == "" || !slices.Contains(panelTypes, p.Type) {
		t.Errorf("panel %d %q has the type %q, want one of %v", p.ID, p.Title, p.Type, panelTypes)
	}
	if g := p.GridPos; g.X < 0 || g.Y < 0 || g.W <= 0 || g.H <= 0 || p.Type == "row" && (g.X != 0 || g.W != 24 || g.H != 1) {
		t.Errorf("panel %q has the position %+v", p.Title, g)
	}
	if p.Type == "row" || p.Type == "text" {
		if len(p.Targets) > 0 {
			t.Errorf("panel %q has queries, which a %s does not show", p.Title, p.Type)
		}
		return
	}
	if p.Datasource != prometheusSource || len(p.Targets) == 0 || !slices.Contains(units, p.FieldConfig.Defaults.Unit) {
		t.Errorf("panel %q: data source %v, %d queries, unit %q", p.Title, p.Datasource, len(p.Targets), p.FieldConfig.Defaults.Unit)
	}
	refIDs := make(map[string]bool)
	for _, target := range p.Targets {
		if target.RefID == "" || refIDs[target.RefID] {
			t.Errorf("panel %q: the refId %q is missing or repeated", p.Title, target.RefID)
		}
		refIDs[target.RefID] = true
		if target.Datasource != (datasource{}) && target.Datasource != prometheusSource {
			t.Errorf("panel %q: query %s has the data source %v", p.Title, target.RefID, target.Datasource)
		}
	}
}

// checkVariables checks that a query uses only variables that are defined, in the definition of a variable only earlier
// ones, and that the operator before a variable with several values is =~. Grafana joins the values with "|".
func checkVariables(t *testing.T, where, query string, defined, multi map[string]bool) {
	t.Helper()
	for _, m := range grafanaVariable.FindAllStringSubmatchIndex(query, -1) {
		name := query[m[2]:m[3]]
		if name == "__rate_interval" {
			continue
		}
		if !defined[name] {
			t.Errorf("%s: the variable $%s is not defined", where, name)
		}
		if before := query[:m[0]]; multi[name] && !strings.HasSuffix(before, `=~"`) {
			t.Errorf("%s: $%s has several values and must follow =~ in %s", where, name, query)
		}
	}
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
