// Package ids generates the ids of pods and containers, and resolves prefixes of ids.
package ids

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
)

// Len is the length of a full id in characters: 32 random bytes in hex.
const Len = 64

// New returns a random id of Len lower-case hex digits.
func New() string {
	var b [Len / 2]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails
	return hex.EncodeToString(b[:])
}

// Valid reports whether s has the form of a full id. Only a valid id may become part of
// a path below the state directories.
func Valid(s string) bool {
	return len(s) == Len && isHex(s)
}

// isHex reports whether s consists of one or more lower-case hex digits.
func isHex(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return s != ""
}

// Resolve returns the key of byID that id is equal to, or that id is a unique prefix
// of. kind names the object in errors, for example "container".
//
// Errors: ErrNotFound if no key matches, and ErrInvalidArgument if id is empty or
// several keys match.
func Resolve[V any](kind string, byID map[string]V, id string) (string, error) {
	if id == "" {
		return "", fmt.Errorf("%s id is empty: %w", kind, errdefs.ErrInvalidArgument)
	}
	if _, ok := byID[id]; ok {
		return id, nil
	}
	if len(id) >= Len || !isHex(id) {
		return "", fmt.Errorf("%s %q: %w", kind, id, errdefs.ErrNotFound)
	}
	match := ""
	for k := range byID {
		if !strings.HasPrefix(k, id) {
			continue
		}
		if match != "" {
			return "", fmt.Errorf("%s id %q is ambiguous: %w", kind, id, errdefs.ErrInvalidArgument)
		}
		match = k
	}
	if match == "" {
		return "", fmt.Errorf("%s %q: %w", kind, id, errdefs.ErrNotFound)
	}
	return match, nil
}
