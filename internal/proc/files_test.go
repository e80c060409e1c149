package proc

import (
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

func TestCountDescriptors(t *testing.T) {
	pid := []int{os.Getpid()}
	before, ok := CountDescriptors(pid)
	if !ok || before.Files < 3 {
		t.Fatalf("%+v, %v", before, ok)
	}
	pipe, other, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	defer other.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	after, ok := CountDescriptors(pid)
	if !ok || after.Sockets != before.Sockets+1 || after.Files < before.Files+3 {
		t.Errorf("got %+v, %v after opening a pipe and a socket; before: %+v", after, ok, before)
	}
}

func TestCountDescriptorsOfExitedProcess(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if d, ok := CountDescriptors([]int{cmd.Process.Pid}); !ok || d != (Descriptors{}) {
		t.Errorf("%+v, %v", d, ok)
	}
}

func TestOpenFilesLimit(t *testing.T) {
	limits, err := os.ReadFile("/proc/self/limits")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(limits), "Max open files")
	want, err := strconv.ParseUint(strings.Fields(after)[0], 10, 64)
	if err != nil {
		t.Fatal(err) // the kernel bounds it by nr_open
	}
	if n, ok := OpenFilesLimit(os.Getpid()); n != want || !ok {
		t.Errorf("limit %d, %t, want %d", n, ok, want)
	}
	for _, pid := range []int{0, -1, 1 << 30} {
		if n, ok := OpenFilesLimit(pid); ok {
			t.Errorf("pid %d: limit %d, want none", pid, n)
		}
	}
}
