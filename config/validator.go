package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// minDuration is the shortest duration of all keys. It detects numbers without a unit, which
// the TOML library reads as nanoseconds.
const minDuration = time.Millisecond

// validator collects the invalid keys of a configuration.
type validator struct {
	origins map[string]string // the file or flag that set a key
	errs    []error
}

// require adds an error unless ok is set. The error contains the origin of the key and the
// rule that its value violates.
func (v *validator) require(ok bool, key, rule string, args ...any) {
	if ok {
		return
	}
	origin := v.origins[key]
	if origin == "" {
		origin = "default"
	}
	v.errs = append(v.errs, fmt.Errorf("%s: %s: %s", origin, key, fmt.Sprintf(rule, args...)))
}

func (v *validator) path(key, p string) {
	v.require(filepath.IsAbs(p) && filepath.Clean(p) == p, key, "must be an absolute path without . and .., is %q", p)
}

func (v *validator) optionalPath(key, p string) {
	if p != "" {
		v.path(key, p)
	}
}

func (v *validator) socketPath(key, p string) {
	v.path(key, p)
	v.require(len(p) <= maxSocketPath, key, "must have at most %d characters, has %d", maxSocketPath, len(p))
}

func (v *validator) positive(key string, n int64) {
	v.require(n > 0, key, "must be greater than 0, is %d", n)
}

func (v *validator) duration(key string, d time.Duration) {
	v.require(d >= minDuration, key, `must be at least %s with a unit, as in "30s"; is %s`, minDuration, d)
}

func (v *validator) durationOrZero(key string, d time.Duration) {
	v.require(d == 0 || d >= minDuration, key, `must be 0, or at least %s with a unit, as in "30s"; is %s`, minDuration, d)
}

// elements validates each element of a list.
func (v *validator) elements(key string, list []string, valid func(string) bool, rule string) {
	for _, s := range list {
		v.require(valid(s), key, "%s; has %q", rule, s)
	}
}

// unique requires that a list has no element twice.
func (v *validator) unique(key string, list []string) {
	seen := make(map[string]bool)
	for _, s := range list {
		v.require(!seen[s], key, "must have each element once; has %q twice", s)
		seen[s] = true
	}
}

// uniqueNames requires that no two elements NAME=VALUE of a list have the same name.
func (v *validator) uniqueNames(key string, list []string) {
	names := make([]string, len(list))
	for i, s := range list {
		names[i], _, _ = strings.Cut(s, "=")
	}
	v.unique(key, names)
}

func (v *validator) oneOf(key, s string, allowed ...string) {
	v.require(slices.Contains(allowed, s), key, "must be one of %s; is %q", strings.Join(allowed, ", "), s)
}
