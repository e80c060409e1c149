package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/internal/steps"
)

// A runtime with guests, such as gVisor, runs the containers of a pod under a kernel of their
// own, the guest. For the runtime the guest is a container too, the first one of the pod; the
// other containers name it in an annotation. The host does not see the processes of the
// containers, so every operation on them is a call of the runtime.

// Annotations that tell the runtime which containers belong to a guest. Kubernetes runtimes
// share them.
const (
	containerTypeAnnotation = "io.kubernetes.cri.container-type"
	sandboxIDAnnotation     = "io.kubernetes.cri.sandbox-id"
)

// GuestAnnotations returns the annotations for the config of a guest.
func GuestAnnotations() map[string]string {
	return map[string]string{containerTypeAnnotation: "sandbox"}
}

// InGuestAnnotations returns the annotations for the config of a container in a guest.
func InGuestAnnotations(guest string) map[string]string {
	return map[string]string{containerTypeAnnotation: "container", sandboxIDAnnotation: guest}
}

// guestCleanupTimeout limits the deletion of a guest that did not start.
const guestCleanupTimeout = 2 * time.Minute

// StartGuest creates and starts a guest from its bundle and returns its process. It writes a
// pid file to the bundle. If StartGuest fails, it deletes the guest.
func (r *Runtime) StartGuest(ctx context.Context, id, bundle string) (proc.Ref, error) {
	pidFile := filepath.Join(bundle, "pid")
	err := r.callDetached(ctx, "create", "--bundle", bundle, "--pid-file", pidFile, id)
	if err == nil {
		err = r.callDetached(ctx, "start", id)
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
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), guestCleanupTimeout)
		defer cancel()
		_ = r.Delete(cleanup, id, true) // the error is expected if the guest was not created
		return proc.Ref{}, err
	}
	return ref, nil
}

// callDetached is call for a command that leaves a process behind. Such a process would hold
// pipes for the output open.
func (r *Runtime) callDetached(ctx context.Context, args ...string) (err error) {
	ctx, step := steps.Start(ctx, steps.RuntimeCall, steps.Command(args[0]))
	defer step.EndWith(&err)
	files, err := r.files(nil)
	if err != nil {
		return err
	}
	defer closeAll(files)
	if err := r.command(ctx, files, logPath, args).Run(); err != nil {
		return r.commandError(ctx, args[0], err, readLog(files[0]), nil)
	}
	return nil
}

// Wait waits until a container in a guest has exited, and returns its exit code.
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
		return 0, errors.New(r.base() + " wait: the output contains no exit status")
	}
	return *answer.ExitStatus, nil
}

// GuestStats returns the stats of a container in a guest that the guest provides: its CPU time,
// its memory without the memory of the guest's kernel, and its number of tasks.
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
