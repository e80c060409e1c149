package critest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/onsi/ginkgo/v2/types"
)

// suiteName is the prefix of the text of a spec when ginkgo matches patterns.
const suiteName = "CRI validation"

// Expectation defines the specs that must pass: all specs except those of the skips.
type Expectation struct {
	Skips []Skip
	Focus *regexp.Regexp // only specs that match are run; nil for all
}

// Result is the result of a run of the suite.
type Result struct {
	Specs                   []string // full text of every spec, run or not; patterns match it
	Passed, Failed, Skipped int
	Unexpected              int // skipped without a skip, or passed despite one of kind self

	want   Expectation
	groups map[string]*counts
	notes  []string // one line per spec that failed or was skipped
}

type counts struct{ passed, failed, skipped int }

// ReadResult reads ginkgo's JSON report.
func ReadResult(path string, want Expectation) (*Result, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var reports []types.Report
	if err := json.Unmarshal(raw, &reports); err != nil {
		return nil, fmt.Errorf("read suite report: %w", err)
	}
	r := &Result{want: want, groups: map[string]*counts{}}
	for _, report := range reports {
		for _, spec := range report.SpecReports {
			r.add(spec)
		}
	}
	return r, nil
}

func (r *Result) add(spec types.SpecReport) {
	if !spec.LeafNodeType.Is(types.NodeTypeIt) {
		if spec.Failed() {
			r.Failed++
			r.note("FAIL", spec.LeafNodeType.String(), oneLine(spec.FailureMessage()))
		}
		return
	}
	text := spec.FullText()
	r.Specs = append(r.Specs, suiteName+" "+text)
	if r.outOfFocus(text) && spec.State.Is(types.SpecStateSkipped) {
		return
	}
	c := r.group(spec)
	switch {
	case spec.State.Is(types.SpecStatePassed):
		r.Passed++
		c.passed++
		if s := lookup(r.want.Skips, suiteName+" "+text, self); s != nil {
			r.Unexpected++
			r.note("PASS", text, "is in the skip file: "+s.Reason)
		}
	case spec.State.Is(types.SpecStateSkipped | types.SpecStatePending):
		r.Skipped++
		c.skipped++
		r.addSkipped(text, spec)
	default:
		r.Failed++
		c.failed++
		r.note("FAIL", text, oneLine(spec.FailureMessage()))
	}
}

func (r *Result) outOfFocus(text string) bool {
	return r.want.Focus != nil && !r.want.Focus.MatchString(suiteName+" "+text)
}

// addSkipped checks whether a skipped spec has a line in the skip file. If the suite itself skipped
// the spec, the report has the reason.
func (r *Result) addSkipped(text string, spec types.SpecReport) {
	kinds := []string{omit}
	why := oneLine(spec.FailureMessage())
	if why != "" {
		kinds = []string{self, host}
		why = fmt.Sprintf("; the suite says %q", why)
	}
	if s := lookup(r.want.Skips, suiteName+" "+text, kinds...); s != nil {
		r.note("skip", text, s.Reason+why)
		return
	}
	r.Unexpected++
	r.note("SKIP", text, "is not in the skip file"+why)
}

func (r *Result) note(what, spec, why string) {
	r.notes = append(r.notes, fmt.Sprintf("%s  %s: %s", what, spec, why))
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

// Err returns an error if a spec failed, if no spec passed, or if the skips do not match the skipped specs.
func (r *Result) Err() error {
	var errs []error
	if r.Failed > 0 {
		errs = append(errs, fmt.Errorf("%d specs failed", r.Failed))
	}
	if r.Unexpected > 0 {
		errs = append(errs, fmt.Errorf("%d specs were skipped or passed in contradiction to the skip file", r.Unexpected))
	}
	if r.Passed == 0 {
		errs = append(errs, errors.New("no spec passed"))
	}
	if list := unused(r.want.Skips, r.Specs); len(list) > 0 {
		errs = append(errs, fmt.Errorf("skips that match no spec: %s", strings.Join(list, ", ")))
	}
	return errors.Join(errs...)
}

// Print writes the failed and skipped specs, a table of groups, and the totals.
func (r *Result) Print(w io.Writer, variant string) {
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
	fmt.Fprintf(w, "\nvariant %s: %d passed, %d failed, %d skipped, %d of them unexpected\n", variant, r.Passed, r.Failed, r.Skipped, r.Unexpected)
}

func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 300 {
		s = s[:300] + "…"
	}
	return s
}
