// Package oom finds out whether the OOM killer of the kernel ended a container.
package oom

import (
	"bytes"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/monitor/sys"
)

const cgroupRoot = "/sys/fs/cgroup"

// oomWindow is how long before the end of a container an OOM kill still counts
// as the cause of the end. A killed process needs time to give its memory back
// before it ends, and the container's first process needs time to react to the
// death of a child.
const oomWindow = 10 * time.Second

// Watch counts the processes that the OOM killer ended in a container's
// memory cgroup.
//
// On cgroup v2 with the systemd driver the cgroup may vanish as soon as its last
// process has ended: systemd removes the empty scope, possibly before the
// monitor reads the count. Therefore the monitor keeps the file of the cgroup's
// events open from the creation of the container on, and the kernel reports each
// change of the file. Two changes within 10 ms are one report for the kernel, so
// the monitor can miss a kill before the file is deleted. Then the count of the
// nearest cgroup that lasts decides, which includes the cgroups below. One wrong
// answer remains possible: the file is deleted, a SIGKILL by another process ended the
// container, and another container of the pod had an OOM kill since the last
// change of this container's events.
//
// On cgroup v1 only the OCI runtime's delete removes the cgroup, so the monitor
// reads the count once, at the end of the container.
type Watch struct {
	poll        *sys.Poller
	file        string // counts the OOM kills in the container's cgroup; "" if unknown
	fd          int    // file, open; -1 on v1
	kills       uint64 // last count read from file
	killedAt    time.Time
	parent      string // counts the kills below the nearest cgroup that lasts; "" on v1
	parentKills uint64
	buf         [512]byte // holds the content of one of the files
}

// oomFiles returns the files that count the OOM kills of a process: the file of the
// cgroup of the process, and on v2 also the file of the nearest parent that still
// exists when the process has ended. b is the content of /proc/PID/cgroup, whose
// lines are "hierarchy:controllers:path". A machine has the memory controller either on v1
// or on v2.
func oomFiles(b []byte) (file, parent string) {
	var v1, v2 []byte
	for len(b) > 0 {
		line, rest, _ := bytes.Cut(b, []byte("\n"))
		b = rest
		hierarchy, line, _ := bytes.Cut(line, []byte(":"))
		controllers, path, _ := bytes.Cut(line, []byte(":"))
		switch {
		case string(hierarchy) == "0" && len(controllers) == 0:
			v2 = path
		case hasWord(controllers, "memory"):
			v1 = path
		}
	}
	switch {
	case len(v1) > 0:
		return cgroupRoot + "/memory" + string(v1) + "/memory.oom_control", ""
	case len(v2) > 0:
		return cgroupRoot + string(v2) + "/memory.events", cgroupRoot + string(persistentParent(v2)) + "/memory.events"
	}
	return "", ""
}

// persistentParent returns the nearest slice above a cgroup, or else the parent. A
// runtime may put the container into a cgroup below its scope, and systemd
// removes both.
func persistentParent(path []byte) []byte {
	parent := path[:max(0, bytes.LastIndexByte(path, '/'))]
	for p := parent; len(p) > 0; p = p[:max(0, bytes.LastIndexByte(p, '/'))] {
		if bytes.HasSuffix(p, []byte(".slice")) {
			return p
		}
	}
	return parent
}

// hasWord reports whether a list that is separated by commas has the word.
func hasWord(list []byte, word string) bool {
	for len(list) > 0 {
		first, rest, _ := bytes.Cut(list, []byte(","))
		if string(first) == word {
			return true
		}
		list = rest
	}
	return false
}

// New returns a Watch of no container. Reports of the kernel arrive through poll.
func New(poll *sys.Poller) Watch { return Watch{poll: poll, fd: -1} }

// Find looks up the cgroup of the container's first process. The process has
// not begun to run the container's program, so it cannot have moved to another
// cgroup. buf is scratch space.
func (o *Watch) Find(pid int, buf []byte) {
	b, err := sys.ReadFile("/proc/"+strconv.Itoa(pid)+"/cgroup", buf)
	if err != nil {
		return
	}
	o.open(oomFiles(b))
}

func (o *Watch) open(file, parent string) {
	if o.file, o.parent = file, parent; parent == "" {
		return
	}
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	o.fd = fd
	o.parentKills, _ = o.readKills(parent)
	o.update()
}

// Start has the kernel report changes. Without reports, KilledContainer still reads the
// counts.
func (o *Watch) Start() {
	if o.fd >= 0 {
		_ = o.poll.Add(o.fd, unix.EPOLLPRI, o)
	}
}

// Ready is called when the events of the cgroup have changed, or when the cgroup
// was removed.
func (o *Watch) Ready(uint32) {
	if !o.update() {
		o.poll.Remove(o.fd) // the kernel reports a removed cgroup without end
	}
}

// update reads the counts, and returns false when the container's file cannot be
// read. The count of the parent comes first: a kill between the two reads is
// then in the count of the container.
func (o *Watch) update() bool {
	parentKills, parentErr := o.readKills(o.parent)
	n, err := unix.Pread(o.fd, o.buf[:], 0)
	if err != nil {
		return false
	}
	if parentErr == nil {
		o.parentKills = parentKills
	}
	o.noteKills(parseKills(o.buf[:n]))
	return true
}

func (o *Watch) noteKills(kills uint64) {
	if kills > o.kills {
		o.kills, o.killedAt = kills, time.Now()
	}
}

// KilledContainer reports whether the OOM killer ended the container. It must be called at
// once when the first process has ended, because the files may vanish. The OOM
// killer may have killed the first process, or a child whose death the first
// process reported as its own exit status, as a shell does.
func (o *Watch) KilledContainer(status unix.WaitStatus, known bool) bool {
	switch {
	case o.file == "":
		return false
	case o.fd < 0:
		if kills, err := o.readKills(o.file); err == nil {
			o.noteKills(kills)
		}
	case !o.update():
		if kills, err := o.readKills(o.parent); err == nil && kills > o.parentKills {
			o.killedAt = time.Now()
		}
	}
	o.close()
	const killed = 128 + int(unix.SIGKILL)
	if known && status.Signal() != unix.SIGKILL && status.ExitStatus() != killed {
		return false
	}
	return !o.killedAt.IsZero() && time.Since(o.killedAt) < oomWindow
}

func (o *Watch) close() {
	o.poll.Remove(o.fd)
	sys.CloseFD(&o.fd)
}

func (o *Watch) readKills(file string) (uint64, error) {
	b, err := sys.ReadFile(file, o.buf[:])
	if err != nil {
		return 0, err
	}
	return parseKills(b), nil
}

// parseKills returns the count in the line "oom_kill <count>", which the files of
// both versions have (v1 since Linux 4.13).
func parseKills(b []byte) uint64 {
	for len(b) > 0 {
		line, rest, _ := bytes.Cut(b, []byte("\n"))
		b = rest
		if count, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
			n, _ := strconv.ParseUint(string(count), 10, 64)
			return n
		}
	}
	return 0
}
