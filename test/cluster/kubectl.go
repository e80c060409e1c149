package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/criserver/criserver/test/harness"
)

// KubeconfigPath returns the path of the kubeconfig of the administrator.
func (c *Config) KubeconfigPath() string { return c.path("kubeconfig") }

// KubectlCommand returns a command that runs kubectl.
func (c *Cluster) KubectlCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.program("kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.KubeconfigPath(), "KUBECACHEDIR="+c.path("kubectl"))
	return cmd
}

// Kubectl runs kubectl and returns its standard output.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	return c.kubectl(c.KubectlCommand(ctx, args...))
}

// Apply applies manifests.
func (c *Cluster) Apply(ctx context.Context, manifests string) error { return c.apply(ctx, manifests) }

// apply applies manifests, with further options of kubectl. kubectl first reads the schema of the API, for which it has
// 32 seconds by default.
func (c *Cluster) apply(ctx context.Context, manifests string, options ...string) error {
	cmd := c.KubectlCommand(ctx, append([]string{"apply", "--request-timeout=" + harness.Patience(32*time.Second).String(), "-f", "-"}, options...)...)
	cmd.Stdin = strings.NewReader(manifests)
	_, err := c.kubectl(cmd)
	return err
}

func (c *Cluster) kubectl(cmd *exec.Cmd) (string, error) {
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w", strings.Join(cmd.Args[1:], " "), err)
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
	}
	return string(out), err
}
