package critest

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/onsi/ginkgo/v2/types"
)

// suiteName stands before the text of a spec where ginkgo matches patterns.
const suiteName = "CRI validation"

// Result is what a run of the suite came to.
type Result struct {
	Specs                   []string // what patterns are matched with: the full text of every spec, run or not
	Passed, Failed, Skipped int

	groups map[string]*counts
	notes  []string // what failed, and what the suite itself passed over
}

type counts struct{ passed, failed, skipped int }

// ReadResult reads ginkgo's JSON report.
func ReadResult(path string, skips []Skip) (*Result, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var reports []types.Report
	if err := json.Unmarshal(raw, &reports); err != nil {
		return nil, fmt.Errorf("read suite report: %w", err)
	}
	r := &Result{groups: map[string]*counts{}}
	for _, report := range reports {
		for _, spec := range report.SpecReports {
			r.add(spec, skips)
		}
	}
	return r, nil
}

func (r *Result) add(spec types.SpecReport, skips []Skip) {
	if !spec.LeafNodeType.Is(types.NodeTypeIt) {
		if spec.Failed() {
			r.Failed++
			r.notes = append(r.notes, fmt.Sprintf("FAIL  %s: %s", spec.LeafNodeType, oneLine(spec.FailureMessage())))
		}
		return
	}
	text := spec.FullText()
	r.Specs = append(r.Specs, suiteName+" "+text)
	c := r.group(spec)
	switch {
	case spec.State.Is(types.SpecStatePassed):
		r.Passed++
		c.passed++
	case spec.State.Is(types.SpecStateSkipped | types.SpecStatePending):
		r.Skipped++
		c.skipped++
		// A reason in the report is the suite's own; else a line of the skip file or the focus kept the spec from running.
		if m := spec.FailureMessage(); m != "" {
			r.notes = append(r.notes, fmt.Sprintf("skip  %s: the suite says %q", text, oneLine(m)))
		} else if reason := reasonFor(skips, suiteName+" "+text); reason != "" {
			r.notes = append(r.notes, fmt.Sprintf("skip  %s: %s", text, reason))
		}
	default:
		r.Failed++
		c.failed++
		r.notes = append(r.notes, fmt.Sprintf("FAIL  %s: %s", text, oneLine(spec.FailureMessage())))
	}
}

func (r *Result) group(spec types.SpecReport) *counts {
	name := "other"
	if len(spec.ContainerHierarchyTexts) > 0 {
		_, name, _ = strings.Cut(spec.ContainerHierarchyTexts[0], "] ") // [k8s.io] or [criserver]
		name = strings.TrimSuffix(name, " [Conformance]")
	}
	if r.groups[name] == nil {
		r.groups[name] = &counts{}
	}
	return r.groups[name]
}

// Print writes the table of groups, then what failed or was skipped, then the sums.
func (r *Result) Print(w io.Writer) {
	names := make([]string, 0, len(r.groups))
	for name := range r.groups {
		names = append(names, name)
	}
	slices.Sort(names)
	slices.Sort(r.notes)

	fmt.Fprintln(w)
	for _, note := range r.notes {
		fmt.Fprintln(w, note)
	}
	fmt.Fprintln(w)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "group\tpassed\tfailed\tskipped")
	for _, name := range names {
		c := r.groups[name]
		fmt.Fprintf(tw, "%s\t%d\t%d\t%d\n", name, c.passed, c.failed, c.skipped)
	}
	_ = tw.Flush()
	fmt.Fprintf(w, "\n%d passed, %d failed, %d skipped\n", r.Passed, r.Failed, r.Skipped)
}

func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 300 {
		s = s[:300] + "…"
	}
	return s
}
