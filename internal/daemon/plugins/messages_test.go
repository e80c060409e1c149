package plugins

import (
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/sandbox"
)

func TestNRIPod(t *testing.T) {
	config := &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: "n", Uid: "u", Namespace: "ns"},
		Labels:   map[string]string{"l": "1"}, Annotations: map[string]string{"a": "2"},
	}
	for name, tt := range map[string]struct {
		pod  sandbox.Pod
		want *api.PodSandbox
	}{
		"all fields": {
			sandbox.Pod{
				ID: "id", Config: config, RuntimeHandler: "h", PausePID: 7, CgroupParent: "/kubepods",
				IPs:        []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")},
				Namespaces: sandbox.Namespaces{Net: "/n", UTS: "/u", User: "/user"},
				Overhead:   &cri.LinuxContainerResources{CpuShares: 3}, Resources: &cri.LinuxContainerResources{CpuShares: 4},
			},
			&api.PodSandbox{
				Id: "id", Name: "n", Uid: "u", Namespace: "ns", Labels: config.GetLabels(), Annotations: config.GetAnnotations(),
				RuntimeHandler: "h", Pid: 7, Ips: []string{"10.0.0.2", "fd00::2"},
				Linux: &api.LinuxPodSandbox{
					CgroupParent: "/kubepods",
					PodOverhead:  &api.LinuxResources{Memory: &api.LinuxMemory{}, Cpu: &api.LinuxCPU{Shares: api.UInt64(uint64(3))}},
					PodResources: &api.LinuxResources{Memory: &api.LinuxMemory{}, Cpu: &api.LinuxCPU{Shares: api.UInt64(uint64(4))}},
					Namespaces:   []*api.LinuxNamespace{{Type: "network", Path: "/n"}, {Type: "uts", Path: "/u"}, {Type: "user", Path: "/user"}},
				},
			},
		},
		"removed pod": {
			sandbox.Pod{ID: "id", Config: &cri.PodSandboxConfig{}},
			&api.PodSandbox{Id: "id", Linux: &api.LinuxPodSandbox{}},
		},
	} {
		if got := nriPod(&tt.pod); !proto.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}

func TestNRIContainer(t *testing.T) {
	created, exited := time.Unix(1, 2), time.Unix(3, 4)
	s := &container.Snapshot{
		ID: "c", PodID: "p", Config: &cri.ContainerConfig{}, RunDir: t.TempDir(), ImageRef: "r/i@sha256:d", ImageID: "sha256:c",
		State: container.Exited, PID: 5, CreatedAt: created, FinishedAt: exited, ExitCode: 6, Reason: "Error", Message: "m",
		Resources: &cri.LinuxContainerResources{CpuShares: 8}, Extra: &specs.LinuxResources{},
	}
	want := &api.Container{
		Id: "c", PodSandboxId: "p", State: api.ContainerState_CONTAINER_STOPPED, Pid: 5,
		Image:     &api.Image{Name: "r/i@sha256:d", Digest: "sha256:d", ConfigDigest: "sha256:c"},
		CreatedAt: 1e9 + 2, FinishedAt: 3e9 + 4, ExitCode: 6, StatusReason: "Error", StatusMessage: "m",
	}
	got := nriContainer(s)
	if !proto.Equal(got.Status, want) {
		t.Errorf("got status %v, want %v", got.Status, want)
	}
	if got.Config != s.Config || got.Limits.CRI != s.Resources || got.Limits.Extra != s.Extra {
		t.Errorf("got %+v, want the config and the limits of the snapshot", got)
	}
	if _, err := got.Spec(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Spec without a file: got %v", err)
	}
	for state, want := range map[container.State]api.ContainerState{
		container.Created: api.ContainerState_CONTAINER_CREATED, container.Running: api.ContainerState_CONTAINER_RUNNING,
		container.Exited: api.ContainerState_CONTAINER_STOPPED, container.Unknown: api.ContainerState_CONTAINER_UNKNOWN,
	} {
		if got := nriContainer(&container.Snapshot{State: state}).Status.GetState(); got != want {
			t.Errorf("state %d: got %v, want %v", state, got, want)
		}
	}
}
