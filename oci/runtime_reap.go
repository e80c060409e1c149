package oci

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// reapPause is how often it is looked whether a helper has ended.
const reapPause = 5 * time.Millisecond

// deleteInGuest has the runtime delete, and buries meanwhile what it kills: it
// waits for that to be gone from the process table, and as adopter of orphans
// the calling process is the parent.
func (r *Runtime) deleteInGuest(id string, remove func() error) error {
	done := make(chan struct{})
	buried := make(chan struct{})
	helpers, guest := r.helpers(id)
	go func() {
		defer close(buried)
		for len(helpers) > 0 {
			helpers = unburied(helpers)
			select {
			case <-done:
				return
			case <-time.After(reapPause):
			}
		}
	}()
	err := remove()
	close(done)
	<-buried
	if err == nil && guest != "" {
		r.dropLocks(guest)
	}
	return err
}

// dropLocks removes the lock files of containers of the guest that have no state
// any more. The runtime makes them anew when, deleting one container, it looks
// at the others, which are being deleted meanwhile.
func (r *Runtime) dropLocks(guest string) {
	locks, err := filepath.Glob(filepath.Join(r.Root, "*_sandbox:"+guest+".lock"))
	if err != nil {
		return
	}
	for _, lock := range locks {
		if _, err := os.Lstat(strings.TrimSuffix(lock, ".lock") + ".state"); errors.Is(err, fs.ErrNotExist) {
			_ = os.Remove(lock)
		}
	}
}

// unburied reaps those that have ended and returns the others.
func unburied(pids []int) []int {
	var left []int
	for _, pid := range pids {
		got, err := unix.Wait4(pid, nil, unix.WNOHANG, nil)
		if got != pid && !errors.Is(err, unix.ECHILD) { // another's child is another's to reap
			left = append(left, pid)
		}
	}
	return left
}

// helpers are the processes that the runtime keeps for a container, as its state
// file has them: the one that serves its files and, of a guest, the kernel. The
// guest's id goes with them.
func (r *Runtime) helpers(id string) (pids []int, guest string) {
	files, err := filepath.Glob(filepath.Join(r.Root, id+"_*.state"))
	if err != nil || len(files) != 1 {
		return nil, ""
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		return nil, ""
	}
	var state struct {
		GoferPid int
		Sandbox  struct {
			ID  string
			Pid int
		}
	}
	_ = json.Unmarshal(b, &state) // a field of another form than expected is left out
	if state.GoferPid > 1 {
		pids = append(pids, state.GoferPid)
	}
	if state.Sandbox.ID == id && state.Sandbox.Pid > 1 {
		pids = append(pids, state.Sandbox.Pid)
	}
	return pids, state.Sandbox.ID
}
