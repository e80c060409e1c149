package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Snapshot is all that a runtime may leave behind. Two of them are compared: one taken when the daemon had just started, one when all
// pods and images were removed again.
type Snapshot map[string]string // what it is → where it was found

// podRule recognizes a firewall rule that was made for one pod: the plugins write its id into a comment.
var podRule = regexp.MustCompile(`id: |[0-9a-f]{64}`)

// Take looks at the whole namespace that the run has for itself, and at the cgroups of the machine under the given name.
func Take(dirs []string, cgroupParent string, daemon int) (Snapshot, error) {
	s := Snapshot{}
	for _, look := range []func(Snapshot) error{
		mounts, links, addresses, rules,
		func(s Snapshot) error { return cgroups(s, cgroupParent) },
		func(s Snapshot) error { return files(s, dirs) },
		func(s Snapshot) error { return processes(s, daemon) },
	} {
		if err := look(s); err != nil {
			return nil, fmt.Errorf("look for what is left: %w", err)
		}
	}
	return s, nil
}

// Since lists what is in s and was not in before.
func (s Snapshot) Since(before Snapshot) []string {
	var left []string
	for _, what := range slices.Sorted(maps.Keys(s)) {
		if _, ok := before[what]; !ok {
			left = append(left, what)
		}
	}
	return left
}

func mounts(s Snapshot) error {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	s.addMounts(string(info))
	return nil
}

// addMounts reads a mountinfo file (proc_pid_mountinfo(5)). The key of a mount consists of its mount point, its source and a
// number that counts equal mounts, so that a second mount at the same place and a replaced mount are noticed.
func (s Snapshot) addMounts(info string) {
	for line := range strings.Lines(info) {
		mounted, source, _ := strings.Cut(line, " - ")
		f, from := strings.Fields(mounted), strings.Fields(source)
		if len(f) > 4 && len(from) > 1 {
			s.addOne(fmt.Sprintf("mount %s (%s of %s, root %s)", f[4], from[0], from[1], f[3]), line)
		}
	}
}

// mountPoint returns where the mount is that a line of a mountinfo file shows.
func mountPoint(line string) string {
	if f := strings.Fields(line); len(f) > 4 {
		return f[4]
	}
	return ""
}

// addOne adds one of several things that are alike.
func (s Snapshot) addOne(what, found string) {
	name := what
	for n := 2; ; n++ {
		if _, ok := s[name]; !ok {
			break
		}
		name = fmt.Sprintf("%s, number %d", what, n)
	}
	s[name] = found
}

func links(s Snapshot) error {
	out, err := exec.Command("ip", "-o", "link").Output()
	if err != nil {
		return fmt.Errorf("ip link: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 1 {
			s["network link "+strings.TrimSuffix(f[1], ":")] = line
		}
	}
	return nil
}

func addresses(s Snapshot) error {
	out, err := exec.Command("ip", "-o", "addr").Output()
	if err != nil {
		return fmt.Errorf("ip addr: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		// Those of the link come and go with carriers, as the kernel has it.
		if f := strings.Fields(line); len(f) > 3 && !strings.HasPrefix(f[3], "fe80:") {
			s["address "+f[3]+" of "+f[1]] = line
		}
	}
	return nil
}

func rules(s Snapshot) error {
	out, err := exec.Command("nft", "list", "ruleset").Output()
	if err != nil {
		return fmt.Errorf("nft list ruleset: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); podRule.MatchString(line) {
			s.addOne("firewall rule "+line, line)
		}
	}
	return nil
}

func cgroups(s Snapshot, parent string) error {
	return filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // other people's cgroups come and go
		}
		if d.IsDir() && strings.Contains(path, parent) && isCgroup(path) {
			s["cgroup "+path] = path
		}
		return nil
	})
}

// isCgroup tells a cgroup from a directory in the place of a hierarchy that is not mounted.
func isCgroup(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && (fs.Type == unix.CGROUP_SUPER_MAGIC || fs.Type == unix.CGROUP2_SUPER_MAGIC)
}

// seccompCache is where crun, since 1.9, keeps one compiled filter for each seccomp profile that it has seen,
// for the next container.
const seccompCache = "/runtimes/crun/.cache"

// verdict recognizes the files in which the daemon keeps what trials of an OCI runtime came to. A trial may end
// long after the daemon serves.
var verdict = regexp.MustCompile(`/run/(userns|runtime)-[a-z]+\.json$`)

func files(s Snapshot, dirs []string) error {
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // it went while it was looked at
			}
			if err != nil {
				return err
			}
			if strings.HasSuffix(path, seccompCache) {
				return fs.SkipDir
			}
			if !verdict.MatchString(path) {
				s["file "+path] = path
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// processes lists the descendants of this process except the daemon: this process is the reaper of all that are orphaned, so that
// nothing which the run has started can hide from it.
func processes(s Snapshot, daemon int) error {
	for _, pid := range descendants(os.Getpid()) {
		if pid == daemon {
			continue
		}
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if len(cmdline) == 0 {
			continue // a zombie that nobody has waited for yet, or gone
		}
		if argv0, _, _ := strings.Cut(string(cmdline), "\x00"); filepath.Base(argv0) == "criserver" {
			continue // another daemon of the run
		}
		what := strings.TrimSpace(strings.ReplaceAll(string(cmdline), "\x00", " "))
		s[fmt.Sprintf("process %d %s", pid, what)] = what
	}
	return nil
}

func descendants(root int) []int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		// pid (comm) state ppid …, and comm may hold spaces and parentheses
		rest := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(rest) < 2 {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		parent, _ := strconv.Atoi(rest[1])
		children[parent] = append(children[parent], pid)
	}
	var all []int
	for next := []int{root}; len(next) > 0; next = next[1:] {
		all = append(all, children[next[0]]...)
		next = append(next, children[next[0]]...)
	}
	return all
}
