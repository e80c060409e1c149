package proc

import (
	"net"
	"os"
	"os/exec"
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
		t.Errorf("a pipe and a socket more: %+v, then %+v, %v", before, after, ok)
	}
}

func TestProcessesThatHaveEndedHaveNoDescriptors(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if d, ok := CountDescriptors([]int{cmd.Process.Pid}); !ok || d != (Descriptors{}) {
		t.Errorf("%+v, %v", d, ok)
	}
}
