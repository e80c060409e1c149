package monitoring

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

// top is the root of the repository.
var top = filepath.Join("..", "..")

// series are the documented time series and their labels. TestDocumented of the daemon compares the documentation with
// the metrics.
type series map[string][]string

// tableRow matches the beginning of a row in a table of metrics: the name, the labels, and the type.
var tableRow = regexp.MustCompile("^\\| `([a-z_]+)` \\| ([a-z_`, ]*)\\| (counter|gauge|histogram) \\|")

// documented reads the tables of docs/metrics.md.
func documented(t *testing.T) series {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(top, "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	// Prometheus adds the series up.
	all := series{"up": nil}
	for line := range strings.Lines(string(b)) {
		m := tableRow.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		labels := strings.FieldsFunc(m[2], func(r rune) bool { return strings.ContainsRune("`, ", r) })
		if m[3] != "histogram" {
			all[m[1]] = labels
			continue
		}
		all[m[1]+"_bucket"] = append(slices.Clone(labels), "le")
		all[m[1]+"_sum"], all[m[1]+"_count"] = labels, labels
	}
	if len(all) < 30 {
		t.Fatalf("docs/metrics.md: got %d series, want at least 30", len(all))
	}
	return all
}

// check returns an error text for each selector of an expression that no series of the daemon matches.
func (s series) check(expr parser.Expr) (faults []string) {
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		v, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		labels, known := s[v.Name]
		if !known {
			faults = append(faults, "the daemon has no metric "+v.Name)
		}
		for _, m := range v.LabelMatchers {
			if !slices.Contains([]string{"__name__", "job", "instance"}, m.Name) && !slices.Contains(labels, m.Name) {
				faults = append(faults, "the metric "+v.Name+" has no label "+m.Name)
			}
		}
		return nil
	})
	return faults
}

func TestCheckFindsUnknownNames(t *testing.T) {
	s := series{"a_total": {"code"}}
	for expr, want := range map[string]int{
		`rate(a_total{code="x", job="j"}[5m])`: 0, `sum(b_total)`: 1, `a_total{rpc="x"} / b_total`: 2,
	} {
		e, err := newParser().ParseExpr(expr)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.check(e); len(got) != want {
			t.Errorf("%s: got %q, want %d faults", expr, got, want)
		}
	}
}

func newParser() parser.Parser { return parser.NewParser(parser.Options{}) }
