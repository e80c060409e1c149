package system

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
	"github.com/criserver/criserver/test/harness/criclient"
)

// clients are the CRI clients of one daemon.
type clients struct{ *criclient.Client }

func (c *clients) dial(socket string) (err error) {
	c.Client, err = criclient.Dial(socket)
	return err
}

// pod is a pod sandbox that a test created.
type pod = criclient.Pod

// podConfig returns the configuration of a pod as the kubelet sends it.
func podConfig(name string) *cri.PodSandboxConfig {
	config := criclient.PodConfig("system", name, filepath.Join(suite.dir, "logs", name))
	config.DnsConfig = &cri.DNSConfig{Servers: []string{"10.96.0.10"}, Searches: []string{"cluster.local"}, Options: []string{"ndots:5"}}
	config.Labels = map[string]string{"test": name}
	return config
}

// containerConfig returns the configuration of a container as the kubelet sends it.
func containerConfig(p *pod, name, image string, cmd ...string) *cri.ContainerConfig {
	return p.ContainerConfig(name, image, cmd...)
}

// run creates and starts a busybox container.
func (c *clients) run(t *testing.T, p *pod, name string, cmd ...string) string {
	t.Helper()
	return c.RunContainer(t, p, containerConfig(p, name, busybox, cmd...))
}

// empty removes all pods, and all images except busybox.
func (c *clients) empty(ctx context.Context) error {
	if c.Client == nil {
		return nil
	}
	err := c.RemoveAllPods(ctx)
	list, listErr := c.ImageService.ListImages(ctx, &cri.ListImagesRequest{})
	errs := []error{err, listErr}
	for _, i := range list.GetImages() {
		if len(i.GetRepoTags()) > 0 && i.GetRepoTags()[0] == busybox {
			continue
		}
		_, err := c.ImageService.RemoveImage(ctx, &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: i.GetId()}})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// podIPs returns all addresses of a pod.
func (c *clients) podIPs(t *testing.T, id string) []string {
	t.Helper()
	r, err := c.RuntimeService.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: id})
	if err != nil {
		t.Fatal(err)
	}
	ips := []string{r.GetStatus().GetNetwork().GetIp()}
	for _, a := range r.GetStatus().GetNetwork().GetAdditionalIps() {
		ips = append(ips, a.GetIp())
	}
	return ips
}

// logLines returns the lines of a container's log without time stamp, stream and tag.
func logLines(t *testing.T, p *pod, name string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(p.Config.GetLogDirectory(), name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if len(f) != 4 || f[2] != "F" {
			t.Fatalf("incomplete line, or not in the CRI log format: %q", line)
		}
		lines = append(lines, f[3])
	}
	return lines
}

// waitFor waits until done returns true.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	pause := 10 * time.Millisecond
	for end := time.Now().Add(harness.Patience(60 * time.Second)); time.Now().Before(end); time.Sleep(pause) {
		if done() {
			return
		}
		pause = min(2*pause, harness.Patience(20*time.Millisecond)) // on a slow machine the question itself takes long
	}
	t.Fatalf("deadline reached while waiting for %s", what)
}
