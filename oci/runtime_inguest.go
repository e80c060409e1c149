package oci

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// endInGuestFor bounds the killing of a command in a guest.
const endInGuestFor = time.Minute

// execFiles are what an exec hands to the runtime, and where the runtime finds
// it. One with guests leaves a process that speaks for the command, and that
// one opens the files anew, under names.
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

func (in *ExecInput) file(suffix string) string { return filepath.Join(in.Dir, in.name+suffix) }

// swept removes the files of an exec that were kept for its end.
func (r *Runtime) swept(in ExecInput) {
	if !r.Guest {
		return
	}
	for _, suffix := range []string{".log", ".json", ".inner"} {
		_ = os.Remove(in.file(suffix))
	}
}

// ender kills a command with its descendants; pid is that of the process that
// stands for it here.
func (r *Runtime) ender(in ExecInput, pid int) func() {
	if !r.Guest {
		return func() { _ = killTree(pid, true) }
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), endInGuestFor)
		defer cancel()
		_ = r.endInGuest(ctx, in)
		_ = killTree(pid, true) // it may have left by itself
	}
}

// endInGuest kills the command in the guest, the parents before their children,
// and looks again until nobody is left.
func (r *Runtime) endInGuest(ctx context.Context, in ExecInput) error {
	root, err := readPID(in.file(".inner"))
	if err != nil {
		return err
	}
	family := map[int]bool{root: true}
	for ctx.Err() == nil {
		table, err := r.call(ctx, nil, "ps", in.ID)
		if err != nil {
			return err
		}
		victims := offspring(table, family)
		if len(victims) == 0 {
			return nil
		}
		for _, pid := range victims {
			// The guest's pids; one that has ended is as good.
			_, _ = r.call(ctx, nil, "kill", "--pid", strconv.Itoa(pid), in.ID, strconv.Itoa(int(unix.SIGKILL)))
		}
	}
	return ctx.Err()
}

// offspring returns those in a table of processes, with UID, PID and PPID as its
// first columns, that are of the family, and adds new ones to it.
func offspring(table []byte, family map[int]bool) []int {
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
			continue // the heading
		}
		alive[pid] = true
		children[ppid] = append(children[ppid], pid)
	}
	queue := make([]int, 0, len(family))
	for pid := range family {
		queue = append(queue, pid)
	}
	seen := make(map[int]bool)
	for len(queue) > 0 {
		pid := queue[0]
		queue = queue[1:]
		if seen[pid] {
			continue
		}
		seen[pid], family[pid] = true, true
		queue = append(queue, children[pid]...)
		if alive[pid] {
			pids = append(pids, pid)
		}
	}
	return pids
}
