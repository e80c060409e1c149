package docs

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// TestRun runs the blocks with the marks "run" and "fails", page by page, on a host on which the daemon is installed by
// the commands of docs/install.md.
func TestRun(t *testing.T) {
	if testing.Short() {
		t.Skip("the test needs root, bin/ and the test images, which a test with -short does not need")
	}
	all := pages(t)
	installed(t, all)
	ran := 0
	for _, p := range all {
		t.Run(strings.TrimSuffix(strings.TrimPrefix(p.name, "docs/"), ".md"), func(t *testing.T) {
			for _, b := range p.blocks {
				if b.mark == "run" || b.mark == "fails" {
					t.Run(strconv.Itoa(b.line), b.run)
					ran++
				}
			}
		})
	}
	if ran == 0 && !t.Failed() {
		t.Error("got no block to run, want at least one")
	}
}

// installed installs the daemon unless an earlier test has done so. When the test ends, no pod and nothing of a pod may
// be left.
func installed(t *testing.T, all []page) {
	t.Helper()
	if host.before == nil {
		if err := host.install(installation(t, all)); err != nil {
			t.Fatalf("install the daemon: %v", err)
		}
	}
	t.Cleanup(func() { host.checkLeaks(t) })
}

// installation returns the commands of the section "Install" of docs/install.md.
func installation(t *testing.T, all []page) string {
	t.Helper()
	for _, p := range all {
		for _, b := range p.blocks {
			if p.name == "docs/install.md" && b.section == "Install" && b.lang == "sh" {
				return b.text
			}
		}
	}
	t.Fatal("docs/install.md has no commands in the section Install")
	return ""
}

// separator precedes the exit code of a command in the output of a session.
const separator = "\x1e"

// run runs a block. A script fails with its first command that fails. In a session all commands must succeed, except
// for the last one of a block with the mark "fails".
func (b block) run(t *testing.T) {
	if err := host.pods(); err != nil {
		t.Fatalf("%s: create the pods of the pages: %v", b, err)
	}
	text, err := host.fill(b.text)
	if err != nil {
		t.Fatal(err)
	}
	if b.lang == "sh" {
		if out, err := host.bash(text); err != nil {
			t.Errorf("%s: %v", b, err)
		} else {
			t.Logf("%s", out)
		}
		return
	}
	shown, err := b.session()
	if err != nil {
		t.Fatal(err)
	}
	b.text = text
	filled, err := b.session()
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	for _, c := range filled {
		fmt.Fprintf(&script, "%s\nprintf '%s%%d\\n' $?\n", c.line, separator)
	}
	out, _, err := host.shell(script.String())
	if err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	for i, c := range shown {
		var printed string
		printed, out, _ = strings.Cut(out, separator)
		code, rest, _ := strings.Cut(out, "\n")
		out = rest
		if fails := b.mark == "fails" && i == len(shown)-1; fails == (code == "0") {
			t.Errorf("%s: command %q: got exit code %s:\n%s", b, c.line, code, printed)
		}
		for _, line := range c.output {
			if !contains(printed, line) {
				t.Errorf("%s: command %q: got the output\n%s\nwant a line with the words of %q", b, c.line, printed, line)
			}
		}
	}
}

// contains reports whether a line of the output has the words of a shown line, in this order. Words with digits and
// placeholders differ between hosts, and "…" stands for anything, so they are not compared.
func contains(output, shown string) bool {
	var words []string
	for _, w := range strings.Fields(shown) {
		if !strings.ContainsFunc(w, unicode.IsDigit) && !strings.Contains(w, "…") && !placeholder.MatchString(w) {
			words = append(words, w)
		}
	}
	for line := range strings.Lines(output) {
		next := 0
		for _, w := range strings.Fields(line) {
			if next < len(words) && w == words[next] {
				next++
			}
		}
		if next == len(words) {
			return true
		}
	}
	return len(words) == 0
}
