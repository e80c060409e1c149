package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mvdan.cc/sh/v3/syntax"
)

// span matches inline code, in which the pages name commands and paths.
var span = regexp.MustCompile("`([^`]+)`")

// TestCommands checks the commands of all blocks, and of inline code, against the help texts of criserver and crictl,
// the Makefile, and the files of the source tree.
func TestCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("the test executes bin/criserver and bin/crictl, which a test with -short does not need")
	}
	known := newPrograms()
	checked := 0
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			if b.lang != "sh" && b.lang != "console" && b.lang != "usage" {
				continue
			}
			script, err := b.script()
			if err != nil {
				t.Error(err)
				continue
			}
			if b.lang == "usage" {
				script = strings.NewReplacer(" [flags]", "", "[", "", "]", "", "|", "-").Replace(script)
			}
			checked += known.checkScript(t, b.String(), script)
		}
		for i, line := range p.prose {
			for _, m := range span.FindAllStringSubmatch(line, -1) {
				if isCommand(m[1]) {
					checked += known.checkScript(t, fmt.Sprintf("%s:%d", p.name, i+1), m[1])
				}
			}
		}
	}
	if checked < 100 {
		t.Errorf("got %d checked commands, want at least 100", checked)
	}
}

// isCommand reports whether inline code is a command line and not the name of a program or a message.
func isCommand(code string) bool {
	program, rest, ok := strings.Cut(code, " ")
	return ok && rest != "" && !strings.Contains(code, "…") && slices.Contains([]string{"criserver", "crictl", "make", "bin/criserver"}, program)
}

// checkScript checks all commands of a script, and returns their number.
func (k *programs) checkScript(t *testing.T, where, script string) int {
	file, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(script), "")
	if err != nil {
		t.Errorf("%s: got the syntax error %v in %q", where, err, script)
		return 0
	}
	n := 0
	syntax.Walk(file, func(node syntax.Node) bool {
		call, ok := node.(*syntax.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		words := make([]string, len(call.Args))
		for i, w := range call.Args {
			words[i] = literal(w)
		}
		if err := k.check(words); err != nil {
			t.Errorf("%s: command %q: %v", where, strings.Join(words, " "), err)
		}
		n++
		return true
	})
	return n
}

// literal returns a word of the shell in which each expansion is replaced with "$".
func literal(w *syntax.Word) string {
	var b strings.Builder
	var add func(parts []syntax.WordPart)
	add = func(parts []syntax.WordPart) {
		for _, part := range parts {
			switch part := part.(type) {
			case *syntax.Lit:
				b.WriteString(part.Value)
			case *syntax.SglQuoted:
				b.WriteString(part.Value)
			case *syntax.DblQuoted:
				add(part.Parts)
			default:
				b.WriteByte('$')
			}
		}
	}
	add(w.Parts)
	return b.String()
}

// check checks one command: its words after the name of the program, and the paths of the source tree in it.
func (k *programs) check(words []string) error {
	for _, w := range words {
		if err := checkPath(w); err != nil {
			return err
		}
	}
	switch filepath.Base(words[0]) {
	case "criserver", "crictl":
		return k.checkFlags(filepath.Base(words[0]), words[1:])
	case "make":
		return checkTargets(words[1:])
	}
	return nil
}

// target matches a rule of the Makefile, whose targets come before the colon.
var target = regexp.MustCompile(`(?m)^([a-z$][^:=\n]*?) *&?:( |$)`)

// checkTargets checks the targets of make.
func checkTargets(words []string) error {
	makefile, err := os.ReadFile(filepath.Join(top, "Makefile"))
	if err != nil {
		return err
	}
	var targets []string
	for _, m := range target.FindAllStringSubmatch(string(makefile), -1) {
		targets = append(targets, strings.Fields(m[1])...)
	}
	for _, w := range words {
		variable, _, assigned := strings.Cut(w, "=")
		built := strings.Replace(w, "$/bin", "$(BIN)", 1) // $PWD/bin
		switch {
		case assigned && !strings.Contains(string(makefile), "$("+variable+")") && !strings.Contains(string(makefile), "$(if $("+variable+")"):
			return fmt.Errorf("the Makefile does not use the variable %s", variable)
		case !assigned && !strings.HasPrefix(w, "-") && !slices.Contains(targets, built):
			return fmt.Errorf("the Makefile has no target %s", w)
		}
	}
	return nil
}
