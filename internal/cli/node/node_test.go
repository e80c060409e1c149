package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/internal/cli/clitest"
	"github.com/criserver/criserver/internal/cli/command"
	"github.com/criserver/criserver/server/admin"
)

// runCommand runs a command of this package, and returns its exit code and its output.
func runCommand(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return clitest.Run(t, Commands, strings.NewReader(""), args...)
}

// reloader is an admin.Reloader that returns fixed values.
type reloader struct {
	result admin.ReloadResult
	err    error
}

func (r reloader) Reload(context.Context) (admin.ReloadResult, error) { return r.result, r.err }

func testStatus() *adminv1.GetStatusResponse {
	return &adminv1.GetStatusResponse{
		Pid:     42,
		Runtime: &adminv1.Condition{Ready: true},
		RuntimeHandlers: []*adminv1.RuntimeHandler{
			{Name: "runc", Default: true, Version: "runc version 1.4.0", Path: "/bin/runc", UserNamespacesError: "no\nmapped ids"},
		},
		Network: &adminv1.NetworkStatus{Condition: &adminv1.Condition{Ready: true}, DefaultBridge: "cri0", DefaultBridgeRanges: []string{"10.1.0.0/16"}},
		Storage: &adminv1.StorageStatus{Root: "/r", FileSystem: "xfs", Images: 3, ImageBytes: 3 << 30, CapacityBytes: 1 << 40},
		Pods:    &adminv1.PodCounts{Ready: 2},
	}
}

func TestStatus(t *testing.T) {
	s := testStatus()
	file := clitest.ServeAdmin(t, admin.Config{
		Version: &adminv1.GetVersionResponse{Version: "9.8.7", GoVersion: "go1"},
		Status:  func(context.Context) *adminv1.GetStatusResponse { return s },
	})
	code, stdout, stderr := runCommand(t, "status", "--config", file)
	if code != command.ExitSuccess || stderr != "" {
		t.Errorf("got exit code %d, error output %q", code, stderr)
	}
	for _, want := range []string{"version 9.8.7", "pid 42", "default bridge cri0 with 10.1.0.0/16", "3 images", "3GiB", "1TiB", "xfs", "2 ready, 0 not ready", "no mapped ids\n"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("the output does not contain %q:\n%s", want, stdout)
		}
	}
	var decoded struct {
		RuntimeHandlers []struct {
			Name           string
			UserNamespaces *bool
		}
	}
	_, stdout, _ = runCommand(t, "status", "--config", file, "-o", "json")
	if err := json.Unmarshal([]byte(stdout), &decoded); err != nil || len(decoded.RuntimeHandlers) != 1 || decoded.RuntimeHandlers[0].UserNamespaces == nil {
		t.Errorf("JSON: got %+v, %v; fields with default values must be present", decoded, err)
	}
	if _, stdout, _ = runCommand(t, "status", "--config", file, "-o", "yaml"); !strings.Contains(stdout, "\n  goVersion: go1\n") {
		t.Errorf("YAML:\n%s", stdout)
	}
	s.Network.Condition = &adminv1.Condition{Reason: "no plugin"}
	if code, _, stderr := runCommand(t, "status", "--config", file); code != command.ExitFailure || !strings.Contains(stderr, "the network is not ready: no plugin") {
		t.Errorf("network not ready: got exit code %d, error output %q", code, stderr)
	}
}

func TestArchiveStatus(t *testing.T) {
	a := &adminv1.ArchiveStatus{Archives: 2, Images: 3, Loading: "/a/c.tar", Failures: []*adminv1.ArchiveFailure{{Path: "/a/b.tar", Error: "truncated"}}}
	want := "archives  2 loaded with 3 images, 1 failed, loading /a/c.tar\n-         /a/b.tar: truncated\n"
	if got := clitest.Table(t, func(tab *command.Table) { writeArchives(tab, a) }); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := clitest.Table(t, func(tab *command.Table) { writeArchives(tab, nil) }); got != "" {
		t.Errorf("no archive directories: got %q", got)
	}
}

func TestVersionOfDaemon(t *testing.T) {
	file := clitest.ServeAdmin(t, admin.Config{Version: &adminv1.GetVersionResponse{Version: "9.8.7"}})
	if _, stdout, _ := runCommand(t, "version", "--config", file); !strings.HasPrefix(stdout, "criserver 1.2.3 (") || !strings.Contains(stdout, "\ndaemon 9.8.7 (") {
		t.Errorf("got %q", stdout)
	}
}

func TestReloadCommand(t *testing.T) {
	changed := []admin.SettingChange{{Key: "log_level", Old: `"info"`, New: `"debug"`}}
	restart := []admin.SettingChange{{Key: "root", Old: `"/a"`, New: `"/b"`}}
	for name, tc := range map[string]struct {
		reloader admin.Reloader
		code     int
		want     []string
	}{
		"nothing":   {reloader{}, command.ExitSuccess, []string{"has not changed"}},
		"changes":   {reloader{result: admin.ReloadResult{Changed: changed, NeedRestart: restart}}, command.ExitSuccess, []string{"log_level", "applied", "root", "needs a restart"}},
		"key error": {reloader{result: admin.ReloadResult{Errors: []admin.SettingError{{Key: "cni.conf_dirs", Err: errors.New("bad")}}}}, command.ExitFailure, []string{"cni.conf_dirs", "error: bad", "1 keys could not be applied"}},
		"refused":   {reloader{err: fmt.Errorf("f.toml: root: must be absolute: %w", errdefs.ErrInvalidArgument)}, command.ExitFailure, []string{"criserver: f.toml: root: must be absolute"}},
		"old":       {nil, command.ExitFailure, []string{"not implemented"}},
	} {
		file := clitest.ServeAdmin(t, admin.Config{Reloader: tc.reloader})
		code, stdout, stderr := runCommand(t, "reload", "--config", file)
		if code != tc.code {
			t.Errorf("%s: got exit code %d, want %d", name, code, tc.code)
		}
		for _, want := range tc.want {
			if !strings.Contains(stdout+stderr, want) {
				t.Errorf("%s: the output does not contain %q:\n%s%s", name, want, stdout, stderr)
			}
		}
	}
}

func TestLogLevelCommand(t *testing.T) {
	defer logrus.SetLevel(logrus.GetLevel())
	logrus.SetLevel(logrus.InfoLevel)
	file := clitest.ServeAdmin(t, admin.Config{})
	if _, stdout, _ := runCommand(t, "log-level", "--config", file); stdout != "info\n" {
		t.Errorf("got %q", stdout)
	}
	if _, stdout, _ := runCommand(t, "log-level", "error", "--config", file); stdout != "error (was info)\n" || logrus.GetLevel() != logrus.ErrorLevel {
		t.Errorf("got %q, level %s", stdout, logrus.GetLevel())
	}
	if code, _, stderr := runCommand(t, "log-level", "loud", "--config", file); code != command.ExitFailure || !strings.Contains(stderr, "must be one of trace") {
		t.Errorf("got exit code %d, %q", code, stderr)
	}
}

func TestDebugCommands(t *testing.T) {
	file := clitest.ServeAdmin(t, admin.Config{})
	if code, stdout, stderr := runCommand(t, "debug", "goroutines", "--config", file); code != command.ExitSuccess || !strings.Contains(stdout, "node.TestDebugCommands") {
		t.Errorf("got exit code %d, output %q, error output %q; want the stack of this test", code, stdout, stderr)
	}
	target := filepath.Join(t.TempDir(), "heap")
	if code, stdout, stderr := runCommand(t, "debug", "heap", "--config", file, "-f", target); code != command.ExitSuccess || stdout != "" {
		t.Errorf("got exit code %d, output %q, error output %q", code, stdout, stderr)
	}
	if b, err := os.ReadFile(target); err != nil || len(b) == 0 || b[0] != 0x1f {
		t.Errorf("got %d bytes, %v, want a profile", len(b), err)
	}
	target += "2"
	if code, _, stderr := runCommand(t, "debug", "profile", "--seconds", "0", "--config", file, "-f", target); code != command.ExitFailure || !strings.Contains(stderr, "duration: must be from") {
		t.Errorf("got exit code %d, error output %q", code, stderr)
	}
	if _, err := os.Stat(target); !os.IsNotExist(err) {
		t.Errorf("a failed command has created the file: %v", err)
	}
}

func TestConfigDiff(t *testing.T) {
	var running []*adminv1.Setting
	file := clitest.ServeAdmin(t, admin.Config{Settings: func() []*adminv1.Setting { return running }})
	cfg, err := config.Load(config.Source{File: file, Flags: map[string]string{"log_level": "debug"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range cfg.Settings() {
		running = append(running, &adminv1.Setting{Key: s.Key, Value: s.Value})
	}
	code, stdout, stderr := runCommand(t, "config", "diff", "--config", file, "-o", "json")
	var diff []settingDiff
	if err := json.Unmarshal([]byte(stdout), &diff); code != command.ExitSuccess || err != nil || len(diff) != 2 {
		t.Fatalf("got exit code %d, %v, output %s%s; want admin_socket and log_level", code, err, stdout, stderr)
	}
	if d := diff[0]; d.Key != "admin_socket" || d.Running == nil || *d.Running != d.File || d.Default == d.File {
		t.Errorf("got %+v", d)
	}
	if d := diff[1]; d.Key != "log_level" || d.Running == nil || *d.Running != `"debug"` || d.File != `"info"` || d.Default != `"info"` {
		t.Errorf("got %+v", d)
	}
	if _, stdout, _ := runCommand(t, "config", "diff", "--config", file); !strings.Contains(stdout, "differs") {
		t.Errorf("got %s", stdout)
	}
	none := filepath.Join(t.TempDir(), "s")
	code, stdout, stderr = runCommand(t, "config", "diff", "--config", file, "--admin-socket", none)
	if code != command.ExitSuccess || !strings.Contains(stderr, "no comparison with the daemon") || !strings.Contains(stdout, "admin_socket") || strings.Contains(stdout, "log_level") {
		t.Errorf("without a daemon: got exit code %d, output %s%s", code, stdout, stderr)
	}
}
