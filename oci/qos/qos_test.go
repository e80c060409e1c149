package qos

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// classFile writes a configuration file with classes and returns its path.
func classFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "classes.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestClassOfContainer(t *testing.T) {
	const c, byName, pod = "c", "rdt.resources.beta.kubernetes.io/container.c", "rdt.resources.beta.kubernetes.io/pod"
	for name, tc := range map[string]struct {
		container, pod    map[string]string
		class, annotation string
	}{
		"none":                     {nil, map[string]string{"rdt.resources.beta.kubernetes.io/container.d": "x"}, "", ""},
		"of the pod":               {nil, map[string]string{pod: "p"}, "p", pod},
		"of the container by name": {nil, map[string]string{pod: "p", byName: "n"}, "n", byName},
		"of the container":         {map[string]string{"io.kubernetes.cri.rdt-class": "o"}, map[string]string{pod: "p", byName: "n"}, "o", "io.kubernetes.cri.rdt-class"},
		"empty for the container":  {nil, map[string]string{pod: "p", byName: ""}, "", byName},
		"of the other kind":        {nil, map[string]string{"blockio.resources.beta.kubernetes.io/pod": "b"}, "", ""},
	} {
		if class, annotation := RDTClass.Of(c, tc.container, tc.pod); class != tc.class || annotation != tc.annotation {
			t.Errorf("%s: got class %q of annotation %q, want %q of %q", name, class, annotation, tc.class, tc.annotation)
		}
	}
	if class, _ := BlockIOClass.Of(c, nil, map[string]string{"blockio.resources.beta.kubernetes.io/container.c": "b"}); class != "b" {
		t.Errorf("block I/O class: got %q, want b", class)
	}
}

// blockDevice creates the node of a block device in /dev. No test opens the device.
func blockDevice(t *testing.T, name string, minor uint32) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the creation of device nodes needs root")
	}
	path := "/dev/" + name
	if err := unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(241, minor))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(path) })
	return path
}

func TestBlockIOClass(t *testing.T) {
	blockDevice(t, "crisrv-qos-a", 3)
	blockDevice(t, "crisrv-qos-b", 4)
	b := BlockIO{File: classFile(t, `
classes:
  slow:
  - weight: 20
  - devices: [/dev/crisrv-qos-*, /dev/crisrv-qos-a, /dev/null, /dev/none]
    throttleReadBps: 60M
    throttleWriteBps: 1Mi
    ThrottleReadIOPS: 5k
    throttleWriteIOPS: "700"
    weight: "30"
  absent:
  - devices: [/dev/crisrv-qos-none]
    throttleReadBps: 1
`)}
	if err := b.Check(); err != nil {
		t.Fatal(err)
	}
	got, err := b.Class("slow")
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	rates := func(rate string) string {
		return `[{"major":241,"minor":3,"rate":` + rate + `},{"major":241,"minor":4,"rate":` + rate + `}]`
	}
	want := `{"weight":20,"weightDevice":[{"major":241,"minor":3,"weight":30},{"major":241,"minor":4,"weight":30}],` +
		`"throttleReadBpsDevice":` + rates("60000000") + `,"throttleWriteBpsDevice":` + rates("1048576") +
		`,"throttleReadIOPSDevice":` + rates("5000") + `,"throttleWriteIOPSDevice":` + rates("700") + `}`
	if string(asJSON) != want {
		t.Errorf("class slow: got\n%s\nwant\n%s", asJSON, want)
	}
	if _, err := b.Class("absent"); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "/dev/crisrv-qos-none") {
		t.Errorf("class with a missing device: got error %v, want FailedPrecondition with the path", err)
	}
	if _, err := b.Class("none"); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), `"none"`) {
		t.Errorf("unknown class: got error %v, want InvalidArgument with the name", err)
	}
	if _, err := (BlockIO{}).Class("slow"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("class without a file: got error %v, want FailedPrecondition", err)
	}
}

func TestInvalidFiles(t *testing.T) {
	for name, tc := range map[string]struct{ text, says string }{
		"not YAML":            {"\t", "classes.yaml"},
		"unknown key":         {"classes:\n  a:\n  - waight: 1", "waight"},
		"weight":              {"classes:\n  a:\n  - weight: 9", `class "a", entry 0: weight 9 must be from 10 to 1000`},
		"no limit":            {"classes:\n  a:\n  - devices: [/dev/x]", "neither a weight nor a rate"},
		"rate without device": {"classes:\n  a:\n  - throttleReadBps: 1", "without devices"},
		"rate as text":        {"classes:\n  a:\n  - throttleReadBps: fast", `"fast" must be a number`},
		"rate of 0":           {"classes:\n  a:\n  - throttleReadBps: 0", "greater than 0"},
		"rate too large":      {"classes:\n  a:\n  - throttleReadBps: 99999999999Ti", "must be a number"},
		"rate with a sign":    {"classes:\n  a:\n  - throttleReadBps: -1", "must be a number"},
		"device outside /dev": {"classes:\n  a:\n  - {devices: [/etc/*], throttleReadBps: 1}", `"/etc/*" must be`},
		"pattern":             {"classes:\n  a:\n  - {devices: ['/dev/['], throttleReadBps: 1}", "must be a path or a pattern"},
		"name":                {"classes:\n  a/b:\n  - weight: 10", `class "a/b"`},
		"too large":           {"#" + strings.Repeat("x", maxFile), "more than 1048576 bytes"},
	} {
		if err := (BlockIO{File: classFile(t, tc.text)}).Check(); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("block I/O, %s: got error %v, want one with %q", name, err, tc.says)
		}
	}
	for name, tc := range map[string]struct{ text, says string }{
		"partitions":      {"partitions: {}", "partitions"},
		"schema of L3":    {"classes: {a: {l3CacheSchema: 'L3:0=xyz'}}", "l3CacheSchema"},
		"schema of MB":    {"classes: {a: {memBwSchema: 'MB:0=50\nL3:0=1'}}", "memBwSchema"},
		"resctrl info":    {"classes: {info: {}}", `class "info"`},
		"parent":          {"classes: {..: {}}", `class ".."`},
		"a path as class": {"classes: {a/b: {}}", `class "a/b"`},
	} {
		if err := (RDT{File: classFile(t, tc.text)}).Check(); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("RDT, %s: got error %v, want one with %q", name, err, tc.says)
		}
	}
	if err := (BlockIO{File: "/no/such"}).Check(); err == nil {
		t.Error("Check of a missing file succeeded, want an error")
	}
	if err := (BlockIO{}).Check(); err != nil {
		t.Error(err)
	}
	if err := (RDT{}).Check(); err != nil {
		t.Error(err)
	}
}

func TestRDTClass(t *testing.T) {
	root := t.TempDir()
	r := RDT{Root: root, File: classFile(t, "classes:\n  gold: {l3CacheSchema: 'L3:0=ff;1=f0', memBwSchema: 'MB:0=100;1=50'}\n  existing: {}\n  missing: {}\n")}
	if err := r.Check(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Class("gold"); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "no RDT") {
		t.Errorf("class on a host without RDT: got error %v, want FailedPrecondition", err)
	}
	// A resctrl file system with the control group "existing".
	for _, path := range []string{"schemata", "existing/schemata"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, path), []byte("L3:0=fff\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := r.Class("gold"); err != nil || got.ClosID != "gold" || got.L3CacheSchema != "L3:0=ff;1=f0" || got.MemBwSchema != "MB:0=100;1=50" {
		t.Errorf("class gold: got %+v (error %v), want both schemas of the file", got, err)
	}
	if got, err := r.Class("existing"); err != nil || got.ClosID != "existing" || got.L3CacheSchema != "" {
		t.Errorf("class existing: got %+v (error %v), want a class without schemas", got, err)
	}
	if _, err := r.Class("missing"); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "no control group") {
		t.Errorf("class without a control group: got error %v, want FailedPrecondition", err)
	}
	if _, err := r.Class("none"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("unknown class: got error %v, want InvalidArgument", err)
	}
	if _, err := (RDT{Root: root}).Class("gold"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("class without a file: got error %v, want FailedPrecondition", err)
	}
}

func FuzzClasses(f *testing.F) {
	f.Add("classes:\n  a:\n  - weight: 10\n")
	f.Add("classes: {gold: {l3CacheSchema: 'L3:0=ff'}}")
	f.Fuzz(func(t *testing.T, text string) {
		path := classFile(t, text)
		_ = BlockIO{File: path}.Check()
		_ = RDT{File: path}.Check()
	})
}
