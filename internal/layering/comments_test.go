package layering

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// maxCommentLine is the largest number of characters in a line of a comment. A tab
// counts as one character.
const maxCommentLine = 120

// directives are prefixes of comments that cannot be split into lines.
var directives = []string{"//go:", "//nolint"}

// TestCommentLines checks the lines that consist of a line comment, in all Go files
// of the repository that are not generated.
func TestCommentLines(t *testing.T) {
	top := filepath.Join("..", "..")
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != top && (strings.HasPrefix(d.Name(), ".") || d.Name() == "bin"):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, ".pb.go"):
			return nil
		}
		content, err := os.ReadFile(path)
		for _, number := range longCommentLines(string(content)) {
			t.Errorf("%s:%d: the comment has more than %d characters", path, number, maxCommentLine)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// longCommentLines returns the numbers of the lines with a comment that is too long.
func longCommentLines(source string) (numbers []int) {
	number := 0
	for line := range strings.Lines(source) {
		number++
		line = strings.TrimRight(line, "\n")
		comment := strings.TrimLeft(line, "\t ")
		if strings.HasPrefix(comment, "//") && !isDirective(comment) && utf8.RuneCountInString(line) > maxCommentLine {
			numbers = append(numbers, number)
		}
	}
	return numbers
}

func isDirective(comment string) bool {
	for _, d := range directives {
		if strings.HasPrefix(comment, d) {
			return true
		}
	}
	return false
}

func TestLongCommentLines(t *testing.T) {
	long := strings.Repeat("ä", maxCommentLine-3)
	for name, tc := range map[string]struct {
		source string
		want   int // number of lines that are too long
	}{
		"longest":   {"// " + long + "\n", 0},
		"too long":  {"// " + long + "a\n", 1},
		"indented":  {"\t// " + long + "\n", 1},
		"code":      {"var s = \"" + long + "aaa\"\n", 0},
		"directive": {"//go:generate " + long + "\n", 0},
		"last line": {"package p\n// " + long + "a", 1},
	} {
		if got := longCommentLines(tc.source); len(got) != tc.want {
			t.Errorf("%s: got lines %v, want %d", name, got, tc.want)
		}
	}
}
