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

// Snapshot is the set of objects that a runtime may leak, by their description.
// The value is the line or path where the object was found. A test compares a
// snapshot from the start of the daemon with one after the removal of all pods
// and images.
type Snapshot map[string]string

// podRule matches a firewall rule of a pod: the CNI plugins write the pod's id into a comment.
var podRule = regexp.MustCompile(`id: |[0-9a-f]{64}`)

// Take returns the objects in the namespaces of the run, the files below dirs, and
// the cgroups of the machine whose path contains cgroupParent.
func Take(dirs []string, cgroupParent string, daemon int) (Snapshot, error) {
	s := Snapshot{}
	for _, add := range []func(Snapshot) error{
		addMounts, addLinks, addAddresses, addRules,
		func(s Snapshot) error { return addCgroups(s, cgroupParent) },
		func(s Snapshot) error { return addFiles(s, dirs) },
		func(s Snapshot) error { return addProcesses(s, daemon) },
	} {
		if err := add(s); err != nil {
			return nil, fmt.Errorf("take snapshot: %w", err)
		}
	}
	return s, nil
}

// Since returns the descriptions that are in s and not in before.
func (s Snapshot) Since(before Snapshot) []string {
	var added []string
	for _, what := range slices.Sorted(maps.Keys(s)) {
		if _, ok := before[what]; !ok {
			added = append(added, what)
		}
	}
	return added
}

func addMounts(s Snapshot) error {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	s.addMountInfo(string(info))
	return nil
}

// addMountInfo adds the mounts of a mountinfo file (proc_pid_mountinfo(5)). The key
// of a mount has its mount point, its source, and a number that counts equal
// mounts, so that a second mount at the same place and a replaced mount are found.
func (s Snapshot) addMountInfo(info string) {
	for line := range strings.Lines(info) {
		mounted, source, _ := strings.Cut(line, " - ")
		f, from := strings.Fields(mounted), strings.Fields(source)
		if len(f) > 4 && len(from) > 1 {
			s.addOne(fmt.Sprintf("mount %s (%s of %s, root %s)", f[4], from[0], from[1], f[3]), line)
		}
	}
}

// mountPoint returns the mount point in a line of a mountinfo file.
func mountPoint(line string) string {
	if f := strings.Fields(line); len(f) > 4 {
		return f[4]
	}
	return ""
}

// addOne adds an object whose description may not be unique.
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

func addLinks(s Snapshot) error {
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

func addAddresses(s Snapshot) error {
	out, err := exec.Command("ip", "-o", "addr").Output()
	if err != nil {
		return fmt.Errorf("ip addr: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		// The kernel adds and removes link-local addresses with the carrier.
		if f := strings.Fields(line); len(f) > 3 && !strings.HasPrefix(f[3], "fe80:") {
			s["address "+f[3]+" of "+f[1]] = line
		}
	}
	return nil
}

func addRules(s Snapshot) error {
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

func addCgroups(s Snapshot, parent string) error {
	return filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // cgroups of other programs may disappear during the walk
		}
		if d.IsDir() && strings.Contains(path, parent) && isCgroup(path) {
			s["cgroup "+path] = path
		}
		return nil
	})
}

// isCgroup reports whether path is a cgroup, and not a directory on which no hierarchy is mounted.
func isCgroup(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && (fs.Type == unix.CGROUP_SUPER_MAGIC || fs.Type == unix.CGROUP2_SUPER_MAGIC)
}

// seccompCache is the directory in which crun, since 1.9, keeps one compiled filter
// per seccomp profile for later containers.
const seccompCache = "/runtimes/crun/.cache"

// trialResult matches the files with the results of trials of an OCI runtime. A
// trial may end long after the daemon has begun to serve.
var trialResult = regexp.MustCompile(`/run/(userns|usernshost|runtime)-[a-z]+\.json$`)

func addFiles(s Snapshot, dirs []string) error {
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // the file was removed during the walk
			}
			if err != nil {
				return err
			}
			if strings.HasSuffix(path, seccompCache) {
				return fs.SkipDir
			}
			if !trialResult.MatchString(path) {
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

// addProcesses adds the descendants of this process except the daemon. This process
// is the subreaper of the run, so all processes of the run are its descendants.
func addProcesses(s Snapshot, daemon int) error {
	for _, pid := range descendants(os.Getpid()) {
		if pid == daemon {
			continue
		}
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if len(cmdline) == 0 {
			continue // a zombie, or a process that has been reaped
		}
		if argv0, _, _ := strings.Cut(string(cmdline), "\x00"); filepath.Base(argv0) == "criserver" {
			continue // another daemon of the run
		}
		what := strings.TrimSpace(strings.ReplaceAll(string(cmdline), "\x00", " "))
		s[fmt.Sprintf("process %d %s", pid, what)] = what
	}
	return nil
}

// descendants returns all descendants of a process.
func descendants(root int) []int {
	below := processTree()
	var all []int
	for next := []int{root}; len(next) > 0; next = next[1:] {
		all = append(all, below[next[0]]...)
		next = append(next, below[next[0]]...)
	}
	return all
}

// children returns the children of a process.
func children(parent int) []int { return processTree()[parent] }

// processTree returns the children of each process.
func processTree() map[int][]int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		// The format is "pid (comm) state ppid …"; comm may contain spaces and parentheses.
		rest := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(rest) < 2 {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		parent, _ := strconv.Atoi(rest[1])
		children[parent] = append(children[parent], pid)
	}
	return children
}
