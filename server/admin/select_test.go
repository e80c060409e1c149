package admin

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestSelectOne(t *testing.T) {
	id := func(prefix string) string { return prefix + strings.Repeat("0", 64-len(prefix)) }
	candidates := []candidate[int]{
		{1, id("aa"), "default/web", false},
		{2, id("ab"), "default/web", true},
		{3, id("c"), "default/old", false},
		{4, id("d"), "default/twice", false},
		{5, id("e"), "default/twice", false},
	}
	for _, tc := range []struct {
		query string
		want  int
		err   error
	}{
		{query: id("aa"), want: 1},
		{query: "c", want: 3},
		{query: "default/web", want: 2},
		{query: "default/old", want: 3},
		{query: "default/twice", err: errdefs.ErrInvalidArgument},
		{query: "default/none", err: errdefs.ErrNotFound},
		{query: "a", err: errdefs.ErrInvalidArgument},
		{query: "f", err: errdefs.ErrNotFound},
		{query: "web", err: errdefs.ErrNotFound},
		{query: "", err: errdefs.ErrInvalidArgument},
	} {
		got, err := selectOne("pod", "pod sandbox", tc.query, candidates)
		if got != tc.want || !errors.Is(err, tc.err) {
			t.Errorf("%q: got %d, %v, want %d, %v", tc.query, got, err, tc.want, tc.err)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "pod: ") {
			t.Errorf("%q: got %q, want an error that names the field", tc.query, err)
		}
	}
}
