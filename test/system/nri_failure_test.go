package system

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

func TestNRIRefusals(t *testing.T) {
	n := newNode(t, "nriveto", 92)
	plugin := n.startPlugin(t)
	n.takeBaseline(t)
	refused := func(what string, err error, code codes.Code, words string) {
		t.Helper()
		if status.Code(err) != code || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: got error %v, want %s and %q", what, err, code, words)
		}
	}
	const words = `NRI plugin "10-test"`
	config := withPluginAction(podConfig("refused"), "RunPodSandbox", "refuse")
	_, err := n.RuntimeService.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config})
	refused("pod", err, codes.Unknown, words+", RunPodSandbox: not on this node")
	pods, err := n.RuntimeService.ListPodSandbox(t.Context(), &cri.ListPodSandboxRequest{})
	if err != nil || len(pods.GetItems()) != 0 {
		t.Errorf("pods after the refusal: got %v (error %v), want none", pods.GetItems(), err)
	}
	line := strings.Fields(plugin.await(t, "RunPodSandbox"))
	if got := strings.Join(plugin.events(t, line[1]), " "); got != "RunPodSandbox StopPodSandbox RemovePodSandbox" {
		t.Errorf("events of the refused pod: got %s, want run, stop and remove", got)
	}
	n.checkLeaks(t.Context()) // namespaces, links, addresses, cgroups, files
	config.Annotations = nil
	p := n.RunPod(t, config)
	n.takeBaseline(t)

	c := containerConfig(p, "c", busybox, "sleep", "1000")
	c.Annotations = map[string]string{"ask/CreateContainer": "refuse"}
	create := func() error {
		_, err := n.RuntimeService.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: p.ID, Config: c, SandboxConfig: p.Config})
		return err
	}
	refused("container", create(), codes.Unknown, words+", CreateContainer: not on this node")
	c.Annotations = map[string]string{"blockio": "slow"}
	refused("a class of block I/O", create(), codes.FailedPrecondition, "blockio_class")
	list, err := n.RuntimeService.ListContainers(t.Context(), &cri.ListContainersRequest{})
	if err != nil || len(list.GetContainers()) != 0 {
		t.Errorf("containers after the refusal: got %v (error %v), want none", list.GetContainers(), err)
	}
	n.checkLeaks(t.Context())

	c.Annotations = map[string]string{"ask/StartContainer": "refuse"}
	id := n.CreateContainer(t, p, c)
	_, err = n.RuntimeService.StartContainer(t.Context(), &cri.StartContainerRequest{ContainerId: id})
	refused("start", err, codes.Unknown, words+", StartContainer: not on this node")
	if s := n.ContainerStatus(t, id); s.GetState() != cri.ContainerState_CONTAINER_EXITED || !strings.Contains(s.GetMessage(), "not on this node") {
		t.Errorf("container whose start was refused: got %v, want exited with the message of the plugin", s)
	}
	n.RemovePod(t, p.ID)
	plugin.kill()
	n.takeBaseline(t) // the baseline contained the pod
}

// TestNRIFailingPlugin runs plugins that exit or hang during requests. The requests
// continue without them.
func TestNRIFailingPlugin(t *testing.T) {
	n := makeNode("nrifail")
	n.Network = n.Bridge("csnrifail", "10.95.0.0/16")
	n.Config = fmt.Sprintf("nri.request_timeout = %q", harness.Patience(500*time.Millisecond))
	n.start(t)
	for _, how := range []string{"die", "hang"} {
		for _, event := range []string{"RunPodSandbox", "CreateContainer", "StartContainer", "StopPodSandbox"} {
			t.Run(how+" in "+event, func(t *testing.T) {
				plugin := n.startPlugin(t)
				defer plugin.kill()
				p := n.RunPod(t, withPluginAction(podConfig("fail"), event, how))
				c := containerConfig(p, "c", busybox, "sleep", "1000")
				c.Annotations = map[string]string{"ask/" + event: how}
				id := n.CreateContainer(t, p, c)
				n.StartContainer(t, id)
				if s := n.ContainerStatus(t, id).GetState(); s != cri.ContainerState_CONTAINER_RUNNING {
					t.Errorf("state of the container: got %s, want running", s)
				}
				n.RemovePod(t, p.ID)
				if !slices.Contains(append(plugin.events(t, p.ID), plugin.events(t, id)...), event) {
					t.Errorf("events of the plugin: got none of %s, want one", event)
				}
				waitFor(t, "the plugin's end", func() bool { return strings.Contains(n.LogTail(), "plugins=0") })
			})
		}
	}
}

// TestNRIEventsPrecedeVisibility blocks plugins in events and checks the answers to clients.
func TestNRIEventsPrecedeVisibility(t *testing.T) {
	n := makeNode("nrihold")
	n.Network = n.Bridge("csnrihold", "10.96.0.0/16")
	n.Config = `nri.request_timeout = "60s"`
	n.start(t)
	plugin := n.startPlugin(t)
	dir := t.TempDir()
	release := func(name string) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := podConfig("held")
	config.Annotations = map[string]string{"ask/RunPodSandbox": filepath.Join(dir, "run"), "ask/StopPodSandbox": filepath.Join(dir, "stop")}
	var p *pod
	ran := make(chan error, 1)
	go func() {
		r, err := n.RuntimeService.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config})
		p = &pod{ID: r.GetPodSandboxId(), Config: config}
		ran <- err
	}()
	podID := strings.Fields(plugin.await(t, "RunPodSandbox"))[1]
	if r, err := n.RuntimeService.ListPodSandbox(t.Context(), &cri.ListPodSandboxRequest{}); err != nil || len(r.GetItems()) != 0 {
		t.Errorf("pods during RunPodSandbox: got %v (error %v), want none", r.GetItems(), err)
	}
	if _, err := n.RuntimeService.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: podID}); status.Code(err) != codes.NotFound {
		t.Errorf("status during RunPodSandbox: got error %v, want NotFound", err)
	}
	early := containerConfig(&pod{ID: podID, Config: config}, "early", busybox, "true")
	if _, err := n.RuntimeService.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: podID, Config: early, SandboxConfig: config}); status.Code(err) != codes.NotFound {
		t.Errorf("CreateContainer during RunPodSandbox: got error %v, want NotFound", err)
	}
	release("run")
	if err := <-ran; err != nil {
		t.Fatalf("run the pod: %v", err)
	}
	c := containerConfig(p, "main", busybox, "sleep", "1000")
	c.Annotations = map[string]string{"ask/CreateContainer": filepath.Join(dir, "create")}
	created := make(chan error, 1)
	go func() {
		_, err := n.RuntimeService.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: p.ID, Config: c, SandboxConfig: config})
		created <- err
	}()
	id := strings.Fields(plugin.await(t, "CreateContainer"))[1]
	if r, err := n.RuntimeService.ListContainers(t.Context(), &cri.ListContainersRequest{}); err != nil || len(r.GetContainers()) != 0 {
		t.Errorf("containers during CreateContainer: got %v (error %v), want none", r.GetContainers(), err)
	}
	release("create")
	if err := <-created; err != nil {
		t.Fatalf("create the container: %v", err)
	}
	n.StartContainer(t, id)
	stopped := make(chan error, 1)
	go func() {
		_, err := n.RuntimeService.StopPodSandbox(t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: p.ID})
		stopped <- err
	}()
	plugin.await(t, "StopPodSandbox")
	if s := n.ContainerStatus(t, id).GetState(); s != cri.ContainerState_CONTAINER_EXITED {
		t.Errorf("state of the container during StopPodSandbox: got %s, want exited", s)
	}
	if r, err := n.RuntimeService.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: p.ID}); err != nil || r.GetStatus().GetState() != cri.PodSandboxState_SANDBOX_NOTREADY {
		t.Errorf("status during StopPodSandbox: got %v (error %v), want not ready", r.GetStatus(), err)
	}
	release("stop")
	if err := <-stopped; err != nil {
		t.Errorf("stop the container: %v", err)
	}
}

// TestNRIDoesNotBlockOtherPods lists and stops a pod while a plugin blocks the creation
// of another one.
func TestNRIDoesNotBlockOtherPods(t *testing.T) {
	n := makeNode("nristop")
	n.Network = n.Bridge("csnristop", "10.99.0.0/16")
	n.Config = fmt.Sprintf("nri.request_timeout = %q", harness.Patience(2*time.Second))
	n.start(t)
	plugin := n.startPlugin(t)
	p := n.RunPod(t, podConfig("other"))
	id := n.run(t, p, "main", "sleep", "1000")
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience(30*time.Second))
	defer cancel()
	hung := make(chan error, 1)
	go func() {
		_, err := n.RuntimeService.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: withPluginAction(podConfig("hung"), "RunPodSandbox", "hang")})
		hung <- err
	}()
	waitFor(t, "the plugin to hang", func() bool { return strings.Count(strings.Join(plugin.lines(t), "\n"), "RunPodSandbox") == 2 })
	if _, err := n.RuntimeService.ListContainers(ctx, &cri.ListContainersRequest{}); err != nil {
		t.Error(err)
	}
	if _, err := n.RuntimeService.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: id}); err != nil {
		t.Error(err)
	}
	if s := n.ContainerStatus(t, id).GetState(); s != cri.ContainerState_CONTAINER_EXITED {
		t.Errorf("state of the container: got %s, want exited", s)
	}
	if err := <-hung; err != nil {
		t.Errorf("request that the plugin does not answer: got error %v, want none", err)
	}
}

// TestNRISynchronizationDuringCreates connects a plugin while pods and containers are being created. The
// plugin must receive each of them either in the synchronization or in an event, and not
// in both.
func TestNRISynchronizationDuringCreates(t *testing.T) {
	n := newNode(t, "nrilose", 100)
	const count = 24
	started := make(chan struct{})
	var once sync.Once
	var plugin *runningPlugin
	var all sync.WaitGroup
	all.Go(func() {
		parallel(count, 6, func(i int) {
			if i == count/2 {
				once.Do(func() { close(started) })
			}
			if _, _, err := n.bring(t.Context(), i); err != nil {
				t.Errorf("bring up pod %d: %v", i, err)
			}
		})
	})
	<-started
	plugin = n.startPlugin(t)
	all.Wait()
	list, err := n.RuntimeService.ListContainers(t.Context(), &cri.ListContainersRequest{})
	if err != nil || len(list.GetContainers()) != count {
		t.Fatalf("containers: got %d (error %v), want %d", len(list.GetContainers()), err, count)
	}
	creations := 0
	for _, c := range list.GetContainers() {
		for id, ways := range map[string][]string{c.GetId(): {"SyncContainer", "CreateContainer"}, c.GetPodSandboxId(): {"SyncPod", "RunPodSandbox"}} {
			events := plugin.events(t, id)
			if slices.Contains(events, ways[0]) == slices.Contains(events, ways[1]) {
				t.Errorf("events with container %s: got %v, want one", id, events)
			}
			if slices.Contains(events, ways[1]) {
				creations++
			}
		}
	}
	t.Logf("events: %d for %d pods and containers", creations, 2*count)
}
