package critest

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// Skip is one line of the skip file: the specs that it names, how they come to be skipped, and why.
type Skip struct {
	Kind    string
	Pattern *regexp.Regexp
	Reason  string
}

// Kinds of skips.
const (
	omit = "omit" // the spec is not run
	self = "self" // the suite leaves it out by itself, and would not if the daemon could do it
	host = "host" // the suite leaves it out by itself where the machine lacks something
)

// ReadSkips reads those lines of a skip file that are for a variant: kind, regular expression and reason, with two or more spaces between
// them, below [all] or below the variant's name in brackets. Empty lines and lines that begin with # are comments.
func ReadSkips(path, variant string) ([]Skip, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()

	var skips []Skip
	section := ""
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			continue
		case strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]"):
			section = strings.Trim(line, "[]")
			continue
		}
		s, err := parseSkip(line)
		if err == nil && section == "" {
			err = fmt.Errorf("a skip stands below [all] or the name of a variant in brackets")
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		if section == "all" || section == variant {
			skips = append(skips, s)
		}
	}
	return skips, lines.Err()
}

func parseSkip(line string) (Skip, error) {
	kind, rest, _ := strings.Cut(line, "  ")
	if !slices.Contains([]string{omit, self, host}, kind) {
		return Skip{}, fmt.Errorf("a skip begins with %s, %s or %s and two spaces", omit, self, host)
	}
	pattern, reason, _ := strings.Cut(strings.TrimSpace(rest), "  ")
	reason = strings.TrimSpace(reason)
	if reason == "" {
		return Skip{}, fmt.Errorf("a skip needs a reason, two spaces after its pattern")
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return Skip{}, err
	}
	return Skip{kind, re, reason}, nil
}

// unused returns the patterns that match none of the specs: what they named has gone, and so should they.
func unused(skips []Skip, specs []string) []string {
	var list []string
	for _, s := range skips {
		if !slices.ContainsFunc(specs, s.Pattern.MatchString) {
			list = append(list, s.Pattern.String())
		}
	}
	return list
}

// lookup returns the line of one of the kinds that names a spec, or nil.
func lookup(skips []Skip, spec string, kinds ...string) *Skip {
	for i := range skips {
		if slices.Contains(kinds, skips[i].Kind) && skips[i].Pattern.MatchString(spec) {
			return &skips[i]
		}
	}
	return nil
}
