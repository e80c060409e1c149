package vm

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/criserver/criserver/test/vm/guest"
)

var (
	full        = flag.Bool("full", false, "run all suites in all guests, which takes hours, in place of a selection")
	guestFilter = flag.String("guest", "", "run only guests whose names match this regular expression")
	suiteFilter = flag.String("suite", "", "run only suites whose names match this regular expression, of all that -full has")
	focus       = flag.String("focus", "", "run only tests whose names match this regular expression, in the suites that are Go tests")
	patience    = flag.String("patience", "12", "factor by which the suites prolong their deadlines")
)

// top is the top directory of the project.
var top string

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "vm: building a guest needs root")
		os.Exit(1)
	}
	var err error
	if top, err = filepath.Abs(filepath.Join("..", "..")); err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestGuests runs every guest with its suites.
func TestGuests(t *testing.T) {
	guests, err := regexp.Compile(*guestFilter)
	if err != nil {
		t.Fatal(err)
	}
	suites, err := regexp.Compile(*suiteFilter)
	if err != nil {
		t.Fatal(err)
	}
	results := &table{}
	t.Cleanup(func() { results.print(os.Stdout) })
	var chosen []guestPlan
	for _, p := range plans {
		if p.suites = choose(p, suites); len(p.suites) > 0 && guests.MatchString(p.guest) {
			chosen = append(chosen, p)
		}
	}
	for _, p := range chosen {
		p.alone = p.alone || len(chosen) == 1
		t.Run(cmp.Or(p.name, p.guest), func(t *testing.T) {
			if !p.alone { // the parallel guests wait until this loop has ended
				t.Parallel()
			}
			runGuest(t, p, results)
		})
	}
}

// choose returns the suites of a guest that this run asks for.
func choose(p guestPlan, filter *regexp.Regexp) []suite {
	var chosen []suite
	for _, s := range p.suites {
		named := *suiteFilter != "" && filter.MatchString(s.name)
		long := *full || *guestFilter != "" && p.long
		if named || *suiteFilter == "" && (long && !s.part || !long && !p.long && !s.long) {
			chosen = append(chosen, s)
		}
	}
	return chosen
}

// compiling makes each test binary once, and one after the other: the compiler uses all cores itself.
var compiling sync.Mutex

var compiled = map[string]bool{}

// compile builds the test binaries of the suites for an architecture. It returns the path of each
// binary once, relative to guest.Tree.
func compile(ctx context.Context, arch string, suites []suite) ([]string, error) {
	compiling.Lock()
	defer compiling.Unlock()
	var paths []string
	for _, s := range suites {
		if s.binary == "" {
			continue
		}
		path := filepath.Join(s.dir, s.binary)
		if !compiled[arch+path] {
			out := filepath.Join(guest.Tree(top, arch), path)
			if err := build(ctx, arch, s.dir, "go", "test", "-c", "-trimpath", "-tags", "containers_image_openpgp,nri_no_wasm", "-o", out, "."); err != nil {
				return nil, err
			}
			compiled[arch+path] = true
		}
		if !slices.Contains(paths, path) { // several suites may be parts of one binary
			paths = append(paths, path)
		}
	}
	return paths, nil
}

func build(ctx context.Context, arch, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = filepath.Join(top, dir)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s in %s: %w\n%s", strings.Join(args, " "), dir, err, out)
	}
	return nil
}

// boot builds and boots the guest with the project in it.
func boot(t *testing.T, p guestPlan, reports string) (*guest.Machine, error) {
	ctx := t.Context()
	release, ok := guest.Find(p.guest)
	if !ok {
		return nil, fmt.Errorf("there is no guest %q", p.guest)
	}
	base, err := guest.Build(ctx, filepath.Join(top, ".cache", "vm"), release)
	if err != nil {
		return nil, err
	}
	paths, err := compile(ctx, release.Arch, p.suites)
	if err != nil {
		return nil, err
	}
	dir, err := makeRunDir(t, p.guest)
	if err != nil {
		return nil, err
	}
	agent, work := filepath.Join(dir, "agent"), filepath.Join(dir, "work.ext4")
	if err := build(ctx, release.Arch, "test/vm", "go", "build", "-trimpath", "-o", agent, "./agent"); err != nil {
		return nil, err
	}
	if err := guest.Programs(ctx, top, release.Arch); err != nil {
		return nil, err
	}
	memory := 0
	for _, s := range p.suites {
		memory = max(memory, s.memory)
		for _, path := range s.extra {
			if _, err := os.Stat(filepath.Join(guest.Tree(top, release.Arch), path)); err != nil {
				return nil, fmt.Errorf("suite %s: %w; build the programs with make cluster-tools build-upgrade", s.name, err)
			}
			paths = append(paths, path)
		}
	}
	if err := guest.MakeWork(ctx, guest.Work{Top: top, Arch: release.Arch, Agent: agent, Disk: work, Extra: paths}); err != nil {
		return nil, err
	}
	m, err := guest.Boot(ctx, base, guest.Options{Work: work, Dir: dir, Memory: memory, Alone: p.alone})
	if m != nil {
		t.Cleanup(func() {
			if err := m.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
	if console, err := os.ReadFile(filepath.Join(dir, "console.log")); err == nil && m == nil {
		_ = os.WriteFile(filepath.Join(reports, "console.log"), console, 0o644)
	}
	return m, err
}
