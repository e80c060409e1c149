package system

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

// clients speaks to one daemon.
type clients struct {
	rt  cri.RuntimeServiceClient
	img cri.ImageServiceClient
}

func (c *clients) dial(socket string) error {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	c.rt, c.img = cri.NewRuntimeServiceClient(conn), cri.NewImageServiceClient(conn)
	return nil
}

// pod is a pod sandbox that a test made.
type pod struct {
	id     string
	config *cri.PodSandboxConfig
}

// podConfig is a pod as the kubelet asks for it.
func podConfig(name string) *cri.PodSandboxConfig {
	logs := filepath.Join(world.dir, "logs", name)
	return &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Namespace: "system", Uid: "uid-" + name},
		Hostname:     name,
		LogDirectory: logs,
		DnsConfig:    &cri.DNSConfig{Servers: []string{"10.96.0.10"}, Searches: []string{"cluster.local"}, Options: []string{"ndots:5"}},
		Labels:       map[string]string{"test": name},
		Linux: &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{
			NamespaceOptions: &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER},
			Seccomp:          &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault},
		}},
	}
}

// containerConfig is a container with a command of its own.
func containerConfig(p *pod, name, image string, cmd ...string) *cri.ContainerConfig {
	return &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: name},
		Image:    &cri.ImageSpec{Image: image},
		Command:  cmd,
		LogPath:  name + ".log",
		Linux: &cri.LinuxContainerConfig{
			Resources: &cri.LinuxContainerResources{CpuShares: 102, MemoryLimitInBytes: 256 << 20, OomScoreAdj: 100},
			SecurityContext: &cri.LinuxContainerSecurityContext{
				NamespaceOptions: p.config.GetLinux().GetSecurityContext().GetNamespaceOptions(),
				Seccomp:          &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault},
			},
		},
	}
}

func (c *clients) pull(t *testing.T, ref string) string {
	t.Helper()
	r, err := c.img.PullImage(t.Context(), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: ref}})
	if err != nil {
		t.Fatalf("pull %s: %v", ref, err)
	}
	return r.GetImageRef()
}

func (c *clients) runPod(t *testing.T, config *cri.PodSandboxConfig) *pod {
	t.Helper()
	r, err := c.rt.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config})
	if err != nil {
		t.Fatalf("run pod %s: %v", config.GetMetadata().GetName(), err)
	}
	return &pod{r.GetPodSandboxId(), config}
}

func (c *clients) create(t *testing.T, p *pod, config *cri.ContainerConfig) string {
	t.Helper()
	r, err := c.rt.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: p.id, Config: config, SandboxConfig: p.config})
	if err != nil {
		t.Fatalf("create container %s: %v", config.GetMetadata().GetName(), err)
	}
	return r.GetContainerId()
}

func (c *clients) startContainer(t *testing.T, id string) {
	t.Helper()
	if _, err := c.rt.StartContainer(t.Context(), &cri.StartContainerRequest{ContainerId: id}); err != nil {
		t.Fatalf("start container: %v", err)
	}
}

// run creates and starts a busybox container.
func (c *clients) run(t *testing.T, p *pod, name string, cmd ...string) string {
	t.Helper()
	id := c.create(t, p, containerConfig(p, name, busybox, cmd...))
	c.startContainer(t, id)
	return id
}

func (c *clients) status(t *testing.T, id string) *cri.ContainerStatus {
	t.Helper()
	r, err := c.rt.ContainerStatus(t.Context(), &cri.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		t.Fatalf("status of container: %v", err)
	}
	return r.GetStatus()
}

// exited waits for a container's end.
func (c *clients) exited(t *testing.T, id string) *cri.ContainerStatus {
	t.Helper()
	for end := time.Now().Add(harness.Patience(60 * time.Second)); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if s := c.status(t, id); s.GetState() == cri.ContainerState_CONTAINER_EXITED {
			return s
		}
	}
	t.Fatalf("container %s did not end", id)
	return nil
}

// exec runs a command and returns its output without the final line break. It
// must succeed.
func (c *clients) exec(t *testing.T, id string, cmd ...string) string {
	t.Helper()
	r, err := c.rt.ExecSync(t.Context(), &cri.ExecSyncRequest{ContainerId: id, Cmd: cmd, Timeout: harness.PatienceSeconds(30)})
	if err != nil {
		t.Fatalf("exec %v: %v", cmd, err)
	}
	if r.GetExitCode() != 0 {
		t.Fatalf("exec %v: exit code %d: %s%s", cmd, r.GetExitCode(), r.GetStdout(), r.GetStderr())
	}
	return strings.TrimRight(string(r.GetStdout()), "\n")
}

func (c *clients) removePod(t *testing.T, id string) {
	t.Helper()
	if err := c.remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

func (c *clients) remove(ctx context.Context, id string) error {
	if _, err := c.rt.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
		return fmt.Errorf("stop pod: %w", err)
	}
	if _, err := c.rt.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
		return fmt.Errorf("remove pod: %w", err)
	}
	return nil
}

// empty removes all pods, and all images but the one that was there at first.
func (c *clients) empty(ctx context.Context) error {
	if c.rt == nil {
		return nil
	}
	pods, err := c.rt.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range pods.GetItems() {
		errs = append(errs, c.remove(ctx, p.GetId()))
	}
	list, err := c.img.ListImages(ctx, &cri.ListImagesRequest{})
	errs = append(errs, err)
	for _, i := range list.GetImages() {
		if len(i.GetRepoTags()) > 0 && i.GetRepoTags()[0] == busybox {
			continue
		}
		_, err := c.img.RemoveImage(ctx, &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: i.GetId()}})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// podIPs returns all addresses of a pod.
func (c *clients) podIPs(t *testing.T, id string) []string {
	t.Helper()
	r, err := c.rt.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: id})
	if err != nil {
		t.Fatal(err)
	}
	ips := []string{r.GetStatus().GetNetwork().GetIp()}
	for _, a := range r.GetStatus().GetNetwork().GetAdditionalIps() {
		ips = append(ips, a.GetIp())
	}
	return ips
}

// logLines returns the texts of a container's log, less stamp, stream and tag.
func logLines(t *testing.T, p *pod, name string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(p.config.GetLogDirectory(), name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if len(f) != 4 || f[2] != "F" {
			t.Fatalf("not a whole line in the CRI log format: %q", line)
		}
		lines = append(lines, f[3])
	}
	return lines
}

// waitFor waits until the daemon or a container has come so far.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(harness.Patience(60 * time.Second)); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if done() {
			return
		}
	}
	t.Fatalf("waited too long for %s", what)
}
