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

// top is the top directory of the source tree.
const top = "../.."

// block is a fenced block of code.
type block struct {
	page    string // path below the top directory
	line    int    // number of the first line of the content
	section string // heading of the section, without its level
	lang    string // first word after the fence
	mark    string // second word after the fence, without a colon
	rest    string // words after the mark: the reason of a check
	text    string // content, without the indentation of the fence
}

func (b block) String() string { return fmt.Sprintf("%s:%d", b.page, b.line) }

// page is a Markdown file.
type page struct {
	name     string // path below the top directory
	blocks   []block
	indented []int    // numbers of the lines that begin an indented block of code
	prose    []string // all lines; lines of blocks are empty
}

// pages returns README.md and the pages of docs, in the order of their names.
func pages(t *testing.T) []page {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(top, "docs", "*.md"))
	if err != nil || len(names) < 30 {
		t.Fatalf("pages in docs: got %d, %v, want at least 30", len(names), err)
	}
	var all []page
	for _, name := range slices.Concat([]string{"README.md", "CONTRIBUTING.md"}, names) {
		all = append(all, readPage(t, strings.TrimPrefix(name, top+"/")))
	}
	return all
}

// readPage reads and parses a page of the source tree.
func readPage(t *testing.T, name string) page {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(top, name))
	if err != nil {
		t.Fatal(err)
	}
	p, err := parsePage(name, string(content))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var (
	fence    = regexp.MustCompile("^( *)```(.*)$")
	heading  = regexp.MustCompile(`^#+ +(.*)$`)
	listItem = regexp.MustCompile(`^( *)([0-9]+\.|[-*]) +`)
)

// parsePage finds the blocks of a page. A block in an item of a list has the indentation of the item.
func parsePage(name, content string) (page, error) {
	p := page{name: name}
	var open *block
	var indent, section string
	item := 0 // columns that a line of the current list item is indented by
	lines := strings.Split(content, "\n")
	for i, line := range lines {
		m := fence.FindStringSubmatch(line)
		switch {
		case open != nil && m != nil && m[2] == "":
			p.blocks = append(p.blocks, *open)
			open = nil
		case open != nil:
			open.text += strings.TrimPrefix(line, indent) + "\n"
		case m != nil:
			indent = m[1]
			open = &block{page: name, line: i + 2, section: section}
			open.lang, open.rest, _ = strings.Cut(m[2], " ")
			open.mark, open.rest, _ = strings.Cut(open.rest, " ")
			open.mark = strings.TrimSuffix(open.mark, ":")
		default:
			if h := heading.FindStringSubmatch(line); h != nil {
				section = h[1]
			}
			if l := listItem.FindString(line); l != "" {
				item = len(l)
			} else if line != "" && line[0] != ' ' {
				item = 0
			}
			code := strings.HasPrefix(line, strings.Repeat(" ", item+4)) || strings.HasPrefix(line, "\t")
			if code && i > 0 && lines[i-1] == "" {
				p.indented = append(p.indented, i+1)
			}
			p.prose = append(p.prose, line)
			continue
		}
		p.prose = append(p.prose, "")
	}
	if open != nil {
		return p, fmt.Errorf("%s: the block at line %d has no end", name, open.line)
	}
	return p, nil
}

// command is a command of a console block with the output that the page shows.
type command struct {
	line   string
	output []string
}

// session returns the commands of a console block. A line that begins with "$ " is a command, and a command whose
// line ends with a backslash continues on the next line.
func (b block) session() ([]command, error) {
	var all []command
	continued := false
	for line := range strings.Lines(b.text) {
		line = strings.TrimSuffix(line, "\n")
		text, prompt := strings.CutPrefix(line, "$ ")
		switch {
		case prompt:
			all = append(all, command{line: text})
		case len(all) == 0:
			return nil, fmt.Errorf("%s: the block begins with output, want a line that begins with %q", b, "$ ")
		case continued:
			all[len(all)-1].line += "\n" + line
		default:
			all[len(all)-1].output = append(all[len(all)-1].output, line)
		}
		continued = strings.HasSuffix(line, `\`) && (prompt || continued)
	}
	return all, nil
}

// script returns the commands of a block as a script of bash.
func (b block) script() (string, error) {
	if b.lang != "console" {
		return b.text, nil
	}
	session, err := b.session()
	var script strings.Builder
	for _, c := range session {
		script.WriteString(c.line + "\n")
	}
	return script.String(), err
}
