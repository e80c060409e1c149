package namespace

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestParseLinks(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "net_dev"))
	if err != nil {
		t.Fatal(err)
	}
	want := []Link{
		{"lo", 840, 10, 0, 0, 840, 10, 0, 0},
		{"eth0", 18446744073709551614, 95, 3, 1, 7210, 88, 4, 2},
		{"net1.100@x", 1, 9, 2, 7, 3, 8, 5, 6},
	}
	if got := parseLinks(string(b)); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, bad := range []string{"", "eth0", "eth0: 1 2 3\n", ":\n"} {
		if got := parseLinks(bad); got != nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

func TestVisit(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can enter a network namespace")
	}
	Visit(func(links func(string) ([]Link, error)) {
		got, err := links("/proc/thread-self/ns/net")
		if err != nil {
			t.Error(err)
		}
		dirs, err := os.ReadDir("/sys/class/net")
		if err != nil || len(got) == 0 || len(got) > len(dirs) {
			t.Errorf("links returned %d interfaces, /sys/class/net has %d (%v)", len(got), len(dirs), err)
		}
		if _, err := links("/nowhere"); err == nil {
			t.Error("links succeeded for a path that does not exist")
		}
	})
}
