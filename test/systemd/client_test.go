package systemd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

// client speaks to the daemon.
type client struct {
	cri.RuntimeServiceClient
	images cri.ImageServiceClient
}

// retries has calls wait for the next daemon, and try again when the connection
// to the last daemon ends under them.
const retries = `{"methodConfig": [{
	"name": [{"service": "runtime.v1.RuntimeService"}, {"service": "runtime.v1.ImageService"}],
	"waitForReady": true,
	"retryPolicy": {
		"maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE"]
	}
}]}`

func dial(t *testing.T) *client {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(retries),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, MaxDelay: time.Second},
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &client{cri.NewRuntimeServiceClient(conn), cri.NewImageServiceClient(conn)}
}

// hasUserNamespaces says whether pods can have user namespaces, which must be so
// where the kernel maps the ids of tmpfs mounts.
func (c *client) hasUserNamespaces(t *testing.T) bool {
	t.Helper()
	must, err := harness.MapsTmpfs()
	if err != nil {
		t.Fatal(err)
	}
	has := false
	ask := func() error {
		r, err := c.Status(limited(t), &cri.StatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range r.GetRuntimeHandlers() {
			has = has || h.GetName() == "" && h.GetFeatures().GetUserNamespaces()
		}
		if !has {
			return errors.New("the default handler has no user namespaces")
		}
		return nil
	}
	if must {
		eventually(t, 10*time.Second, ask) // the daemon tries the handlers while it serves
	} else if ask() == nil {
		t.Error("the daemon offers user namespaces, but the kernel does not map the ids of tmpfs")
	}
	return has
}

// limited is the context of one call.
func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience(30*time.Second))
	t.Cleanup(cancel)
	return ctx
}

// pod is a pod sandbox that a test made.
type pod struct {
	ID     string
	Config *cri.PodSandboxConfig
}

func podConfig(name string) *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Namespace: "systemd", Uid: "uid-" + name},
		Hostname:     name,
		LogDirectory: filepath.Join(stateDir, "logs", name),
		Linux: &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{
			NamespaceOptions: &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER},
			Seccomp:          &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault},
		}},
	}
}

func (p *pod) container(name string, command ...string) *cri.ContainerConfig {
	return &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: name},
		Image:    &cri.ImageSpec{Image: busybox},
		Command:  command,
		LogPath:  name + ".log",
		Linux: &cri.LinuxContainerConfig{
			Resources: &cri.LinuxContainerResources{CpuShares: 102, MemoryLimitInBytes: 64 << 20, OomScoreAdj: 100},
			SecurityContext: &cri.LinuxContainerSecurityContext{
				NamespaceOptions: p.Config.GetLinux().GetSecurityContext().GetNamespaceOptions(),
				Seccomp:          &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault},
			},
		},
	}
}

func (c *client) pull(t *testing.T, image string) {
	t.Helper()
	if _, err := c.images.PullImage(limited(t), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: image}}); err != nil {
		t.Fatalf("pull %s: %v\n%s", image, err, journalTail())
	}
}

func (c *client) runPod(t *testing.T, config *cri.PodSandboxConfig) *pod {
	t.Helper()
	if err := os.RemoveAll(config.GetLogDirectory()); err != nil {
		t.Fatal(err)
	}
	r, err := c.RunPodSandbox(limited(t), &cri.RunPodSandboxRequest{Config: config})
	if err != nil {
		t.Fatalf("run pod %s: %v\n%s", config.GetMetadata().GetName(), err, journalTail())
	}
	return &pod{r.GetPodSandboxId(), config}
}

// run creates and starts a container and returns its id.
func (c *client) run(t *testing.T, p *pod, config *cri.ContainerConfig) string {
	t.Helper()
	r, err := c.CreateContainer(limited(t), &cri.CreateContainerRequest{PodSandboxId: p.ID, Config: config, SandboxConfig: p.Config})
	if err != nil {
		t.Fatalf("create container %s: %v\n%s", config.GetMetadata().GetName(), err, journalTail())
	}
	if _, err := c.StartContainer(limited(t), &cri.StartContainerRequest{ContainerId: r.GetContainerId()}); err != nil {
		t.Fatalf("start container %s: %v\n%s", config.GetMetadata().GetName(), err, journalTail())
	}
	return r.GetContainerId()
}

func (c *client) status(t *testing.T, id string) *cri.ContainerStatusResponse {
	t.Helper()
	r, err := c.ContainerStatus(limited(t), &cri.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil {
		t.Fatalf("status of container: %v\n%s", err, journalTail())
	}
	return r
}

// pid returns the first process of a container.
func (c *client) pid(t *testing.T, id string) int {
	t.Helper()
	var info struct {
		PID int `json:"pid"`
	}
	if err := json.Unmarshal([]byte(c.status(t, id).GetInfo()["info"]), &info); err != nil || info.PID == 0 {
		t.Fatalf("no pid in the verbose status of %s: %v", id, err)
	}
	return info.PID
}

// exited waits until a container has ended.
func (c *client) exited(t *testing.T, id string) *cri.ContainerStatus {
	t.Helper()
	var s *cri.ContainerStatus
	eventually(t, 30*time.Second, func() error {
		if s = c.status(t, id).GetStatus(); s.GetState() != cri.ContainerState_CONTAINER_EXITED {
			return fmt.Errorf("container %s is %s", s.GetMetadata().GetName(), s.GetState())
		}
		return nil
	})
	return s
}

// exec runs a command in a container and returns its output. The command must succeed.
func (c *client) exec(t *testing.T, id string, command ...string) string {
	t.Helper()
	timeout := int64(harness.Patience(10 * time.Second).Seconds())
	r, err := c.ExecSync(limited(t), &cri.ExecSyncRequest{ContainerId: id, Cmd: command, Timeout: timeout})
	if err != nil {
		t.Fatalf("exec %v: %v\n%s", command, err, journalTail())
	}
	if r.GetExitCode() != 0 {
		t.Fatalf("exec %v: exit code %d: %s%s", command, r.GetExitCode(), r.GetStdout(), r.GetStderr())
	}
	return strings.TrimSpace(string(r.GetStdout()))
}

// output collects what a stream brings.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// say attaches to a container, sends a line, and waits for the reply.
func (c *client) say(t *testing.T, id string, tty bool, line, reply string) {
	t.Helper()
	r, err := c.Attach(limited(t), &cri.AttachRequest{ContainerId: id, Stdin: true, Stdout: true, Tty: tty})
	if err != nil {
		t.Fatalf("attach: %v", err)
	}
	address, err := url.Parse(r.GetUrl())
	if err != nil {
		t.Fatal(err)
	}
	executor, err := remotecommand.NewSPDYExecutor(&rest.Config{}, http.MethodPost, address)
	if err != nil {
		t.Fatal(err)
	}
	ctx := limited(t)
	in, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close() // the stream is still reading from in, and sees the end
	var out output
	done := make(chan error, 1)
	go func() {
		done <- executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: in, Stdout: &out, Tty: tty})
	}()
	if _, err := write.WriteString(line + "\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, func() error {
		if strings.Contains(out.String(), reply) {
			return nil
		}
		select {
		case err := <-done:
			return fmt.Errorf("attach ended: %w; output: %q", errors.Join(errors.New("no reply"), err), out.String())
		default:
			return fmt.Errorf("no %q in the output %q", reply, out.String())
		}
	})
}

// removeAll removes all pods.
func (c *client) removeAll(t *testing.T) {
	t.Helper()
	pods, err := c.ListPodSandbox(limited(t), &cri.ListPodSandboxRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pods.GetItems() {
		c.remove(t, p.GetId())
	}
}

func (c *client) remove(t *testing.T, id string) {
	t.Helper()
	if _, err := c.StopPodSandbox(limited(t), &cri.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
		t.Errorf("stop pod: %v", err)
	}
	if _, err := c.RemovePodSandbox(limited(t), &cri.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
		t.Errorf("remove pod: %v", err)
	}
}
