package conmon_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon"
)

// TestRotationKeepsAllLines checks that while a container writes fast, rotation loses and splits no
// line, and output after a reopen is in the new file.
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
			break // the container has exited
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

// TestReopenFails checks that after a failed reopen, the monitor still uses the old log.
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

// TestFullDisk checks that a full disk loses log lines but does not affect the container, and the
// log reports the number of bytes.
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

// TestLossIsReportedWithoutFurtherOutput checks that a loss is reported even if the container
// writes nothing after the disk has space again, and if the log is rotated then.
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

// TestPromptIsLogged checks that a prompt without newline is in the log while the container waits
// for the answer, and that the rest of the line continues the entry of the prompt.
func TestPromptIsLogged(t *testing.T) {
	b := runScript(t, "printf 'password: '; while ! [ -e go ]; do sleep 0.01; done; printf 'ok'; echo; printf end", nil)
	b.start()
	want := []entry{{"stdout", "P", "password: "}}
	b.eventually("the prompt", func() bool { return slices.Equal(b.log(b.spec.LogPath), want) })
	touch(b.spec.RunDir + "/go")
	b.exit()
	want = append(want, entry{"stdout", "F", "ok"}, entry{"stdout", "P", "end"})
	if got := b.log(b.spec.LogPath); !slices.Equal(got, want) {
		t.Errorf("log: got %q, want %q", got, want)
	}
}

// TestSlowLinesAreComplete checks that the log joins to the output of a container that writes
// its lines in parts with pauses around lineDelay of the monitor.
func TestSlowLinesAreComplete(t *testing.T) {
	b := runScript(t, `for pause in 0.1 0.24 0.25 0.26 0.3; do printf "a $pause "; sleep $pause; printf "b"; sleep $pause; echo " c"; printf "err" >&2; done`, nil)
	b.start()
	b.exit()
	got := b.log(b.spec.LogPath)
	want := "a 0.1 b c\na 0.24 b c\na 0.25 b c\na 0.26 b c\na 0.3 b c\n"
	if text(got, "stdout") != want || text(got, "stderr") != strings.Repeat("err", 5) {
		t.Errorf("log: got %q, want %q", got, want)
	}
}

// TestLogSizeMax checks that the log of a container keeps its maximum size, and that the exit
// record counts the bytes that were deleted.
func TestLogSizeMax(t *testing.T) {
	const maxSize = 1 << 20
	b := runScript(t, "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); echo line $i; done", func(s *conmon.Spec) { s.LogSizeMax = maxSize })
	b.start()
	e := b.exit()
	var lines []string
	for _, path := range []string{b.spec.LogPath + ".1", b.spec.LogPath} {
		st, err := os.Stat(path)
		if err != nil || st.Size() > maxSize {
			t.Fatalf("%s: got %v (error %v), want at most %d bytes", path, st, err, maxSize)
		}
		for _, entry := range b.log(path) {
			if entry.stream == "stdout" {
				lines = append(lines, entry.text)
			} else if !strings.Contains(entry.text, " bytes of an older log were deleted") {
				t.Errorf("stderr: got %q, want only the notice", entry.text)
			}
		}
	}
	first := 60000 - len(lines)
	for i, line := range lines {
		if want := fmt.Sprintf("line %d", first+i+1); line != want {
			t.Fatalf("line %d from the end: got %q, want %q", len(lines)-i, line, want)
		}
	}
	deleted := int64(0)
	for i := 1; i <= first; i++ {
		deleted += int64(len("2006-01-02T15:04:05.000000000Z stdout F line \n") + len(fmt.Sprint(i)))
	}
	if first == 0 || e.LogLost < deleted {
		t.Errorf("lost bytes: got %d, want at least the %d bytes of the first %d lines", e.LogLost, deleted, first)
	}
}
