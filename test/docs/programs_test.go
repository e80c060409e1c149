package docs

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// programs contains the commands of criserver and crictl, which their help texts list.
type programs struct {
	helps map[string]*help // by the name of the program and the names of its commands, separated by spaces
}

func newPrograms() *programs { return &programs{helps: make(map[string]*help)} }

// help is the part of a help text that the test needs.
type help struct {
	commands map[string]bool
	flags    map[string]bool // with dashes; the value says whether the flag has a value
}

var (
	// helpSection matches the heading of a list in the help texts of both programs.
	helpSection = regexp.MustCompile(`^(Available Commands|COMMANDS|Flags|Global Flags|OPTIONS|GLOBAL OPTIONS):$`)
	// helpFlag matches one spelling of a flag, and the word for its value, if it has one.
	helpFlag = regexp.MustCompile(`(?:^|, )(--?[A-Za-z0-9][A-Za-z0-9.-]*)(?: ([A-Za-z][^ ,]*))?`)
	// helpCommand matches the names of a command.
	helpCommand = regexp.MustCompile(`^ +([a-z-]+(?:, [a-z-]+)*)(?:  |$)`)
)

// of returns the help text of a command.
func (k *programs) of(name string) (*help, error) {
	if h := k.helps[name]; h != nil {
		return h, nil
	}
	words := strings.Fields(name)
	path := filepath.Join(top, "bin", words[0])
	out, err := exec.Command(path, append(words[1:], "--help")...).Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s --help: %w", path, strings.Join(words[1:], " "), err)
	}
	h := parseHelp(string(out))
	if len(h.flags) == 0 {
		return nil, fmt.Errorf("%s --help lists no flags", name)
	}
	k.helps[name] = h
	return h, nil
}

// parseHelp parses the help texts of cobra and of urfave/cli.
func parseHelp(text string) *help {
	h := &help{commands: make(map[string]bool), flags: make(map[string]bool)}
	section := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch m := helpSection.FindStringSubmatch(line); {
		case m != nil:
			section = strings.ToLower(m[1])
		case line != "" && line[0] != ' ':
			section = ""
		case strings.HasSuffix(section, "commands"):
			if m := helpCommand.FindStringSubmatch(line); m != nil {
				for name := range strings.SplitSeq(m[1], ", ") {
					h.commands[name] = name != "help" && name != "h"
				}
			}
		case section != "":
			names, _, _ := strings.Cut(strings.TrimSpace(line), "  ")
			if !strings.HasPrefix(names, "-") {
				continue
			}
			found := helpFlag.FindAllStringSubmatch(names, -1)
			value := len(found) > 0 && found[len(found)-1][2] != ""
			for _, m := range found {
				h.flags[m[1]] = value
			}
		}
	}
	return h
}

// checkFlags checks the commands and flags in the words after the name of a program.
func (k *programs) checkFlags(name string, words []string) error {
	h, err := k.of(name)
	if err != nil {
		return err
	}
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case w == "--":
			return nil
		case strings.HasPrefix(w, "-") && w != "-":
			value, err := h.checkFlag(name, w)
			if err != nil {
				return err
			}
			if value {
				i++
			}
		case h.commands[w]:
			name += " " + w
			if h, err = k.of(name); err != nil {
				return err
			}
		case !strings.Contains(name, " ") && w != "$":
			return fmt.Errorf("%s has no command %s", name, w)
		case name == "crictl exec":
			return nil // the words after the container are the command in the container
		}
	}
	return nil
}

// checkFlag checks one flag, and reports whether the next word is its value.
func (h *help) checkFlag(name, word string) (value bool, err error) {
	flag, _, assigned := strings.Cut(word, "=")
	hasValue, ok := h.flags[flag]
	if !ok && !strings.HasPrefix(flag, "--") && len(flag) > 2 {
		// Several flags of one letter share a dash.
		for _, letter := range flag[1:] {
			if hasValue, ok = h.flags["-"+string(letter)]; !ok {
				return false, fmt.Errorf("%s has no flag -%c", name, letter)
			}
		}
	}
	if !ok {
		return false, fmt.Errorf("%s has no flag %s", name, flag)
	}
	return hasValue && !assigned, nil
}
