package kubelet

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/criserver/criserver/test/harness"
)

// restarted returns a check that a container runs again after an exit with this code
// and reason.
func restarted(name string, code int32, reason string) func(*corev1.Pod) error {
	return func(p *corev1.Pod) error {
		s := status(p, name)
		last := s.LastTerminationState.Terminated
		if s.RestartCount != 1 || last == nil || s.State.Running == nil {
			return errors.New("the container has not been restarted")
		}
		if last.ExitCode != code || last.Reason != reason {
			return fmt.Errorf("last exit: got code %d, reason %q; want %d, %q", last.ExitCode, last.Reason, code, reason)
		}
		return ready(p)
	}
}

func testLivenessProbe(t *testing.T, n *node) {
	c := sh("sick", "trap 'echo told; exit 3' TERM; while :; do usleep 50000; done")
	c.LivenessProbe = execProbe("test ! -e /sick")
	p := newPod("liveness", c)
	p.Spec.TerminationGracePeriodSeconds = ptr(int64(60))
	before := n.runPod(t, p)
	n.exec(t, container{"liveness", "sick"}, "touch /sick")
	after := n.wait(t, "liveness", restarted("sick", 3, "Error"))
	if status(before, "sick").ContainerID == status(after, "sick").ContainerID || before.Status.PodIP != after.Status.PodIP {
		t.Error("the restart did not create another container in the same pod")
	}
	if got := n.logs(t, container{"liveness", "sick"}, url.Values{"previous": {"true"}}); got != "told\n" {
		t.Errorf("log of the first container: got %q", got)
	}
}

// testHangingProbe checks that a probe that reaches its timeout has failed, and that
// its processes are killed.
func testHangingProbe(t *testing.T, n *node) {
	c := sh("hangs", "[ -e /data/second ] && rm /data/hang; touch /data/second; exec sleep 100000")
	c.LivenessProbe = execProbe("if [ -e /data/hang ]; then exec sleep 100042; fi")
	c.LivenessProbe.TimeoutSeconds = int32(harness.PatienceSeconds(3))
	c.VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	p := newPod("hanging", c)
	p.Spec.Volumes = []corev1.Volume{emptyDir("data", corev1.EmptyDirVolumeSource{})}
	n.runPod(t, p)
	n.exec(t, container{"hanging", "hangs"}, "touch /data/hang")
	n.wait(t, "hanging", restarted("hangs", 137, "Error"))
	stats, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range stats {
		if b, _ := os.ReadFile(file); string(b) == "sleep\x00100042\x00" { // other processes may exit during the walk
			t.Errorf("%s: the command of the probe still runs", file)
		}
	}
}

func testReadinessProbe(t *testing.T, n *node) {
	c := sh("late", "exec sleep 100000")
	c.ReadinessProbe = execProbe("test -e /ready")
	c.StartupProbe = execProbe("test -e /started")
	c.StartupProbe.FailureThreshold = 100
	n.apply(t, newPod("readiness", c))
	n.wait(t, "readiness", func(p *corev1.Pod) error {
		if s := status(p, "late"); s.State.Running == nil || *s.Started {
			return errors.New("want a running container that is not started")
		}
		return nil
	})
	late := container{"readiness", "late"}
	n.exec(t, late, "touch /started")
	n.wait(t, "readiness", func(p *corev1.Pod) error {
		if s := status(p, "late"); !*s.Started || s.Ready {
			return errors.New("want a started container that is not ready")
		}
		return nil
	})
	n.exec(t, late, "touch /ready")
	n.wait(t, "readiness", ready)
	n.exec(t, late, "rm /ready")
	p := n.wait(t, "readiness", func(p *corev1.Pod) error {
		if ready(p) == nil {
			return errors.New("the container is still ready")
		}
		return nil
	})
	if s := status(p, "late"); s.RestartCount != 0 {
		t.Errorf("restarts by a failing readiness probe: got %d, want none", s.RestartCount)
	}
}

func testKilledProcess(t *testing.T, n *node) {
	p := n.runPod(t, newPod("killed", sh("first", "echo I am $(hostname); exec sleep 100000"), sh("other", "exec sleep 100000")))
	if err := unix.Kill(n.pid(t, status(p, "first").ContainerID), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	after := n.wait(t, "killed", restarted("first", 137, "Error"))
	if a, b := status(p, "other"), status(after, "other"); a.ContainerID != b.ContainerID || b.RestartCount != 0 {
		t.Error("the other container was restarted, too")
	}
}

func testOutOfMemory(t *testing.T, n *node) {
	c := sh("eater", "test -e /data/ate && exec sleep 100000; touch /data/ate; exec tail /dev/zero")
	c.Resources.Limits = amounts("memory", "24Mi")
	c.VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	p := newPod("oom", c)
	p.Spec.Volumes = []corev1.Volume{emptyDir("data", corev1.EmptyDirVolumeSource{})}
	n.apply(t, p)
	n.wait(t, "oom", restarted("eater", 137, "OOMKilled"))
}

func testCrashLoop(t *testing.T, n *node) {
	c := sh("crash", "echo about to end; echo the reason > /dev/termination-log; exit 5")
	quiet := sh("quiet", "echo the last words; exit 6")
	quiet.TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
	n.apply(t, newPod("crash", c, quiet))
	n.wait(t, "crash", func(p *corev1.Pod) error {
		for name, want := range map[string]corev1.ContainerStateTerminated{
			"crash": {ExitCode: 5, Message: "the reason\n"}, "quiet": {ExitCode: 6, Message: "the last words\n"},
		} {
			s := status(p, name)
			if s.RestartCount < 2 || s.State.Waiting == nil || s.State.Waiting.Reason != "CrashLoopBackOff" || s.LastTerminationState.Terminated == nil {
				return fmt.Errorf("%s is not in a crash loop", name)
			}
			if last := s.LastTerminationState.Terminated; last.ExitCode != want.ExitCode || last.Message != want.Message {
				return fmt.Errorf("last exit of %s: got code %d, message %q", name, last.ExitCode, last.Message)
			}
		}
		return nil
	})
	if got := n.logs(t, container{"crash", "crash"}, url.Values{"previous": {"true"}}); got != "about to end\n" {
		t.Errorf("log of the previous container: got %q", got)
	}
}

func testJobs(t *testing.T, n *node) {
	done := newPod("done", sh("main", "echo result"))
	done.Spec.RestartPolicy = corev1.RestartPolicyNever
	failed := newPod("failed", sh("main", "echo never"))
	failed.Spec.RestartPolicy = corev1.RestartPolicyNever
	failed.Spec.InitContainers = []corev1.Container{sh("first", "exit 9")}
	n.apply(t, done)
	n.apply(t, failed)
	n.wait(t, "done", func(p *corev1.Pod) error {
		if s := status(p, "main").State.Terminated; p.Status.Phase != corev1.PodSucceeded || s == nil || s.Reason != "Completed" {
			return errors.New("the pod has not succeeded")
		}
		return nil
	})
	if got := n.logs(t, container{"done", "main"}, nil); got != "result\n" {
		t.Errorf("log of a completed pod: got %q", got)
	}
	p := n.wait(t, "failed", func(p *corev1.Pod) error {
		if s := status(p, "first").State.Terminated; p.Status.Phase != corev1.PodFailed || s == nil || s.ExitCode != 9 {
			return errors.New("the pod has not failed")
		}
		return nil
	})
	if s := status(p, "main"); s.ContainerID != "" {
		t.Errorf("the main container was created after a failed init container: %+v", s)
	}
}

func testBadPods(t *testing.T, n *node) {
	c := sh("main", "true")
	c.Image = "registry.k8s.io/no/such:1"
	n.apply(t, newPod("noimage", c))
	c = sh("main", "true")
	c.Command = []string{"/no/such/program"}
	n.apply(t, newPod("noprogram", c))
	n.wait(t, "noimage", func(p *corev1.Pod) error {
		if w := status(p, "main").State.Waiting; w == nil || w.Reason != "ErrImagePull" && w.Reason != "ImagePullBackOff" {
			return errors.New("the status does not report the missing image")
		}
		return nil
	})
	n.wait(t, "noprogram", func(p *corev1.Pod) error {
		s := status(p, "main")
		text := fmt.Sprintf("%v %v", s.LastTerminationState.Terminated, s.State)
		if !strings.Contains(text, "/no/such/program") {
			return errors.New("the status does not report the missing program")
		}
		return nil
	})
}
