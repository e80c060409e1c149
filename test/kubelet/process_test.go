package kubelet

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/criserver/criserver/test/harness"
)

const (
	nodeName = "node"
	nodeIP   = "192.0.2.10"
	apiURL   = "https://127.0.0.1:10250"
)

// kubelet is a kubelet process with its own directories. Its configuration is
// docs/examples/kubelet.yaml with a drop-in for this machine and for short intervals.
type kubelet struct {
	dir    string
	cgroup cgroupRoot
	socket string         // of the daemon
	extra  map[string]any // additional keys of the configuration, which replace others

	cmd    *exec.Cmd
	exited chan error
}

func (k *kubelet) path(parts ...string) string {
	return filepath.Join(append([]string{k.dir}, parts...)...)
}

// dropIn returns the drop-in for docs/examples/kubelet.yaml.
func (k *kubelet) dropIn() map[string]any {
	config := map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1",
		"kind":       "KubeletConfiguration",

		"containerRuntimeEndpoint": "unix://" + k.socket,
		"staticPodPath":            k.path("manifests"),
		"podLogsDir":               k.path("logs"),
		"volumePluginDir":          k.path("plugins"),
		"cgroupRoot":               k.cgroup.config(),

		"oomScoreAdj":      0,     // lower values need a capability that the kubelet does not have in a container
		"failCgroupV1":     false, // the tests run on both versions
		"evictionHard":     map[string]string{"memory.available": "1Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
		"syncFrequency":    "5s",
		"crashLoopBackOff": map[string]string{"maxContainerRestartPeriod": restartPeriod().String()},
	}
	for key, value := range k.extra {
		config[key] = value
	}
	return config
}

// restartPeriod is the longest pause between restarts in a crash loop. It must be long enough for a test to see the
// pause in the status of the pod. On a slow machine it is the longest that the kubelet allows.
func restartPeriod() time.Duration {
	const short = 3 * time.Second
	if harness.Patience(short) > short {
		return 5 * time.Minute
	}
	return short
}

// start starts the kubelet and waits until it serves its API.
func (k *kubelet) start(ctx context.Context, top string) error {
	for _, dir := range []string{"manifests", "logs", "plugins", "root", "config.d", "sysctl"} {
		if err := os.MkdirAll(k.path(dir), 0o755); err != nil {
			return err
		}
	}
	dropIn, err := json.MarshalIndent(k.dropIn(), "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(k.path("config.d", "10-test.conf"), dropIn, 0o644); err != nil {
		return err
	}
	args, err := withSysctlCopies(k.path("sysctl"), filepath.Join(top, "bin", "kubelet"),
		"--config", filepath.Join(top, "docs", "examples", "kubelet.yaml"), "--config-dir", k.path("config.d"),
		"--root-dir", k.path("root"), "--cert-dir", k.path("root", "pki"),
		"--hostname-override", nodeName, "--node-ip", nodeIP, "--v", "4")
	if err != nil {
		return err
	}
	log, err := os.OpenFile(k.path("kubelet.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	k.cmd = exec.Command(args[0], args[1:]...)
	k.cmd.Stdout, k.cmd.Stderr = log, log
	if err := k.cmd.Start(); err != nil {
		return fmt.Errorf("start kubelet: %w", err)
	}
	k.exited = make(chan error, 1)
	go func() { k.exited <- k.cmd.Wait() }()
	if err := k.serving(ctx); err != nil {
		return fmt.Errorf("start kubelet: %w\n%s", err, k.logTail())
	}
	return nil
}

func (k *kubelet) serving(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, harness.Patience(60*time.Second))
	defer cancel()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	for {
		answer, err := client.Get(apiURL + "/healthz")
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(answer.Status)
		}
		select {
		case exit := <-k.exited:
			k.exited <- exit
			return fmt.Errorf("the kubelet exited: %v", exit)
		case <-ctx.Done():
			return fmt.Errorf("the kubelet is not healthy: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// stop stops the kubelet. The pods continue to run.
func (k *kubelet) stop() error {
	if k.cmd == nil {
		return nil
	}
	if err := k.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop kubelet: %w", err)
	}
	select {
	case <-k.exited: // the exit code has no meaning
		return nil
	case <-time.After(harness.Patience(20 * time.Second)):
		_ = k.cmd.Process.Kill()
		<-k.exited
		return errors.New("stop kubelet: the kubelet did not exit before the deadline and was killed")
	}
}

// logTail returns the errors and the last lines of the log.
func (k *kubelet) logTail() string {
	log, err := os.ReadFile(k.path("kubelet.log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(log), "\n"), "\n")
	var wanted []string
	for i, line := range lines {
		if strings.HasPrefix(line, "E") || strings.HasPrefix(line, "W") || i > len(lines)-20 {
			wanted = append(wanted, line)
		}
	}
	if len(wanted) > 80 {
		wanted = wanted[len(wanted)-80:]
	}
	return "kubelet's log:\n  " + strings.Join(wanted, "\n  ")
}
