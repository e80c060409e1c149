package kubelet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

// node is a daemon with a kubelet.
type node struct {
	*harness.Daemon
	*api
	kubelet *kubelet
	rt      cri.RuntimeServiceClient
	img     cri.ImageServiceClient
	t       *testing.T
	before  harness.Snapshot
}

// newNode starts a daemon with its own bridge and subnet, and a kubelet for it. extra
// are additional keys of the kubelet's configuration. When the test ends, newNode
// removes the manifests and checks that nothing leaks.
func newNode(t *testing.T, name string, net byte, extra map[string]any) *node {
	t.Helper()
	root := newCgroupRoot(filepath.Base(suite.dir) + name)
	n := &node{t: t, Daemon: &harness.Daemon{
		Bin: filepath.Join(suite.top, "bin"), Dir: filepath.Join(suite.dir, name), Registries: suite.registries,
		CgroupDriver: root.driver,
		CgroupParent: root.parent(),
		Config:       fmt.Sprintf("image.pinned = [%q]\n", pinned),
	}}
	n.Network = n.Bridge("k"+name, fmt.Sprintf("10.%d.0.0/16", net))
	n.kubelet = &kubelet{dir: filepath.Join(n.Dir, "kubelet"), cgroup: root, socket: n.Socket(), extra: extra}
	t.Cleanup(n.close)
	if err := errors.Join(harness.Tmpfs(filepath.Join(n.Dir, "run")), n.Start(t.Context()), n.dial()); err != nil {
		t.Fatal(err)
	}
	n.runFirstPod(t)
	if err := n.kubelet.cgroup.make(); err != nil {
		t.Fatal(err)
	}
	n.startKubelet(t)
	return n
}

func (n *node) dial() error {
	conn, err := grpc.NewClient("unix://"+n.Socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	n.rt, n.img = cri.NewRuntimeServiceClient(conn), cri.NewImageServiceClient(conn)
	n.api, err = newAPI()
	return err
}

// runFirstPod runs and removes a pod, and takes the snapshot for the search for
// leaks. The first pod creates objects that remain and are not leaks, for example the
// bridge and chains of the plugins.
func (n *node) runFirstPod(t *testing.T) {
	t.Helper()
	config := &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: "first", Namespace: "default", Uid: "first"},
		Linux:    &cri.LinuxPodSandboxConfig{},
	}
	p, err := n.rt.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	_, stop := n.rt.StopPodSandbox(t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: p.GetPodSandboxId()})
	_, remove := n.rt.RemovePodSandbox(t.Context(), &cri.RemovePodSandboxRequest{PodSandboxId: p.GetPodSandboxId()})
	n.before, err = harness.Take(n.StateDirs(), n.kubelet.cgroup.config(), n.Pid())
	if err := errors.Join(stop, remove, err); err != nil {
		t.Fatal(err)
	}
}

func (n *node) startKubelet(t *testing.T) {
	t.Helper()
	if err := n.kubelet.start(t.Context(), suite.top); err != nil {
		t.Fatal(err)
	}
}

// restartKubelet stops the kubelet and starts it again with other additional keys.
func (n *node) restartKubelet(t *testing.T, extra map[string]any) {
	t.Helper()
	if err := n.kubelet.stop(); err != nil {
		t.Fatal(err)
	}
	n.kubelet.extra = extra
	n.startKubelet(t)
}

func (n *node) manifest(name string) string { return n.kubelet.path("manifests", name+".json") }

// apply creates or replaces the manifest of a pod.
func (n *node) apply(t *testing.T, p *corev1.Pod) {
	t.Helper()
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	// The kubelet ignores names that begin with a dot.
	hidden := n.kubelet.path("manifests", "."+p.Name)
	if err := errors.Join(os.WriteFile(hidden, b, 0o644), os.Rename(hidden, n.manifest(p.Name))); err != nil {
		t.Fatal(err)
	}
}

// wait waits until check returns nil for a pod.
func (n *node) wait(t *testing.T, name string, check func(*corev1.Pod) error) *corev1.Pod {
	t.Helper()
	var found *corev1.Pod
	eventually(t, 60*time.Second, func() error {
		p, err := n.pod(t.Context(), name)
		if err != nil {
			return err
		}
		if p == nil {
			return fmt.Errorf("pod %s does not exist", name)
		}
		found = p
		if err := check(p); err != nil {
			status, _ := json.Marshal(p.Status)
			return fmt.Errorf("pod %s: %w: %s", name, err, status)
		}
		return nil
	})
	return found
}

// ready returns an error unless the pod is ready.
func ready(p *corev1.Pod) error {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue && p.Status.Phase == corev1.PodRunning {
			return nil
		}
	}
	return errors.New("the pod is not ready")
}

// runPod applies a manifest and waits until the pod is ready.
func (n *node) runPod(t *testing.T, p *corev1.Pod) *corev1.Pod {
	t.Helper()
	n.apply(t, p)
	return n.wait(t, p.Name, ready)
}

// criStatus returns the CRI status of a container, by the id in the status of its pod.
func (n *node) criStatus(t *testing.T, id string) *cri.ContainerStatusResponse {
	t.Helper()
	_, bare, ok := strings.Cut(id, "://")
	if !ok {
		t.Fatalf("container id %q has no prefix with the name of the runtime", id)
	}
	r, err := n.rt.ContainerStatus(t.Context(), &cri.ContainerStatusRequest{ContainerId: bare, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// pid returns the host's pid of the first process of a container.
func (n *node) pid(t *testing.T, id string) int {
	t.Helper()
	var info struct {
		Pid int `json:"pid"`
	}
	if err := json.Unmarshal([]byte(n.criStatus(t, id).GetInfo()["info"]), &info); err != nil || info.Pid == 0 {
		t.Fatalf("verbose status without pid: %v", err)
	}
	return info.Pid
}

// close removes all manifests, waits until the kubelet has removed all pods, stops
// the kubelet and the daemon, and searches for leaks.
func (n *node) close() {
	t := n.t
	empty := n.kubelet.cmd != nil
	if empty {
		if err := n.removePods(); err != nil {
			t.Error(err)
			empty = false // the remaining pods would be reported as leaks again
		}
		if err := n.kubelet.stop(); err != nil {
			t.Error(err)
		}
	}
	if t.Failed() {
		n.report()
	}
	if empty {
		if err := n.kubelet.cgroup.remove(); err != nil {
			t.Errorf("cgroups of the kubelet: %v", err)
		}
		n.checkLeaks()
	}
	if err := n.Stop(); err != nil {
		t.Error(err)
	}
}

// report logs the ends of the logs and copies the complete logs to the report directory.
func (n *node) report() {
	n.t.Log(n.kubelet.logTail())
	n.t.Log(n.LogTail())
	dir := filepath.Join(suite.top, "test", "kubelet", "report")
	for _, file := range []string{n.LogPath(), n.kubelet.path("kubelet.log")} {
		text, err := os.ReadFile(file)
		if err = errors.Join(err, os.MkdirAll(dir, 0o755)); err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(n.Dir)+"-"+filepath.Base(file)), text, 0o644)
		}
		if err != nil {
			n.t.Log(err)
		}
	}
}

// removePods removes all manifests and waits until the kubelet has removed all pods.
// The kubelet removes sandboxes once a minute.
func (n *node) removePods() error {
	manifests, err := filepath.Glob(n.manifest("*"))
	if err != nil {
		return err
	}
	for _, m := range manifests {
		if err := os.Remove(m); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience(150*time.Second))
	defer cancel()
	for {
		left, err := n.podObjects(ctx)
		if err == nil && len(left) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d objects remain, the first of them %v (error %v)", len(left), left[:min(len(left), 10)], err)
		case exit := <-n.kubelet.exited:
			n.kubelet.exited <- exit
			return fmt.Errorf("the kubelet exited: %v", exit)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// podObjects returns the objects of all pods: sandboxes, containers, cgroups, volumes
// and logs.
func (n *node) podObjects(ctx context.Context) ([]string, error) {
	var left []string
	pods, err := n.rt.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return nil, err
	}
	for _, p := range pods.GetItems() {
		left = append(left, "sandbox of "+p.GetMetadata().GetName())
	}
	containers, err := n.rt.ListContainers(ctx, &cri.ListContainersRequest{})
	if err != nil {
		return nil, err
	}
	for _, c := range containers.GetContainers() {
		left = append(left, "container "+c.GetMetadata().GetName())
	}
	for _, dir := range n.kubelet.cgroup.dirs() {
		if n.kubelet.cgroup.isPod(dir) {
			left = append(left, dir)
		}
	}
	for _, pattern := range []string{n.kubelet.path("root", "pods", "*"), n.kubelet.path("logs", "*"), "/var/log/containers/*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		left = append(left, found...)
	}
	return left, nil
}

// checkLeaks removes the images and compares with the first snapshot. It repeats the
// comparison for a while, because the daemon deletes layers in the background.
func (n *node) checkLeaks() {
	t := n.t
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience(time.Minute))
	defer cancel()
	list, err := n.img.ListImages(ctx, &cri.ListImagesRequest{})
	if err != nil {
		t.Error(err)
	}
	for _, i := range list.GetImages() {
		if _, err := n.img.RemoveImage(ctx, &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: i.GetId()}}); err != nil {
			t.Error(err)
		}
	}
	var left []string
	for end := time.Now().Add(harness.Patience(15 * time.Second)); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		after, err := harness.Take(n.StateDirs(), n.kubelet.cgroup.config(), n.Pid())
		if err != nil {
			t.Error(err)
			return
		}
		if left = after.Since(n.before); len(left) == 0 {
			return
		}
	}
	for _, l := range left {
		t.Errorf("leak: %s", l)
	}
}
