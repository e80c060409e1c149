package system

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

// counter is a script that counts in its log and in a file. The file always has a number, because mv replaces it.
const counter = "i=0; while :; do i=$((i+1)); echo $i; echo $i >/tmp/m; mv /tmp/m /tmp/n; usleep 20000; done"

// needCRIU skips the test if no criu works on this machine.
func needCRIU(t *testing.T) string {
	t.Helper()
	path, err := harness.FindCRIU(suite.bin)
	if err != nil {
		t.Skipf("checkpoints need CRIU: %v", err)
	}
	return path
}

func (n *node) checkpoint(t *testing.T, id, location string, timeout time.Duration) error {
	t.Helper()
	_, err := n.RuntimeService.CheckpointContainer(t.Context(), &cri.CheckpointContainerRequest{
		ContainerId: id, Location: location, Timeout: int64(harness.Patience(timeout) / time.Second),
	})
	return err
}

// checkpointPod writes a checkpoint of a pod with a deadline.
func (n *node) checkpointPod(t *testing.T, p *pod, dir string, timeout time.Duration, ids ...string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	_, err := n.RuntimeService.CheckpointPod(ctx, &cri.CheckpointPodRequest{PodSandboxId: p.ID, OutputPath: dir, ContainerIds: ids})
	return err
}

// counts checks that the counter of a container counts on, and has not begun again.
func (n *node) counts(t *testing.T, p *pod, id, name string) {
	t.Helper()
	before := len(logLines(t, p, name))
	waitFor(t, "the counter of "+name, func() bool { return len(logLines(t, p, name)) > before+3 })
	for i, line := range logLines(t, p, name) {
		if line != strconv.Itoa(i+1) {
			t.Fatalf("line %d of the log of %s: got %q", i+1, name, line)
		}
	}
	if s := n.ContainerStatus(t, id); s.GetState() != cri.ContainerState_CONTAINER_RUNNING {
		t.Errorf("container %s is %s", name, s.GetState())
	}
}

// checkpointsEnd waits until no checkpoint has a record, which the daemon removes last. A client whose deadline has
// ended does not wait for the daemon.
func (n *node) checkpointsEnd(t *testing.T) {
	t.Helper()
	waitFor(t, "the end of checkpoints", func() bool {
		records, err := os.ReadDir(filepath.Join(n.Dir, "root", "checkpoints"))
		return err == nil && len(records) == 0
	})
}

// noTraces checks that no record, and no file in dir, is left of a checkpoint.
func (n *node) noTraces(t *testing.T, dir string, want ...string) {
	t.Helper()
	for d, names := range map[string][]string{dir: want, filepath.Join(n.Dir, "root", "checkpoints"): nil} {
		entries, err := os.ReadDir(d)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		var got []string
		for _, e := range entries {
			got = append(got, e.Name())
		}
		if !slices.Equal(got, names) {
			t.Errorf("%s has %v, want %v", d, got, names)
		}
	}
}

// tarFiles returns the contents of the regular files of a tar by name.
func tarFiles(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	files := make(map[string]string)
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(b)
	}
}

func readArchive(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode of %s is %v, %v; want 0600", path, info.Mode(), err)
	}
	return tarFiles(t, f)
}

// TestCheckpointContainer checks the archive of a container, and that the container counts on.
func TestCheckpointContainer(t *testing.T) {
	needCRIU(t)
	n := newNode(t, "ckpt", 235)
	p := n.RunPod(t, podConfig("ckpt"))
	id := n.run(t, p, "count", "sh", "-c", "echo new >/etc/new; rm /etc/passwd; echo shm >/dev/shm/s; "+counter)
	waitFor(t, "the counter", func() bool { return len(logLines(t, p, "count")) > 3 })
	dir := t.TempDir()
	location := filepath.Join(dir, "a.tar")
	if err := n.checkpoint(t, id, location, time.Minute); err != nil {
		t.Fatal(err)
	}
	n.counts(t, p, id, "count")
	n.noTraces(t, dir, "a.tar")
	files := readArchive(t, location)
	for _, name := range []string{
		"criserver.json", "spec.dump", "config.dump", "bind.mounts", "deleted.files", "dump.log", "stats-dump", "container.log",
		"checkpoint/inventory.img", "checkpoint/descriptors.json", "checkpoint/core-1.img",
	} {
		if files[name] == "" {
			t.Errorf("the archive has no %s", name)
		}
	}
	var deleted []string
	if err := json.Unmarshal([]byte(files["deleted.files"]), &deleted); err != nil || !slices.Equal(deleted, []string{"/etc/passwd"}) {
		t.Errorf("deleted files: got %q, %v", deleted, err)
	}
	diff := tarFiles(t, strings.NewReader(files["rootfs-diff.tar"]))
	if diff["etc/new"] != "new\n" {
		t.Errorf("/etc/new has %q", diff["etc/new"])
	}
	if got := tarFiles(t, strings.NewReader(files["devshm-checkpoint.tar"])); got["s"] != "shm\n" {
		t.Errorf("/dev/shm has %q", got)
	}
	// The file and the memory are from the same moment, so the numbers in both are equal.
	number, err := strconv.Atoi(strings.TrimSpace(diff["tmp/n"]))
	if lines := strings.Count(files["container.log"], "\n"); err != nil || lines < number-1 || lines > number+1 {
		t.Errorf("the file has the number %d, %v; the log has %d lines", number, err, lines)
	}
	t.Run("checkpointctl", func(t *testing.T) {
		program := filepath.Join(suite.bin, "checkpointctl")
		for _, args := range [][]string{{"show"}, {"inspect", "--all"}} {
			out, err := exec.Command(program, append(args, location)...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "count") || !strings.Contains(string(out), busybox) {
				t.Errorf("checkpointctl %v: %v: %s", args, err, out)
			}
		}
	})
	t.Run("crictl", func(t *testing.T) {
		second := filepath.Join(dir, "b.tar")
		out, err := exec.Command(filepath.Join(suite.bin, "crictl"), "--runtime-endpoint", "unix://"+n.Socket(), "--timeout", "1m",
			"checkpoint", "--export", second, id).CombinedOutput()
		if err != nil {
			t.Fatalf("crictl checkpoint: %v: %s", err, out)
		}
		n.noTraces(t, dir, "a.tar", "b.tar")
	})
	t.Run("replace", func(t *testing.T) {
		if err := n.checkpoint(t, id[:12], location, time.Minute); err != nil {
			t.Fatal(err)
		}
		n.counts(t, p, id, "count")
	})
}

// TestCheckpointContainerIsRefused checks the requests that the daemon refuses.
func TestCheckpointContainerIsRefused(t *testing.T) {
	needCRIU(t)
	n := newNode(t, "ckptno", 236)
	p := n.RunPod(t, podConfig("ckptno"))
	id := n.run(t, p, "count", "sh", "-c", counter)
	created := n.CreateContainer(t, p, containerConfig(p, "created", busybox, "sleep", "1000"))
	shared := podConfig("shared")
	shared.Linux.SecurityContext = &cri.LinuxSandboxSecurityContext{NamespaceOptions: &cri.NamespaceOption{Pid: cri.NamespaceMode_POD}}
	sharedPod := n.RunPod(t, shared)
	config := containerConfig(sharedPod, "s", busybox, "sleep", "1000")
	config.Linux = &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{NamespaceOptions: &cri.NamespaceOption{Pid: cri.NamespaceMode_POD}}}
	sharedID := n.RunContainer(t, sharedPod, config)
	dir := t.TempDir()
	good := filepath.Join(dir, "a.tar")
	for name, tc := range map[string]struct {
		id, location string
		timeout      int64
		code         codes.Code
		says         string
	}{
		"no id":            {"", good, 0, codes.InvalidArgument, "container_id"},
		"no location":      {id, "", 0, codes.InvalidArgument, "location"},
		"relative":         {id, "a.tar", 0, codes.InvalidArgument, "location"},
		"not clean":        {id, dir + "/../a.tar", 0, codes.InvalidArgument, "location"},
		"no directory":     {id, dir + "/x/a.tar", 0, codes.InvalidArgument, "location"},
		"a directory":      {id, dir, 0, codes.InvalidArgument, "location"},
		"negative timeout": {id, good, -1, codes.InvalidArgument, "timeout"},
		"unknown":          {"0123456789", good, 0, codes.NotFound, "0123456789"},
		"not started":      {created, good, 0, codes.FailedPrecondition, "created"},
		"shared PIDs":      {sharedID, good, 0, codes.FailedPrecondition, "PID namespace"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := n.RuntimeService.CheckpointContainer(t.Context(), &cri.CheckpointContainerRequest{
				ContainerId: tc.id, Location: tc.location, Timeout: tc.timeout,
			})
			if status.Code(err) != tc.code || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v, want %v with %q", err, tc.code, tc.says)
			}
		})
	}
	n.noTraces(t, dir)
	n.counts(t, p, id, "count")
}

// TestCheckpointPod checks the files of a pod checkpoint, and the rules of the CRI for the request.
func TestCheckpointPod(t *testing.T) {
	needCRIU(t)
	n := newNode(t, "ckptpod", 237)
	p := n.RunPod(t, podConfig("ckptpod"))
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}
	var ids []string
	for _, name := range names {
		ids = append(ids, n.run(t, p, name, "sh", "-c", counter))
	}
	exited := n.run(t, p, "exited", "true")
	n.WaitExited(t, exited)
	other := n.RunPod(t, podConfig("ckptother"))
	foreign := n.run(t, other, "x", "sleep", "1000")
	dir := t.TempDir()
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change func(*cri.CheckpointPodRequest)
		code   codes.Code
		says   string
	}{
		"no pod":       {func(r *cri.CheckpointPodRequest) { r.PodSandboxId = "" }, codes.InvalidArgument, "pod_sandbox_id"},
		"unknown pod":  {func(r *cri.CheckpointPodRequest) { r.PodSandboxId = "0123456789" }, codes.NotFound, "0123456789"},
		"no path":      {func(r *cri.CheckpointPodRequest) { r.OutputPath = "" }, codes.InvalidArgument, "output_path"},
		"relative":     {func(r *cri.CheckpointPodRequest) { r.OutputPath = "x" }, codes.InvalidArgument, "output_path"},
		"missing":      {func(r *cri.CheckpointPodRequest) { r.OutputPath = dir + "/x" }, codes.InvalidArgument, "output_path"},
		"link":         {func(r *cri.CheckpointPodRequest) { r.OutputPath = link }, codes.InvalidArgument, "output_path"},
		"not empty":    {func(r *cri.CheckpointPodRequest) { r.OutputPath = full }, codes.FailedPrecondition, "output_path"},
		"options":      {func(r *cri.CheckpointPodRequest) { r.Options = map[string]string{"k": "v"} }, codes.InvalidArgument, "options"},
		"none":         {func(r *cri.CheckpointPodRequest) { r.ContainerIds = nil }, codes.InvalidArgument, "container_ids"},
		"twice":        {func(r *cri.CheckpointPodRequest) { r.ContainerIds = append(ids, ids[0]) }, codes.InvalidArgument, "twice"},
		"not running":  {func(r *cri.CheckpointPodRequest) { r.ContainerIds = append(ids, exited) }, codes.FailedPrecondition, "exited"},
		"other pod":    {func(r *cri.CheckpointPodRequest) { r.ContainerIds = append(ids, foreign) }, codes.InvalidArgument, "belongs to pod"},
		"one missing":  {func(r *cri.CheckpointPodRequest) { r.ContainerIds = ids[1:] }, codes.FailedPrecondition, "not in container_ids"},
		"unknown id":   {func(r *cri.CheckpointPodRequest) { r.ContainerIds = append(ids, "0123456789") }, codes.NotFound, "0123456789"},
		"past timeout": {nil, codes.DeadlineExceeded, ""},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), harness.Patience(time.Minute))
			defer cancel()
			req := &cri.CheckpointPodRequest{PodSandboxId: p.ID, OutputPath: dir, ContainerIds: slices.Clone(ids)}
			if tc.change != nil {
				tc.change(req)
			} else {
				ctx, cancel = context.WithTimeout(t.Context(), 30*time.Millisecond)
				defer cancel()
			}
			_, err := n.RuntimeService.CheckpointPod(ctx, req)
			if status.Code(err) != tc.code || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v, want %v with %q", err, tc.code, tc.says)
			}
			n.checkpointsEnd(t)
			n.noTraces(t, dir)
		})
	}
	if _, err := n.RuntimeService.CheckpointPod(context.Background(), &cri.CheckpointPodRequest{
		PodSandboxId: p.ID, OutputPath: dir, ContainerIds: ids,
	}); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "deadline") {
		t.Errorf("without a deadline: got %v", err)
	}
	n.checkpointsEnd(t)
	n.noTraces(t, dir)

	n.Exec(t, ids[0], "sh", "-c", "echo shm >/dev/shm/s")
	start := time.Now()
	if err := n.checkpointPod(t, p, dir, harness.Patience(time.Minute), ids...); err != nil {
		t.Fatal(err)
	}
	t.Logf("ten containers: %s", time.Since(start).Round(time.Millisecond))
	n.noTraces(t, dir, "containers", "manifest.json", "shm.tar")
	for i, name := range names {
		n.counts(t, p, ids[i], name)
	}
	b, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct {
		Version    int
		Containers []struct {
			Name, File, SHA256 string
			Size               int64
		}
		Parts []struct{ Name, File, SHA256 string }
	}
	if err := json.Unmarshal(b, &manifest); err != nil || manifest.Version != 1 || len(manifest.Containers) != len(names) || len(manifest.Parts) != 1 {
		t.Fatalf("manifest: %v: %s", err, b)
	}
	for i, c := range manifest.Containers {
		path := filepath.Join(dir, c.File)
		out, err := exec.Command("sha256sum", path).Output()
		if err != nil || !strings.HasPrefix(string(out), c.SHA256) || c.Name != names[i] {
			t.Errorf("container %s: digest of the manifest %s, of the file %s, %v", c.Name, c.SHA256, out, err)
		}
		if files := readArchive(t, path); files["checkpoint/core-1.img"] == "" || files["devshm-checkpoint.tar"] != "" {
			t.Errorf("archive of %s is not complete, or has the files of the pod", c.Name)
		}
	}
	if got := readArchive(t, filepath.Join(dir, "shm.tar")); got["s"] != "shm\n" {
		t.Errorf("shm.tar has %q", got)
	}
}
