package hostcheck

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Host is the host that is checked.
type Host struct {
	// Dir is the directory that stands for the root directory of the host. "" is the root
	// directory itself.
	Dir    string
	Kernel Kernel
	// Run runs a program and returns its output.
	Run func(ctx context.Context, name string, args ...string) (string, error)
}

// Kernel reads the properties of a host that only system calls return.
type Kernel interface {
	// Release returns the release, as in "6.1.0-28-amd64".
	Release() string
	// Missing returns the names of the system calls that the kernel does not have.
	Missing() []string
	// FileSystem returns the properties of the file system of a directory that exists.
	FileSystem(dir string) (FileSystem, error)
	// ClockSynchronized reports whether a time service keeps the clock of the host.
	ClockSynchronized() bool
	// Now returns the time of the host.
	Now() time.Time
	// Label returns the SELinux label of a file, or "".
	Label(file string) string
}

// FileSystem has the properties of a file system.
type FileSystem struct {
	Type              int64 // magic number of statfs(2)
	Bytes, FreeBytes  uint64
	Inodes, FreeNodes uint64 // 0 if the file system has no limit of inodes
	// NoTypes is true if the entries of directories have no types (d_type).
	NoTypes bool
}

// programTimeout limits each program that a check runs.
const programTimeout = 20 * time.Second

// maxProgramOutput limits the output of a program, in bytes.
const maxProgramOutput = 1 << 20

// maxFile limits the files that are read, in bytes.
const maxFile = 16 << 20

// ThisHost returns the host that the process runs on.
func ThisHost() Host { return Host{Kernel: machine{}, Run: runProgram} }

func (h Host) path(path string) string { return filepath.Join("/", h.Dir, path) }

// read returns the content of a file without white space at its ends, and whether the file can be read.
func (h Host) read(path string) (string, bool) {
	f, err := os.Open(h.path(path))
	if err != nil {
		return "", false
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return "", false
	}
	if gz, found := strings.CutSuffix(path, ".gz"); found && gz != "" {
		r, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return "", false
		}
		if b, err = io.ReadAll(io.LimitReader(r, maxFile)); err != nil {
			return "", false
		}
	}
	return strings.TrimSpace(string(b)), true
}

func (h Host) exists(path string) bool {
	_, err := os.Stat(h.path(path))
	return err == nil
}

// number returns the number in a file.
func (h Host) number(path string) (int64, bool) {
	text, ok := h.read(path)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil
}

// sysctl returns a sysctl, as in "net.ipv4.ip_forward".
func (h Host) sysctl(name string) (int64, bool) {
	return h.number("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
}

// existingParent returns the path, or the first of its parents that exists.
func (h Host) existingParent(path string) string {
	for path != "/" && !h.exists(path) {
		path = filepath.Dir(path)
	}
	return path
}

// isExecutable reports whether a path is an executable file.
func (h Host) isExecutable(path string) bool {
	info, err := os.Stat(h.path(path))
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// inPath reports whether a program is in one of the usual directories.
func (h Host) inPath(name string) bool {
	for _, dir := range []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		if h.isExecutable(filepath.Join(dir, name)) {
			return true
		}
	}
	return false
}

// processes returns the names of all processes.
func (h Host) processes() map[string]bool {
	names := make(map[string]bool)
	files, err := filepath.Glob(h.path("/proc/[0-9]*/comm"))
	if err != nil {
		return names
	}
	for _, file := range files {
		if b, err := os.ReadFile(file); err == nil { // the process may have exited
			names[strings.TrimSpace(string(b))] = true
		}
	}
	return names
}

// runProgram runs a program on this host.
func runProgram(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, programTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	return string(out[:min(len(out), maxProgramOutput)]), err
}

// machine is the kernel of this host.
type machine struct{}

func (machine) Release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// Missing calls each system call with arguments that have no effect.
func (machine) Missing() []string {
	var missing []string
	for _, call := range []struct {
		name string
		err  func() error
	}{
		{"openat2", func() error { _, err := unix.Openat2(-1, "", &unix.OpenHow{}); return err }},
		{"mount_setattr", func() error { return unix.MountSetattr(-1, "", 0, &unix.MountAttr{}) }},
		{"open_tree", func() error { _, err := unix.OpenTree(-1, "", 0); return err }},
		{"pidfd_open", func() error { _, err := unix.PidfdOpen(-1, 0); return err }},
		{"pidfd_send_signal", func() error { return unix.PidfdSendSignal(-1, 0, nil, 0) }},
		{"close_range", func() error { return unix.CloseRange(1, 0, 0) }},
	} {
		if errors.Is(call.err(), unix.ENOSYS) {
			missing = append(missing, call.name)
		}
	}
	return missing
}

func (machine) FileSystem(dir string) (FileSystem, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return FileSystem{}, err
	}
	fs := FileSystem{
		Type:  int64(s.Type), //nolint:unconvert // the width depends on the architecture
		Bytes: s.Blocks * uint64(s.Bsize), FreeBytes: s.Bavail * uint64(s.Bsize), Inodes: s.Files, FreeNodes: s.Ffree,
	}
	var err error
	fs.NoTypes, err = hasNoTypes(dir)
	return fs, err
}

// hasNoTypes reports whether the entries of a directory have no types. The entry "." of every
// directory shows it.
func hasNoTypes(dir string) (bool, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer func() { _ = unix.Close(fd) }()
	buf := make([]byte, 8192)
	n, err := unix.Getdents(fd, buf)
	if err != nil {
		return false, err
	}
	// struct linux_dirent64 of getdents64(2): ino, off and reclen have 18 bytes, and the type follows.
	const typeOffset = 18
	return n > typeOffset && buf[typeOffset] == unix.DT_UNKNOWN, nil
}

func (machine) ClockSynchronized() bool {
	var t unix.Timex
	_, err := unix.Adjtimex(&t)
	return err == nil && t.Status&unix.STA_UNSYNC == 0
}

func (machine) Now() time.Time { return time.Now() }

func (machine) Label(file string) string {
	buf := make([]byte, 4096)
	n, err := unix.Getxattr(file, "security.selinux", buf)
	if err != nil {
		return ""
	}
	return strings.TrimRight(string(buf[:n]), "\x00")
}
