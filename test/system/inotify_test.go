package system

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// noInotifyVariable is the environment variable with which the test binary executes its arguments in a process whose
// inotify instances are exhausted.
const noInotifyVariable = "CRISERVER_TEST_NO_INOTIFY"

// executeWithoutInotify executes the arguments of this process. inotify_init1(2) fails with EMFILE there.
func executeWithoutInotify() error {
	const number = 0 // offset of the number of the system call in struct seccomp_data
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_INOTIFY_INIT1, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EMFILE)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program))); errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return unix.Exec(os.Args[1], os.Args[1:], os.Environ())
}

// TestExhaustedInotify checks that the daemon reports exits and new CNI files although the kernel refuses inotify.
func TestExhaustedInotify(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	n := makeNode("noinotify")
	n.Network = n.Bridge("csnoinotify", "10.254.0.0/16", "fd00:fe::/64")
	n.Command = fmt.Sprintf("env %s=1 %s %s/criserver --config $HARNESS_DIR/config.toml", noInotifyVariable, self, n.Bin)
	n.start(t)
	p := n.RunPod(t, podConfig("p"))
	id := n.run(t, p, "c", "sh", "-c", "exit 3")
	waitFor(t, "the exit of the container", func() bool { return n.ContainerStatus(t, id).GetExitCode() == 3 })
	log, err := os.ReadFile(n.LogPath())
	if err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{"the exit records of containers", "the CNI configuration"} {
		if !strings.Contains(string(log), "inotify is not available for "+subject) {
			t.Errorf("the log has no warning of %s", subject)
		}
	}
}
