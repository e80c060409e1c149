package namespace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/criserver/criserver/internal/osthread"
	"golang.org/x/sys/unix"
)

// IPCObjects are the numbers of the objects in an IPC namespace. No process owns an IPC object.
type IPCObjects struct {
	SharedMemory, Semaphores, Queues int // of System V
	MessageQueues                    int // of POSIX
}

// String describes the objects, or returns "" if there are none.
func (o IPCObjects) String() string {
	var kinds []string
	for _, k := range []struct {
		n    int
		name string
	}{
		{o.SharedMemory, "System V shared memory segments"},
		{o.Semaphores, "System V semaphore sets"},
		{o.Queues, "System V message queues"},
		{o.MessageQueues, "POSIX message queues"},
	} {
		if k.n > 0 {
			kinds = append(kinds, fmt.Sprintf("%d %s", k.n, k.name))
		}
	}
	return strings.Join(kinds, ", ")
}

// CountIPCObjects counts the objects in the IPC namespace pinned at path.
func CountIPCObjects(path string) (o IPCObjects, err error) {
	err = osthread.Run(func() error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := enter(f, unix.CLONE_NEWIPC); err != nil {
			return err
		}
		for file, n := range map[string]*int{"shm": &o.SharedMemory, "sem": &o.Semaphores, "msg": &o.Queues} {
			if *n, err = countSysV("/proc/sysvipc/" + file); err != nil {
				return err
			}
		}
		o.MessageQueues, err = countMessageQueues()
		return err
	})
	if err != nil {
		return o, fmt.Errorf("list the objects of IPC namespace %s: %w", path, err)
	}
	return o, nil
}

// countSysV counts the lines after the header of a table of System V objects. A kernel without System V IPC has no
// tables.
func countSysV(file string) (int, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	return max(strings.Count(string(b), "\n")-1, 0), err
}

// countMessageQueues counts the POSIX message queues in the IPC namespace of the thread. Each queue is a file of the
// mqueue file system. A kernel without message queues has no mqueue file system.
func countMessageQueues() (int, error) {
	fd, err := unix.Fsopen("mqueue", unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENODEV) {
		return 0, nil
	}
	if err != nil {
		return 0, os.NewSyscallError("fsopen mqueue", err)
	}
	defer unix.Close(fd)
	if err := unix.FsconfigCreate(fd); err != nil {
		return 0, os.NewSyscallError("fsconfig mqueue", err)
	}
	mount, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return 0, os.NewSyscallError("fsmount mqueue", err)
	}
	defer unix.Close(mount)
	top, err := unix.Openat(mount, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) // mount is only a path
	if err != nil {
		return 0, os.NewSyscallError("openat mqueue", err)
	}
	dir := os.NewFile(uintptr(top), "mqueue")
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	return len(names), err
}
