// Package ids makes the identifiers of pods and containers and resolves the
// shortened forms that people type.
package ids

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
)

// Len is the length of a full identifier in characters: 32 random bytes in hex.
const Len = 64

// New returns a random identifier of Len lower-case hex digits.
func New() string {
	var b [Len / 2]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails
	return hex.EncodeToString(b[:])
}

// Valid says whether s has the form of a full identifier. Nothing else may
// become part of a path below the state directories.
func Valid(s string) bool {
	return len(s) == Len && isHex(s)
}

func isHex(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return s != ""
}

// Resolve returns the one key of known that id names: the key itself or a
// unique prefix of it. kind is the word for the error. Errors: ErrNotFound when
// no key matches, ErrInvalidArgument when id is empty or more than one does.
func Resolve[V any](kind string, known map[string]V, id string) (string, error) {
	if id == "" {
		return "", fmt.Errorf("%s id is empty: %w", kind, errdefs.ErrInvalidArgument)
	}
	if _, ok := known[id]; ok {
		return id, nil
	}
	if len(id) >= Len || !isHex(id) {
		return "", fmt.Errorf("%s %q: %w", kind, id, errdefs.ErrNotFound)
	}
	found := ""
	for k := range known {
		if !strings.HasPrefix(k, id) {
			continue
		}
		if found != "" {
			return "", fmt.Errorf("%s id %q is ambiguous: %w", kind, id, errdefs.ErrInvalidArgument)
		}
		found = k
	}
	if found == "" {
		return "", fmt.Errorf("%s %q: %w", kind, id, errdefs.ErrNotFound)
	}
	return found, nil
}
