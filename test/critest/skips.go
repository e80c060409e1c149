package critest

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// Skip is one line of the skip file: the specs that it names, and why they are not run.
type Skip struct {
	Pattern *regexp.Regexp
	Reason  string
}

// ReadSkips reads a skip file: a regular expression, two or more spaces, a reason. Empty lines and lines that begin with # are comments.
func ReadSkips(path string) ([]Skip, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()

	var skips []Skip
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		pattern, reason, _ := strings.Cut(line, "  ")
		reason = strings.TrimSpace(reason)
		if reason == "" {
			return nil, fmt.Errorf("%s:%d: a skip needs a reason, two spaces after its pattern", path, n)
		}
		re, err := regexp.Compile(pattern)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		skips = append(skips, Skip{re, reason})
	}
	return skips, lines.Err()
}

// Unused returns the patterns that match none of the specs: what they named has gone, and so should they.
func Unused(skips []Skip, specs []string) []string {
	var unused []string
	for _, s := range skips {
		used := false
		for _, text := range specs {
			used = used || s.Pattern.MatchString(text)
		}
		if !used {
			unused = append(unused, s.Pattern.String())
		}
	}
	return unused
}

// reasonFor returns why a spec is skipped, or "" when no line names it.
func reasonFor(skips []Skip, spec string) string {
	for _, s := range skips {
		if s.Pattern.MatchString(spec) {
			return s.Reason
		}
	}
	return ""
}
