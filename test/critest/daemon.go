package critest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	remote "k8s.io/cri-client/pkg"
)

// Daemon is the runtime under test, on directories that only this run uses.
type Daemon struct {
	Bin          string // directory of criserver, conmon, runc and cni/
	Dir          string // everything of the run is below this
	RegistryAddr string
	Registries   string // content of registries.conf
	CgroupParent string
	Command      string // run by the shell in place of criserver, when set; it finds its paths in $CRITEST_DIR and $CRITEST_SOCKET

	cmd  *exec.Cmd
	gone chan error
}

// Socket is where the daemon listens.
func (d *Daemon) Socket() string { return filepath.Join(d.Dir, "run", "criserver.sock") }

// LogPath is where its log goes.
func (d *Daemon) LogPath() string { return filepath.Join(d.Dir, "daemon.log") }

// StateDirs are the directories that must look the same before and after.
func (d *Daemon) StateDirs() []string {
	return []string{filepath.Join(d.Dir, "run"), filepath.Join(d.Dir, "root"), filepath.Join(d.Dir, "leases")}
}

// Pid returns the daemon's process.
func (d *Daemon) Pid() int { return d.cmd.Process.Pid }

func (d *Daemon) config() string {
	path := func(parts ...string) string { return filepath.Join(append([]string{d.Dir}, parts...)...) }
	return fmt.Sprintf(`root = %q
run_dir = %q
socket = %q
log_level = "debug"
cgroup_driver = "cgroupfs"
cgroup_parent = %q
default_runtime = "runc"

[cni]
conf_dirs = [%q]
bin_dirs = [%q]

[image]
registries_conf = %q
registries_conf_dir = %q
policy = %q

[monitor]
path = %q

[runtimes.runc]
path = %q
`,
		path("root"), path("run"), d.Socket(), d.CgroupParent,
		path("cni"), filepath.Join(d.Bin, "cni"),
		path("registries.conf"), path("registries.conf.d"), path("policy.json"),
		filepath.Join(d.Bin, "conmon"), filepath.Join(d.Bin, "runc"))
}

// network is what `docker run` would give a container: a bridge, masquerade outward, host ports.
func (d *Daemon) network() string {
	return fmt.Sprintf(`{
  "cniVersion": "1.1.0",
  "name": "critest",
  "plugins": [
    {
      "type": "bridge", "bridge": "critest0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
      "ipam": {
        "type": "host-local", "dataDir": %q,
        "ranges": [[{"subnet": "10.211.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}
  ]
}
`, filepath.Join(d.Dir, "leases"))
}

// Start writes the configuration, starts the daemon and waits until it calls itself ready.
func (d *Daemon) Start(ctx context.Context) error {
	for name, content := range map[string]string{
		"config.toml":             d.config(),
		"registries.conf":         d.Registries,
		"policy.json":             `{"default": [{"type": "insecureAcceptAnything"}]}`,
		"cni/10-critest.conflist": d.network(),
	} {
		path := filepath.Join(d.Dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	for _, dir := range d.StateDirs() {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := d.exec(); err != nil {
		return fmt.Errorf("start daemon: %w", err)
	}
	if err := d.ready(ctx); err != nil {
		return fmt.Errorf("start daemon: %w\n%s", err, d.LogTail())
	}
	return nil
}

func (d *Daemon) exec() error {
	log, err := os.Create(d.LogPath())
	if err != nil {
		return err
	}
	defer log.Close()
	d.cmd = exec.Command(filepath.Join(d.Bin, "criserver"), "--config", filepath.Join(d.Dir, "config.toml"))
	if d.Command != "" {
		d.cmd = exec.Command("/bin/sh", "-c", "exec "+d.Command)
	}
	d.cmd.Env = append(os.Environ(), "CRITEST_DIR="+d.Dir, "CRITEST_SOCKET="+d.Socket(), "CRITEST_REGISTRY="+d.RegistryAddr)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		return err
	}
	d.gone = make(chan error, 1)
	go func() { d.gone <- d.cmd.Wait() }()
	return nil
}

func (d *Daemon) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		err := d.status(ctx)
		if err == nil {
			return nil
		}
		select {
		case exit := <-d.gone:
			d.gone <- exit
			return fmt.Errorf("it ended: %v", exit)
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (d *Daemon) status(ctx context.Context) error {
	runtime, _, err := d.Clients(ctx)
	if err != nil {
		return err
	}
	status, err := runtime.Status(ctx, false)
	if err != nil {
		return err
	}
	for _, c := range status.GetStatus().GetConditions() {
		if !c.GetStatus() {
			return fmt.Errorf("%s: %s: %s", c.GetType(), c.GetReason(), c.GetMessage())
		}
	}
	return nil
}

// Clients connects to the daemon.
func (d *Daemon) Clients(ctx context.Context) (internalapi.RuntimeService, internalapi.ImageManagerService, error) {
	endpoint := "unix://" + d.Socket()
	runtime, err := remote.NewRemoteRuntimeService(ctx, endpoint, time.Minute, nil, false)
	if err != nil {
		return nil, nil, err
	}
	image, err := remote.NewRemoteImageService(ctx, endpoint, time.Minute, nil, false)
	return runtime, image, err
}

// Empty removes all pods and images, and returns how many pods there were: a spec that failed may have left its own.
func (d *Daemon) Empty(ctx context.Context) (pods int, err error) {
	runtime, image, err := d.Clients(ctx)
	if err != nil {
		return 0, err
	}
	left, err := runtime.ListPodSandbox(ctx, nil)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, pod := range left {
		if err := errors.Join(runtime.StopPodSandbox(ctx, pod.GetId()), runtime.RemovePodSandbox(ctx, pod.GetId())); err != nil {
			errs = append(errs, fmt.Errorf("remove pod %q: %w", pod.GetId(), err))
		}
	}
	images, err := image.ListImages(ctx, nil)
	errs = append(errs, err)
	for _, i := range images {
		if err := image.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: i.GetId()}); err != nil {
			errs = append(errs, fmt.Errorf("remove image %q: %w", i.GetId(), err))
		}
	}
	return len(left), errors.Join(errs...)
}

// Stop ends the daemon as a service manager does.
func (d *Daemon) Stop() error {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop daemon: %w", err)
	}
	select {
	case err := <-d.gone:
		if err != nil {
			return fmt.Errorf("stop daemon: it ended with %w", err)
		}
		return nil
	case <-time.After(20 * time.Second):
		_ = d.cmd.Process.Kill()
		<-d.gone
		return errors.New("stop daemon: it did not end within 20 s and was killed")
	}
}

// LogTail returns the last lines of the daemon's log.
func (d *Daemon) LogTail() string {
	log, err := os.ReadFile(d.LogPath())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(log), "\n"), "\n")
	if len(lines) > 40 {
		lines = lines[len(lines)-40:]
	}
	return "daemon's log:\n  " + strings.Join(lines, "\n  ")
}
