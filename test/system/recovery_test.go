package system

import (
	"context"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

// TestKillDuringCreates kills the daemon at several moments while 50 pods and their
// containers are being created. The client retries like the kubelet.
func TestKillDuringCreates(t *testing.T) {
	count := 50
	if testing.Short() {
		count = 20 // still more than the requests at a time
	}
	for name, part := range map[string]float64{"early": 0.1, "middle": 0.5, "late": 0.9} {
		t.Run(name, func(t *testing.T) { killAmidCreates(t, name, count, int32(part*float64(count))) })
	}
}

// killAmidCreates kills the daemon when a number of pods have a running container.
func killAmidCreates(t *testing.T, name string, count int, after int32) {
	n := newNode(t, "kill"+name, 64)
	var done atomic.Int32
	enough := make(chan struct{})
	var once sync.Once
	finished := make([]bool, count)
	var all sync.WaitGroup
	all.Go(func() {
		parallel(count, 12, func(i int) {
			if _, _, err := n.bring(t.Context(), i); err != nil {
				return // the daemon has been killed
			}
			finished[i] = true
			if done.Add(1) >= after {
				once.Do(func() { close(enough) })
			}
		})
	})
	<-enough
	n.Kill()
	all.Wait()
	n.restart(t)
	kept := 0
	for _, ok := range finished {
		if ok {
			kept++
		}
	}
	if _, c := n.running(t); c < kept {
		t.Errorf("running containers after the restart: got %d, want at least %d", c, kept)
	}
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience(2*time.Minute))
	defer cancel()
	parallel(count, 8, func(i int) {
		if finished[i] {
			return
		}
		if err := n.retry(ctx, i); err != nil {
			t.Errorf("retry pod %d: %v", i, err)
		}
	})
	if p, c := n.running(t); p != count || c != count {
		t.Errorf("running after the restart: got %d pods and %d containers, want %d each", p, c, count)
	}
}

// retry does what the kubelet does after a failure: it reads the state of the pod and
// continues from there. A container that was created and not started is replaced with the
// next attempt.
func (n *node) retry(ctx context.Context, i int) error {
	name := podConfig("p" + strconv.Itoa(i)).GetMetadata().GetName()
	cs, err := n.RuntimeService.ListContainers(ctx, &cri.ListContainersRequest{})
	if err != nil {
		return err
	}
	ps, err := n.RuntimeService.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{LabelSelector: map[string]string{"test": name}}})
	if err != nil {
		return err
	}
	for _, p := range ps.GetItems() {
		if p.GetState() == cri.PodSandboxState_SANDBOX_READY {
			for _, c := range cs.GetContainers() {
				if c.GetPodSandboxId() == p.GetId() && c.GetState() == cri.ContainerState_CONTAINER_RUNNING {
					return nil // the start succeeded and the answer was lost
				}
			}
			continue
		}
		if err := n.StopAndRemovePod(ctx, p.GetId()); err != nil {
			return err
		}
	}
	_, _, err = n.bring(ctx, i)
	return err
}

func TestRecoveryAfterRestart(t *testing.T) {
	n := newNode(t, "found", 65)
	p := n.RunPod(t, podConfig("found"))
	writer := n.run(t, p, "writer", "sh", "-c", "i=0; while true; do echo $i; i=$((i+1)); usleep 2000; done")
	exits := n.run(t, p, "exits", "sh", "-c", "while [ ! -e /go ]; do usleep 10000; done; exit 7")
	created := n.CreateContainer(t, p, containerConfig(p, "created", busybox, "sleep", "1000"))
	ips := n.podIPs(t, p.ID)
	verbose, err := n.RuntimeService.ContainerStatus(t.Context(), &cri.ContainerStatusRequest{ContainerId: exits, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	root := infoField(t, verbose.GetInfo()["info"], "rootfs")

	n.Kill()
	if err := os.WriteFile(root+"/go", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	n.restart(t)
	if s := n.ContainerStatus(t, writer); s.GetState() != cri.ContainerState_CONTAINER_RUNNING {
		t.Errorf("state of the running container: got %s, want running", s.GetState())
	}
	if s := n.WaitExited(t, exits); s.GetExitCode() != 7 || s.GetReason() != "Error" {
		t.Errorf("container that exited while no daemon ran: got code %d, reason %q; want 7, Error", s.GetExitCode(), s.GetReason())
	}
	n.StartContainer(t, created)
	if got := n.podIPs(t, p.ID); len(got) != len(ips) || got[0] != ips[0] {
		t.Errorf("addresses of the pod: got %v, want %v", got, ips)
	}
	n.Exec(t, writer, "true")
	if _, err := n.RuntimeService.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: writer}); err != nil {
		t.Fatal(err)
	}
	lines := logLines(t, p, "writer")
	for i, line := range lines {
		if line != strconv.Itoa(i) {
			t.Fatalf("line %d of the log: got %q, want %d", i, line, i)
		}
	}
	if len(lines) < 50 {
		t.Errorf("lines in the log: got %d, want at least 50", len(lines))
	}
}
