package system

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // not for security
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

// saved is the checkpoint of a pod, and the configs of the pod and of its containers.
type saved struct {
	dir     string
	config  *cri.PodSandboxConfig
	configs []*cri.ContainerConfig
}

// save writes a checkpoint of a pod and removes the pod.
func (n *node) save(t *testing.T, p *pod, configs []*cri.ContainerConfig, ids ...string) *saved {
	t.Helper()
	s := &saved{dir: t.TempDir(), config: proto.CloneOf(p.Config), configs: configs}
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience(time.Minute))
	defer cancel()
	begin := time.Now()
	if _, err := n.RuntimeService.CheckpointPod(ctx, &cri.CheckpointPodRequest{PodSandboxId: p.ID, OutputPath: s.dir, ContainerIds: ids}); err != nil {
		t.Fatal(err)
	}
	t.Logf("checkpoint of %d containers: %s in %s", len(ids), treeSize(t, s.dir), time.Since(begin).Round(time.Millisecond))
	n.RemovePod(t, p.ID)
	// The kubelet gives the pod another id.
	s.config.Metadata.Uid += "-restored"
	return s
}

func treeSize(t *testing.T, dir string) string {
	t.Helper()
	var size int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%.1f MiB", float64(size)/(1<<20))
}

// restore restores a pod. The second result has the ids of the containers by name.
func (n *node) restore(t *testing.T, s *saved) (*pod, map[string]string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience(time.Minute))
	defer cancel()
	begin := time.Now()
	r, err := n.RuntimeService.RestorePod(ctx, &cri.RestorePodRequest{CheckpointPath: s.dir, Config: s.config, ContainerConfigs: s.configs})
	if err != nil {
		return nil, nil, err
	}
	t.Logf("RestorePod: %s", time.Since(begin).Round(time.Millisecond))
	ids := make(map[string]string)
	for _, c := range r.GetRestoredContainers() {
		ids[c.GetName()] = c.GetContainerId()
	}
	return &pod{ID: r.GetPodSandboxId(), Config: s.config}, ids, nil
}

func (n *node) mustRestore(t *testing.T, s *saved) (*pod, map[string]string) {
	t.Helper()
	p, ids, err := n.restore(t, s)
	if err != nil {
		t.Fatal(err)
	}
	return p, ids
}

// startRestored starts a container and logs the time.
func (n *node) startRestored(t *testing.T, id string) {
	t.Helper()
	begin := time.Now()
	n.StartContainer(t, id)
	t.Logf("StartContainer: %s", time.Since(begin).Round(time.Millisecond))
}

// stateScript has the state of processes that a restore must keep: a pipe to a child, a sleeping process, an open file
// that is deleted, a program with threads, a file of /dev/shm, and changes of the root file system. The script prints
// one line in each round.
const stateScript = `echo shared >/dev/shm/seg; echo changed >/etc/changed; rm /etc/group; echo deleted >/tmp/d; exec 4<>/tmp/d; rm /tmp/d
sleep 1000 & timer=$!
/conmon pause & threads=$!
usleep 300000
i=0; while :; do i=$((i+1)); echo $i; usleep 20000; done | while read x; do
  read -r d </proc/self/fd/4; read -r s </dev/shm/seg; read -r c </etc/changed; test -e /etc/group && g=group || g=none; kill -0 $timer && k=timer
  test $(ls /proc/$threads/task | wc -l) -gt 1 && t=threads
  echo $x $d $s $c $g $k $t $(cat /proc/sys/kernel/hostname)
done`

func TestRestorePodState(t *testing.T) {
	needCRIU(t)
	n := newNode(t, "rst", 248)
	p := n.RunPod(t, podConfig("rst"))
	state := containerConfig(p, "state", busybox, "sh", "-c", stateScript)
	state.Mounts = []*cri.Mount{{ContainerPath: "/conmon", HostPath: filepath.Join(suite.bin, "conmon"), Readonly: true}}
	tty := containerConfig(p, "tty", busybox, "sh", "-c", "trap 'echo size; stty size' WINCH; "+counter)
	tty.Tty, tty.Stdin = true, true
	a, b := n.RunContainer(t, p, state), n.RunContainer(t, p, tty)
	line := func(p *pod, at int) string {
		waitFor(t, "the log", func() bool {
			_, err := os.Stat(filepath.Join(p.Config.GetLogDirectory(), "state.log"))
			return err == nil && len(logLines(t, p, "state")) > at
		})
		return logLines(t, p, "state")[at]
	}
	if got := line(p, 5); got != "6 deleted shared changed none timer threads "+p.Config.GetHostname() {
		t.Fatalf("before the checkpoint: %q", got)
	}
	s := n.save(t, p, []*cri.ContainerConfig{state, tty}, a, b)
	last := len(logLines(t, p, "state"))
	lastTTY := len(logLines(t, p, "tty"))
	r, ids := n.mustRestore(t, s)
	for name, id := range ids {
		if st := n.ContainerStatus(t, id); st.GetState() != cri.ContainerState_CONTAINER_CREATED || st.GetMetadata().GetName() != name {
			t.Errorf("container %s is %s", name, st.GetState())
		}
	}
	time.Sleep(200 * time.Millisecond)
	if now := len(logLines(t, p, "state")); now != last {
		t.Errorf("%d lines before the start, want %d", now, last)
	}
	n.startRestored(t, ids["state"])
	n.startRestored(t, ids["tty"])
	if got, want := line(r, last+20), " deleted shared changed none timer threads "+p.Config.GetHostname(); !strings.HasSuffix(got, want) {
		t.Errorf("after the restore: got %q, want %q", got, want)
	}
	waitFor(t, "the terminal", func() bool { return len(logLines(t, r, "tty")) > lastTTY+3 })
	// Each line contains its own number, so no line was lost or repeated.
	for i, l := range logLines(t, r, "state") {
		if number, _, _ := strings.Cut(l, " "); i < last-2 && number != strconv.Itoa(i+1) || i == 0 && number != "1" {
			t.Fatalf("line %d is %q", i+1, l)
		}
	}
	if got := n.Exec(t, ids["state"], "cat", "/etc/changed", "/dev/shm/seg"); got != "changed\nshared" {
		t.Errorf("files: %q", got)
	}
	// The container sees its own cgroup, as any other container.
	if got := n.Exec(t, ids["state"], "sh", "-c", "cat /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/pids/cgroup.procs 2>/dev/null; true"); !slices.Contains(strings.Fields(got), "1") {
		t.Errorf("processes in the cgroup that the container sees: %q", got)
	}
	if ip := n.podIPs(t, r.ID)[0]; !strings.Contains(n.Exec(t, ids["state"], "ip", "addr"), ip) {
		t.Errorf("the container does not have the address %s of its pod", ip)
	}
	n.Kill()
	n.restart(t)
	if st := n.ContainerStatus(t, ids["state"]); st.GetState() != cri.ContainerState_CONTAINER_RUNNING {
		t.Errorf("after a restart of the daemon: %s", st.GetState())
	}
	n.RemovePod(t, r.ID)
}

// TestRestorePodOfTen restores a pod with ten containers, and starts some of them.
func TestRestorePodOfTen(t *testing.T) {
	needCRIU(t)
	n := newNode(t, "rstten", 249)
	p := n.RunPod(t, podConfig("rstten"))
	var configs []*cri.ContainerConfig
	var ids []string
	for i := range 10 {
		c := containerConfig(p, fmt.Sprintf("c%d", i), busybox, "sh", "-c", counter)
		configs = append(configs, c)
		ids = append(ids, n.RunContainer(t, p, c))
	}
	waitFor(t, "the counters", func() bool { return len(logLines(t, p, "c9")) > 3 })
	s := n.save(t, p, configs, ids...)
	t.Run("refused", func(t *testing.T) { n.checkRefusals(t, s) })
	r, restored := n.mustRestore(t, s)
	if len(restored) != 10 {
		t.Fatalf("%d containers, want 10", len(restored))
	}
	for i := range 9 { // the last one is removed without a start
		name := fmt.Sprintf("c%d", i)
		before := len(logLines(t, r, name))
		n.StartContainer(t, restored[name])
		waitFor(t, "the counter of "+name, func() bool { return len(logLines(t, r, name)) > before+3 })
		if lines := logLines(t, r, name); lines[before+2] == "3" {
			t.Errorf("%s has begun again", name)
		}
	}
	n.RemovePod(t, r.ID)
}

// checkRefusals checks that requests that do not fit the checkpoint leave nothing.
func (n *node) checkRefusals(t *testing.T, s *saved) {
	t.Helper()
	for name, tc := range map[string]struct {
		change func(*cri.ContainerConfig)
		code   codes.Code
		says   string
	}{
		"args": {func(c *cri.ContainerConfig) { c.Command = []string{"true"} }, codes.FailedPrecondition, "config.args"},
		"env":  {func(c *cri.ContainerConfig) { c.Envs = append(c.Envs, &cri.KeyValue{Key: "NEW", Value: []byte("x")}) }, codes.FailedPrecondition, `"NEW"`},
		"mount": {func(c *cri.ContainerConfig) {
			c.Mounts = append(c.Mounts, &cri.Mount{ContainerPath: "/m", HostPath: "/etc"})
		}, codes.FailedPrecondition, `"/m"`},
		"image":    {func(c *cri.ContainerConfig) { c.Image = &cri.ImageSpec{Image: "registry.k8s.io/none:1"} }, codes.NotFound, "none:1"},
		"terminal": {func(c *cri.ContainerConfig) { c.Tty = true }, codes.FailedPrecondition, "tty"},
	} {
		t.Run(name, func(t *testing.T) {
			other := *s
			other.configs = nil
			for i, c := range s.configs {
				c = proto.CloneOf(c)
				if i == len(s.configs)-1 {
					tc.change(c)
				}
				other.configs = append(other.configs, c)
			}
			_, _, err := n.restore(t, &other)
			if status.Code(err) != tc.code || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v, want %v with %q", err, tc.code, tc.says)
			}
			n.noRestoreLeft(t)
		})
	}
}

// noRestoreLeft checks that no pod, record or process image is left.
func (n *node) noRestoreLeft(t *testing.T) {
	t.Helper()
	pods, err := n.RuntimeService.ListPodSandbox(t.Context(), &cri.ListPodSandboxRequest{})
	if err != nil || len(pods.GetItems()) != 0 {
		t.Errorf("pods: %v, %v, want none", pods.GetItems(), err)
	}
	for _, dir := range []string{filepath.Join(n.Dir, "run", "restores"), filepath.Join(n.Dir, "root", "restore")} {
		left, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) || len(left) > 0 {
			t.Errorf("%s: %v, %v, want nothing", dir, left, err)
		}
	}
}

// TestRestoreLargeMemory restores a process with 512 MiB of memory. It logs time and size.
func TestRestoreLargeMemory(t *testing.T) {
	needCRIU(t)
	if testing.Short() {
		t.Skip("needs 1.5 GB of memory and disk")
	}
	n := newNode(t, "rstbig", 248)
	p := n.RunPod(t, podConfig("rstbig"))
	// dd has the block in memory when its first byte arrives.
	c := containerConfig(p, "big", busybox, "sh", "-c", `yes | dd bs=536870912 count=1 iflag=fullblock 2>/dev/null |
		(dd bs=1 count=1 of=/dev/null 2>/dev/null; echo full; while test ! -e /dev/shm/go; do usleep 100000; done; md5sum)`)
	c.Linux.Resources.MemoryLimitInBytes = 2 << 30
	id := n.RunContainer(t, p, c)
	waitFor(t, "512 MiB", func() bool { return len(logLines(t, p, "big")) > 0 })
	s := n.save(t, p, []*cri.ContainerConfig{c}, id)
	r, ids := n.mustRestore(t, s)
	n.startRestored(t, ids["big"])
	n.Exec(t, ids["big"], "touch", "/dev/shm/go")
	waitFor(t, "the digest", func() bool { return len(logLines(t, r, "big")) > 1 })
	h := md5.New() //nolint:gosec // the digest program of the image
	all := bytes.Repeat([]byte("y\n"), 1<<28)
	h.Write(all[1:])
	if got, want := logLines(t, r, "big")[1], hex.EncodeToString(h.Sum(nil))+" "; !strings.HasPrefix(got, want) {
		t.Errorf("digest of the memory: got %q, want %q", got, want)
	}
	n.RemovePod(t, r.ID)
}

// TestCreateContainerFromArchive creates a container from an archive of CheckpointContainer, after a reload has allowed
// archives.
func TestCreateContainerFromArchive(t *testing.T) {
	needCRIU(t)
	n := newNode(t, "rstarch", 249)
	p := n.RunPod(t, podConfig("rstarch"))
	c := containerConfig(p, "count", busybox, "sh", "-c", "echo changed >/etc/changed; "+counter)
	id := n.RunContainer(t, p, c)
	waitFor(t, "the counter", func() bool { return len(logLines(t, p, "count")) > 3 })
	location := filepath.Join(t.TempDir(), "a.tar")
	if err := n.checkpoint(t, id, location, time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := n.RuntimeService.RemoveContainer(t.Context(), &cri.RemoveContainerRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
	before := len(logLines(t, p, "count"))

	c = proto.CloneOf(c)
	c.Image.Image, c.Metadata.Attempt = location, 1
	create := func(c *cri.ContainerConfig) (string, error) {
		r, err := n.RuntimeService.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: p.ID, Config: c, SandboxConfig: p.Config})
		return r.GetContainerId(), err
	}
	if _, err := create(c); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "checkpoint.restore_from_archives") {
		t.Errorf("archives are not allowed: %v", err)
	}
	n.writeFile(t, "config.toml.d/50-checkpoint.toml", "[checkpoint]\nrestore_from_archives = true\n")
	if code, _, stderr := n.command(t, "reload"); code != 0 {
		t.Fatalf("reload: %s", stderr)
	}

	other := proto.CloneOf(c)
	other.Args = []string{"true"}
	if _, err := create(other); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "config.args") {
		t.Errorf("other arguments: %v", err)
	}
	foreign := proto.CloneOf(c)
	foreign.Image.Image = filepath.Join(t.TempDir(), "foreign.tar")
	raw, err := os.ReadFile(location)
	if err != nil {
		t.Fatal(err)
	}
	raw[bytes.Index(raw, []byte("changed\n"))] = 'C'
	if err := os.WriteFile(foreign.Image.Image, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := create(foreign); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "authentication code") {
		t.Errorf("an archive that was changed: %v", err)
	}
	missing := proto.CloneOf(c)
	missing.Image.Image = location + ".missing"
	if _, err := create(missing); status.Code(err) != codes.NotFound {
		t.Errorf("no archive: %v", err)
	}

	restored, err := create(c)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := create(c); err != nil || again != restored {
		t.Errorf("the request again: %s, %v, want %s", again, err, restored)
	}
	if st := n.ContainerStatus(t, restored); st.GetState() != cri.ContainerState_CONTAINER_CREATED || st.GetMetadata().GetAttempt() != 1 {
		t.Errorf("status %v", st)
	}
	n.StartContainer(t, restored)
	waitFor(t, "the counter", func() bool { return len(logLines(t, p, "count")) > before+3 })
	if lines := logLines(t, p, "count"); lines[before+2] == "3" {
		t.Error("the counter has begun again")
	}
	if got := n.Exec(t, restored, "cat", "/etc/changed"); got != "changed" {
		t.Errorf("changed file: %q", got)
	}
	n.RemovePod(t, p.ID)
}
