package conmon_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon"
)

// While a container writes fast, rotation loses and splits no line, and output after a reopen
// is in the new file.
func TestRotationKeepsAllLines(t *testing.T) {
	const lines = 400_000
	script := fmt.Sprintf("i=0; while [ $i -lt %d ]; do i=$((i+1)); echo line $i; done; echo done >&2", lines)
	b := runScript(t, "exec sh -c '"+script+"'", nil)
	b.start()
	var files []string
	for n := 0; ; n++ {
		if _, err := os.Stat(b.spec.ExitFile); err == nil {
			break
		}
		old := fmt.Sprintf("%s.%d", b.spec.LogPath, n)
		if err := os.Rename(b.spec.LogPath, old); err != nil {
			t.Fatal(err)
		}
		err := conmon.ReopenLog(t.Context(), b.spec.RunDir)
		files = append(files, old)
		if err != nil {
			break // the container has exited meanwhile
		}
		before, _ := os.Stat(old)
		time.Sleep(time.Millisecond)
		if after, _ := os.Stat(old); after.Size() != before.Size() {
			t.Errorf("%s grew after the reopen", old)
		}
	}
	b.exit()
	if b.exists("log") {
		files = append(files, b.spec.LogPath)
	}
	var all []entry
	for _, f := range files {
		all = append(all, b.log(f)...)
	}
	t.Log(len(files), "files")
	want := 0
	for _, line := range strings.Split(strings.TrimSuffix(text(all, "stdout"), "\n"), "\n") {
		if want++; line != fmt.Sprintf("line %d", want) {
			t.Fatalf("line %d is %q", want, line)
		}
	}
	if want != lines || text(all, "stderr") != "done\n" {
		t.Errorf("%d lines, want %d; stderr %q", want, lines, text(all, "stderr"))
	}
}

// After a failed reopen, the monitor still uses the old log.
func TestReopenFails(t *testing.T) {
	b := runScript(t, "while ! [ -e go ]; do sleep 0.01; done; echo last", nil)
	b.start()
	old := b.spec.LogPath + ".old"
	if err := os.Rename(b.spec.LogPath, old); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", b.spec.LogPath); err != nil {
		t.Fatal(err)
	}
	if err := conmon.ReopenLog(t.Context(), b.spec.RunDir); err == nil {
		t.Error("the monitor opened a symbolic link")
	}
	touch(b.spec.RunDir + "/go")
	b.exit()
	if got := text(b.log(old), "stdout"); got != "last\n" {
		t.Errorf("the old log contains %q", got)
	}
}

func TestReopenErrors(t *testing.T) {
	b := runScript(t, "sleep 1000", func(s *conmon.Spec) { s.LogPath = "" })
	if err := conmon.ReopenLog(t.Context(), b.spec.RunDir); err == nil || !strings.Contains(err.Error(), "no log") {
		t.Errorf("without a log: %v", err)
	}
	if err := conmon.ReopenLog(t.Context(), b.dir); err == nil {
		t.Error("without a monitor: no error")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := conmon.ReopenLog(ctx, b.spec.RunDir); err == nil {
		t.Error("with a canceled context: no error")
	}
}

// logToSmallDisk puts the log on a file system of 1 MiB and returns its directory.
func (b *testbed) logToSmallDisk() (dir string) {
	b.t.Helper()
	dir = filepath.Join(b.dir, "disk")
	if err := os.Mkdir(dir, 0o700); err != nil {
		b.t.Fatalf("make the mount point: %v", err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		b.t.Fatalf("mount a tmpfs at %s: %v", dir, err)
	}
	b.t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
	b.spec.LogPath = filepath.Join(dir, "log")
	return dir
}

// A full disk loses log lines but does not affect the container, and the log reports the number
// of bytes.
func TestFullDisk(t *testing.T) {
	needRoot(t)
	b := newTestbed(t)
	b.logToSmallDisk()
	b.spec.RuntimeEnv = append(b.spec.RuntimeEnv, "FAKE_SCRIPT=i=0; while [ $i -lt 40000 ]; do i=$((i+1)); echo line $i; done; echo x >"+
		b.dir+"/full; while ! [ -e "+b.dir+"/go ]; do sleep 0.01; done; echo again; exit 3")
	b.create()
	b.start()
	b.eventually("the end of the output", func() bool { return b.exists("full") })
	old := b.spec.LogPath + ".old"
	if err := os.Rename(b.spec.LogPath, old); err != nil {
		t.Fatal(err)
	}
	first := b.log(old) // parsing fails for a partial entry
	if err := conmon.ReopenLog(t.Context(), b.spec.RunDir); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(old); err != nil {
		t.Fatal(err)
	}
	touch(b.dir + "/go")
	e := b.exit()
	if e.ExitCode != 3 || e.LogLost == 0 {
		t.Errorf("exit record %+v", e)
	}
	rest := b.log(b.spec.LogPath)
	if len(first) == 0 || first[len(first)-1].text != fmt.Sprintf("line %d", len(first)) {
		t.Errorf("the first log ends with %q, entry %d", first[len(first)-1], len(first))
	}
	if got := text(rest, "stderr"); !strings.Contains(got, fmt.Sprintf("%d bytes of log were lost", e.LogLost)) {
		t.Errorf("the log notice is %q", got)
	}
	if got := text(rest, "stdout"); !strings.HasSuffix(got, "again\n") {
		t.Errorf("the log contains %q", got)
	}
}

// A loss is reported even if the container writes nothing after the disk has space again, and
// if the log is rotated then.
func TestLossIsReportedWithoutFurtherOutput(t *testing.T) {
	needRoot(t)
	for name, rotate := range map[string]bool{"at exit": false, "at rotation": true} {
		t.Run(name, func(t *testing.T) {
			b := newTestbed(t)
			disk := b.logToSmallDisk()
			filler := filepath.Join(disk, "filler")
			if err := os.WriteFile(filler, make([]byte, 512<<10), 0o600); err != nil {
				t.Fatal(err)
			}
			b.spec.RuntimeEnv = append(b.spec.RuntimeEnv, "FAKE_SCRIPT=i=0; while [ $i -lt 40000 ]; do i=$((i+1)); echo line $i; done; echo x >"+
				b.dir+"/full; while ! [ -e "+b.dir+"/go ]; do sleep 0.01; done; exit 3")
			b.create()
			b.start()
			b.eventually("the end of the output", func() bool { return b.exists("full") })
			b.eventually("the monitor to read the complete output", func() bool { return b.pipesEmpty() })
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
			logPath := b.spec.LogPath
			if rotate {
				logPath += ".old"
				if err := os.Rename(b.spec.LogPath, logPath); err != nil {
					t.Fatal(err)
				}
				if err := conmon.ReopenLog(t.Context(), b.spec.RunDir); err != nil {
					t.Fatal(err)
				}
			}
			touch(b.dir + "/go")
			e := b.exit()
			if got := text(b.log(logPath), "stderr"); e.LogLost == 0 || !strings.Contains(got, fmt.Sprintf("%d bytes of log were lost", e.LogLost)) {
				t.Errorf("lost bytes: got %d in the exit record, %q in the log, want the same number", e.LogLost, got)
			}
		})
	}
}

// pipesEmpty reports whether the monitor has read everything that the container wrote.
func (b *testbed) pipesEmpty() bool {
	for fd := 1; fd <= 2; fd++ {
		f, err := os.Open(fmt.Sprintf("/proc/%d/fd/%d", b.started.Init.PID, fd))
		if err != nil {
			b.t.Fatal(err)
		}
		unread, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCINQ)
		_ = f.Close()
		if err != nil {
			b.t.Fatal(err)
		}
		if unread > 0 {
			return false
		}
	}
	return true
}
