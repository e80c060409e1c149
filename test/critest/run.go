package critest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/images"
)

// Options are the flags of a run.
type Options struct {
	Focus     string // regular expression; only specs that match are run
	Skips     string // path of the skip file
	Procs     int    // how many specs run at a time
	Bin       string // directory of the binaries
	Images    string // directory of the test images
	ReportDir string // gets critest.junit.xml, critest.json and daemon.log
	Daemon    string // shell command that starts another runtime in place of criserver
	List      bool   // print the specs, run nothing
}

// Run is the second stage: everything from the registry to the search for leaks. It must be in namespaces of its own.
func Run(ctx context.Context, o Options) (err error) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()

	dir, err := os.MkdirTemp("", "critest")
	if err != nil {
		return err
	}
	d := &Daemon{Bin: o.Bin, Dir: dir, Command: o.Daemon, CgroupParent: "/" + filepath.Base(dir)}
	if err := Settle(filepath.Join(dir, "run")); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, Sweep(dir, d.CgroupParent)) }()

	if d.RegistryAddr, err = serve(o.Images); err != nil {
		return err
	}
	d.Registries = images.RegistriesConf(d.RegistryAddr)
	if err := d.Start(ctx); err != nil {
		return err
	}
	defer keepLog(d, o.ReportDir)

	// What is made once and stays (the bridge, the plugins' chains, directories) is no leak: one pod brings it forth.
	if err := onePod(ctx, d); err != nil {
		return fmt.Errorf("first pod: %w\n%s", err, d.LogTail())
	}
	before, err := Take(d.StateDirs(), d.CgroupParent, d.Pid())
	if err != nil {
		return err
	}
	return errors.Join(suite(ctx, o, d), leaks(ctx, d, before), d.Stop())
}

func serve(dir string) (addr string, err error) {
	handler, err := images.Handler(dir)
	if err != nil {
		return "", err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go http.Serve(l, handler) //nolint:errcheck // it serves until the process ends
	return l.Addr().String(), nil
}

// onePod makes and removes a pod with a container, and the image of it.
func onePod(ctx context.Context, d *Daemon) error {
	runtime, image, err := d.Clients(ctx)
	if err != nil {
		return err
	}
	pod := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: "first", Namespace: "critest", Uid: "first"},
		Linux:        &runtimeapi.LinuxPodSandboxConfig{},
		PortMappings: []*runtimeapi.PortMapping{{ContainerPort: 80, HostPort: 12000}},
	}
	spec := &runtimeapi.ImageSpec{Image: "registry.k8s.io/e2e-test-images/busybox:1.29-2"}
	ref, err := image.PullImage(ctx, spec, nil, pod)
	if err != nil {
		return err
	}
	id, err := runtime.RunPodSandbox(ctx, pod, "")
	if err != nil {
		return err
	}
	container, err := runtime.CreateContainer(ctx, id, &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "first"},
		Image:    &runtimeapi.ImageSpec{Image: ref, UserSpecifiedImage: spec.Image},
		Command:  []string{"true"},
		Linux:    &runtimeapi.LinuxContainerConfig{},
	}, pod)
	if err != nil {
		return err
	}
	if err := runtime.StartContainer(ctx, container); err != nil {
		return err
	}
	_, err = d.Empty(ctx)
	return err
}

// suite is the third stage, and what came of it.
func suite(ctx context.Context, o Options, d *Daemon) error {
	skips, err := ReadSkips(o.Skips)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.ReportDir, 0o755); err != nil {
		return err
	}
	report := filepath.Join(o.ReportDir, "critest.json")
	if err := os.Remove(report); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	tmp := filepath.Join(d.Dir, "tmp")
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return err
	}
	start := time.Now()
	ran := runGinkgo(o, skips, "CRITEST_ENDPOINT=unix://"+d.Socket(), "TMPDIR="+tmp)

	result, err := ReadResult(report, skips)
	if err != nil {
		return errors.Join(ran, err)
	}
	if unused := Unused(skips, result.Specs); len(unused) > 0 {
		err = fmt.Errorf("skips that match no spec: %s", strings.Join(unused, ", "))
	}
	fmt.Printf("\ncritest took %s\n", time.Since(start).Round(time.Second))
	result.Print(os.Stdout)
	switch {
	case result.Failed > 0:
		return errors.Join(fmt.Errorf("%d specs failed", result.Failed), err)
	case result.Passed == 0:
		return errors.Join(errors.New("no spec passed"), ran, err)
	}
	return errors.Join(ran, err)
}

// runGinkgo starts the suite: straight when one spec runs at a time, through ginkgo's own command when several do.
func runGinkgo(o Options, skips []Skip, env ...string) error {
	flags := map[string][]string{
		"junit-report":  {filepath.Join(o.ReportDir, "critest.junit.xml")},
		"json-report":   {filepath.Join(o.ReportDir, "critest.json")},
		"randomize-all": {"true"},
		"timeout":       {"25m"},
		"succinct":      {"true"},
		"silence-skips": {"true"},
		"no-color":      {"true"},
	}
	if o.Focus != "" {
		flags["focus"] = []string{o.Focus}
	}
	for _, s := range skips {
		flags["skip"] = append(flags["skip"], s.Pattern.String())
	}
	if o.Procs <= 1 {
		return again("suite", nil, env, arguments("-ginkgo.", flags)...)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := append([]string{"run", "github.com/onsi/ginkgo/v2/ginkgo"}, arguments("-", flags)...)
	cmd := exec.Command("go", append(args, fmt.Sprintf("-procs=%d", o.Procs), self)...)
	cmd.Env = append(append(os.Environ(), stageVariable+"=suite"), env...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

func arguments(prefix string, flags map[string][]string) []string {
	var args []string
	for name, values := range flags {
		for _, v := range values {
			args = append(args, prefix+name+"="+v)
		}
	}
	return args
}

// leaks removes all that the suite has left in the runtime's care, and compares.
func leaks(ctx context.Context, d *Daemon, before Snapshot) error {
	pods, err := d.Empty(ctx)
	if err != nil {
		return err
	}
	if pods > 0 {
		fmt.Printf("the suite left %d pods behind, removed now\n", pods)
	}
	var left []string
	for range 20 { // monitors and plugins may still be on their way out
		after, err := Take(d.StateDirs(), d.CgroupParent, d.Pid())
		if err != nil {
			return err
		}
		if left = after.Since(before); len(left) == 0 {
			fmt.Println("nothing is left behind: no process, mount, link, rule, cgroup or file")
			return nil
		}
		time.Sleep(250 * time.Millisecond)
	}
	return fmt.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
}

func keepLog(d *Daemon, dir string) {
	if log, err := os.ReadFile(d.LogPath()); err == nil {
		_ = os.WriteFile(filepath.Join(dir, "daemon.log"), log, 0o644)
	}
}
