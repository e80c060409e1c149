package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// treePath matches a path below a directory of the source tree.
var treePath = regexp.MustCompile(`^(\./)?(admin|cmd|config|conmon|container|contrib|docs|hack|image|internal|nri|oci|packaging|sandbox|server|test|tools)/[A-Za-z0-9_./-]+$`)

// built matches a path below bin, where the Makefile builds programs.
var built = regexp.MustCompile(`^bin/([a-z]+)$`)

// checkPath checks that a word that looks like a path of the source tree names a file, a directory, or a package with
// an identifier at its end, as in sandbox/network.Attach.
func checkPath(word string) error {
	if m := built.FindStringSubmatch(word); m != nil {
		makefile, err := os.ReadFile(filepath.Join(top, "Makefile"))
		if err != nil {
			return err
		}
		for _, use := range []string{"$(BIN)/" + m[1], "./cmd/" + m[1]} {
			if strings.Contains(string(makefile), use) {
				return nil
			}
		}
		return fmt.Errorf("the Makefile does not build %s", word)
	}
	if !treePath.MatchString(word) || strings.Contains(word, "...") {
		return nil
	}
	path := filepath.Join(top, word)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if found, _ := filepath.Glob(path + "*"); len(found) > 0 && !strings.HasSuffix(word, ".go") && !strings.HasSuffix(word, ".md") {
		return nil // the beginning of the names of several files
	}
	return fmt.Errorf("the source tree has no %s", word)
}

// others lists paths that look like paths of the source tree: patterns, files that tests write, and paths of other
// projects.
var others = []string{"admin/v1/SUBJECT.proto", "test/vm/report/GUEST", "docs/cri/config.md", "internal/cri/config"}

// TestPaths checks the paths of the source tree in inline code.
func TestPaths(t *testing.T) {
	for _, p := range pages(t) {
		for i, line := range p.prose {
			for _, m := range span.FindAllStringSubmatch(line, -1) {
				if slices.Contains(others, m[1]) {
					continue
				}
				if err := checkPath(m[1]); err != nil {
					t.Errorf("%s:%d: %v", p.name, i+1, err)
				}
			}
		}
	}
}

var (
	link    = regexp.MustCompile(`\[[^][]*\]\(([^)\s]+)\)`)
	symbols = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// TestLinks checks that the targets of links within the source tree exist, with their sections.
func TestLinks(t *testing.T) {
	all := pages(t)
	records, err := filepath.Glob(filepath.Join(top, "docs", "adr", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(records, "SECURITY.md", "CHANGELOG.md") {
		all = append(all, readPage(t, strings.TrimPrefix(name, top+"/")))
	}
	sections := make(map[string][]string)
	for _, p := range all {
		for _, line := range p.prose {
			if h := heading.FindStringSubmatch(line); h != nil {
				anchor := symbols.ReplaceAllString(strings.ToLower(h[1]), "")
				sections[p.name] = append(sections[p.name], strings.ReplaceAll(anchor, " ", "-"))
			}
		}
	}
	for _, p := range all {
		for _, m := range link.FindAllStringSubmatch(strings.Join(p.prose, "\n"), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			path := p.name
			if file != "" {
				path = filepath.Join(filepath.Dir(p.name), file)
			}
			if _, err := os.Stat(filepath.Join(top, path)); err != nil {
				t.Errorf("%s: link to %s: %v", p.name, m[1], err)
			}
			if known, ok := sections[path]; ok && anchor != "" && !slices.Contains(known, anchor) {
				t.Errorf("%s: link to %s: the page has no such section", p.name, m[1])
			}
		}
	}
}
