package hostcheck

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fakeKernel is the kernel of a host in a directory.
type fakeKernel struct {
	release   string
	missing   []string
	fs        map[string]FileSystem // by directory below the root directory
	noSync    bool
	now       time.Time
	label     string
	directory string
}

func (k *fakeKernel) Release() string   { return k.release }
func (k *fakeKernel) Missing() []string { return k.missing }
func (k *fakeKernel) FileSystem(dir string) (FileSystem, error) {
	fs, ok := k.fs[strings.TrimPrefix(dir, k.directory)]
	if !ok {
		return fs, errors.New("no such directory")
	}
	return fs, nil
}
func (k *fakeKernel) ClockSynchronized() bool { return !k.noSync }
func (k *fakeKernel) Now() time.Time          { return k.now }
func (k *fakeKernel) Label(string) string     { return k.label }

// bed is a host without findings, which tests change.
type bed struct {
	t       *testing.T
	dir     string
	kernel  *fakeKernel
	outputs map[string]string // output of programs by their first argument
	options Options
}

const (
	magicExt4  = 0xef53
	magicTmpfs = 0x01021994
)

func newBed(t *testing.T) *bed {
	dir := t.TempDir()
	b := &bed{t: t, dir: dir, outputs: map[string]string{"--version": "systemd 255 (255.4)\n"}}
	b.kernel = &fakeKernel{
		release: "6.8.0-40-generic", now: time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC), directory: dir,
		fs: map[string]FileSystem{
			"/var/lib": {Type: magicExt4, Bytes: 100 * gib, FreeBytes: 50 * gib, Inodes: 1000, FreeNodes: 500},
			"/run":     {Type: magicTmpfs, Bytes: gib, FreeBytes: gib, Inodes: 100_000, FreeNodes: 90_000},
		},
	}
	for path, content := range map[string]string{
		"/lib/modules/6.8.0-40-generic/modules.dep": "kernel/fs/overlayfs/overlay.ko.zst:\nkernel/drivers/net/veth.ko:\nkernel/net/bridge/br_netfilter.ko: kernel/net/bridge/bridge.ko\nkernel/net/bridge/bridge.ko:\n" +
			"kernel/net/netfilter/nft_chain_nat.ko:\nkernel/net/netfilter/nft_masq.ko:\nkernel/drivers/net/vxlan/vxlan.ko:\n",
		"/lib/modules/6.8.0-40-generic/modules.builtin": "kernel/net/netfilter/nf_tables.ko\nkernel/net/netfilter/nf_conntrack.ko\n",
		"/proc/self/mountinfo":                          "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
		"/sys/fs/cgroup/cgroup.controllers":             "cpuset cpu io memory hugetlb pids rdma misc\n",
		"/proc/sys/kernel/seccomp/actions_avail":        "kill_process kill_thread trap errno user_notif trace log allow\n",
		"/proc/sys/net/ipv4/ip_forward":                 "1\n",
		"/proc/sys/net/bridge/bridge-nf-call-iptables":  "1\n",
		"/proc/sys/kernel/hostname":                     "node-1.example.org\n",
		"/proc/swaps":                                   "Filename\tType\tSize\tUsed\tPriority\n",
		"/run/systemd/system/x":                         "",
		"/var/lib/x":                                    "",
		"/proc/net/route":                               "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n" + "eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\n" + "eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\n",
		"/etc/cni/net.d/10-a.conflist":                  `{"name":"a","plugins":["bridge"],"subnets":["10.88.0.0/16"],"bridges":["cni0"]}`,
	} {
		b.write(path, content)
	}
	for _, ns := range []string{"net", "ipc", "uts", "pid", "mnt", "cgroup", "user", "time"} {
		b.write("/proc/self/ns/"+ns, "")
	}
	b.program("/opt/cni/bin/bridge")
	b.program("/usr/bin/runc")
	b.options = Options{
		Root: "/var/lib/criserver", RunDir: "/run/criserver", Socket: "/run/criserver/criserver.sock", StreamAddress: "127.0.0.1:0",
		CNIConfDirs: []string{"/etc/cni/net.d"}, CNIBinDirs: []string{"/opt/cni/bin"}, DefaultBridge: true, ParseNetwork: parseTestNetwork,
		Runtimes: []Runtime{{"runc", "/usr/bin/runc"}}, Flaw: func(line string) string {
			if strings.Contains(line, "1.0") {
				return "known flaw"
			}
			return ""
		},
		AppArmorProfile: "criserver-default", OwnAppArmorProfile: true, SELinux: true, Binary: "/usr/bin/criserver", Unit: "criserver.service",
	}
	return b
}

// parseTestNetwork reads a Network as JSON.
func parseTestNetwork(file string) (n Network, err error) {
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &n)
	}
	return n, err
}

func (b *bed) write(path, content string) {
	b.t.Helper()
	path = filepath.Join(b.dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) program(path string) {
	b.t.Helper()
	b.write(path, "")
	if err := os.Chmod(filepath.Join(b.dir, path), 0o755); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) remove(path string) {
	b.t.Helper()
	if err := os.Remove(filepath.Join(b.dir, path)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) check(groups ...string) []Finding {
	b.t.Helper()
	run := func(_ context.Context, name string, args ...string) (string, error) {
		if strings.HasSuffix(name, "/runc") {
			out, ok := b.outputs["runc"]
			if !ok {
				out = "runc version 1.4.0\n"
			}
			if out == "fail" {
				return "", errors.New("exit status 127")
			}
			return out, nil
		}
		return b.outputs[args[0]], nil
	}
	findings, err := Check(b.t.Context(), Host{Dir: b.dir, Kernel: b.kernel, Run: run}, b.options, groups...)
	if err != nil {
		b.t.Fatal(err)
	}
	return findings
}

func ids(findings []Finding) (ids []string) {
	for _, f := range findings {
		ids = append(ids, f.ID)
	}
	return ids
}
