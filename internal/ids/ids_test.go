package ids

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestResolve(t *testing.T) {
	a, b := "aa"+strings.Repeat("0", Len-2), "ab"+strings.Repeat("0", Len-2)
	byID := map[string]int{a: 1, b: 2}
	for id, want := range map[string]string{a: a, b: b, "aa": a, "ab0": b} {
		if got, err := Resolve("container", byID, id); got != want || err != nil {
			t.Errorf("%q: got %q, %v; want %q", id, got, err, want)
		}
	}
	for _, id := range []string{"", "a"} {
		if got, err := Resolve("container", byID, id); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: got %q, %v; want InvalidArgument", id, got, err)
		}
	}
	for _, id := range []string{"ac", "AA", "../aa", a + "0", strings.Repeat("0", Len)} {
		if got, err := Resolve("container", byID, id); !errdefs.IsNotFound(err) {
			t.Errorf("%q: got %q, %v; want NotFound", id, got, err)
		}
	}
}

func TestNewIsValid(t *testing.T) {
	if id := New(); !Valid(id) || id == New() {
		t.Errorf("id %q is not valid or not random", id)
	}
	for _, s := range []string{"", "ab", strings.Repeat("g", Len), strings.Repeat("A", Len), strings.Repeat("0", Len+1), strings.Repeat("/", Len)} {
		if Valid(s) {
			t.Errorf("%q is valid", s)
		}
	}
}
