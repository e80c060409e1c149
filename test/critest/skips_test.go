package critest

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestReadSkips(t *testing.T) {
	tests := []struct {
		name, content, wantErr string
		want                   int
	}{
		{name: "comments and blanks", content: "# why\n\n", want: 0},
		{name: "one", content: "Streaming .* attach  not there yet\n", want: 1},
		{name: "no reason", content: "Streaming\n", wantErr: "needs a reason"},
		{name: "not a pattern", content: "Stream(  reason\n", wantErr: "missing closing"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "skips.txt")
			if err := os.WriteFile(path, []byte(tt.content), 0o644); err != nil {
				t.Fatal(err)
			}
			got, err := ReadSkips(path)
			if (err != nil) != (tt.wantErr != "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
				t.Fatalf("error is %v, want %q", err, tt.wantErr)
			}
			if len(got) != tt.want {
				t.Errorf("%d skips, want %d", len(got), tt.want)
			}
		})
	}
}

func TestUnused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "skips.txt")
	if err := os.WriteFile(path, []byte("^one$  r\ntwo  r\nthree  r\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	skips, err := ReadSkips(path)
	if err != nil {
		t.Fatal(err)
	}
	got := Unused(skips, []string{"one more", "spec two"})
	if want := []string{"^one$", "three"}; !reflect.DeepEqual(got, want) {
		t.Errorf("unused are %q, want %q", got, want)
	}
}
