package proc

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestOpenFiles(t *testing.T) {
	limits, err := os.ReadFile("/proc/self/limits")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(limits), "Max open files")
	want, err := strconv.ParseUint(strings.Fields(after)[0], 10, 64)
	if err != nil {
		t.Fatal(err) // the kernel bounds it by nr_open
	}
	if n, ok := OpenFiles(os.Getpid()); n != want || !ok {
		t.Errorf("%d, %t, want %d", n, ok, want)
	}
	for _, pid := range []int{0, -1, 1 << 30} {
		if n, ok := OpenFiles(pid); ok {
			t.Errorf("pid %d: %d", pid, n)
		}
	}
}
