package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/criserver/criserver/sandbox/podspec"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// changeRecord changes the record of a pod while no daemon runs.
func changeRecord(t *testing.T, m *Manager, id string, change func(*record)) {
	t.Helper()
	rec, _, err := m.dirs.read(id)
	if err != nil {
		t.Fatal(err)
	}
	change(rec)
	if err := m.dirs.write(rec); err != nil {
		t.Fatal(err)
	}
}

func TestRecover(t *testing.T) {
	b, plugin := fakeBed(t)
	m := b.start()
	good, lost, old := mustRun(t, m, podConfig("good")), mustRun(t, m, podConfig("lost")), mustRun(t, m, podConfig("old"))
	stopped := mustRun(t, m, podConfig("stopped"))
	if err := m.Stop(t.Context(), stopped.ID); err != nil {
		t.Fatal(err)
	}
	b.halt()
	orphan := filepath.Join(b.cfg.RunDir, "ns", strings.Repeat("1e", 32))
	orphanName := netnsName(testNetNSDir, filepath.Base(orphan))
	if err := namespace.Make(namespace.Spec{Dir: orphan, Net: true, NetName: orphanName}); err != nil {
		t.Fatal(err)
	}
	if err := namespace.UnpinAll(filepath.Dir(lost.Namespaces.Net)); err != nil {
		t.Fatal(err)
	}
	changeRecord(t, m, old.ID, func(r *record) { r.BootID = "another" })
	temporary := filepath.Join(b.cfg.RunDir, "cni", "tables", ".criserver_hostports_n.criserver-1")
	if err := errors.Join(os.MkdirAll(filepath.Dir(temporary), 0o700), os.WriteFile(temporary, []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}

	m = b.start()
	if _, err := os.Stat(temporary); !os.IsNotExist(err) {
		t.Errorf("temporary file of the earlier daemon: got %v, want ErrNotExist", err)
	}
	if p, err := m.Get(good.ID); err != nil || !p.Ready || mustJSON(t, p.IPs) != mustJSON(t, good.IPs) || p.Config.Hostname != "good" {
		t.Errorf("ready pod: got %+v, %v", p, err)
	}
	for _, id := range []string{lost.ID, stopped.ID} {
		if p, err := m.Get(id); err != nil || p.Ready {
			t.Errorf("pod %s, which is not ready: got %+v, %v", id, p, err)
		}
	}
	if namespace.Pinned(filepath.Join(orphan, namespace.Net)) || namespace.Pinned(orphanName) {
		t.Error("namespaces without a pod are still pinned")
	}
	eventually(t, "removal of the pod of an earlier boot", func() bool {
		_, err := os.Stat(filepath.Join(b.cfg.RunDir, "pods", old.ID))
		return os.IsNotExist(err)
	})
	mustRemove(t, m, good.ID, lost.ID, stopped.ID)
	if n := plugin.calls("DEL"); n != 4 {
		t.Errorf("got %d DEL, want 4", n)
	}
}

// TestRecoverInvalidRequest recovers pods whose stored requests break rules that an earlier version
// of the daemon did not have, and pods that the configuration of the daemon no longer allows. All
// of them stay ready, and can be removed.
func TestRecoverInvalidRequest(t *testing.T) {
	b, plugin := manyBed(t)
	m := b.start()
	c := asking("a", "one")
	c.PortMappings = []*cri.PortMapping{{HostPort: 80, ContainerPort: 80}}
	c.Linux.Sysctls = map[string]string{"net.ipv4.ip_forward": "1"}
	broken, disallowed := mustRun(t, m, c), mustRun(t, m, asking("b", "two"))
	b.halt()
	changeRecord(t, m, broken.ID, func(r *record) {
		c := proto.Clone(c).(*cri.PodSandboxConfig)
		c.Hostname = strings.Repeat("a", 100)
		c.DnsConfig = &cri.DNSConfig{Servers: []string{"1.1.1.1\n"}}
		c.Annotations["kubernetes.io/egress-bandwidth"] = "much"
		c.Linux.CgroupParent = "/../x"
		c.Linux.Sysctls["vm.swappiness"] = "1"
		c.Linux.SecurityContext.RunAsGroup = &cri.Int64Value{Value: -1}
		if _, err := podspec.ParseStored(c, ""); err == nil {
			t.Error("the request breaks no rule")
		}
		var err error
		if r.Config, err = proto.Marshal(c); err != nil {
			t.Fatal(err)
		}
	})

	b.cfg.CNI.Additional, b.cfg.AllowedSysctls = nil, []string{}
	m = b.start()
	for _, p := range []*Pod{broken, disallowed} {
		if got, err := m.Get(p.ID); err != nil || !got.Ready || got.Unreadable || mustJSON(t, got.Interfaces) != mustJSON(t, p.Interfaces) ||
			got.Namespaces != p.Namespaces || got.CgroupParent != p.CgroupParent || got.HostName != p.HostName {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	next := podConfig("c")
	next.PortMappings = c.PortMappings
	if _, err := m.RunPod(t.Context(), next, ""); err == nil || !strings.Contains(err.Error(), "host port 80/tcp is in use by pod sandbox") {
		t.Errorf("host port of a recovered pod: got error %v", err)
	}
	mustRemove(t, m, broken.ID, disallowed.ID)
	if n := plugin.calls("DEL"); n != 4 {
		t.Errorf("got %d DEL, want 4", n)
	}
}
