package critest

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/test/harness"
)

// Variant is one way to run the suite: a selection of specs, flags of the suite, and a configuration of the daemon. A
// variant can have a section in the skip file, and has a directory for its reports.
type Variant struct {
	Name     string
	About    string   // description that is printed at the start
	Focus    string   // regular expression; "" for the whole suite
	Binaries []string // additional programs that must be in the PATH
	Repeat   int      // number of runs
	Procs    int      // number of specs that run at a time; 0 for the number of the command line
	// Machine changes the namespaces of the run before anything is started in them.
	Machine func() error
	// Setup changes the daemon before it starts, and returns flags of the suite.
	Setup func(d *harness.Daemon) (flags []string)
	// Check checks the log of the daemon after the suite has ended.
	Check func(log string) error
}

// flagsSpec matches the spec of this package that compares the flags of the suite with the flags of the variant.
const flagsSpec = `\[criserver\] Variant`

// Variants are the runs of `make critest`.
var Variants = []Variant{
	{Name: "default", About: "runc, streams over SPDY"},
	{
		Name:  "websocket",
		About: "exec, attach and port forward over WebSocket",
		Focus: `\[k8s\.io\] Streaming|` + flagsSpec,
		Setup: func(*harness.Daemon) []string {
			return []string{"websocket-exec=true", "websocket-attach=true", "websocket-portforward=true"}
		},
		Check: onlyWebSockets,
	},
	{
		Name:     "crun",
		About:    "crun as the default runtime",
		Binaries: []string{"crun"},
		Machine:  withoutHybrid,
		Setup:    func(d *harness.Daemon) []string { d.Runtime = "crun"; return nil },
		Check:    runtimeChosen("crun"),
	},
}

// LongVariants are the runs of `make test-full`: more specs at a time, each run in another random order.
var LongVariants = []Variant{
	{Name: "default", About: "runc, several runs, more specs at a time", Repeat: 3, Procs: 8},
}

// find returns the variant with a name.
func find(list []Variant, name string) (Variant, error) {
	i := slices.IndexFunc(list, func(v Variant) bool { return v.Name == name })
	if i < 0 {
		names := make([]string, len(list))
		for i, v := range list {
			names[i] = v.Name
		}
		return Variant{}, fmt.Errorf("no variant %q; there are %s", name, strings.Join(names, ", "))
	}
	return list[i], nil
}

// unified is the mount point of the cgroup v2 hierarchy in a hybrid layout.
const unified = "/sys/fs/cgroup/unified"

// withoutHybrid unmounts the cgroup v2 hierarchy of a hybrid layout in the mount namespace of this
// run, because crun 1.8 refuses hybrid layouts. crun creates directories on the mount point and
// does not remove them, so withoutHybrid mounts a tmpfs there, which ends with the run.
func withoutHybrid() error {
	var fs unix.Statfs_t
	err := unix.Statfs(unified, &fs)
	if errors.Is(err, unix.ENOENT) || err == nil && fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return nil
	}
	if err == nil {
		err = unix.Unmount(unified, unix.MNT_DETACH)
	}
	if err == nil {
		err = unix.Mount("tmpfs", unified, "tmpfs", 0, "")
	}
	if err != nil {
		return fmt.Errorf("hide %s: %w", unified, err)
	}
	return nil
}

var streamOpened = regexp.MustCompile(`endpoint="?(?:GET|POST) /(\w+)/\{token\}"? .*transport=(\w+)`)

// onlyWebSockets returns an error unless the log has WebSocket streams of each kind, and no SPDY streams.
func onlyWebSockets(log string) error {
	seen := map[string]int{}
	for _, m := range streamOpened.FindAllStringSubmatch(log, -1) {
		seen[m[1]+" over "+m[2]]++
	}
	var errs []error
	for _, kind := range []string{"exec", "attach", "portforward"} {
		if seen[kind+" over websocket"] == 0 {
			errs = append(errs, fmt.Errorf("the log has no %s over a WebSocket", kind))
		}
		if n := seen[kind+" over spdy"]; n > 0 {
			errs = append(errs, fmt.Errorf("the log has %d %s streams over SPDY", n, kind))
		}
	}
	fmt.Printf("streams in the log: %v\n", seen)
	return errors.Join(errs...)
}

// runtimeChosen returns a check that the daemon chose this runtime as its default.
func runtimeChosen(runtime string) func(log string) error {
	want := regexp.MustCompile(`OCI runtime chosen.* runtime=` + runtime + `\b`)
	return func(log string) error {
		if !want.MatchString(log) {
			return fmt.Errorf("the daemon did not choose %s", runtime)
		}
		return nil
	}
}
