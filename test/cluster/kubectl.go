package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/criserver/criserver/test/harness"
)

// KubeconfigPath returns the path of the kubeconfig of the administrator.
func (c *Config) KubeconfigPath() string { return c.path("kubeconfig") }

// forward forwards connections from a port on the loopback address of the host to the API server, and writes the
// kubeconfig of the administrator.
func (c *Cluster) forward(ctx context.Context) error {
	var err error
	if c.forwarder, err = (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
		return fmt.Errorf("forward to the API server: %w", err)
	}
	go func() {
		for {
			conn, err := c.forwarder.Accept()
			if err != nil {
				return // stop has closed the listener
			}
			go c.forwardConn(conn)
		}
	}()
	return c.writeKubeconfig(c.KubeconfigPath(), "https://"+c.forwarder.Addr().String(), userAdmin)
}

// forwardConn copies both directions until both have ended.
func (c *Cluster) forwardConn(client net.Conn) {
	defer client.Close()
	server, err := c.Dial(context.Background(), "tcp", fmt.Sprintf("%s:%d", LANAddress4, apiPort))
	if err != nil {
		return // the client sees a closed connection
	}
	defer server.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		copyHalf(server, client)
	}()
	copyHalf(client, server)
	<-done
}

func copyHalf(to, from net.Conn) {
	_, _ = io.Copy(to, from) // an error ends both directions
	if half, ok := to.(*net.TCPConn); ok {
		_ = half.CloseWrite()
	}
}

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
