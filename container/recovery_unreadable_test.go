package container

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/container/record"
	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/internal/patience"
)

// overwrite replaces the content of files of a container.
func overwrite(t *testing.T, dir, content string, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUnreadableFilesOfRunningContainer checks that a running container with unreadable
// files is visible, keeps its processes, and can be stopped and removed.
func TestUnreadableFilesOfRunningContainer(t *testing.T) {
	for name, tc := range map[string]struct {
		damage  func(t *testing.T, dir string)
		hasPID  bool // the recovery finds the first process
		wantPod string
	}{
		"empty state":      {func(t *testing.T, dir string) { overwrite(t, dir, "", record.StateFile) }, true, "pod"},
		"empty record":     {func(t *testing.T, dir string) { overwrite(t, dir, "", record.File) }, true, ""},
		"state and record": {func(t *testing.T, dir string) { overwrite(t, dir, "", record.StateFile, record.File) }, true, ""},
		"a later version":  {func(t *testing.T, dir string) { overwrite(t, dir, `{"version":99}`, record.StateFile) }, true, "pod"},
		"torn record, no state": {func(t *testing.T, dir string) {
			overwrite(t, dir, "{torn", record.File)
			remove(t, dir, record.StateFile)
		}, true, ""},
		"all but the OCI config": {func(t *testing.T, dir string) {
			overwrite(t, dir, "", record.File, record.StateFile)
			remove(t, dir, conmon.PIDFile)
		}, false, ""},
		"pid of another process": {func(t *testing.T, dir string) {
			overwrite(t, dir, "", record.StateFile)
			overwrite(t, dir, strconv.Itoa(os.Getpid()), conmon.PIDFile)
		}, false, "pod"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newTestBed(t)
			m, stop := b.manager()
			id := b.run(m, shell("main", "trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done"))
			b.log("main", "up")
			c, _ := m.find(id)
			init, monitor := c.refs()
			stop()
			tc.damage(t, c.dir)

			for range 2 { // also after a second restart
				m, stop = b.manager()
				s, err := m.Get(id)
				if err != nil || s.State != Unknown || s.Message == "" || s.PodID != tc.wantPod || s.Config.GetMetadata().GetName() == "" {
					t.Fatalf("get: got %+v (error %v), want state unknown with a message and pod %q", s, err, tc.wantPod)
				}
				if want := map[bool]int{true: init.PID}[tc.hasPID]; s.PID != want {
					t.Errorf("pid: got %d, want %d", s.PID, want)
				}
				if !init.Alive() || !monitor.Alive() || len(m.List()) != 1 || !m.Holds(id) {
					t.Error("the recovery has changed the container")
				}
				stop()
			}
			m, stop = b.manager()
			defer stop()
			if err := m.Stop(t.Context(), id, patience.For(20*time.Second)); err != nil {
				t.Fatal(err)
			}
			s, err := m.Get(id)
			if want := map[bool]int32{true: 9, false: 137}[tc.hasPID]; err != nil || s.State != Exited || s.ExitCode != want {
				t.Errorf("get after the stop: got %+v (error %v), want exit code %d", s, err, want)
			}
			if err := m.Remove(t.Context(), id); err != nil {
				t.Error(err)
			}
		})
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

// TestUnreadableFilesOfExitedContainer checks that an exited container with unreadable files
// has exited, with the exit record of the monitor.
func TestUnreadableFilesOfExitedContainer(t *testing.T) {
	b := newTestBed(t)
	m, stop := b.manager()
	id := b.run(m, shell("main", "exit 7"))
	b.waitExit(m, id)
	c, _ := m.find(id)
	bare := filepath.Join(b.runDir, "containers", ids.New())
	if err := os.Mkdir(bare, 0o700); err != nil {
		t.Fatal(err)
	}
	stop()
	overwrite(t, c.dir, "", record.File, record.StateFile)
	overwrite(t, bare, "{torn", record.File)

	m, _ = b.manager()
	if s := b.waitExit(m, id); s.ExitCode != 7 {
		t.Errorf("%+v", s)
	}
	if s := b.waitExit(m, filepath.Base(bare)); s.ExitCode == 0 || s.Message == "" {
		t.Errorf("%+v", s)
	}
	for _, id := range []string{id, filepath.Base(bare)} {
		if err := m.Remove(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}

// TestContainersWithTheSameName checks that both containers are visible and can be removed.
func TestContainersWithTheSameName(t *testing.T) {
	b := newTestBed(t)
	m, stop := b.manager()
	first, second := b.run(m, shell("a", "sleep 1000")), b.run(m, shell("b", "sleep 1000"))
	c, _ := m.find(second)
	stop()
	c.config.Metadata.Name = "a"
	if err := errors.Join(c.rec.SetMessages(c.config, c.podConfig), c.rec.Write(c.dir)); err != nil {
		t.Fatal(err)
	}
	m, _ = b.manager()
	if n := len(m.List()); n != 2 {
		t.Fatalf("%d containers", n)
	}
	for _, id := range []string{first, second} {
		if err := m.Remove(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}
