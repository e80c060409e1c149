// Package exits finds out how containers have exited. A monitor writes an exit record before it exits; without a
// record, the kernel can know the exit status. Package exits does not know containers, and never writes an exit
// record.
package exits

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/internal/proc"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// Dir is the path of the directory of the exit records.
type Dir string

// File returns the path of the exit record of a container.
func (d Dir) File(containerID string) string { return filepath.Join(string(d), containerID) }

// Read reads the exit record of a container. It returns fs.ErrNotExist if the monitor has not written the record.
func (d Dir) Read(containerID string) (conmon.Exit, error) {
	return conmon.ReadExit(d.File(containerID))
}

// Remove removes the exit record of a container, if there is one.
func (d Dir) Remove(containerID string) error {
	if err := os.Remove(d.File(containerID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// RemoveOrphans removes the exit records of containers that do not exist.
func (d Dir) RemoveOrphans(exists func(containerID string) bool) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		logrus.WithError(err).Error("list the exit records")
	}
	for _, e := range entries {
		if !exists(e.Name()) {
			_ = os.Remove(d.File(e.Name()))
		}
	}
}

// statusGrace is how long the parent of an orphan may take to reap the orphan. The
// kernel does not report the exit status earlier. KernelStatus does not wait if the
// kernel never reports it.
const statusGrace = 10 * time.Second

// KernelStatus asks the kernel for the exit status of a process that has exited. The kernel reports the status to
// the parent. Since Linux 6.15 it reports the status to everybody after the process was reaped. KernelStatus returns
// false if the kernel does not report the status.
func KernelStatus(p proc.Ref, pidfd *os.File) (unix.WaitStatus, bool) {
	// The pid of a zombie is not reused.
	var status unix.WaitStatus
	if pid, err := unix.Wait4(p.PID, &status, unix.WNOHANG, nil); err == nil && pid == p.PID {
		return status, true
	}
	for deadline := time.Now().Add(statusGrace); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		status, err := proc.ExitStatus(pidfd)
		if err == nil {
			return status, true
		}
		if !errors.Is(err, proc.ErrNotReaped) {
			return 0, false
		}
	}
	return 0, false
}
