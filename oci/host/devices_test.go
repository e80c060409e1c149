package host

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestDevices(t *testing.T) {
	got, err := Devices("/dev/null", "/dev/other", "rw")
	if err != nil || len(got) != 1 || got[0].Path != "/dev/other" || got[0].Type != "c" || got[0].Major != 1 || got[0].Minor != 3 || got[0].Access != "rw" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, path := range []string{"/dev/criserver-none", "/etc/passwd"} {
		if got, err := Devices(path, path, "rw"); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v, %v", path, got, err)
		}
	}
	all, err := AllDevices()
	if err != nil || len(all) == 0 {
		t.Fatalf("%d, %v", len(all), err)
	}
	for _, d := range all {
		if strings.HasPrefix(d.Path, "/dev/pts/") || d.Path == "/dev/ptmx" || d.Path == "/dev/console" {
			t.Errorf("a container has %s of its own", d.Path)
		}
	}
}
