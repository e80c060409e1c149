package cdi

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const vendorSpec = `{
  "cdiVersion": "0.7.0", "kind": "vendor.test/thing",
  "containerEdits": {"env": ["ALL=things"]},
  "devices": [
    {"name": "null", "containerEdits": {
      "env": ["ONE=null"], "deviceNodes": [{"path": "/dev/thing", "hostPath": "/dev/null", "permissions": "r"}],
      "mounts": [{"hostPath": "/etc/hostname", "containerPath": "/thing", "options": ["ro", "bind"]}],
      "hooks": [{"hookName": "createContainer", "path": "/bin/true"}], "additionalGids": [4711]}},
    {"name": "zero", "containerEdits": {"deviceNodes": [{"path": "/dev/zero"}]}},
    {"name": "gone", "containerEdits": {"deviceNodes": [{"path": "/dev/does-not-exist"}]}}
  ]
}`

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func config() *specs.Spec {
	return &specs.Spec{
		Version: "1.0.2", Process: &specs.Process{Env: []string{"ONE=unset"}},
		Linux: &specs.Linux{Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}}}},
	}
}

func TestInject(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a/vendor.json", vendorSpec)
	s := config()
	if err := NewRegistry([]string{dir + "/none", dir + "/a"}).Inject(s, []string{"vendor.test/thing=null", "vendor.test/thing=zero"}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.Process.Env, []string{"ONE=null", "ALL=things"}) {
		t.Errorf("environment %q", s.Process.Env)
	}
	if !slices.Equal(s.Process.User.AdditionalGids, []uint32{4711}) || len(s.Hooks.CreateContainer) != 1 || len(s.Mounts) != 1 {
		t.Errorf("groups %v, hooks %+v, mounts %v", s.Process.User.AdditionalGids, s.Hooks, s.Mounts)
	}
	if d := s.Linux.Devices; len(d) != 2 || d[0].Path != "/dev/thing" || d[0].Major != 1 || d[0].Minor != 3 {
		t.Errorf("devices %+v", d)
	}
	rules := s.Linux.Resources.Devices
	if len(rules) != 3 || rules[1].Access != "r" || *rules[1].Minor != 3 || rules[2].Access != "rwm" || *rules[2].Minor != 5 {
		t.Errorf("rules %+v", rules)
	}
}

func TestInjectNothing(t *testing.T) {
	s := config()
	var none *Registry
	if err := none.Inject(s, []string{"v/c=d"}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("without a registry: %v", err)
	}
	if err := NewRegistry(nil).Inject(s, nil); err != nil || len(s.Linux.Devices) > 0 {
		t.Errorf("%v, %+v", err, s.Linux)
	}
}

// TestSpecsAreReadAgain checks that a spec file is in use from its creation to its removal.
func TestSpecsAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	r, name := NewRegistry([]string{dir}), []string{"vendor.test/thing=null"}
	for range 2 {
		if err := r.Inject(config(), name); !errdefs.IsNotFound(err) {
			t.Errorf("without a spec: %v", err)
		}
		write(t, dir+"/vendor.json", vendorSpec)
		if err := r.Inject(config(), name); err != nil {
			t.Error(err)
		}
		if err := os.Remove(dir + "/vendor.json"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestInjectRefused(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/vendor.json", vendorSpec)
	write(t, dir+"/broken.json", `{"cdiVersion": "0.7.0", "kind": "broken`)
	for name, tc := range map[string]struct {
		dirs  []string
		class func(error) bool
		says  []string
	}{
		"vendor.test/thing=other": {[]string{dir}, errdefs.IsNotFound, []string{`"vendor.test/thing=other"`, dir, "broken.json"}},
		"broken.test/thing=x":     {[]string{dir}, errdefs.IsNotFound, []string{`"broken.test/thing=x"`}},
		"vendor.test/thing=gone":  {[]string{dir}, errdefs.IsFailedPrecondition, []string{"/dev/does-not-exist"}},
		"vendor.test/thing=null":  {nil, errdefs.IsFailedPrecondition, []string{"without directories"}},
	} {
		err := NewRegistry(tc.dirs).Inject(config(), []string{name})
		if !tc.class(err) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, says := range tc.says {
			if !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %v does not say %s", name, err, says)
			}
		}
	}
}

func TestNames(t *testing.T) {
	got, err := Names([]string{"v/c=b", "v/c=a"}, map[string]string{
		"cdi.k8s.io/plugin_2": "v/c=d", "cdi.k8s.io/plugin_1": "v/c=a,v/c=c", "other": "nothing",
	})
	if err != nil || !slices.Equal(got, []string{"v/c=b", "v/c=a", "v/c=c", "v/c=d"}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "x", "v/c", "v/c=", "/c=d", "v/c=../x", "v/c=a\nb"} {
		if _, err := Names([]string{bad}, nil); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "CDI_devices[0].name") {
			t.Errorf("%q: %v", bad, err)
		}
		if _, err := Names(nil, map[string]string{"cdi.k8s.io/x": bad}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "cdi.k8s.io/x") {
			t.Errorf("%q in an annotation: %v", bad, err)
		}
	}
	many := make([]string, maxDevices+1)
	for i := range many {
		many[i] = "v/c=" + strings.Repeat("x", i+1)
	}
	if _, err := Names(many, nil); !errdefs.IsInvalidArgument(err) {
		t.Errorf("too many: %v", err)
	}
}

// FuzzNames checks that each device name that the parser finds in an annotation is valid.
func FuzzNames(f *testing.F) {
	for _, seed := range []string{"v/c=d", "v/c=d,v/c=e", "v/c=d, v/c=e", "../x=y", "v/c=d\x00"} {
		f.Add(seed)
	}
	name := regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]*/[A-Za-z][A-Za-z0-9_-]*=[A-Za-z0-9][A-Za-z0-9_.:-]*$`)
	f.Fuzz(func(t *testing.T, value string) {
		names, err := Names(nil, map[string]string{"cdi.k8s.io/x": value})
		if err != nil {
			return
		}
		for _, n := range names {
			if !name.MatchString(n) {
				t.Errorf("%q has the device %q", value, n)
			}
		}
	})
}
