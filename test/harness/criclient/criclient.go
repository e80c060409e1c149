// Package criclient is the CRI client of the black-box suites: a connection to a
// daemon, and helpers that fail the test on errors. It is a separate Go module,
// because the CRI validation suite needs another version of cri-api than the suites
// that use this package.
package criclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

// Client is a connection to one daemon.
type Client struct {
	RuntimeService cri.RuntimeServiceClient
	ImageService   cri.ImageServiceClient
	// Timeout limits each call of the helpers; 0 for no limit. The factor of
	// harness.Patience applies.
	Timeout time.Duration
	// Diagnostics returns text that is appended to the failure of a call. It may be
	// nil.
	Diagnostics func() string
}

// Dial returns a client for the socket of a daemon. It does not wait for the
// daemon. options are further options of the connection.
func Dial(socket string, options ...grpc.DialOption) (*Client, error) {
	options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn, err := grpc.NewClient("unix://"+socket, options...)
	if err != nil {
		return nil, err
	}
	return &Client{RuntimeService: cri.NewRuntimeServiceClient(conn), ImageService: cri.NewImageServiceClient(conn)}, nil
}

// Context returns the context of one call.
func (c *Client) Context(t *testing.T) context.Context {
	t.Helper()
	if c.Timeout == 0 {
		return t.Context()
	}
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience(c.Timeout))
	t.Cleanup(cancel)
	return ctx
}

// fatal fails the test with the error of a call.
func (c *Client) fatal(t *testing.T, err error, format string, args ...any) {
	t.Helper()
	message := fmt.Sprintf(format, args...)
	if c.Diagnostics != nil {
		t.Fatalf("%s: %v\n%s", message, err, c.Diagnostics())
	}
	t.Fatalf("%s: %v", message, err)
}

// Pull pulls an image and returns its id.
func (c *Client) Pull(t *testing.T, image string) string {
	t.Helper()
	r, err := c.ImageService.PullImage(c.Context(t), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: image}})
	if err != nil {
		c.fatal(t, err, "pull %s", image)
	}
	return r.GetImageRef()
}

// RunPod creates and starts a pod.
func (c *Client) RunPod(t *testing.T, config *cri.PodSandboxConfig) *Pod {
	t.Helper()
	r, err := c.RuntimeService.RunPodSandbox(c.Context(t), &cri.RunPodSandboxRequest{Config: config})
	if err != nil {
		c.fatal(t, err, "run pod %s", config.GetMetadata().GetName())
	}
	return &Pod{ID: r.GetPodSandboxId(), Config: config}
}

// CreateContainer creates a container and returns its id.
func (c *Client) CreateContainer(t *testing.T, p *Pod, config *cri.ContainerConfig) string {
	t.Helper()
	r, err := c.RuntimeService.CreateContainer(c.Context(t), &cri.CreateContainerRequest{
		PodSandboxId: p.ID, Config: config, SandboxConfig: p.Config,
	})
	if err != nil {
		c.fatal(t, err, "create container %s", config.GetMetadata().GetName())
	}
	return r.GetContainerId()
}

// StartContainer starts a container.
func (c *Client) StartContainer(t *testing.T, id string) {
	t.Helper()
	if _, err := c.RuntimeService.StartContainer(c.Context(t), &cri.StartContainerRequest{ContainerId: id}); err != nil {
		c.fatal(t, err, "start container %s", id)
	}
}

// RunContainer creates and starts a container and returns its id.
func (c *Client) RunContainer(t *testing.T, p *Pod, config *cri.ContainerConfig) string {
	t.Helper()
	id := c.CreateContainer(t, p, config)
	c.StartContainer(t, id)
	return id
}

// VerboseStatus returns the verbose status of a container.
func (c *Client) VerboseStatus(t *testing.T, id string) *cri.ContainerStatusResponse {
	t.Helper()
	r, err := c.RuntimeService.ContainerStatus(c.Context(t), &cri.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil {
		c.fatal(t, err, "status of container %s", id)
	}
	return r
}

// ContainerStatus returns the status of a container.
func (c *Client) ContainerStatus(t *testing.T, id string) *cri.ContainerStatus {
	t.Helper()
	r, err := c.RuntimeService.ContainerStatus(c.Context(t), &cri.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		c.fatal(t, err, "status of container %s", id)
	}
	return r.GetStatus()
}

// ContainerPID returns the pid of the first process of a container.
func (c *Client) ContainerPID(t *testing.T, id string) int {
	t.Helper()
	var info struct {
		PID int `json:"pid"`
	}
	if err := json.Unmarshal([]byte(c.VerboseStatus(t, id).GetInfo()["info"]), &info); err != nil || info.PID == 0 {
		c.fatal(t, err, "verbose status of container %s without pid", id)
	}
	return info.PID
}

// WaitExited waits until a container has exited.
func (c *Client) WaitExited(t *testing.T, id string) *cri.ContainerStatus {
	t.Helper()
	for end := time.Now().Add(harness.Patience(time.Minute)); ; time.Sleep(10 * time.Millisecond) {
		s := c.ContainerStatus(t, id)
		if s.GetState() == cri.ContainerState_CONTAINER_EXITED {
			return s
		}
		if time.Now().After(end) {
			c.fatal(t, fmt.Errorf("state %s", s.GetState()), "container %s has not exited", id)
		}
	}
}

// Exec runs a command in a container and returns its output without trailing line
// breaks. The command must succeed.
func (c *Client) Exec(t *testing.T, id string, command ...string) string {
	t.Helper()
	timeout := harness.PatienceSeconds(30)
	r, err := c.RuntimeService.ExecSync(c.Context(t), &cri.ExecSyncRequest{ContainerId: id, Cmd: command, Timeout: timeout})
	if err != nil {
		c.fatal(t, err, "exec %v", command)
	}
	if r.GetExitCode() != 0 {
		t.Fatalf("exec %v: exit code %d: %s%s", command, r.GetExitCode(), r.GetStdout(), r.GetStderr())
	}
	return strings.TrimRight(string(r.GetStdout()), "\n")
}

// RemovePod stops and removes a pod.
func (c *Client) RemovePod(t *testing.T, id string) {
	t.Helper()
	if err := c.StopAndRemovePod(c.Context(t), id); err != nil {
		t.Fatal(err)
	}
}

// StopAndRemovePod stops and removes a pod.
func (c *Client) StopAndRemovePod(ctx context.Context, id string) error {
	if _, err := c.RuntimeService.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
		return fmt.Errorf("stop pod %s: %w", id, err)
	}
	if _, err := c.RuntimeService.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
		return fmt.Errorf("remove pod %s: %w", id, err)
	}
	return nil
}

// RemoveAllPods stops and removes all pods.
func (c *Client) RemoveAllPods(ctx context.Context) error {
	pods, err := c.RuntimeService.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	var errs []error
	for _, p := range pods.GetItems() {
		errs = append(errs, c.StopAndRemovePod(ctx, p.GetId()))
	}
	return errors.Join(errs...)
}
