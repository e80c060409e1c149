package critest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/criserver/criserver/test/harness"
	"github.com/criserver/criserver/test/images"
)

// What the third stage, and only that, is told: where the daemon listens, where the test images are.
const (
	endpointVariable = "CRITEST_ENDPOINT"
	imagesVariable   = "CRITEST_IMAGES"
	flagsVariable    = "CRITEST_FLAGS" // and which flags it must have
)

// nriFlag has a suite that knows it, which cri-tools v1.36.0 does not, run its specs of NRI too.
const nriFlag = "nri-socket"

// Options are the flags of a run.
type Options struct {
	Variant   Variant
	Focus     string // regular expression in place of the variant's own
	Skips     string // path of the skip file
	Procs     int    // how many specs run at a time
	Bin       string // directory of the binaries
	Images    string // directory of the test images
	ReportDir string // gets the variant's critest.junit.xml, critest.json and daemon.log
	Daemon    string // shell command that starts another runtime in place of criserver
	List      bool   // print the specs, run nothing
}

// Run is the second stage: everything from the registry to the search for leaks. It must be in namespaces of its own.
func Run(ctx context.Context, o Options) (err error) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()

	dir, err := os.MkdirTemp("", "critest")
	if err == nil {
		err = os.Chmod(dir, 0o711) // as /run and /var/lib let everybody through
	}
	if err == nil {
		err = harness.LabelState(dir)
	}
	if err != nil {
		return err
	}
	if o.Variant.Machine != nil {
		if err := o.Variant.Machine(); err != nil {
			return err
		}
	}
	d := &harness.Daemon{Bin: o.Bin, Dir: dir, Command: o.Daemon, CgroupParent: "/" + filepath.Base(dir)}
	if err := errors.Join(harness.SetUpHost(), harness.Tmpfs(filepath.Join(dir, "run"))); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, harness.CleanUp(dir, d.CgroupParent)) }()

	addr, err := serve(o.Images)
	if err != nil {
		return err
	}
	if err := os.Setenv("CRITEST_REGISTRY", addr); err != nil { // for another runtime's start script
		return err
	}
	d.Registries = images.RegistriesConf(addr)
	d.Network = d.Bridge("critest0", "10.211.0.0/16")
	var flags []string
	if o.Variant.Setup != nil {
		flags = o.Variant.Setup(d)
	}
	if flag.Lookup(nriFlag) != nil {
		flags = append(flags, nriFlag+"="+d.NRISocket())
	}
	defer keepLog(d, o.ReportDir)
	if err := d.Start(ctx); err != nil {
		return err
	}
	return underTest(ctx, o, d, flags)
}

// underTest is the run from the moment the daemon serves until it is stopped.
func underTest(ctx context.Context, o Options, d *harness.Daemon, flags []string) error {
	c, err := connect(ctx, d.Socket())
	if err != nil {
		return err
	}
	// What is made once and stays (the bridge, the plugins' chains, directories) is no leak: one pod brings it forth.
	if err := errors.Join(c.ready(ctx), c.onePod(ctx)); err != nil {
		return fmt.Errorf("first pod: %w\n%s", err, d.LogTail())
	}
	before, err := harness.Take(d.StateDirs(), d.CgroupParent, d.Pid())
	if err != nil {
		return err
	}
	return errors.Join(suite(o, d, flags), leaks(ctx, d, c, before), d.Stop(), checkLog(o, d))
}

// checkLog is the variant's own look at the daemon's log. A run of chosen specs says nothing of what all of them would have left there.
func checkLog(o Options, d *harness.Daemon) error {
	if o.Variant.Check == nil || o.Focus != "" || o.Daemon != "" {
		return nil
	}
	log, err := os.ReadFile(d.LogPath())
	if err != nil {
		return err
	}
	return o.Variant.Check(string(log))
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
	go http.Serve(l, handler) // it serves until the process ends
	return l.Addr().String(), nil
}

// suite is the third stage, and what came of it.
func suite(o Options, d *harness.Daemon, flags []string) error {
	want, err := o.expectation()
	if err != nil {
		return err
	}
	tmp := filepath.Join(d.Dir, "tmp")
	for _, dir := range []string{o.ReportDir, tmp} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	report := filepath.Join(o.ReportDir, "critest.json")
	if err := os.Remove(report); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	start := time.Now()
	ran := runGinkgo(o, want, flags,
		endpointVariable+"=unix://"+d.Socket(), imagesVariable+"="+o.Images, flagsVariable+"="+strings.Join(flags, " "), "TMPDIR="+tmp)

	result, err := ReadResult(report, want)
	if err != nil {
		return errors.Join(ran, err)
	}
	fmt.Printf("\ncritest took %s\n", time.Since(start).Round(time.Second))
	result.Print(os.Stdout, o.Variant.Name)
	return errors.Join(ran, result.Err())
}

func (o Options) expectation() (e Expectation, err error) {
	if e.Skips, err = ReadSkips(o.Skips, o.Variant.Name); err != nil {
		return e, err
	}
	focus := o.Variant.Focus
	if o.Focus != "" {
		focus = o.Focus
	}
	if focus != "" {
		e.Focus, err = regexp.Compile(focus)
	}
	return e, err
}

// runGinkgo starts the suite: straight when one spec runs at a time, through ginkgo's own command when several do.
func runGinkgo(o Options, want Expectation, own []string, env ...string) error {
	flags := map[string][]string{
		"junit-report":  {filepath.Join(o.ReportDir, "critest.junit.xml")},
		"json-report":   {filepath.Join(o.ReportDir, "critest.json")},
		"randomize-all": {"true"},
		"timeout":       {"25m"},
		"succinct":      {"true"},
		"silence-skips": {"true"},
		"no-color":      {"true"},
	}
	if want.Focus != nil {
		flags["focus"] = []string{want.Focus.String()}
	}
	for _, s := range want.Skips {
		if s.Kind == omit {
			flags["skip"] = append(flags["skip"], s.Pattern.String())
		}
	}
	for i, f := range own {
		own[i] = "-" + f
	}
	if o.Procs <= 1 {
		return harness.Again("suite", nil, env, append(arguments("-ginkgo.", flags), own...)...)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// It was built beforehand: from in here no module could be fetched.
	args := append(arguments("-", flags), fmt.Sprintf("-procs=%d", o.Procs), self, "--")
	args = append(args, own...)
	cmd := exec.Command(filepath.Join(o.Bin, "ginkgo"), args...)
	cmd.Env = append(os.Environ(), env...)
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
func leaks(ctx context.Context, d *harness.Daemon, c *clients, before harness.Snapshot) error {
	pods, err := c.empty(ctx)
	if err != nil {
		return err
	}
	if pods > 0 {
		fmt.Printf("the suite left %d pods behind, removed now\n", pods)
	}
	var left []string
	// Monitors and plugins may need a moment to end.
	for end := time.Now().Add(harness.Patience(5 * time.Second)); ; time.Sleep(250 * time.Millisecond) {
		after, err := harness.Take(d.StateDirs(), d.CgroupParent, d.Pid())
		if err != nil {
			return err
		}
		if left = after.Since(before); len(left) == 0 {
			fmt.Println("nothing is left behind: no process, mount, link, rule, cgroup or file")
			return nil
		}
		if time.Now().After(end) {
			break
		}
	}
	return fmt.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
}

func keepLog(d *harness.Daemon, dir string) {
	if log, err := os.ReadFile(d.LogPath()); err == nil {
		_ = os.WriteFile(filepath.Join(dir, "daemon.log"), log, 0o644)
	}
}
