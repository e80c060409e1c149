package main

import (
	"strings"
	"testing"
)

func TestWrapComments(t *testing.T) {
	word := strings.Repeat("w", 39)
	for _, tc := range []struct{ name, code, want string }{
		{"120 characters", "// " + word + " " + word + " " + word[2:] + "\n", "// " + word + " " + word + " " + word[2:] + "\n"},
		{"121 characters", "// " + word + " " + word + " " + word[1:] + "\n", "// " + word + " " + word + "\n// " + word[1:] + "\n"},
		{"indented", "\t// " + word + " " + word + " " + word + "\n", "\t// " + word + " " + word + "\n\t// " + word + "\n"},
		{"characters of several bytes", "// " + strings.Repeat("é", 117) + "\n", "// " + strings.Repeat("é", 117) + "\n"},
		{"long word", "// see " + strings.Repeat("u", 130) + " for more\n", "// see\n// " + strings.Repeat("u", 130) + "\n// for more\n"},
		{"long code", "x := \"" + strings.Repeat("a ", 70) + "\" // c\n", "x := \"" + strings.Repeat("a ", 70) + "\" // c\n"},
		{"directive", "//go:generate " + strings.Repeat("a ", 70) + "\n", "//go:generate " + strings.Repeat("a ", 70) + "\n"},
	} {
		if got := wrapComments(tc.code); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}
