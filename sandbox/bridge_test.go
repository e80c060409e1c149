package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/patience"
	"golang.org/x/sys/unix"
)

// bridgeConf returns the configuration of a network whose only plugin is bridge. options and ipam
// are additional members of the objects of bridge and of its IPAM, with a comma before each member.
func bridgeConf(leases, options, ipam string) string {
	return fmt.Sprintf(`{"cniVersion":"1.0.0","name":"br","plugins":[{"type":"bridge","bridge":"crisbxt2","isGateway":true%s,
"ipam":{"type":"host-local","dataDir":%q%s}}]}`, options, leases, ipam)
}

// bridgeBed returns a testbed with the configuration of bridgeConf, and the directory of the IP leases.
func bridgeBed(t *testing.T, options, ipam string) (*bed, string) {
	t.Helper()
	needRoot(t)
	leases := t.TempDir()
	b := newBed(t, bridgeConf(leases, options, ipam), realPlugins(t))
	t.Cleanup(func() {
		checkHostClean(t, filepath.Join(leases, "br"))
		_ = exec.Command("ip", "link", "del", "crisbxt2").Run()
	})
	return b, leases
}

// holdNetNS starts a process that holds a network namespace, as a copy of the mounts of the
// host can do. end ends the process.
func holdNetNS(t *testing.T, netns string) (end func()) {
	t.Helper()
	cmd := exec.Command("nsenter", "--net="+netns, "sh", "-c", "echo; exec sleep 1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(end)
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return end
}

// TestStopDeletesVeth stops a pod while a process holds its network namespace.
func TestStopDeletesVeth(t *testing.T) {
	const ranges = `,"ranges":[[{"subnet":"10.205.0.0/16"}]]`
	for _, changed := range []bool{false, true} {
		t.Run(fmt.Sprintf("changed address=%t", changed), func(t *testing.T) {
			b, _ := bridgeBed(t, "", ranges)
			m := b.start()
			p := mustRun(t, m, podConfig("a"))
			end := holdNetNS(t, p.Namespaces.Net)
			name := hostVeth(t, p)
			if changed { // udev changes the addresses of new interfaces on some hosts
				if out, err := exec.Command("ip", "link", "set", name, "address", "02:00:00:00:00:01").CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			if err := m.Stop(t.Context(), p.ID); err != nil {
				t.Fatal(err)
			}
			mustBeDeleted(t, name)
			mustRemove(t, m, p.ID)
			end()
		})
	}
}

// mustBeDeleted waits for the deletion of an interface, which the kernel completes after DEL has returned.
func mustBeDeleted(t *testing.T, name string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if _, err := net.InterfaceByName(name); err != nil {
			return
		}
	}
	t.Errorf("interface %s still exists", name)
}

// TestFailedADDDeletesVeth lets a plugin after the bridge fail and hold the network
// namespace. DEL gets no result of ADD then.
func TestFailedADDDeletesVeth(t *testing.T) {
	const ranges = `,"ranges":[[{"subnet":"10.205.0.0/16"}]]`
	b, leases := bridgeBed(t, "", ranges)
	dir := t.TempDir()
	const plugin = `#!/bin/sh
[ "$CNI_COMMAND" = ADD ] || exit 0
nsenter --net="$CNI_NETNS" sleep 1000 >/dev/null 2>&1 &
echo $! >"${0%/*}/pid"
echo '{"cniVersion":"1.0.0","code":100,"msg":"failure on command"}'
exit 1
`
	if err := os.WriteFile(filepath.Join(dir, "failing"), []byte(plugin), 0o755); err != nil {
		t.Fatal(err)
	}
	b.cfg.CNI.BinDirs = append(b.cfg.CNI.BinDirs, dir)
	b.writeConf("10-test.conflist", strings.Replace(bridgeConf(leases, "", ranges), "}}]}", `}},{"type":"failing"}]}`, 1))
	m := b.start()
	_, err := m.RunPod(t.Context(), podConfig("a"), "")
	if err == nil || !strings.Contains(err.Error(), "failure on command") {
		t.Errorf("got error %v", err)
	}
	pid, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Error(err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Name, "veth") {
			t.Errorf("interface %s still exists", l.Name)
		}
	}
	if out, err := exec.Command("kill", strings.TrimSpace(string(pid))).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// TestChangedGateway changes the gateway in the configuration while the bridge has the old gateway,
// with the built-in bridge and with the CNI plugin.
func TestChangedGateway(t *testing.T) {
	for _, noBuiltin := range []bool{false, true} {
		t.Run(fmt.Sprintf("noBuiltin=%t", noBuiltin), func(t *testing.T) {
			b, leases := bridgeBed(t, "", `,"ranges":[[{"subnet":"10.205.0.0/24"}]]`)
			b.cfg.CNI.NoBuiltin = noBuiltin
			m := b.start()
			p := mustRun(t, m, podConfig("a"))
			b.halt()
			b.writeConf("10-test.conflist", bridgeConf(leases, "", `,"ranges":[[{"subnet":"10.205.0.0/24","gateway":"10.205.0.254"}]]`))
			m = b.start()
			_, err := m.RunPod(t.Context(), podConfig("b"), "")
			if err == nil || !strings.Contains(err.Error(), "10.205.0.254/24") || !strings.Contains(err.Error(), "crisbxt2") {
				t.Errorf("got error %v", err)
			}
			if !noBuiltin && !errdefs.IsFailedPrecondition(err) {
				t.Errorf("got error %v", err)
			}
			mustRemove(t, m, p.ID)
			if out, err := exec.Command("ip", "addr", "del", "10.205.0.1/24", "dev", "crisbxt2").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			q := mustRun(t, m, podConfig("b"))
			mustRemove(t, m, q.ID)
		})
	}
}

// TestChangedSubnet changes the subnet in the configuration. The bridge then has pods of two
// subnets, each with its gateway.
func TestChangedSubnet(t *testing.T) {
	b, leases := bridgeBed(t, "", `,"ranges":[[{"subnet":"10.205.0.0/24"}],[{"subnet":"fd05::/64"}]]`)
	m := b.start()
	p := mustRun(t, m, podConfig("a"))
	b.halt()
	b.writeConf("10-test.conflist", bridgeConf(leases, "", `,"ranges":[[{"subnet":"10.206.0.0/24"}],[{"subnet":"fd06::/64"}]]`))
	m = b.start()
	q := mustRun(t, m, podConfig("b"))
	if p.IPs[0].String() != "10.205.0.2" || q.IPs[0].String() != "10.206.0.2" || q.IPs[1].String() != "fd06::2" {
		t.Errorf("got addresses %v and %v", p.IPs, q.IPs)
	}
	mustRemove(t, m, p.ID, q.ID)
}

// TestRoutes compares the routes in a pod and in its CNI result between the built-in bridge and the CNI plugin.
func TestRoutes(t *testing.T) {
	const v4, both = `,"ranges":[[{"subnet":"10.205.0.0/24"}]]`, `,"ranges":[[{"subnet":"10.205.0.0/24"}],[{"subnet":"fd05::/64"}]]`
	for name, tt := range map[string]struct{ options, ipam string }{
		"default":                  {"", both + `,"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]`},
		"default gateway":          {`,"isDefaultGateway":true`, both},
		"another default gateway":  {`,"isDefaultGateway":true`, both + `,"routes":[{"dst":"0.0.0.0/0","gw":"10.205.0.9"}]`},
		"equal destinations":       {"", v4 + `,"routes":[{"dst":"10.9.0.0/16","gw":"10.205.0.8"},{"dst":"10.9.0.0/16","gw":"10.205.0.9"},{"dst":"10.9.0.0/16"}]`},
		"equal IPv6 destinations":  {"", both + `,"routes":[{"dst":"fd09::/64","gw":"fd05::8"},{"dst":"fd09::/64","gw":"fd05::9"}]`},
		"no gateway of the family": {"", `,"ranges":[[{"subnet":"fd05::/64"}]],"routes":[{"dst":"10.9.0.0/16"},{"dst":"fd09::/64"}]`},
	} {
		t.Run(name, func(t *testing.T) {
			var routes [2]string
			for i, noBuiltin := range []bool{false, true} {
				b, _ := bridgeBed(t, tt.options, tt.ipam)
				b.cfg.CNI.NoBuiltin = noBuiltin
				m := b.start()
				p := mustRun(t, m, podConfig("a"))
				routes[i] = routesOf(t, p)
				mustRemove(t, m, p.ID)
				b.halt()
				_ = exec.Command("ip", "link", "del", "crisbxt2").Run()
			}
			if routes[0] != routes[1] {
				t.Errorf("built-in bridge:\n%s\nCNI plugin:\n%s", routes[0], routes[1])
			}
		})
	}
}

// routesOf returns the routes in the CNI result and in the network namespace of a pod.
func routesOf(t *testing.T, p *Pod) string {
	t.Helper()
	var result struct{ Routes json.RawMessage }
	if err := json.Unmarshal(p.CNIResult, &result); err != nil {
		t.Fatal(err)
	}
	out := string(result.Routes) + "\n"
	inNetNS(t, p.Namespaces.Net, func() error {
		for _, family := range []string{"-4", "-6"} {
			b, err := exec.Command("ip", family, "route", "show").CombinedOutput()
			if err != nil {
				return fmt.Errorf("ip route: %w: %s", err, b)
			}
			// The kernel may report the carrier of a new interface late, on a machine with load.
			out += strings.ReplaceAll(string(b), " linkdown", "")
		}
		return nil
	})
	return out
}

// TestLeasesLockedByOtherProcess lets another process hold the lock of the IP leases for longer than any deadline.
func TestLeasesLockedByOtherProcess(t *testing.T) {
	b, leases := bridgeBed(t, "", `,"ranges":[[{"subnet":"10.205.0.0/24"}]]`)
	b.cfg.SetupTimeout, b.cfg.TeardownTimeout = patience.For(2*time.Second), patience.For(2*time.Second)
	m := b.start()
	p := mustRun(t, m, podConfig("a"))
	lock, err := os.Open(filepath.Join(leases, "br", "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience.For(60*time.Second))
	defer cancel()
	_, err = m.RunPod(ctx, podConfig("b"), "")
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "lock") || strings.Contains(err.Error(), "still in progress") || ctx.Err() != nil {
		t.Errorf("run: got error %v", err)
	}
	if n := len(m.List()); n != 1 {
		t.Errorf("got %d pods, want only the pod that was created", n)
	}
	if err := m.Stop(ctx, p.ID); !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		t.Errorf("stop: got error %v", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	mustRemove(t, m, p.ID)
}
