package sandbox

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/criserver/criserver/internal/osthread"
	"github.com/criserver/criserver/internal/patience"
	"github.com/criserver/criserver/sandbox/namespace"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// realPlugins returns the directory of the CNI plugins.
func realPlugins(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("CNI_PATH")
	if dir == "" {
		dir, _ = filepath.Abs("../bin/cni")
	}
	for _, name := range []string{"bridge", "host-local", "portmap"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Fatalf("there are no CNI plugins in %s: run \"make tools\" or set CNI_PATH", dir)
		}
	}
	return dir
}

// exampleConf returns the documented configuration, with a bridge of the test.
func exampleConf(t testing.TB, backend, bridge, dataDir string) string {
	t.Helper()
	b, err := os.ReadFile("../docs/examples/10-criserver.conflist")
	if err != nil {
		t.Fatal(err)
	}
	conf := strings.NewReplacer(
		`"cri0"`, fmt.Sprintf("%q", bridge), "/run/criserver/ipam", dataDir,
		`"ipMasqBackend": "iptables"`, fmt.Sprintf(`"ipMasqBackend": %q`, backend),
		`"ipMasqBackend": "nftables"`, fmt.Sprintf(`"ipMasqBackend": %q`, backend),
		`"backend": "iptables"`, fmt.Sprintf(`"backend": %q`, backend),
		`"backend": "nftables"`, fmt.Sprintf(`"backend": %q`, backend),
	).Replace(string(b))
	return conf
}

// realBed returns a testbed with the documented configuration, and the directory of the IP leases.
func realBed(t testing.TB, backend string) (*bed, string) {
	t.Helper()
	needRoot(t)
	leases := filepath.Join(t.TempDir(), "leases")
	b := newBed(t, exampleConf(t, backend, "crisbxt0", leases), realPlugins(t))
	t.Cleanup(func() {
		checkHostClean(t, filepath.Join(leases, "criserver"))
		_ = exec.Command("ip", "link", "del", "crisbxt0").Run()
	})
	return b, leases
}

// checkHostClean fails the test if interfaces, IP leases or nft rules of pods remain on the host.
func checkHostClean(t testing.TB, leases string) {
	t.Helper()
	// The kernel destroys network namespaces asynchronously.
	eventually(t, "removal of the interfaces of the pods", func() bool {
		links, err := net.Interfaces()
		if err != nil {
			t.Error(err)
		}
		return !slices.ContainsFunc(links, func(l net.Interface) bool { return strings.HasPrefix(l.Name, "veth") })
	})
	entries, _ := os.ReadDir(leases)
	for _, e := range entries {
		if _, err := netip.ParseAddr(e.Name()); err == nil {
			t.Errorf("IP lease of %s remains", e.Name())
		}
	}
	rules, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Errorf("nft: %v\n%s", err, rules)
	}
	for line := range strings.Lines(string(rules)) {
		if strings.Contains(line, "saddr 10.88.0.") && !strings.Contains(line, "saddr 10.88.0.0/16") || strings.Contains(line, "dnat to") || strings.Contains(line, "CNI-DN-") || strings.Contains(line, `comment "pod `) {
			t.Errorf("nft rule remains: %s", line)
		}
	}
}

// inNetNS runs fn on a thread in a network namespace. The thread exits afterwards.
func inNetNS(t testing.TB, path string, fn func() error) {
	t.Helper()
	err := osthread.Run(func() error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return fn()
	})
	if err != nil {
		t.Errorf("in %s: %v", path, err)
	}
}

// serve sends "hello" to the clients of a TCP port inside a pod.
func serve(t testing.TB, p *Pod, port int) {
	t.Helper()
	inNetNS(t, p.Namespaces.Net, func() error {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(c, "hello")
				_ = c.Close()
			}
		}()
		return nil
	})
}

// dialHello returns nil if a server that serve has started answers at the address.
func dialHello(addr string) error {
	c, err := net.DialTimeout("tcp", addr, patience.For(5*time.Second))
	if err != nil {
		return err
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	if err == nil && string(b) != "hello" {
		err = fmt.Errorf("%s answered %q", addr, b)
	}
	return err
}

func TestRealNetwork(t *testing.T) {
	for _, backend := range []string{"iptables", "nftables"} {
		for _, noBuiltin := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/processes=%t", backend, noBuiltin), func(t *testing.T) { testRealNetwork(t, backend, noBuiltin) })
		}
	}
}

func testRealNetwork(t *testing.T, backend string, noBuiltin bool) {
	b, _ := realBed(t, backend)
	b.cfg.CNI.NoBuiltin = noBuiltin
	m := b.start()
	web := podConfig("web")
	web.PortMappings = []*cri.PortMapping{
		{Protocol: cri.Protocol_TCP, HostPort: 18080, ContainerPort: 80},
		{Protocol: cri.Protocol_TCP, HostPort: 0, ContainerPort: 81},
	}
	server, client := mustRun(t, m, web), mustRun(t, m, podConfig("client"))
	if len(server.IPs) != 2 || !server.IPs[0].Is4() || !server.IPs[1].Is6() {
		t.Fatalf("got addresses %v, want one of each family, IPv4 first", server.IPs)
	}
	serve(t, server, 80)
	for _, ip := range server.IPs {
		addr := netip.AddrPortFrom(ip, 80).String()
		inNetNS(t, client.Namespaces.Net, func() error { return dialHello(addr) })
	}
	if err := dialHello("127.0.0.1:18080"); err != nil {
		t.Errorf("connect to the host port: %v", err)
	}
	hosts, err := os.ReadFile(server.Hosts)
	if err != nil || !strings.Contains(string(hosts), server.IPs[0].String()+"\tweb\n") {
		t.Errorf("got hosts %q, %v", hosts, err)
	}
	for range 2 {
		if err := m.Stop(t.Context(), server.ID); err != nil {
			t.Error(err)
		}
	}
	if err := dialHello("127.0.0.1:18080"); err == nil {
		t.Error("the host port still answers after the stop")
	}
	mustRemove(t, m, server.ID, client.ID)
}

func TestRealNetworkParallel(t *testing.T) {
	b, _ := realBed(t, "iptables")
	m := b.start()
	const n = 20
	var wg sync.WaitGroup
	ids := make([]string, n)
	for i := range n {
		wg.Go(func() {
			c := podConfig(fmt.Sprintf("p%d", i))
			c.PortMappings = []*cri.PortMapping{{HostPort: int32(19000 + i), ContainerPort: 80}}
			id, err := m.RunPod(t.Context(), c, "")
			if err != nil {
				t.Error(err)
			}
			ids[i] = id
		})
	}
	wg.Wait()
	seen := map[netip.Addr]bool{}
	for _, p := range m.List() {
		for _, ip := range p.IPs {
			if seen[ip] {
				t.Errorf("two pods have the address %s", ip)
			}
			seen[ip] = true
		}
	}
	if len(seen) != 2*n {
		t.Errorf("got %d addresses, want %d", len(seen), 2*n)
	}
	for _, id := range ids {
		for range 2 { // concurrent stops of one pod share their work
			wg.Go(func() {
				if err := m.Stop(t.Context(), id); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	for _, id := range ids {
		wg.Go(func() {
			if err := m.Remove(t.Context(), id); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// TestDetachWithOtherImplementation attaches a pod with the built-in bridge and detaches it with
// the CNI plugin, and the other way round.
func TestDetachWithOtherImplementation(t *testing.T) {
	for _, noBuiltin := range []bool{false, true} {
		t.Run(fmt.Sprintf("processes=%t", noBuiltin), func(t *testing.T) {
			b, _ := realBed(t, "nftables")
			b.cfg.CNI.NoBuiltin = noBuiltin
			m := b.start()
			p := mustRun(t, m, podConfig("a"))
			b.halt()
			b.cfg.CNI.NoBuiltin = !noBuiltin
			m = b.start()
			q := mustRun(t, m, podConfig("b"))
			serve(t, p, 80)
			for _, ip := range p.IPs {
				inNetNS(t, q.Namespaces.Net, func() error { return dialHello(netip.AddrPortFrom(ip, 80).String()) })
			}
			mustRemove(t, m, p.ID, q.ID)
		})
	}
}

func TestRealNetworkMissingNamespace(t *testing.T) {
	b, _ := realBed(t, "nftables")
	m := b.start()
	p := mustRun(t, m, podConfig("a"))
	if err := namespace.UnpinAll(filepath.Dir(p.Namespaces.Net)); err != nil {
		t.Fatal(err)
	}
	b.halt()
	m = b.start()
	got, err := m.Get(p.ID)
	if err != nil || got.Ready || got.NotReadyReason == "" {
		t.Fatalf("pod without namespaces: got %+v, %v", got, err)
	}
	mustRemove(t, m, p.ID)
}

func TestCollectWithoutRecord(t *testing.T) {
	b, leases := realBed(t, "nftables")
	m := b.start()
	p := mustRun(t, m, podConfig("a"))
	kept := mustRun(t, m, podConfig("b"))
	b.halt()
	if err := namespace.Unmount(p.Shm); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Dir(p.Hosts)); err != nil {
		t.Fatal(err)
	}
	m = b.start()
	lease := filepath.Join(leases, "criserver", p.IPs[0].String())
	eventually(t, "removal of the IP lease of a pod without a record", func() bool {
		_, err := os.Stat(lease)
		return os.IsNotExist(err)
	})
	if _, err := os.Stat(filepath.Join(leases, "criserver", kept.IPs[0].String())); err != nil {
		t.Errorf("IP lease of a pod with a record: %v", err)
	}
	if namespace.Pinned(p.Namespaces.Net) {
		t.Error("the namespace of a pod without a record is still pinned")
	}
	mustRemove(t, m, kept.ID)
}

func BenchmarkRealPod(b *testing.B) {
	for _, backend := range []string{"iptables", "nftables"} {
		for _, ports := range []int{0, 1} {
			b.Run(fmt.Sprintf("%s/ports=%d", backend, ports), func(b *testing.B) { benchPod(b, backend, ports) })
		}
	}
}

func benchPod(b *testing.B, backend string, ports int) {
	bd, _ := realBed(b, backend)
	benchWith(b, bd, ports)
}

func benchWith(b *testing.B, bd *bed, ports int) {
	m := bd.start()
	ctx := context.Background()
	var up, down time.Duration
	var before, after unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_CHILDREN, &before)
	for i := 0; b.Loop(); i++ {
		c := podConfig(fmt.Sprintf("p%d", i))
		for range ports {
			c.PortMappings = append(c.PortMappings, &cri.PortMapping{HostPort: 18080, ContainerPort: 80})
		}
		start := time.Now()
		id, err := m.RunPod(ctx, c, "")
		if err != nil {
			b.Fatal(err)
		}
		up += time.Since(start)
		start = time.Now()
		if err := m.Stop(ctx, id); err != nil {
			b.Fatal(err)
		}
		down += time.Since(start)
		if err := m.Remove(ctx, id); err != nil {
			b.Fatal(err)
		}
	}
	_ = unix.Getrusage(unix.RUSAGE_CHILDREN, &after)
	cpu := time.Duration(after.Utime.Nano() - before.Utime.Nano() + after.Stime.Nano() - before.Stime.Nano())
	n := float64(b.N)
	b.ReportMetric(float64(up.Microseconds())/1000/n, "ms-up/op")
	b.ReportMetric(float64(down.Microseconds())/1000/n, "ms-down/op")
	b.ReportMetric(float64(cpu.Microseconds())/1000/n, "ms-plugin-cpu/op")
}

// TestChurn creates and removes many pods. The numbers of file descriptors and goroutines must not grow.
func TestChurn(t *testing.T) {
	if testing.Short() {
		t.Skip("creates 440 pods")
	}
	b, _ := realBed(t, "nftables")
	m := b.start()
	round := func(n int) {
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for i := range n / 4 {
					id, err := m.RunPod(t.Context(), podConfig(fmt.Sprintf("p%d-%d", w, i)), "")
					if err != nil {
						t.Error(err)
						return
					}
					mustRemove(t, m, id)
				}
			})
		}
		wg.Wait()
	}
	count := func(dir string) int {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Error(err)
		}
		return len(entries)
	}
	round(40)
	fds, goroutines := count("/proc/self/fd"), runtime.NumGoroutine()
	round(400)
	eventually(t, "end of file descriptors and goroutines", func() bool {
		return count("/proc/self/fd") <= fds && runtime.NumGoroutine() <= goroutines
	})
	if n := count("/proc/self/task"); n > 100 {
		t.Errorf("got %d threads, want at most 100", n)
	}
}
