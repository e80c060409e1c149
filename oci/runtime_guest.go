package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/internal/proc"
)

// A runtime with guests (gVisor) runs the containers of a pod under one kernel
// of its own, the guest. The guest is a container too, the first one; the others
// name it in an annotation. Their processes are none of the host's, so all that
// is done to them goes through the runtime.

// The annotations by which such a runtime knows what belongs together.
const (
	kindAnnotation  = "io.kubernetes.cri.container-type"
	guestAnnotation = "io.kubernetes.cri.sandbox-id"
)

// GuestAnnotations are for the config of a guest itself.
func GuestAnnotations() map[string]string { return map[string]string{kindAnnotation: "sandbox"} }

// InGuestAnnotations are for the config of a container in a guest.
func InGuestAnnotations(guest string) map[string]string {
	return map[string]string{kindAnnotation: "container", guestAnnotation: guest}
}

// undoGuestFor bounds the undoing of a guest that did not start.
const undoGuestFor = 2 * time.Minute

// StartGuest starts a guest from its bundle, in which it leaves a file with the
// pid, and returns its process. When it fails nothing of the guest is left.
func (r *Runtime) StartGuest(ctx context.Context, id, bundle string) (proc.Ref, error) {
	pidFile := filepath.Join(bundle, "pid")
	err := r.silently(ctx, "create", "--bundle", bundle, "--pid-file", pidFile, id)
	if err == nil {
		err = r.silently(ctx, "start", id)
	}
	var pid int
	if err == nil {
		pid, err = readPID(pidFile)
	}
	var ref proc.Ref
	if err == nil {
		ref, err = proc.Identify(pid)
	}
	if err != nil {
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoGuestFor)
		defer cancel()
		_ = r.Delete(cleanup, id, true) // what was not made cannot be deleted
		return proc.Ref{}, err
	}
	return ref, nil
}

// silently is call for a command that leaves a process behind: that would hold
// on to pipes for its output.
func (r *Runtime) silently(ctx context.Context, args ...string) error {
	files, err := r.files(nil)
	if err != nil {
		return err
	}
	defer closeAll(files)
	if err := r.command(ctx, files, logPath, args).Run(); err != nil {
		return r.failed(ctx, args[0], err, readLog(files[0]), nil)
	}
	return nil
}

// Wait returns the exit code of a container in a guest, once it has ended.
func (r *Runtime) Wait(ctx context.Context, id string) (int32, error) {
	out, err := r.call(ctx, nil, "wait", id)
	if err != nil {
		return 0, err
	}
	var answer struct {
		ExitStatus *int32 `json:"exitStatus"`
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		return 0, fmt.Errorf("%s wait: %w", r.base(), err)
	}
	if answer.ExitStatus == nil {
		return 0, errors.New(r.base() + " wait: no exit status in the answer")
	}
	return *answer.ExitStatus, nil
}

// GuestStats are the figures of a container in a guest, as far as the guest has
// them: its share of the CPU time, its memory without the guest's own, its
// tasks.
func (r *Runtime) GuestStats(ctx context.Context, id string) (cgroup.Stats, error) {
	s := cgroup.Stats{Time: time.Now()}
	out, err := r.call(ctx, nil, "events", "--stats", id)
	if err != nil {
		return s, err
	}
	var event struct {
		Data struct {
			CPU struct {
				Usage struct{ Total uint64 }
			}
			Memory struct {
				Usage struct{ Usage uint64 }
			}
			Pids struct{ Current uint64 }
		}
	}
	if err := json.Unmarshal(out, &event); err != nil {
		return s, fmt.Errorf("%s events: %w", r.base(), err)
	}
	d := &event.Data
	s.CPUUsage, s.Pids = d.CPU.Usage.Total, d.Pids.Current
	s.Memory = cgroup.Memory{Usage: d.Memory.Usage.Usage, WorkingSet: d.Memory.Usage.Usage, RSS: d.Memory.Usage.Usage, SwapLimit: cgroup.NoLimit}
	return s, nil
}
