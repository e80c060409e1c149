package systemd

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

// count prints numbers without a gap until the container is stopped.
const count = "trap 'exit 0' TERM; i=0; while true; do echo $i; i=$((i+1)); usleep 100000; done"

// echo replies to each line of its input.
const echo = "while read line; do echo got:$line; done"

// fleet is a set of containers that restarts of the daemon must not affect.
type fleet struct {
	*client
	t       *testing.T
	plain   *pod
	ending  *pod   // pod of the containers that exit while no daemon runs
	signals string // directory whose files end these containers
	members map[string]*member
	round   int
}

// member is a container of the fleet that runs until the end of the test.
type member struct {
	id      string
	pod     *pod
	counts  bool
	tty     bool
	first   process
	ips     string
	printed int // number of lines at the last check
}

// newFleet runs pods and containers of different kinds.
func newFleet(t *testing.T, c *client) *fleet {
	t.Helper()
	f := &fleet{client: c, t: t, members: map[string]*member{}, signals: filepath.Join(stateDir, "signals")}
	if err := os.RemoveAll(f.signals); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(f.signals, 0o755); err != nil {
		t.Fatal(err)
	}
	c.Pull(t, busybox)

	f.plain, f.ending = c.runPod(t, podConfig("plain")), c.runPod(t, podConfig("ending"))
	shared := podConfig("shared")
	shared.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD
	kinds := []*cri.PodSandboxConfig{shared}
	if c.hasUserNamespaces(t) {
		mapped := podConfig("mapped")
		ids := []*cri.IDMapping{{HostId: 196608, Length: 65536}}
		mapped.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &cri.UserNamespace{Mode: cri.NamespaceMode_POD, Uids: ids, Gids: ids}
		kinds = append(kinds, mapped)
	}

	f.add("counter", f.plain, containerConfig(f.plain, "counter", "sh", "-c", count))
	f.add("rotated", f.plain, containerConfig(f.plain, "rotated", "sh", "-c", count))
	stdin := containerConfig(f.plain, "stdin", "sh", "-c", echo)
	stdin.Stdin = true
	f.add("stdin", f.plain, stdin)
	tty := containerConfig(f.plain, "tty", "sh", "-c", echo)
	tty.Stdin, tty.Tty = true, true
	f.add("tty", f.plain, tty)
	for _, config := range kinds {
		p := c.runPod(t, config)
		name := config.GetMetadata().GetName()
		f.add(name, p, containerConfig(p, name, "sh", "-c", count))
	}
	f.check()
	return f
}

func (f *fleet) add(name string, p *pod, config *cri.ContainerConfig) {
	f.t.Helper()
	m := &member{pod: p, counts: config.GetCommand()[2] == count, tty: config.GetTty(), ips: f.ips(p)}
	m.id = f.RunContainer(f.t, p, config)
	var err error
	if m.first, err = identify(f.ContainerPID(f.t, m.id)); err != nil {
		f.t.Fatal(err)
	}
	f.members[name] = m
}

func (f *fleet) ips(p *pod) string {
	f.t.Helper()
	r, err := f.RuntimeService.PodSandboxStatus(limited(f.t), &cri.PodSandboxStatusRequest{PodSandboxId: p.ID})
	if err != nil {
		f.t.Fatal(err)
	}
	if r.GetStatus().GetState() != cri.PodSandboxState_SANDBOX_READY {
		f.t.Errorf("pod %s is %s", p.Config.GetMetadata().GetName(), r.GetStatus().GetState())
	}
	return r.GetStatus().GetNetwork().String()
}

// ephemeral is a container that exits with a known code on request of the test.
type ephemeral struct {
	id    string
	file  string
	code  int32
	ended time.Time // when the test requested the exit
}

// startEphemeral runs a container that exits when end is called.
func (f *fleet) startEphemeral() *ephemeral {
	f.t.Helper()
	f.round++
	name := fmt.Sprintf("ephemeral%d", f.round)
	m := &ephemeral{file: filepath.Join(f.signals, name), code: int32(10 + f.round)}
	config := containerConfig(f.ending, name, "sh", "-c",
		fmt.Sprintf("while [ ! -e /signals/%s ]; do usleep 100000; done; echo end; exit %d", name, m.code))
	config.Mounts = []*cri.Mount{{HostPath: f.signals, ContainerPath: "/signals", Readonly: true}}
	m.id = f.RunContainer(f.t, f.ending, config)
	return m
}

// end makes the container exit.
func (f *fleet) end(m *ephemeral) {
	f.t.Helper()
	m.ended = time.Now()
	if err := os.WriteFile(m.file, nil, 0o644); err != nil {
		f.t.Fatal(err)
	}
}

// checkExit checks the exit of the container in its status, which must be before the
// given time, and removes the container.
func (f *fleet) checkExit(m *ephemeral, before time.Time) {
	f.t.Helper()
	s := f.WaitExited(f.t, m.id)
	reason := "Error"
	if s.GetExitCode() != m.code || s.GetReason() != reason {
		f.t.Errorf("exit of the container: got code %d, reason %q, message %q, want code %d, reason %q",
			s.GetExitCode(), s.GetReason(), s.GetMessage(), m.code, reason)
	}
	if finishedAt := time.Unix(0, s.GetFinishedAt()); finishedAt.Before(m.ended) || finishedAt.After(before) {
		f.t.Errorf("finished_at: got %s, want a time between %s and %s", finishedAt, m.ended, before)
	}
	log, err := os.ReadFile(filepath.Join(f.ending.Config.GetLogDirectory(), s.GetMetadata().GetName()+".log"))
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(log)), " stdout F end") {
		f.t.Errorf("the last line of the container that ended is not in its log: %v: %s", err, log)
	}
	if _, err := f.RuntimeService.RemoveContainer(limited(f.t), &cri.RemoveContainerRequest{ContainerId: m.id}); err != nil {
		f.t.Errorf("remove the container that ended: %v", err)
	}
}

// check verifies that the containers have the same processes as before, that their
// output has no gap and continues, and that exec and attach work.
func (f *fleet) check() {
	f.t.Helper()
	f.round++
	for name, m := range f.members {
		s := f.ContainerStatus(f.t, m.id)
		if s.GetState() != cri.ContainerState_CONTAINER_RUNNING {
			f.t.Errorf("container %s is %s, exit code %d, reason %q", name, s.GetState(), s.GetExitCode(), s.GetReason())
			continue
		}
		if now, err := identify(f.ContainerPID(f.t, m.id)); err != nil || now != m.first {
			f.t.Errorf("container %s is process %v, %v; it was %v", name, now, err, m.first)
		}
		if now := f.ips(m.pod); now != m.ips {
			f.t.Errorf("the pod of container %s has the addresses %s, it had %s", name, now, m.ips)
		}
		if got := f.Exec(f.t, m.id, "sh", "-c", "echo $((6*7))"); got != "42" {
			f.t.Errorf("exec in container %s printed %q", name, got)
		}
		if m.counts {
			f.checkCount(name, m)
		} else {
			line := fmt.Sprintf("hello%d", f.round)
			f.say(f.t, m.id, m.tty, line, "got:"+line)
		}
	}
	f.rotate()
}

// checkCount verifies that every number is in the log once, and waits for more.
func (f *fleet) checkCount(name string, m *member) {
	f.t.Helper()
	found := 0
	eventually(f.t, 10*time.Second, func() error {
		lines, err := logLines(m.pod, name)
		if err != nil {
			f.t.Fatal(err)
		}
		for i, line := range lines {
			if line != strconv.Itoa(i) {
				f.t.Fatalf("line %d in the log of container %s is %q: the log has a gap", i, name, line)
			}
		}
		if found = len(lines); found <= m.printed {
			return fmt.Errorf("container %s has printed nothing after line %d", name, m.printed)
		}
		return nil
	})
	m.printed = found
}

// rotate renames the log of one container, as the kubelet does, and has the
// monitor open a new one.
func (f *fleet) rotate() {
	f.t.Helper()
	log := filepath.Join(f.plain.Config.GetLogDirectory(), "rotated.log")
	if err := os.Rename(log, fmt.Sprintf("%s.%05d", log, f.round)); err != nil {
		f.t.Fatal(err)
	}
	if _, err := f.RuntimeService.ReopenContainerLog(limited(f.t), &cri.ReopenContainerLogRequest{ContainerId: f.members["rotated"].id}); err != nil {
		f.t.Errorf("reopen the log: %v", err)
	}
}

// logLines returns the lines of a container's logs, the rotated ones first,
// without the stamps. The last line may be incomplete and is left out then.
func logLines(p *pod, name string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(p.Config.GetLogDirectory(), name+".log*"))
	if err != nil {
		return nil, err
	}
	slices.SortFunc(files, func(a, b string) int { // the present log has the shortest name and is the last
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	var lines []string
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			text, complete := strings.CutSuffix(line, "\n")
			f := strings.SplitN(text, " ", 4)
			if !complete {
				continue
			}
			if len(f) != 4 || f[2] != "F" {
				return nil, fmt.Errorf("%s: %q is not a line in the CRI log format", file, line)
			}
			lines = append(lines, f[3])
		}
	}
	return lines, nil
}

// stop stops the containers and checks that they ended by the signal handler.
func (f *fleet) stop() {
	f.t.Helper()
	for name, m := range f.members {
		if !m.counts {
			continue
		}
		timeout := int64(harness.Patience(10 * time.Second).Seconds())
		if _, err := f.RuntimeService.StopContainer(limited(f.t), &cri.StopContainerRequest{ContainerId: m.id, Timeout: timeout}); err != nil {
			f.t.Errorf("stop container %s: %v", name, err)
		}
		if s := f.ContainerStatus(f.t, m.id); s.GetExitCode() != 0 || s.GetReason() != "Completed" {
			f.t.Errorf("container %s ended with code %d, reason %q; want 0, Completed", name, s.GetExitCode(), s.GetReason())
		}
		f.checkCompleteLog(name, m)
	}
}

// checkCompleteLog verifies the complete log of an exited container.
func (f *fleet) checkCompleteLog(name string, m *member) {
	f.t.Helper()
	lines, err := logLines(m.pod, name)
	if err != nil {
		f.t.Fatal(err)
	}
	for i, line := range lines {
		if line != strconv.Itoa(i) {
			f.t.Fatalf("line %d in the log of container %s is %q: the log has a gap", i, name, line)
		}
	}
}

// exists reports whether a process exists.
func exists(pid int) bool { return unix.Kill(pid, 0) == nil }
