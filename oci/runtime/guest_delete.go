package runtime

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

// reapInterval is how often deleteInGuest looks for exited processes.
const reapInterval = 5 * time.Millisecond

// deleteInGuest calls remove, which makes the runtime delete a container. Meanwhile it reaps
// the processes that the runtime kills: the runtime waits until they have disappeared from the
// process table, and this process is their parent because it adopts orphans.
func (r *Runtime) deleteInGuest(id string, remove func() error) error {
	done := make(chan struct{})
	reaped := make(chan struct{})
	helpers, guest := r.guestProcesses(id)
	go func() {
		defer close(reaped)
		for len(helpers) > 0 {
			helpers = reapExited(helpers)
			select {
			case <-done:
				return
			case <-time.After(reapInterval):
			}
		}
	}()
	err := remove()
	close(done)
	<-reaped
	if err == nil && guest != "" {
		r.removeStaleLocks(guest)
	}
	return err
}

// removeStaleLocks removes the lock files of containers of a guest that have no state any more.
// When the runtime deletes a container, it creates the lock files of the other containers of
// the guest again, which may be deleted at the same time.
func (r *Runtime) removeStaleLocks(guest string) {
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

// reapExited reaps the processes that have exited and returns the others.
func reapExited(pids []int) []int {
	var left []int
	for _, pid := range pids {
		got, err := unix.Wait4(pid, nil, unix.WNOHANG, nil)
		if got != pid && !errors.Is(err, unix.ECHILD) { // ECHILD: the process is not a child of this process
			left = append(left, pid)
		}
	}
	return left
}

// guestProcesses returns the processes that the runtime runs for a container, according to its
// state file: the one that serves its files and, for a guest, the guest's kernel. It also
// returns the id of the guest.
func (r *Runtime) guestProcesses(id string) (pids []int, guest string) {
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
	_ = json.Unmarshal(b, &state) // fields of an unexpected type stay 0
	if state.GoferPid > 1 {
		pids = append(pids, state.GoferPid)
	}
	if state.Sandbox.ID == id && state.Sandbox.Pid > 1 {
		pids = append(pids, state.Sandbox.Pid)
	}
	return pids, state.Sandbox.ID
}
