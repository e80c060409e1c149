package critest

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/criserver/criserver/test/harness"
)

// Skip is one line of the skip file: a pattern of specs, how they are skipped, and the reason.
type Skip struct {
	Kind    string
	Pattern *regexp.Regexp
	Reason  string
	// Void is set if the host has the feature of the line, so that no spec may be skipped because of the line.
	Void bool
}

// Kinds of skips.
const (
	omit = "omit" // the spec is not run
	self = "self" // the suite skips the spec, because the daemon lacks a feature
	host = "host" // the suite skips the spec if the host lacks a feature
)

// features are the features that a line of kind host may name. The functions report whether the host has the feature.
var features = map[string]func() (bool, error){
	"apparmor":    hasAppArmor,
	"idmap-tmpfs": harness.MapsTmpfs,
}

func hasAppArmor() (bool, error) {
	enabled, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return strings.TrimSpace(string(enabled)) == "Y", err
}

// ReadSkips reads the lines of a skip file that apply to a variant: those below [all] and those below the name of the
// variant in brackets. A line has a kind, a regular expression and a reason, separated by two or more spaces. Empty
// lines and lines that begin with # are ignored.
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
			err = fmt.Errorf("a skip must be below [all] or the name of a variant in brackets")
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
	kind, feature, _ := strings.Cut(kind, ":")
	if !slices.Contains([]string{omit, self, host}, kind) || (feature != "") != (kind == host) {
		return Skip{}, fmt.Errorf("a skip begins with %s, %s or %s:FEATURE and two spaces", omit, self, host)
	}
	void := false
	if kind == host {
		present := features[feature]
		if present == nil {
			return Skip{}, fmt.Errorf("feature %q of a host is not one of %v", feature, slices.Sorted(maps.Keys(features)))
		}
		var err error
		if void, err = present(); err != nil {
			return Skip{}, fmt.Errorf("feature %q of the host: %w", feature, err)
		}
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
	return Skip{Kind: kind, Pattern: re, Reason: reason, Void: void}, nil
}

// unused returns the patterns that match none of the specs. Their lines should be removed.
func unused(skips []Skip, specs []string) []string {
	var list []string
	for _, s := range skips {
		if !slices.ContainsFunc(specs, s.Pattern.MatchString) {
			list = append(list, s.Pattern.String())
		}
	}
	return list
}

// lookup returns the first skip of the given kinds that matches the spec and is not void, or nil.
func lookup(skips []Skip, spec string, kinds ...string) *Skip {
	for i := range skips {
		if !skips[i].Void && slices.Contains(kinds, skips[i].Kind) && skips[i].Pattern.MatchString(spec) {
			return &skips[i]
		}
	}
	return nil
}
