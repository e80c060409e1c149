package proc

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Find looks for the process with just this command line. It is for a child
// whose start was not recorded before its parent died; the command line has to
// hold something that no other process's has.
func Find(args ...string) (Ref, bool) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return Ref{}, false
	}
	want := strings.Join(args, "\x00") + "\x00"
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// Identified first: were the pid reused in between, the ref would be of
		// the process that is gone, and never of a stranger.
		ref, err := Identify(pid)
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err == nil && string(line) == want {
			return ref, true
		}
	}
	return Ref{}, false
}
