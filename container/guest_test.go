package container

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/criserver/criserver/container/guest"
	"github.com/criserver/criserver/container/record"
	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/oci/runtime"
)

// deadProcesses is a Watcher for which all processes have exited.
type deadProcesses struct{}

func (deadProcesses) Watch(proc.Ref, func(*os.File)) error { return proc.ErrGone }

// TestGuestsOfPods checks that a pod is not ready after the exit of its guest, that its containers get the runtime of
// the guest, and that a stop of the pod removes the guest.
func TestGuestsOfPods(t *testing.T) {
	podID := ids.New()
	pods := &fakePods{pods: map[string]Pod{podID: {ID: podID, Ready: true}}}
	configured := &runtime.Runtime{Name: "guestrt", Path: "/new", Guest: true}
	m, err := New(Config{RunDir: t.TempDir(), Pods: pods, Watcher: deadProcesses{}, Settings: Settings{
		Runtimes: map[string]*runtime.Runtime{"guestrt": configured}, DefaultRuntime: "guestrt",
	}})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(m.cfg.RunDir, "guests", podID)
	b, err := json.Marshal(guest.Record{
		Version: record.Version, Boot: m.boot, PodID: podID, Runtime: runtime.Runtime{Name: "guestrt", Path: "/bin/true", Guest: true}, Process: proc.Ref{PID: 1 << 22, Start: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, guest.File), b, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := m.guests.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p, _ := pods.Pod(podID); p.Ready {
		t.Error("the pod is ready after the exit of its guest")
	}
	if r, err := m.runtime(m.settings.Load(), Pod{ID: podID}); err != nil || r.Path != "/bin/true" {
		t.Errorf("runtime of a new container: got %+v, %v, want the runtime of the guest", r, err)
	}
	if err := m.StopPod(t.Context(), podID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("directory of the guest after the stop: %v", err)
	}
	// The creation of another guest was interrupted before its record was written.
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := m.RemovePod(t.Context(), podID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("directory of the guest after the removal: %v", err)
	}
}
