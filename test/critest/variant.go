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

// Variant is one way to run the suite: which specs, with which of its flags, against a daemon that was set up how. Its skips are a section
// of the skip file, and its reports a directory.
type Variant struct {
	Name     string
	About    string   // for people
	Focus    string   // regular expression; "" for the whole suite
	Binaries []string // that must be there besides those of every run; a name without a slash is looked for in the PATH
	Repeat   int      // how often a long run runs it
	Procs    int      // how many specs run at a time; 0 for what the command line says
	// Machine changes the run's own namespaces before anything is started in them.
	Machine func() error
	// Setup changes the daemon before it starts, and returns flags of the suite.
	Setup func(d *harness.Daemon) (flags []string)
	// Check looks at the daemon's log once the suite has ended: what only the daemon can know.
	Check func(log string) error
}

// flagsSpec is the spec of this package that compares the flags of a variant with those that the suite really has.
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
		Check:    chosen("crun"),
	},
}

// LongVariants are those of `make test-full`: more specs at a time, each run in another order.
var LongVariants = []Variant{
	{Name: "default", About: "runc, again and again, crowded", Repeat: 3, Procs: 8},
}

// find returns the variant of a name.
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

// unified is where a hybrid layout keeps the controllers that are in use with cgroup v2.
const unified = "/sys/fs/cgroup/unified"

// withoutHybrid takes the cgroup v2 part of a hybrid layout, with which crun 1.8 refuses to work, out of this run's mount namespace. In its
// place crun makes directories as if it were there, and leaves them: they are to go with the run.
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

var opened = regexp.MustCompile(`endpoint="?(?:GET|POST) /(\w+)/\{token\}"? .*transport=(\w+)`)

// onlyWebSockets demands that the daemon has seen streams of each kind, and none over SPDY.
func onlyWebSockets(log string) error {
	seen := map[string]int{}
	for _, m := range opened.FindAllStringSubmatch(log, -1) {
		seen[m[1]+" over "+m[2]]++
	}
	var errs []error
	for _, kind := range []string{"exec", "attach", "portforward"} {
		if seen[kind+" over websocket"] == 0 {
			errs = append(errs, fmt.Errorf("the daemon has seen no %s over a WebSocket", kind))
		}
		if n := seen[kind+" over spdy"]; n > 0 {
			errs = append(errs, fmt.Errorf("the daemon has seen %d of %s over SPDY", n, kind))
		}
	}
	fmt.Printf("streams that the daemon has seen: %v\n", seen)
	return errors.Join(errs...)
}

// chosen demands that the daemon has taken this runtime as its default.
func chosen(runtime string) func(log string) error {
	want := regexp.MustCompile(`OCI runtime chosen.* runtime=` + runtime + `\b`)
	return func(log string) error {
		if !want.MatchString(log) {
			return fmt.Errorf("the daemon has not chosen %s", runtime)
		}
		return nil
	}
}
