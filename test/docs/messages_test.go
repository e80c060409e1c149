package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

var (
	// verb matches a verb of package fmt.
	verb = regexp.MustCompile(`%[-+# 0]*[0-9]*(\.[0-9]+)?[a-zA-Z]`)
	// letters matches a word of a message.
	letters = regexp.MustCompile(`\pL{2,}`)
)

// TestMessages checks that each message in a block of the language log occurs in the source. A message is a line.
// "…" stands for what differs, such as ids and the errors that other messages contain.
func TestMessages(t *testing.T) {
	source := literals(t)
	checked := 0
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			if b.lang != "log" {
				continue
			}
			for line := range strings.Lines(b.text) {
				checkMessage(t, b, strings.TrimSpace(line), source)
				checked++
			}
		}
	}
	if checked < 30 {
		t.Errorf("got %d checked messages, want at least 30", checked)
	}
}

// checkMessage checks that each part of a message between two "…" is in one string of the source, or is the
// text of an errno of the kernel.
func checkMessage(t *testing.T, b block, message string, source []string) {
	if message == "" {
		return
	}
	words := 0
	for part := range strings.SplitSeq(message, "…") {
		part = strings.Trim(part, ` :"'`)
		n := len(letters.FindAllString(part, -1))
		words += n
		if n > 0 && !slices.ContainsFunc(source, func(s string) bool { return strings.Contains(s, part) }) {
			t.Errorf("%s: got the message %q, and no string of the source contains %q", b, message, part)
		}
	}
	if words < 2 {
		t.Errorf("%s: got the message %q, want at least two words that do not differ", b, message)
	}
}

// literals returns the strings in the Go files of the daemon, with "…" in place of verbs, and the texts of errnos.
// Strings that the source adds with + are one string.
func literals(t *testing.T) []string {
	t.Helper()
	var all []string
	for errno := syscall.Errno(1); errno < 134; errno++ {
		all = append(all, errno.Error())
	}
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (path == top+"/test" || path == top+"/tools" || path == top+"/bin" || path != top && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if e, ok := n.(ast.Expr); ok {
				if s := text(e); s != "" {
					all = append(all, verb.ReplaceAllString(s, "…"))
				}
			}
			return true
		})
		return nil
	})
	if err != nil || len(all) < 3000 {
		t.Fatalf("strings of the source: got %d, %v, want at least 3000", len(all), err)
	}
	return all
}

// text returns the string that an expression of literals, other values and + makes, with "…" for other values. It
// returns "" if the expression is something else.
func text(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			s, _ := strconv.Unquote(e.Value)
			return s
		}
	case *ast.BinaryExpr:
		if e.Op != token.ADD {
			return ""
		}
		x, y := text(e.X), text(e.Y)
		if x == "" && y == "" {
			return ""
		}
		return orDots(x) + orDots(y)
	}
	return ""
}

func orDots(s string) string {
	if s == "" {
		return "…"
	}
	return s
}
