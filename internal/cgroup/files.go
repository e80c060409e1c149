package cgroup

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// readUint reads a file that contains one number. It returns 0 for "max" and for a file that
// cannot be read.
func readUint(file string) uint64 {
	return readOptional(file).Value
}

// readKeyed reads a file whose lines consist of a word and a number (a "flat keyed" file).
func readKeyed(file string) (map[string]uint64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	m := make(map[string]uint64, 64)
	for line := range strings.Lines(string(b)) {
		k, v, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if n, err := strconv.ParseUint(v, 10, 64); ok && err == nil {
			m[k] = n
		}
	}
	return m, nil
}

// readText returns the trimmed content of a file, or "" if the file cannot be read.
func readText(file string) string {
	b, _ := os.ReadFile(file)
	return strings.TrimSpace(string(b))
}

// readOptional reads a file that contains one number. The result is not valid for other content.
func readOptional(file string) Optional { return parseOptional(readText(file)) }

func parseOptional(text string) Optional {
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return Optional{}
	}
	return Optional{v, true}
}

// write writes to a control file. The file must exist: os.WriteFile would try to create a file
// that the kernel does not have, and would fail with a misleading "permission denied".
//
// The file is not an os.File, because the kernel can refuse a value with EAGAIN, for example in memory.reclaim. The Go
// runtime can poll control files, and would wait without end until the file is writable.
func write(file, value string) error {
	fd, err := retry(func() (int, error) { return unix.Open(file, unix.O_WRONLY|unix.O_TRUNC|unix.O_CLOEXEC, 0) })
	if err != nil {
		return &fs.PathError{Op: "open", Path: file, Err: err}
	}
	defer unix.Close(fd)
	n, err := retry(func() (int, error) { return unix.Write(fd, []byte(value)) })
	if err == nil && n < len(value) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return &fs.PathError{Op: "write", Path: file, Err: err}
	}
	return nil
}

// retry repeats a system call that a signal has interrupted.
func retry(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// readLimit returns the content of a control file without the final line break.
func readLimit(file string) (string, error) {
	b, err := os.ReadFile(file)
	return strings.TrimRight(string(b), "\n"), err
}

// fileHasWord reports whether a file, such as cgroup.controllers, contains the word.
func fileHasWord(file, word string) bool {
	b, err := os.ReadFile(file)
	return err == nil && slices.Contains(strings.Fields(string(b)), word)
}

// hasFile reports whether a directory has one of the files.
func hasFile(dir string, names ...string) bool {
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return true
		}
	}
	return false
}
