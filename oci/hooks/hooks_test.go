package hooks

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// program is the path of an executable that belongs to root.
const program = "/bin/sh"

// writeHook writes a hook file whose hook has the arguments args and that has the conditions
// when, in JSON.
func writeHook(t *testing.T, path, when, stages string, args ...string) {
	t.Helper()
	list, err := json.Marshal(args)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, `{"version": "1.0.0", "hook": {"path": "`+program+`", "args": `+string(list)+`}, "when": `+when+`, "stages": `+stages+`}`)
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// settle makes the files of d look old enough to be kept, without changing them.
func (d *Dirs) settle() {
	for _, f := range *d.files.Load() {
		f.settled = true
	}
}

// newDir returns a directory of root. Tests without root cannot make files of root.
func newDir(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: hook files must belong to root")
	}
	return t.TempDir()
}

// added returns the last argument of each hook that d adds in the stage createRuntime.
func added(t *testing.T, d *Dirs, config *specs.Spec, c Container) (names []string) {
	t.Helper()
	config.Hooks = nil
	if err := d.Add(config, c); err != nil {
		t.Fatal(err)
	}
	if config.Hooks != nil {
		for _, h := range config.Hooks.CreateRuntime {
			names = append(names, h.Args[len(h.Args)-1])
		}
	}
	return names
}

func newConfig(command ...string) *specs.Spec {
	return &specs.Spec{Process: &specs.Process{Args: command}}
}

func TestConditions(t *testing.T) {
	dir := newDir(t)
	for name, when := range map[string]string{
		"always":     `{"always": true}`,
		"never":      `{"always": false}`,
		"none":       `{}`,
		"annotation": `{"annotations": {"^com\\.example\\.(a|b)$": "^x"}}`,
		"both":       `{"annotations": {"^a$": "1", "^b$": "2"}}`,
		"command":    `{"commands": ["/init$", "^sh$"]}`,
		"mounts":     `{"hasBindMounts": true}`,
		"and":        `{"hasBindMounts": true, "commands": ["^sh$"]}`,
	} {
		writeHook(t, filepath.Join(dir, name+".json"), when, `["createRuntime"]`, program, name)
	}
	write(t, filepath.Join(dir, "README"), "not a hook")
	write(t, filepath.Join(dir, "old.json"), `{"hook": "`+program+`", "arguments": ["old"], "cmds": ["^old$"], "hasbindmounts": true, "stages": ["prestart"]}`)
	d := New([]string{filepath.Join(dir, "missing"), dir})
	for _, tc := range []struct {
		name    string
		command string
		c       Container
		want    []string
	}{
		{"nothing", "/bin/x", Container{}, []string{"always"}},
		{"annotation", "/bin/x", Container{Annotations: map[string]string{"com.example.b": "xyz"}}, []string{"always", "annotation"}},
		{"other value", "/bin/x", Container{Annotations: map[string]string{"com.example.b": "yx"}}, []string{"always"}},
		{"one of two annotations", "/bin/x", Container{Annotations: map[string]string{"a": "1", "b": "1"}}, []string{"always"}},
		{"two annotations", "/bin/x", Container{Annotations: map[string]string{"a": "1", "b": "2"}}, []string{"always", "both"}},
		{"command", "/sbin/init", Container{}, []string{"always", "command"}},
		{"mounts", "/bin/x", Container{HasMounts: true}, []string{"always", "mounts", "old"}},
		{"mounts and command", "sh", Container{HasMounts: true}, []string{"always", "and", "command", "mounts", "old"}},
		{"condition of version 0.1.0", "old", Container{}, []string{"always", "old"}},
	} {
		if got := added(t, d, newConfig(tc.command), tc.c); !slices.Equal(got, tc.want) {
			t.Errorf("%s: got hooks %q, want %q", tc.name, got, tc.want)
		}
	}
}

// TestStages checks that a hook is added to all its stages, after the hooks that are there.
func TestStages(t *testing.T) {
	dir := newDir(t)
	writeHook(t, filepath.Join(dir, "a.json"), `{"always": true}`,
		`["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]`, "a")
	config := newConfig("x")
	config.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/first"}}}
	if err := New([]string{dir}).Add(config, Container{}); err != nil {
		t.Fatal(err)
	}
	h := config.Hooks
	for stage, got := range map[string]int{
		"createRuntime": len(h.CreateRuntime) - 1, "createContainer": len(h.CreateContainer), "startContainer": len(h.StartContainer),
		"poststart": len(h.Poststart), "poststop": len(h.Poststop) - 1,
	} {
		if got != 1 {
			t.Errorf("%s: got %d new hooks, want 1", stage, got)
		}
	}
	if h.Poststop[0].Path != "/first" {
		t.Errorf("poststop: got %v, want the hook of the config first", h.Poststop)
	}
}

func TestLaterDirectoryReplacesFiles(t *testing.T) {
	dir := newDir(t)
	first, second := filepath.Join(dir, "1"), filepath.Join(dir, "2")
	writeHook(t, filepath.Join(first, "a.json"), `{"always": true}`, `["createRuntime"]`, "first a")
	writeHook(t, filepath.Join(first, "B.json"), `{"always": true}`, `["createRuntime"]`, "first B")
	writeHook(t, filepath.Join(second, "a.json"), `{"always": false}`, `["createRuntime"]`, "second a")
	writeHook(t, filepath.Join(second, "c.json"), `{"always": true}`, `["createRuntime"]`, "second c")
	if got := added(t, New([]string{first, second}), newConfig("x"), Container{}); !slices.Equal(got, []string{"first B", "second c"}) {
		t.Errorf("got %q", got)
	}
}

// TestChangesAreNoticed checks that each kind of change takes effect with the next container, and
// that files without a change are not read again.
func TestChangesAreNoticed(t *testing.T) {
	dir := newDir(t)
	path := filepath.Join(dir, "a.json")
	writeHook(t, path, `{"always": true}`, `["createRuntime"]`, "one")
	d := New([]string{dir})
	get := func() []string { return added(t, d, newConfig("x"), Container{}) }
	if got := get(); !slices.Equal(got, []string{"one"}) {
		t.Fatalf("got %q", got)
	}
	before := (*d.files.Load())[path]
	if get(); (*d.files.Load())[path] == before {
		t.Error("a file that has just changed was not read again")
	}
	d.settle()
	before = (*d.files.Load())[path]
	if get(); (*d.files.Load())[path] != before {
		t.Error("a file without a change was read again")
	}
	// An edit with the same size and modification time.
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond) // for another change time
	writeHook(t, path, `{"always": true}`, `["createRuntime"]`, "two")
	if err := os.Chtimes(path, st.ModTime(), st.ModTime()); err != nil {
		t.Fatal(err)
	}
	if got := get(); !slices.Equal(got, []string{"two"}) {
		t.Errorf("after an edit: got %q", got)
	}
	d.settle()
	other := filepath.Join(dir, "other")
	writeHook(t, other, `{"always": true}`, `["createRuntime"]`, "three")
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	if got := get(); !slices.Equal(got, []string{"three"}) {
		t.Errorf("after a rename: got %q", got)
	}
	d.settle()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got := get(); len(got) > 0 {
		t.Errorf("after the removal: got %q, want none", got)
	}
}

// TestUnusableFiles checks which containers a file that cannot be used affects.
func TestUnusableFiles(t *testing.T) {
	const unreadable, sh = true, `"hook": {"path": "/bin/sh"}, "when": {"commands": ["^x$"]}, "stages": ["poststop"]`
	for name, tc := range map[string]struct {
		content string
		mode    os.FileMode
		all     bool // affects all containers, and not only those that meet the conditions
		want    string
	}{
		"no JSON":        {`{"version": "1.0.0"`, 0o644, unreadable, "unexpected end of JSON input"},
		"version":        {`{"version": "2.0.0", ` + sh + `}`, 0o644, unreadable, `version: must be 1.0.0 or 0.1.0, is "2.0.0"`},
		"stage":          {`{"version": "1.0.0", "hook": {"path": "/bin/sh"}, "when": {}, "stages": ["later"]}`, 0o644, unreadable, `unknown stage "later"`},
		"expression":     {`{"version": "1.0.0", "hook": {"path": "/bin/sh"}, "when": {"commands": ["("]}, "stages": ["poststop"]}`, 0o644, unreadable, `invalid command "("`},
		"relative path":  {`{"version": "1.0.0", "hook": {"path": "sh"}, "when": {}, "stages": ["poststop"]}`, 0o644, unreadable, "hook.path: must be an absolute path"},
		"timeout":        {`{"version": "1.0.0", "hook": {"path": "/bin/sh", "timeout": 0}, "when": {}, "stages": ["poststop"]}`, 0o644, unreadable, "hook.timeout: must be greater than 0"},
		"writable":       {`{"version": "1.0.0", ` + sh + `}`, 0o666, unreadable, "must not be writable by group or others, has mode 0666"},
		"program":        {`{"version": "1.0.0", "hook": {"path": "/none"}, "when": {"commands": ["^x$"]}, "stages": ["poststop"]}`, 0o644, false, "hook.path /none: no such file"},
		"not executable": {`{"version": "1.0.0", "hook": {"path": "/etc/passwd"}, "when": {"commands": ["^x$"]}, "stages": ["poststop"]}`, 0o644, false, "hook.path /etc/passwd: must be an executable file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := newDir(t)
			path := filepath.Join(dir, "bad.json")
			write(t, path, tc.content)
			if err := os.Chmod(path, tc.mode); err != nil {
				t.Fatal(err)
			}
			d := New([]string{dir})
			for _, command := range []string{"x", "y"} {
				err := d.Add(newConfig(command), Container{})
				if affected := command == "x" || tc.all; affected != (err != nil) {
					t.Errorf("container with the command %s: got error %v", command, err)
				}
				if err != nil && (!errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), tc.want)) {
					t.Errorf("error: got %q, want %q and the path", err, tc.want)
				}
			}
			if err := d.Check(); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Check: got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestDirectoryOfOthers(t *testing.T) {
	dir := newDir(t)
	writeHook(t, filepath.Join(dir, "a.json"), `{"always": true}`, `["createRuntime"]`, "a")
	if err := os.Chown(dir, 1000, 1000); err != nil {
		t.Fatal(err)
	}
	if err := New([]string{dir}).Add(newConfig("x"), Container{}); err == nil || !strings.Contains(err.Error(), dir+": must belong to root, belongs to user 1000") {
		t.Errorf("got %v, want an error that names the directory and its owner", err)
	}
	var none *Dirs
	if err := none.Add(newConfig("x"), Container{}); err != nil {
		t.Errorf("without directories: %v", err)
	}
}
