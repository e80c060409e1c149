package namespace

import (
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/criserver/criserver/internal/osthread"
	"golang.org/x/sys/unix"
)

// TestCountIPCObjects makes objects in a new IPC namespace. They do not appear in other namespaces.
func TestCountIPCObjects(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("makes an IPC namespace: must be root")
	}
	pin := filepath.Join(t.TempDir(), "ipc")
	if err := os.WriteFile(pin, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	inside := func(fn func() error) {
		t.Helper()
		if err := osthread.Run(func() error {
			f, err := os.Open(pin)
			if err != nil {
				return err
			}
			defer f.Close()
			if err := enter(f, unix.CLONE_NEWIPC); err != nil {
				return err
			}
			return fn()
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := osthread.Run(func() error {
		if err := unix.Unshare(unix.CLONE_NEWIPC); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/ipc", pin, "", unix.MS_BIND, "")
	}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(pin, unix.MNT_DETACH) }()
	if o, err := CountIPCObjects(pin); err != nil || o.String() != "" {
		t.Errorf("empty namespace: got %+v, %v", o, err)
	}
	inside(func() error {
		_, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, 0o600)
		return err
	})
	inside(func() error {
		name := append([]byte("criserver-test"), 0)
		fd, _, errno := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(&name[0])), unix.O_CREAT|unix.O_RDWR, 0o600, 0, 0, 0)
		if errno != 0 {
			return os.NewSyscallError("mq_open", errno)
		}
		return unix.Close(int(fd))
	})
	want := IPCObjects{SharedMemory: 1, MessageQueues: 1}
	if o, err := CountIPCObjects(pin); err != nil || o != want {
		t.Errorf("got %+v, %v; want %+v", o, err, want)
	}
	if text := want.String(); text != "1 System V shared memory segments, 1 POSIX message queues" {
		t.Errorf("text is %q", text)
	}
}
