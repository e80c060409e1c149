package critest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/onsi/ginkgo/v2/types"
)

func TestReadSkips(t *testing.T) {
	tests := []struct {
		name, content, wantErr string
		want                   int
	}{
		{name: "comments and blanks", content: "# why\n\n", want: 0},
		{name: "for all", content: "[all]\nomit  Streaming .* attach  not there yet\n", want: 1},
		{name: "for this one", content: "[v]\nself  a  r\n[w]\nself  b  r\nself  c  r\n", want: 1},
		{name: "no section", content: "omit  Streaming  reason\n", wantErr: "below [all]"},
		{name: "no kind", content: "[all]\nStreaming  reason\n", wantErr: "begins with"},
		{name: "feature of the host", content: "[all]\nhost:apparmor  Streaming  reason\n", want: 1},
		{name: "unknown feature", content: "[all]\nhost:teapot  Streaming  reason\n", wantErr: `feature "teapot"`},
		{name: "no feature", content: "[all]\nhost  Streaming  reason\n", wantErr: "begins with"},
		{name: "feature without host", content: "[all]\nomit:apparmor  Streaming  reason\n", wantErr: "begins with"},
		{name: "no reason", content: "[all]\nomit  Streaming\n", wantErr: "needs a reason"},
		{name: "not a pattern", content: "[all]\nomit  Stream(  reason\n", wantErr: "missing closing"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "skips.txt")
			if err := os.WriteFile(path, []byte(tt.content), 0o644); err != nil {
				t.Fatal(err)
			}
			got, err := ReadSkips(path, "v")
			if (err != nil) != (tt.wantErr != "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
				t.Fatalf("ReadSkips: got error %v, want %q", err, tt.wantErr)
			}
			if len(got) != tt.want {
				t.Errorf("got %d skips, want %d", len(got), tt.want)
			}
		})
	}
}

func line(kind, pattern string) Skip {
	return Skip{Kind: kind, Pattern: regexp.MustCompile(pattern), Reason: "r"}
}

func TestUnused(t *testing.T) {
	skips := []Skip{line(omit, "^one$"), line(self, "two"), line(host, "three")}
	if got, want := unused(skips, []string{"one more", "spec two"}), []string{"^one$", "three"}; !reflect.DeepEqual(got, want) {
		t.Errorf("unused patterns: got %q, want %q", got, want)
	}
}

// TestResultErr checks that a skipped spec needs a line in the skip file, and a spec with a line of
// kind self must not pass.
func TestResultErr(t *testing.T) {
	spec := func(text string, state types.SpecState, message string) types.SpecReport {
		r := types.SpecReport{LeafNodeType: types.NodeTypeIt, LeafNodeText: text, State: state}
		r.Failure.Message = message
		return r
	}
	passed, skipped := types.SpecStatePassed, types.SpecStateSkipped
	void := line(host, "present")
	void.Void = true
	skips := []Skip{line(omit, "omitted"), line(self, "unable"), line(host, "lacking"), void}
	for name, tc := range map[string]struct {
		spec  types.SpecReport
		focus string
		want  string
	}{
		"passes":                      {spec: spec("fine", passed, "")},
		"fails":                       {spec: spec("fine", types.SpecStateFailed, "why"), want: "1 specs failed"},
		"panics":                      {spec: spec("fine", types.SpecStatePanicked, "why"), want: "1 specs failed"},
		"omitted":                     {spec: spec("omitted", skipped, "")},
		"skipped by the suite":        {spec: spec("unable", skipped, "cannot")},
		"skipped for the host":        {spec: spec("lacking", skipped, "has none")},
		"host has the feature":        {spec: spec("lacking", passed, "")},
		"skipped despite the feature": {spec: spec("present", skipped, "has none"), want: "in contradiction to the skip file"},
		"passes despite its line":     {spec: spec("unable", passed, ""), want: "in contradiction to the skip file"},
		"skipped without a line":      {spec: spec("fine", skipped, "cannot"), want: "in contradiction to the skip file"},
		"not run":                     {spec: spec("fine", skipped, ""), want: "in contradiction to the skip file"},
		"not run despite its line":    {spec: spec("unable", skipped, ""), want: "in contradiction to the skip file"},
		"pending":                     {spec: spec("fine", types.SpecStatePending, ""), want: "in contradiction to the skip file"},
		"out of focus":                {spec: spec("fine", skipped, ""), focus: "other"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "report.json")
			all := []types.SpecReport{
				tc.spec, spec("other one that passes", passed, ""), spec("omitted", skipped, ""),
				spec("lacking", passed, ""), spec("unable", skipped, "cannot"), spec("present too", passed, ""),
			}
			b, err := json.Marshal([]types.Report{{SpecReports: all}})
			if err == nil {
				err = os.WriteFile(path, b, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			want := Expectation{Skips: skips}
			if tc.focus != "" {
				want.Focus = regexp.MustCompile(tc.focus)
			}
			r, err := ReadResult(path, want)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Err(); (err != nil) != (tc.want != "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// TestOnlyWebSockets checks that the log of a run without the flags of the variant must not pass.
func TestOnlyWebSockets(t *testing.T) {
	line := func(kind, transport string) string {
		return `time="x" level=debug msg="stream opened" endpoint="GET /` + kind + `/{token}" transport=` + transport + "\n"
	}
	all := line("exec", "websocket") + line("attach", "websocket") + line("portforward", "websocket")
	for log, ok := range map[string]bool{all: true, "": false, all + line("exec", "spdy"): false, line("exec", "websocket"): false} {
		if err := onlyWebSockets(log); (err == nil) != ok {
			t.Errorf("log %q: got error %v, want success %t", log, err, ok)
		}
	}
}
