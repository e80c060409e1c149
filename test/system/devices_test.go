package system

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// deviceDir returns a directory with the device nodes null and zero, and with full in a
// subdirectory.
func deviceDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/below", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, minor := range map[string]uint32{"null": 3, "zero": 5, "below/full": 7} {
		if err := unix.Mknod(filepath.Join(dir, name), unix.S_IFCHR|0o660, int(unix.Mkdev(1, minor))); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), 0o660); err != nil { // independent of the umask
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(dir+"/file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func device(host, at, permissions string) *cri.Device {
	return &cri.Device{HostPath: host, ContainerPath: at, Permissions: permissions}
}

func TestDevices(t *testing.T) {
	n := newNode(t, "dev", 208)
	dir := deviceDir(t)
	p := n.RunPod(t, podConfig("dev"))
	config := containerConfig(p, "c", busybox, "sleep", "1000")
	// Containers may not use fuse by default.
	config.Devices = []*cri.Device{
		device(dir, "/dev/things", "rw"), device("/dev/fuse", "/dev/reader", "r"),
	}
	c := n.CreateContainer(t, p, config)
	n.StartContainer(t, c)
	for cmd, want := range map[string]string{
		"find /dev/things -type c | sort":                         "/dev/things/below/full\n/dev/things/null\n/dev/things/zero",
		"head -c 3 /dev/things/zero | wc -c":                      "3",
		"echo x >/dev/things/below/full 2>/dev/null || echo full": "full",
		"test ! -e /dev/things/file && echo none":                 "none",
		"exec 3</dev/reader && echo open":                         "open",
		"(exec 3>/dev/reader) 2>/dev/null || echo read only":      "read only",
		"mknod /dev/x c 10 229 2>/dev/null || echo not made":      "not made",
		"ls -l /dev/things/null | awk '{print $1, $5, $6}'":       "crw-rw---- 1, 3",
		"test ! -e /dev/fuse && echo none":                        "none",
	} {
		if got := n.Exec(t, c, "sh", "-c", cmd); got != want {
			t.Errorf("%s: got %q, want %q", cmd, got, want)
		}
	}
}

func TestDevicesRefused(t *testing.T) {
	n := newNode(t, "devno", 209)
	dir := deviceDir(t)
	empty := t.TempDir()
	p := n.RunPod(t, podConfig("devno"))
	for name, d := range map[string]*cri.Device{
		"permissions": device("/dev/null", "/dev/x", "rwx"), "twice": device("/dev/null", "/dev/x", "rr"), "absent": device("/dev/none", "/dev/x", "r"),
		"file": device(dir+"/file", "/dev/x", "r"), "empty": device(empty, "/dev/x", "r"), "relative": device("dev/null", "/dev/x", "r"),
		"climbing": device("/dev/null", "/dev/../x", "r"), "target": device("/dev/null", "x", "r"), "none": device("", "/dev/x", "r"),
	} {
		config := containerConfig(p, name, busybox, "true")
		config.Devices = []*cri.Device{device("/dev/null", "", "rwm"), d}
		if msg := n.refused(t, p, config, codes.InvalidArgument); !strings.Contains(msg, "config.devices[1].") {
			t.Errorf("%s: got error %s, want config.devices[1]", name, msg)
		}
	}
}

// TestPrivilegedDevices checks that a privileged container has all devices of the host,
// and uses one.
func TestPrivilegedDevices(t *testing.T) {
	n := newNode(t, "devpriv", 210)
	pc := podConfig("devpriv")
	pc.Linux.SecurityContext.Privileged = true
	p := n.RunPod(t, pc)
	config := containerConfig(p, "c", busybox, "sleep", "1000")
	config.Linux.SecurityContext.Privileged = true
	c := n.CreateContainer(t, p, config)
	n.StartContainer(t, c)
	containerDevices := strings.Fields(n.Exec(t, c, "find", "/dev", "-type", "c", "-o", "-type", "b"))
	entries, err := os.ReadDir("/dev")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Type()&os.ModeDevice != 0 && e.Name() != "console" && e.Name() != "ptmx" && !slices.Contains(containerDevices, "/dev/"+e.Name()) {
			t.Errorf("devices of the container: got %q, want /dev/%s", containerDevices, e.Name())
		}
	}
	if got := n.Exec(t, c, "sh", "-c", "mknod /tmp/k c 10 229 && exec 3</tmp/k && echo open"); got != "open" {
		t.Errorf("open a device that the container created: got %q, want open", got)
	}
	// The host's /dev as a volume is not changed, except that the container has its
	// own terminals.
	hostDev := containerConfig(p, "host-dev", busybox, "sleep", "1000")
	hostDev.Linux.SecurityContext.Privileged = true
	hostDev.Mounts = []*cri.Mount{bindMount("/dev", "/dev")}
	w := n.CreateContainer(t, p, hostDev)
	n.StartContainer(t, w)
	if got := n.Exec(t, w, "sh", "-c", "ls /dev/pts; echo x >/dev/null && echo ok"); got != "ptmx\nok" {
		t.Errorf("terminals and /dev/null with the host's /dev as a volume: got %q, want only ptmx, and ok", got)
	}
}

func TestDeviceOwnerFromUser(t *testing.T) {
	dir := deviceDir(t)
	for _, fromUser := range []bool{false, true} {
		t.Run(fmt.Sprint(fromUser), func(t *testing.T) {
			n := makeNode(fmt.Sprintf("devown%v", fromUser))
			n.Config = fmt.Sprintf("[container]\ndevice_owner_from_user = %v\n", fromUser)
			n.Network = n.Bridge("csdevown", "10.211.0.0/16", "fd00:d3::/64")
			n.start(t)
			p := n.RunPod(t, podConfig("devown"))
			config := containerConfig(p, "c", busybox, "sleep", "1000")
			config.Linux.SecurityContext.RunAsUser = &cri.Int64Value{Value: 1000}
			config.Linux.SecurityContext.RunAsGroup = &cri.Int64Value{Value: 1001}
			config.Devices = []*cri.Device{device(dir+"/zero", "/dev/thing", "rw")}
			c := n.CreateContainer(t, p, config)
			n.StartContainer(t, c)
			want := "0:0 no"
			if fromUser {
				want = "1000:1001 3"
			}
			if got := n.Exec(t, c, "sh", "-c", "echo $(stat -c %u:%g /dev/thing) $(head -c 3 /dev/thing 2>/dev/null | wc -c | sed s/^0$/no/)"); got != want {
				t.Errorf("owner of the device and bytes read: got %q, want %q", got, want)
			}
		})
	}
}

const thingSpec = `cdiVersion: "0.7.0"
kind: vendor.test/thing
containerEdits:
  env: ["EVERY=thing"]
devices:
- name: one
  containerEdits:
    env: ["ONE=1"]
    deviceNodes: [{path: /dev/thing, hostPath: /dev/fuse, permissions: r}]
    mounts: [{hostPath: %[1]q, containerPath: /thing/file, options: [ro, rbind]}]
    hooks: [{hookName: createRuntime, path: /bin/sh, args: [sh, -c, "cat >/dev/null; echo ran >%[2]s"]}]
    additionalGids: [4711]
- name: two
  containerEdits:
    env: ["TWO=2"]
`

func TestCDIDevices(t *testing.T) {
	specs := t.TempDir()
	n := makeNode("cdi")
	n.Config = fmt.Sprintf("[container]\ncdi_spec_dirs = [%q]\n", specs)
	n.Network = n.Bridge("cscdi", "10.212.0.0/16", "fd00:d4::/64")
	n.start(t)
	p := n.RunPod(t, podConfig("cdi"))
	config := containerConfig(p, "c", busybox, "sleep", "1000")
	config.CDIDevices = []*cri.CDIDevice{{Name: "vendor.test/thing=one"}}
	config.Annotations = map[string]string{"cdi.k8s.io/vendor.test_plugin": "vendor.test/thing=two,vendor.test/thing=one"}
	msg := n.refused(t, p, config, codes.NotFound)
	for _, says := range []string{"config.CDI_devices", `"vendor.test/thing=one"`, `"vendor.test/thing=two"`, specs} {
		if !strings.Contains(msg, says) {
			t.Errorf("error: got %q, want %s", msg, says)
		}
	}

	// The device is available as soon as its spec exists, without a notification of the daemon.
	host := hostDir(t, map[string]string{"file": "of the device\n"})
	if err := os.WriteFile(specs+"/thing.yaml", []byte(fmt.Sprintf(thingSpec, host+"/file", host+"/hook")), 0o644); err != nil {
		t.Fatal(err)
	}
	c := n.CreateContainer(t, p, config)
	n.StartContainer(t, c)
	for cmd, want := range map[string]string{
		"echo $EVERY $ONE $TWO":                             "thing 1 2",
		"cat /thing/file":                                   "of the device",
		"echo x >/thing/file 2>/dev/null || echo no":        "no",
		"exec 3</dev/thing && echo open":                    "open",
		"(exec 3>/dev/thing) 2>/dev/null || echo read only": "read only",
		"id -G": "0 4711",
	} {
		if got := n.Exec(t, c, "sh", "-c", cmd); got != want {
			t.Errorf("%s: got %q, want %q", cmd, got, want)
		}
	}
	if b, err := os.ReadFile(host + "/hook"); err != nil || string(b) != "ran\n" {
		t.Errorf("output of the hook: got %q (error %v), want ran", b, err)
	}
	s := n.ContainerStatus(t, c)
	if g := s.GetUser().GetLinux().GetSupplementalGroups(); !slices.Contains(g, 4711) {
		t.Errorf("groups in the status: got %v, want 4711", g)
	}
	if len(s.GetAnnotations()) != 1 {
		t.Errorf("annotations in the status: got %v, want that of the request", s.GetAnnotations())
	}
	for name, change := range map[string]func(*cri.ContainerConfig){
		"field":      func(c *cri.ContainerConfig) { c.CDIDevices = []*cri.CDIDevice{{Name: "not qualified"}} },
		"empty":      func(c *cri.ContainerConfig) { c.CDIDevices = []*cri.CDIDevice{{}} },
		"annotation": func(c *cri.ContainerConfig) { c.Annotations = map[string]string{"cdi.k8s.io/x": "../etc"} },
	} {
		bad := containerConfig(p, name, busybox, "true")
		change(bad)
		if msg := n.refused(t, p, bad, codes.InvalidArgument); !strings.Contains(msg, "vendor/class=name") {
			t.Errorf("%s: got error %s, want one that explains the form vendor/class=name", name, msg)
		}
	}
}
