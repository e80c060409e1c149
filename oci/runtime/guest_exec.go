package runtime

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// guestKillTimeout limits the killing of a command in a guest.
const guestKillTimeout = time.Minute

// execFiles returns the files and arguments with which the runtime gets the process of an exec.
// A runtime with guests leaves a process that represents the command and opens the files again
// by name, so they must be real files.
func (r *Runtime) execFiles(in ExecInput, process []byte) (files []*os.File, log string, args []string, err error) {
	if !r.Guest {
		files, err = r.files(process)
		return files, logPath, []string{"--process", inputPath}, err
	}
	log = in.file(".log")
	f, err := os.OpenFile(log, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, "", nil, err
	}
	if err := os.WriteFile(in.file(".json"), process, 0o600); err != nil {
		closeAll([]*os.File{f})
		return nil, "", nil, err
	}
	return []*os.File{f}, log, []string{"--process", in.file(".json"), "--internal-pid-file", in.file(".inner")}, nil
}

// file returns the path of a file of this exec.
func (in *ExecInput) file(suffix string) string { return filepath.Join(in.Dir, in.name+suffix) }

// removeExecFiles removes the files that an exec needs until its end.
func (r *Runtime) removeExecFiles(in ExecInput) {
	if !r.Guest {
		return
	}
	for _, suffix := range []string{".log", ".json", ".inner"} {
		_ = os.Remove(in.file(suffix))
	}
}

// killFunc returns a function that kills a command with its descendants. pid is the command, or
// the process that represents a command in a guest.
func (r *Runtime) killFunc(in ExecInput, pid int) func() {
	if !r.Guest {
		return func() { _ = killTree(pid, true) }
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), guestKillTimeout)
		defer cancel()
		_ = r.killInGuest(ctx, in)
		_ = killTree(pid, true) // the process may have exited already
	}
}

// killInGuest kills the command in the guest, parents before their children. It repeats until
// it finds no process.
func (r *Runtime) killInGuest(ctx context.Context, in ExecInput) error {
	root, err := readPID(in.file(".inner"))
	if err != nil {
		return err
	}
	tree := map[int]bool{root: true}
	for ctx.Err() == nil {
		table, err := r.call(ctx, nil, "ps", in.ID)
		if err != nil {
			return err
		}
		victims := guestDescendants(table, tree)
		if len(victims) == 0 {
			return nil
		}
		for _, pid := range victims {
			// The pid is one of the guest. The process may have exited already.
			_, _ = r.call(ctx, nil, "kill", "--pid", strconv.Itoa(pid), in.ID, strconv.Itoa(int(unix.SIGKILL)))
		}
	}
	return ctx.Err()
}

// guestDescendants returns the pids of a process table that are in tree or descend from it, and
// adds them to tree. The first columns of the table are UID, PID and PPID. tree keeps pids of
// exited processes, so that their orphans are found too.
func guestDescendants(table []byte, tree map[int]bool) []int {
	var pids []int
	children := make(map[int][]int)
	alive := make(map[int]bool)
	for line := range bytes.Lines(table) {
		f := bytes.Fields(line)
		if len(f) < 3 {
			continue
		}
		pid, err := strconv.Atoi(string(f[1]))
		ppid, perr := strconv.Atoi(string(f[2]))
		if err != nil || perr != nil {
			continue // the header
		}
		alive[pid] = true
		children[ppid] = append(children[ppid], pid)
	}
	queue := make([]int, 0, len(tree))
	for pid := range tree {
		queue = append(queue, pid)
	}
	seen := make(map[int]bool)
	for len(queue) > 0 {
		pid := queue[0]
		queue = queue[1:]
		if seen[pid] {
			continue
		}
		seen[pid], tree[pid] = true, true
		queue = append(queue, children[pid]...)
		if alive[pid] {
			pids = append(pids, pid)
		}
	}
	return pids
}
