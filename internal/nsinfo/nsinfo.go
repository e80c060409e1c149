// Package nsinfo reads which Linux namespaces processes belong to, as lsns(8) shows them, and
// the id mappings of user namespaces. It enters no namespace.
package nsinfo

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Kinds are the names of the kinds of namespaces in /proc/PID/ns, in alphabetical order. Time
// namespaces exist since Linux 5.6.
var Kinds = []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"}

// Set contains the inode number of the namespace of each kind. Two namespaces are the same if
// and only if their inode numbers are equal. A kind that the kernel does not have is missing.
type Set map[string]uint64

// Reader reads below a directory that contains the files of /proc.
type Reader struct{ Proc string }

// Host reads the files of the host.
var Host = Reader{Proc: "/proc"}

// Process returns the namespaces of a process. It returns fs.ErrNotExist if there is no such
// process.
func (r Reader) Process(pid int) (Set, error) {
	dir := filepath.Join(r.Proc, strconv.Itoa(pid), "ns")
	set := make(Set, len(Kinds))
	for _, kind := range Kinds {
		target, err := os.Readlink(filepath.Join(dir, kind))
		if errors.Is(err, fs.ErrNotExist) {
			if _, err := os.Lstat(dir); err != nil {
				return nil, fmt.Errorf("namespaces of process %d: %w", pid, err)
			}
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("namespaces of process %d: %w", pid, err)
		}
		inode, err := parseLink(kind, target)
		if err != nil {
			return nil, fmt.Errorf("namespaces of process %d: %w", pid, err)
		}
		set[kind] = inode
	}
	return set, nil
}

// parseLink returns the inode number in the target of a link, as in "net:[4026531840]".
func parseLink(kind, target string) (uint64, error) {
	text, ok := strings.CutPrefix(target, kind+":[")
	text, closed := strings.CutSuffix(text, "]")
	inode, err := strconv.ParseUint(text, 10, 64)
	if !ok || !closed || err != nil {
		return 0, fmt.Errorf("%q is not a link to a namespace of the kind %s", target, kind)
	}
	return inode, nil
}

// Pinned returns the inode number of a namespace that is mounted on a file. It returns an
// error if the file is not a namespace.
func Pinned(path string) (uint64, error) {
	var fstat unix.Statfs_t
	if err := unix.Statfs(path, &fstat); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	if fstat.Type != unix.NSFS_MAGIC {
		return 0, fmt.Errorf("%s is not a namespace", path)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Ino, nil
}

// Mapping maps a range of ids of a user namespace to ids of the reader's user namespace.
type Mapping struct {
	Inside, Outside, Length uint32
}

// IDMappings returns the mappings of user ids and of group ids of the user namespace of a
// process.
func (r Reader) IDMappings(pid int) (uids, gids []Mapping, err error) {
	dir := filepath.Join(r.Proc, strconv.Itoa(pid))
	if uids, err = readMappings(filepath.Join(dir, "uid_map")); err != nil {
		return nil, nil, err
	}
	gids, err = readMappings(filepath.Join(dir, "gid_map"))
	return uids, gids, err
}

func readMappings(file string) ([]Mapping, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []Mapping
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var m Mapping
		if _, err := fmt.Sscan(lines.Text(), &m.Inside, &m.Outside, &m.Length); err != nil {
			return nil, fmt.Errorf("%s: line %q: %w", file, lines.Text(), err)
		}
		list = append(list, m)
	}
	return list, lines.Err()
}
