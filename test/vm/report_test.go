package vm

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/jstemmer/go-junit-report/v2/gtr"
	"github.com/jstemmer/go-junit-report/v2/junit"
	"github.com/jstemmer/go-junit-report/v2/parser/gotest"
)

// counts are the results of a suite. Tests with subtests are not counted themselves.
type counts struct{ passed, failed, skipped int }

// specs is the summary line that the CRI validation suite prints.
var specs = regexp.MustCompile(`(?m)^variant .*: (\d+) passed, (\d+) failed, (\d+) skipped`)

// judge reads the output of a suite, writes its JUnit report, and returns its results.
func judge(log, report, name string) (counts, error) {
	f, err := os.Open(log)
	if err != nil {
		return counts{}, err
	}
	defer f.Close()
	r, err := gotest.NewParser(gotest.PackageName(name), gotest.SetSubtestMode(gotest.IgnoreParentResults)).Parse(f)
	if err != nil {
		return counts{}, fmt.Errorf("read %s: %w", log, err)
	}
	var c counts
	for _, p := range r.Packages {
		for _, test := range p.Tests {
			switch test.Result {
			case gtr.Pass:
				c.passed++
			case gtr.Skip:
				c.skipped++
			default:
				c.failed++
			}
		}
	}
	text, err := os.ReadFile(log)
	if err != nil {
		return c, err
	}
	if m := specs.FindSubmatch(text); m != nil {
		c = counts{number(m[1]), number(m[2]), number(m[3])}
	}
	out, err := os.Create(report)
	if err != nil {
		return c, err
	}
	defer out.Close()
	suites := junit.CreateFromReport(r, "guest")
	return c, suites.WriteXML(out)
}

func number(digits []byte) int {
	n, _ := strconv.Atoi(string(digits)) // the pattern matches digits only
	return n
}

type row struct {
	guest, suite string
	counts       counts
	took         time.Duration
}

// table collects the results of the suites of all guests.
type table struct {
	mu   sync.Mutex // guards rows
	rows []row
}

func (t *table) add(r row) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows = append(t.rows, r)
}

func (t *table) print(w io.Writer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	slices.SortStableFunc(t.rows, func(a, b row) int { return cmp.Compare(a.guest, b.guest) })
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "\nguest\tsuite\tpassed\tfailed\tskipped\ttook")
	var all counts
	for _, r := range t.rows {
		fmt.Fprintf(tw, "%s\t%s\t%d\t%d\t%d\t%s\n", r.guest, r.suite, r.counts.passed, r.counts.failed, r.counts.skipped, r.took.Round(time.Second))
		all.passed, all.failed, all.skipped = all.passed+r.counts.passed, all.failed+r.counts.failed, all.skipped+r.counts.skipped
	}
	fmt.Fprintf(tw, "all\t\t%d\t%d\t%d\t\n", all.passed, all.failed, all.skipped)
	tw.Flush()
}
