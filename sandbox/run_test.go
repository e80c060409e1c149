package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

func TestPodLifecycle(t *testing.T) {
	b, plugin := fakeBed(t)
	m := b.start()
	c := podConfig("a")
	c.LogDirectory = filepath.Join(t.TempDir(), "logs", "a")
	c.Linux.Sysctls = map[string]string{
		"net.ipv4.ip_unprivileged_port_start": "0", "kernel.shm_rmid_forced": "1", "net/ipv4/conf/lo/arp_notify": "1",
	}
	p := mustRun(t, m, c)
	if !p.Ready || len(p.IPs) != 2 || p.IPs[0].String() != "10.1.2.3" || p.IPs[1].String() != "fd00::3" {
		t.Fatalf("got %+v", p)
	}
	again, err := m.RunPod(t.Context(), c, "")
	if err != nil || again != p.ID {
		t.Errorf("same request again: got %q, %v", again, err)
	}
	if got, err := m.Get(p.ID[:8]); err != nil || got != p {
		t.Errorf("get by prefix: got %v, %v", got, err)
	}
	inNetNS(t, p.Namespaces.Net, func() error {
		for path, want := range map[string]string{"ipv4/ip_unprivileged_port_start": "0", "ipv4/conf/lo/arp_notify": "1", "ipv6/conf/default/accept_ra": "0"} {
			got, err := os.ReadFile("/proc/sys/net/" + path)
			if err != nil || strings.TrimSpace(string(got)) != want {
				t.Errorf("%s: got %q, %v; want %s", path, got, err, want)
			}
		}
		return nil
	})
	if _, err := os.Stat(c.LogDirectory); err != nil {
		t.Error(err)
	}
	mustRemove(t, m, p.ID)
	if err := m.Stop(t.Context(), p.ID); !errdefs.IsNotFound(err) {
		t.Errorf("stop of a removed pod: got error %v", err)
	}
	if plugin.calls("ADD") != 1 || plugin.calls("DEL") != 1 {
		t.Errorf("got %d ADD and %d DEL, want one of each", plugin.calls("ADD"), plugin.calls("DEL"))
	}
	if got, err := os.ReadFile("/proc/sys/kernel/shm_rmid_forced"); err != nil || strings.TrimSpace(string(got)) != "0" {
		t.Errorf("kernel.shm_rmid_forced of the host: got %q, %v; want 0", got, err)
	}
}

func TestNameInUse(t *testing.T) {
	b, _ := fakeBed(t)
	m := b.start()
	p := mustRun(t, m, podConfig("a"))
	other := podConfig("a")
	other.Labels = map[string]string{"x": "y"}
	if _, err := m.RunPod(t.Context(), other, ""); !errdefs.IsAlreadyExists(err) {
		t.Errorf("another request with the same name: got error %v", err)
	}
	if err := m.Stop(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := m.RunPod(t.Context(), podConfig("a"), ""); !errdefs.IsAlreadyExists(err) {
		t.Errorf("request with the name of a stopped pod: got error %v", err)
	}
	next := podConfig("a")
	next.Metadata.Attempt = 1
	q := mustRun(t, m, next)
	if got := m.List(); len(got) != 2 || got[0].ID != p.ID || got[1].ID != q.ID {
		t.Errorf("got pods %v, want %s and %s", got, p.ID, q.ID)
	}
	mustRemove(t, m, p.ID, q.ID)
}

// abandonCreation starts the creation of a pod, and lets its caller leave during ADD. It returns the error that the
// caller gets. The creation goes on when release is called.
func abandonCreation(t *testing.T, m *Manager, plugin fakePlugin, name string) (release func(), err error) {
	t.Helper()
	release = plugin.hold("ADD")
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() { _, err := m.RunPod(ctx, podConfig(name), ""); result <- err }()
	eventually(t, "call of the plugin", func() bool { return plugin.calls("ADD") == 1 })
	cancel()
	return release, <-result
}

func TestRetryJoinsFirstAttempt(t *testing.T) {
	b, plugin := fakeBed(t)
	m := b.start()
	release, err := abandonCreation(t, m, plugin, "a")
	if err == nil || !strings.Contains(err.Error(), "CNI ADD") {
		t.Errorf("error %v does not name the stage that is in progress", err)
	}
	if len(m.List()) != 0 {
		t.Error("a pod is visible before its creation is complete")
	}
	if _, err := m.RunPod(shortContext(t), podConfig("a"), "other"); err == nil {
		t.Error("a request for another runtime handler joined the creation")
	}
	var wg sync.WaitGroup
	got := make([]string, 3)
	for i := range got {
		wg.Go(func() {
			// A request with the same name and attempt is a retry: the kubelet may send another config.
			c := podConfig("a")
			c.Annotations = map[string]string{"try": fmt.Sprint(i)}
			var err error
			if got[i], err = m.RunPod(t.Context(), c, ""); err != nil {
				t.Error(err)
			}
		})
	}
	release()
	wg.Wait()
	if got[0] != got[1] || got[1] != got[2] || plugin.calls("ADD") != 1 {
		t.Errorf("got ids %q and %d ADD, want one id and one ADD", got, plugin.calls("ADD"))
	}
	mustRemove(t, m, got[0])
}

// shortContext returns a context that ends after 100 ms.
func shortContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// TestRetryAfterCallerLeft checks that a retry gets the pod whose creation was complete after the
// first caller had left, even if the retry has another config. Once a caller has the id, a request
// with another config is refused.
func TestRetryAfterCallerLeft(t *testing.T) {
	b, plugin := fakeBed(t)
	m := b.start()
	release, _ := abandonCreation(t, m, plugin, "a")
	release()
	eventually(t, "creation of the pod", func() bool { return len(m.List()) == 1 })
	retry := podConfig("a")
	retry.Labels = map[string]string{"x": "y"}
	p := mustRun(t, m, retry)
	if plugin.calls("ADD") != 1 {
		t.Errorf("got %d ADD, want 1", plugin.calls("ADD"))
	}
	if _, err := m.RunPod(t.Context(), retry, ""); !errdefs.IsAlreadyExists(err) || !strings.Contains(err.Error(), "labels") {
		t.Errorf("request with another config: got error %v", err)
	}
	mustRemove(t, m, p.ID)
}

func TestConcurrentStopAndRemove(t *testing.T) {
	b, plugin := fakeBed(t)
	m := b.start()
	p := mustRun(t, m, podConfig("a"))
	b.containers.hold = make(chan struct{})
	stopped := make(chan error)
	go func() { stopped <- m.Stop(t.Context(), p.ID) }()
	eventually(t, "call of StopPod", func() bool { got, _ := m.Get(p.ID); return !got.Ready })
	if plugin.calls("DEL") != 0 {
		t.Error("the pod was detached before its containers had stopped")
	}
	removed := make(chan error)
	go func() { removed <- m.Remove(t.Context(), p.ID) }()
	eventually(t, "second call of StopPod", func() bool {
		b.containers.mu.Lock()
		defer b.containers.mu.Unlock()
		return b.containers.stops == 2
	})
	close(b.containers.hold)
	if err := errors.Join(<-stopped, <-removed); err != nil {
		t.Error(err)
	}
	if len(b.containers.removed) != 1 {
		t.Errorf("got calls of RemovePod %v, want one", b.containers.removed)
	}
}

func TestStopWhenContainersDoNotStop(t *testing.T) {
	b, plugin := fakeBed(t)
	m := b.start()
	p := mustRun(t, m, podConfig("a"))
	b.containers.stopErr = errors.New("stuck")
	if err := m.Stop(t.Context(), p.ID); err == nil || plugin.calls("DEL") != 0 {
		t.Errorf("got error %v and %d DEL, want an error and no DEL", err, plugin.calls("DEL"))
	}
	b.containers.mu.Lock()
	b.containers.stopErr = nil
	b.containers.mu.Unlock()
	eventually(t, "stop in the background", func() bool { return plugin.calls("DEL") == 1 })
	mustRemove(t, m, p.ID)
}

func TestHostNetworkWithoutConfiguration(t *testing.T) {
	b := newBed(t, "")
	m := b.start()
	awaitNetwork(t, m)
	if err := m.NetworkStatus(); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), b.cfg.CNI.ConfDirs[0]) {
		t.Errorf("got network status %v", err)
	}
	if _, err := m.RunPod(t.Context(), podConfig("a"), ""); !errdefs.IsUnavailable(err) {
		t.Errorf("pod with its own network: got error %v", err)
	}
	p := mustRun(t, m, hostPod("h"))
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	name, err := os.ReadFile(p.Hostname)
	if err != nil || strings.TrimSpace(string(name)) != host || p.Namespaces != (Namespaces{}) || p.Shm != "" || len(p.IPs) != 0 {
		t.Errorf("got %+v, hostname %q, %v", p, name, err)
	}
	mustRemove(t, m, p.ID)
}
