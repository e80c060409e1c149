package vm

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSelections checks that every name in a selection is the name of a test, so that a renamed test does not
// silently drop out of the guests.
func TestSelections(t *testing.T) {
	for name, selection := range map[string]struct{ dir, pattern string }{
		"cgroupSelection":        {"test/system", cgroupSelection},
		"userNamespaceSelection": {"test/system", userNamespaceSelection},
		"kernelSelection":        {"test/system", kernelSelection},
		"arm64Selection":         {"test/system", arm64Selection},
		"kubeletSelection":       {"test/kubelet", kubeletSelection},
		"clusterSelection":       {"test/cluster", clusterSelection},
	} {
		tests := testFunctions(t, filepath.Join(top, selection.dir))
		top, _, _ := strings.Cut(selection.pattern, "/")
		for _, want := range alternatives(top) {
			if !tests[want] {
				t.Errorf("%s names %s, which is no test of %s", name, want, selection.dir)
			}
		}
	}
}

// TestChoose checks which suites of a guest run with and without -full, and with a filter.
func TestChoose(t *testing.T) {
	defer func(f bool, s, g string) { *full, *suiteFilter, *guestFilter = f, s, g }(*full, *suiteFilter, *guestFilter)
	bookworm := guestPlan{guest: "bookworm", suites: []suite{{name: "life"}, {name: "part", part: true}, {name: "whole", long: true}}}
	arm64 := guestPlan{guest: "arm64", long: true, suites: []suite{{name: "life"}}}
	for _, tc := range []struct {
		plan          guestPlan
		full          bool
		suites, guest string
		want          string
	}{
		{bookworm, false, "", "", "life part"},
		{bookworm, true, "", "", "life whole"},
		{bookworm, true, "", "bookworm", "life whole"},
		{bookworm, false, "", "bookworm", "life part"},
		{bookworm, false, "part|whole", "", "part whole"},
		{arm64, false, "", "", ""},
		{arm64, false, "", "arm64", "life"},
		{arm64, true, "", "", "life"},
	} {
		*full, *suiteFilter, *guestFilter = tc.full, tc.suites, tc.guest
		var names []string
		for _, s := range choose(tc.plan, regexp.MustCompile(tc.suites)) {
			names = append(names, s.name)
		}
		if got := strings.Join(names, " "); got != tc.want {
			t.Errorf("%s, full %t, SUITE=%s, GUEST=%s: got suites %q, want %q", tc.plan.guest, tc.full, tc.suites, tc.guest, got, tc.want)
		}
	}
}

var testFunction = regexp.MustCompile(`(?m)^func (Test\w+)\(`)

// testFunctions returns the names of the tests in a directory.
func testFunctions(t *testing.T, dir string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests in %s: %v", dir, err)
	}
	names := make(map[string]bool)
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range testFunction.FindAllStringSubmatch(string(b), -1) {
			names[m[1]] = true
		}
	}
	return names
}

// alternatives returns the test names that a selection of the form ^Test(A|B)$ or ^(TestA|TestB)$ stands for.
func alternatives(selection string) []string {
	prefix, rest, isList := strings.Cut(strings.Trim(selection, "^$"), "(")
	if !isList {
		return []string{prefix}
	}
	var names []string
	for name := range strings.SplitSeq(strings.TrimSuffix(rest, ")"), "|") {
		names = append(names, prefix+name)
	}
	return names
}
