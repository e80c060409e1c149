package network

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/criserver/criserver/sandbox/namespace"
	"golang.org/x/sys/unix"
)

// BenchmarkAttach attaches a pod to the built-in bridge and detaches the pod, while other pods have leases.
func BenchmarkAttach(b *testing.B) {
	for _, others := range []int{0, 100, 500} {
		b.Run(fmt.Sprintf("leases=%d", others), func(b *testing.B) { benchmarkAttach(b, others) })
	}
}

func benchmarkAttach(b *testing.B, others int) {
	const bridgeName = "cribench0"
	if os.Geteuid() != 0 {
		b.Skip("network namespaces need root")
	}
	if netns, err := os.Readlink("/proc/self/ns/net"); err != nil || netns == hostNetNS() {
		b.Skipf("the benchmark needs a network namespace that is not the host's (error %v)", err)
	}
	dir := b.TempDir()
	const conf = `{"cniVersion":"1.1.0","name":"bench","plugins":[{"type":"bridge","bridge":%q,"isGateway":true,"hairpinMode":true,"ipam":{"type":"host-local","dataDir":%q,
"ranges":[[{"subnet":"10.66.0.0/16"}],[{"subnet":"fd66::/64"}]],"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}}]}`
	if err := os.WriteFile(filepath.Join(dir, "10-bench.conflist"), fmt.Appendf(nil, conf, bridgeName, filepath.Join(dir, "leases")), 0o644); err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"bridge", "host-local"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o755); err != nil {
			b.Fatal(err)
		}
	}
	n := New(Config{ConfDirs: []string{dir}, BinDirs: []string{dir}, CacheDir: filepath.Join(dir, "cache")})
	if _, err := n.Reload(b.Context(), time.Minute); err != nil {
		b.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "leases/bench"), 0o755); err != nil {
		b.Fatal(err)
	}
	for i := range others {
		owner := fmt.Appendf(nil, "other%d\r\neth0", i)
		v4, v6 := fmt.Sprintf("leases/bench/10.66.%d.%d", 100+i/250, i%250), fmt.Sprintf("leases/bench/fd66::f%x", i)
		if err := errors.Join(os.WriteFile(filepath.Join(dir, v4), owner, 0o600), os.WriteFile(filepath.Join(dir, v6), owner, 0o600)); err != nil {
			b.Fatal(err)
		}
	}
	raw := n.Conf()
	b.ReportAllocs()
	var cpu time.Duration
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		pod := Pod{ID: fmt.Sprintf("pod%d", i), Name: "p", Namespace: "n", UID: "u"}
		ns := filepath.Join(dir, "ns")
		if err := namespace.Make(namespace.Spec{Dir: ns, Net: true}); err != nil {
			b.Fatal(err)
		}
		pod.NetNS = filepath.Join(ns, namespace.Net)
		start := cpuTime(b)
		b.StartTimer()
		if _, err := n.Attach(b.Context(), pod, Default(raw)); err != nil {
			b.Fatal(err)
		}
		if err := n.Detach(b.Context(), pod, Default(raw)); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		cpu += cpuTime(b) - start
		if err := namespace.UnpinAll(ns); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(cpu.Microseconds())/float64(b.N), "cpu-µs/op")
}

// hostNetNS returns the network namespace of process 1, or "" if it cannot be read.
func hostNetNS() string {
	link, _ := os.Readlink("/proc/1/ns/net")
	return link
}

// cpuTime returns the CPU time that this process has used.
func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
