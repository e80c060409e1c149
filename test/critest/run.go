package critest

import (
	"context"
	"errors"
	"flag"
	"fmt"
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

// Environment variables of the third stage.
const (
	endpointVariable = "CRITEST_ENDPOINT" // address of the runtime
	imagesVariable   = "CRITEST_IMAGES"   // directory of the test images
	flagsVariable    = "CRITEST_FLAGS"    // flags that the suite must have
)

// dirPrefix begins the names of the directories and cgroups of runs.
const dirPrefix = "critest"

// nriFlag is the flag with the socket for the NRI specs, which cri-tools v1.36.0 does not have yet.
const nriFlag = "nri-socket"

// Options are the flags of a run.
type Options struct {
	Variant   Variant
	Focus     string // regular expression in place of the variant's
	Skips     string // path of the skip file
	Procs     int    // number of specs that run at a time
	Bin       string // directory of the binaries
	Images    string // directory of the test images
	ReportDir string // directory for critest.junit.xml, critest.json and daemon.log
	Daemon    string // shell command that starts another runtime in place of criserver
	List      bool   // print the specs without running them
}

// Run runs the second stage, from the start of the registry to the search for leaks, in the namespaces of the run.
func Run(ctx context.Context, o Options) (err error) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()

	dir, lock, err := harness.MakeRunDir(dirPrefix)
	if err == nil {
		defer lock.Close()
		err = os.Chmod(dir, 0o711) // like /run and /var/lib: users of pods with a user namespace must be able to enter
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

	addr, err := images.Serve(o.Images, "127.0.0.1:0")
	if err != nil {
		return err
	}
	if err := os.Setenv("CRITEST_REGISTRY", addr); err != nil { // for the shell command of another runtime
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
	defer copyLog(d, o.ReportDir)
	if err := d.Start(ctx); err != nil {
		return err
	}
	return runSuite(ctx, o, d, flags)
}

// runSuite runs the suite against a running daemon, searches for leaks and stops the daemon.
func runSuite(ctx context.Context, o Options, d *harness.Daemon, flags []string) error {
	c, err := connect(ctx, d.Socket())
	if err != nil {
		return err
	}
	// The first pod creates objects that remain and are not leaks: the bridge, chains of the plugins, directories.
	if err := errors.Join(c.waitReady(ctx), c.runFirstPod(ctx)); err != nil {
		return fmt.Errorf("first pod: %w\n%s", err, d.LogTail())
	}
	before, err := harness.Take(d.StateDirs(), d.CgroupParent, d.Pid())
	if err != nil {
		return err
	}
	return errors.Join(suite(o, d, flags), checkLeaks(ctx, d, c, before), d.Stop(), checkLog(o, d))
}

// checkLog calls the variant's check of the daemon's log. It does nothing if -focus selected specs, because the check
// expects the log entries of all specs.
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

// suite runs the third stage and checks its results.
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
	runErr := runGinkgo(o, want, flags,
		endpointVariable+"=unix://"+d.Socket(), imagesVariable+"="+o.Images, flagsVariable+"="+strings.Join(flags, " "), "TMPDIR="+tmp)

	result, err := ReadResult(report, want)
	if err != nil {
		return errors.Join(runErr, err)
	}
	fmt.Printf("\ncritest took %s\n", time.Since(start).Round(time.Second))
	result.Print(os.Stdout, o.Variant.Name)
	return errors.Join(runErr, result.Err())
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

// runGinkgo runs the suite, directly if one spec runs at a time, and otherwise with the ginkgo command.
func runGinkgo(o Options, want Expectation, suiteFlags []string, env ...string) error {
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
	for i, f := range suiteFlags {
		suiteFlags[i] = "-" + f
	}
	if o.Procs <= 1 {
		return harness.Again("suite", nil, env, append(arguments("-ginkgo.", flags), suiteFlags...)...)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// The test binary is passed to ginkgo, because modules cannot be downloaded in this network namespace.
	args := append(arguments("-", flags), fmt.Sprintf("-procs=%d", o.Procs), self, "--")
	args = append(args, suiteFlags...)
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

// checkLeaks removes all pods and images, and returns an error if other objects remain.
func checkLeaks(ctx context.Context, d *harness.Daemon, c *clients, before harness.Snapshot) error {
	pods, err := c.removeAll(ctx)
	if err != nil {
		return err
	}
	if pods > 0 {
		fmt.Printf("removed %d pods that the suite left\n", pods)
	}
	var leaked []string
	// Monitors and plugins may take a moment to exit.
	for end := time.Now().Add(harness.Patience(5 * time.Second)); ; time.Sleep(250 * time.Millisecond) {
		after, err := harness.Take(d.StateDirs(), d.CgroupParent, d.Pid())
		if err != nil {
			return err
		}
		if leaked = after.Since(before); len(leaked) == 0 {
			fmt.Println("no leaks of processes, mounts, links, rules, cgroups or files")
			return nil
		}
		if time.Now().After(end) {
			break
		}
	}
	return fmt.Errorf("leaks:\n  %s", strings.Join(leaked, "\n  "))
}

// copyLog copies the log of the daemon into the report.
func copyLog(d *harness.Daemon, dir string) {
	if log, err := os.ReadFile(d.LogPath()); err == nil {
		_ = os.WriteFile(filepath.Join(dir, "daemon.log"), log, 0o644)
	}
}
