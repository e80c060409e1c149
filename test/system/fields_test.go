package system

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

// TestPodMetadataLabelsAndAnnotations checks that the status and the list return the
// metadata, labels and annotations of a pod, and that filters find the pod.
func TestPodMetadataLabelsAndAnnotations(t *testing.T) {
	n := newNode(t, "podmeta", 96)
	config := podConfig("meta")
	config.Metadata.Attempt = 7
	config.Labels = map[string]string{"io.kubernetes.pod.name": "meta", "empty": "", "odd/key": "ü\n\"'\\"}
	config.Annotations = map[string]string{"kubernetes.io/config.source": "file", "long": strings.Repeat("x", 200<<10)}
	p := n.RunPod(t, config)
	other := n.RunPod(t, podConfig("other"))

	st, err := n.RuntimeService.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: p.ID})
	if err != nil {
		t.Fatal(err)
	}
	if len(st.GetInfo()) != 0 {
		t.Error("status without verbose has info")
	}
	if s := st.GetStatus(); !proto.Equal(s.GetMetadata(), config.GetMetadata()) || !maps.Equal(s.GetLabels(), config.GetLabels()) || !maps.Equal(s.GetAnnotations(), config.GetAnnotations()) {
		t.Errorf("status of the pod: got %v, labels %v, want metadata, labels and annotations of the request", s.GetMetadata(), s.GetLabels())
	}
	again, err := n.RuntimeService.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config})
	if err != nil || again.GetPodSandboxId() != p.ID {
		t.Errorf("repeated request: got %v (error %v), want %s", again, err, p.ID)
	}
	next := proto.Clone(config).(*cri.PodSandboxConfig)
	next.Metadata.Attempt++
	second := n.RunPod(t, next)
	if second.ID == p.ID {
		t.Errorf("run another attempt: got the same pod %s, want a new one", p.ID)
	}
	if _, err := n.RuntimeService.StopPodSandbox(t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: second.ID}); err != nil {
		t.Fatal(err)
	}

	ready, notReady := cri.PodSandboxState_SANDBOX_READY, cri.PodSandboxState_SANDBOX_NOTREADY
	for name, tc := range map[string]struct {
		filter *cri.PodSandboxFilter
		want   []string
	}{
		"none":       {nil, []string{p.ID, other.ID, second.ID}},
		"id":         {&cri.PodSandboxFilter{Id: p.ID}, []string{p.ID}},
		"prefix":     {&cri.PodSandboxFilter{Id: p.ID[:20]}, []string{p.ID}},
		"ready":      {&cri.PodSandboxFilter{State: &cri.PodSandboxStateValue{State: ready}}, []string{p.ID, other.ID}},
		"not ready":  {&cri.PodSandboxFilter{State: &cri.PodSandboxStateValue{State: notReady}}, []string{second.ID}},
		"label":      {&cri.PodSandboxFilter{LabelSelector: map[string]string{"empty": ""}}, []string{p.ID, second.ID}},
		"two labels": {&cri.PodSandboxFilter{LabelSelector: map[string]string{"empty": "", "test": "other"}}, nil},
		"all at once": {
			&cri.PodSandboxFilter{Id: second.ID, State: &cri.PodSandboxStateValue{State: notReady}, LabelSelector: map[string]string{"empty": ""}},
			[]string{second.ID},
		},
	} {
		list, err := n.RuntimeService.ListPodSandbox(t.Context(), &cri.ListPodSandboxRequest{Filter: tc.filter})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, i := range list.GetItems() {
			got = append(got, i.GetId())
		}
		if !sameSet(got, tc.want) {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}

func sameSet(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// TestPodFilesAndNames checks that the fields of a pod apply in its containers.
func TestPodFilesAndNames(t *testing.T) {
	n := newNode(t, "podfiles", 97)
	config := podConfig("files")
	config.Hostname = "web-0"
	config.DnsConfig = &cri.DNSConfig{Servers: []string{"10.1.2.3", "fd00::53"}, Searches: []string{"a.example", "b.example"}, Options: []string{"ndots:3", "edns0"}}
	p := n.RunPod(t, config)
	id := n.run(t, p, "c", "sleep", "1000")
	want := "search a.example b.example\nnameserver 10.1.2.3\nnameserver fd00::53\noptions ndots:3 edns0"
	if got := n.Exec(t, id, "cat", "/etc/resolv.conf"); got != want {
		t.Errorf("resolv.conf: got %q, want %q", got, want)
	}
	if got := n.Exec(t, id, "sh", "-c", "hostname; cat /etc/hostname; echo $HOSTNAME"); got != "web-0\nweb-0\nweb-0" {
		t.Errorf("hostname: got %q, want web-0 three times", got)
	}
	hosts := n.Exec(t, id, "cat", "/etc/hosts")
	for _, ip := range n.podIPs(t, p.ID) {
		if !strings.Contains(hosts, ip+"\tweb-0") {
			t.Errorf("/etc/hosts: got %s, want %s with web-0", hosts, ip)
		}
	}
	if info, err := os.Stat(config.GetLogDirectory()); err != nil || !info.IsDir() {
		t.Errorf("log directory: got error %v, want a directory", err)
	}
	if got := logLines(t, p, "c"); len(got) != 0 {
		t.Errorf("log of a container without output: got %q, want none", got)
	}
}

// TestContainerProcessFields checks command, arguments, working directory and
// environment, which the request and the image can both set.
func TestContainerProcessFields(t *testing.T) {
	n := newNode(t, "process", 98)
	p := n.RunPod(t, podConfig("process"))
	config := containerConfig(p, "c", busybox, "sh", "-c")
	config.Args = []string{`pwd; echo "$A|$B|$PATH"; for a; do echo "<$a>"; done`, "zero", "", "a b", "ü"}
	config.WorkingDir = "/made/for it"
	config.Envs = []*cri.KeyValue{
		{Key: "A", Value: []byte("first")},
		{Key: "A", Value: []byte("second")},
		{Key: "B", Value: []byte("x=y\nz")},
	}
	id := n.CreateContainer(t, p, config)
	n.StartContainer(t, id)
	if s := n.WaitExited(t, id); s.GetExitCode() != 0 {
		t.Errorf("exit code: got %d, want 0", s.GetExitCode())
	}
	want := []string{"/made/for it", "second|x=y", "z|" + "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "<>", "<a b>", "<ü>"}
	if got := logLines(t, p, "c"); !slices.Equal(got, want) {
		t.Errorf("output of the process: got %q, want %q", got, want)
	}
}

func TestContainerMetadataLabelsAndAnnotations(t *testing.T) {
	n := newNode(t, "ctrmeta", 99)
	p, q := n.RunPod(t, podConfig("one")), n.RunPod(t, podConfig("two"))
	config := containerConfig(p, "c", busybox, "sleep", "1000")
	config.Metadata.Attempt = 3
	config.Labels, config.Annotations = map[string]string{"which": "c", "empty": ""}, map[string]string{"io.kubernetes.container.hash": "ü"}
	config.LogPath = "c/3.log"
	running := n.CreateContainer(t, p, config)
	n.StartContainer(t, running)
	created := n.CreateContainer(t, q, containerConfig(q, "c", busybox, "true"))
	exited := n.run(t, q, "d", "true")
	n.WaitExited(t, exited)

	s := n.ContainerStatus(t, running)
	if !proto.Equal(s.GetMetadata(), config.GetMetadata()) || !maps.Equal(s.GetLabels(), config.GetLabels()) || !maps.Equal(s.GetAnnotations(), config.GetAnnotations()) {
		t.Errorf("status of the container: got %v, want metadata, labels and annotations of the request", s)
	}
	if want := filepath.Join(p.Config.GetLogDirectory(), "c/3.log"); s.GetLogPath() != want {
		t.Errorf("log path: got %q, want %q", s.GetLogPath(), want)
	}
	again, err := n.RuntimeService.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: p.ID, Config: config, SandboxConfig: p.Config})
	if err == nil && again.GetContainerId() != running {
		t.Errorf("second container with the same name and attempt: got %v, want %s", again, running)
	}
	of := func(s cri.ContainerState) *cri.ContainerStateValue { return &cri.ContainerStateValue{State: s} }
	for name, tc := range map[string]struct {
		filter *cri.ContainerFilter
		want   []string
	}{
		"none":    {nil, []string{running, created, exited}},
		"id":      {&cri.ContainerFilter{Id: running}, []string{running}},
		"prefix":  {&cri.ContainerFilter{Id: running[:20]}, []string{running}},
		"pod":     {&cri.ContainerFilter{PodSandboxId: q.ID}, []string{created, exited}},
		"created": {&cri.ContainerFilter{State: of(cri.ContainerState_CONTAINER_CREATED)}, []string{created}},
		"running": {&cri.ContainerFilter{State: of(cri.ContainerState_CONTAINER_RUNNING)}, []string{running}},
		"exited":  {&cri.ContainerFilter{State: of(cri.ContainerState_CONTAINER_EXITED)}, []string{exited}},
		"unknown": {&cri.ContainerFilter{State: of(cri.ContainerState_CONTAINER_UNKNOWN)}, nil},
		"label":   {&cri.ContainerFilter{LabelSelector: map[string]string{"empty": ""}}, []string{running}},
		"two":     {&cri.ContainerFilter{PodSandboxId: q.ID, LabelSelector: map[string]string{"empty": ""}}, nil},
	} {
		list, err := n.RuntimeService.ListContainers(t.Context(), &cri.ListContainersRequest{Filter: tc.filter})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range list.GetContainers() {
			got = append(got, c.GetId())
		}
		if !sameSet(got, tc.want) {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}

// TestContainerStopSignal checks that the stop signal of the request replaces the stop
// signal of the image, and that the container receives it.
func TestContainerStopSignal(t *testing.T) {
	n := newNode(t, "signal", 100)
	p := n.RunPod(t, podConfig("signal"))
	const script = `trap 'echo usr1; exit 3' USR1; trap 'echo term; exit 4' TERM; trap 'echo rt; exit 5' RTMIN+1; echo up; while :; do sleep 0.05; done`
	for name, tc := range map[string]struct {
		signal, shown cri.Signal
		says          string
		code          int32
	}{
		"default": {cri.Signal_SIGNAL_RUNTIME_DEFAULT, cri.Signal_SIGNAL_SIGTERM, "term", 4},
		"usr1":    {cri.Signal_SIGNAL_SIGUSR1, cri.Signal_SIGNAL_SIGUSR1, "usr1", 3},
		"kill":    {cri.Signal_SIGNAL_SIGKILL, cri.Signal_SIGNAL_SIGKILL, "", 137},
	} {
		t.Run(name, func(t *testing.T) {
			config := containerConfig(p, name, busybox, "sh", "-c", strings.Replace(script, "trap 'echo rt; exit 5' RTMIN+1; ", "", 1))
			config.StopSignal = tc.signal
			id := n.CreateContainer(t, p, config)
			n.StartContainer(t, id)
			waitFor(t, "the trap to be set", func() bool { return slices.Contains(logLines(t, p, name), "up") })
			if _, err := n.RuntimeService.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: id, Timeout: harness.PatienceSeconds(60)}); err != nil {
				t.Fatal(err)
			}
			s := n.WaitExited(t, id)
			if s.GetExitCode() != tc.code || s.GetStopSignal() != tc.shown {
				t.Errorf("stopped container: got exit code %d and stop signal %v, want %d and %v", s.GetExitCode(), s.GetStopSignal(), tc.code, tc.shown)
			}
			if got := strings.Join(logLines(t, p, name)[1:], ","); got != tc.says {
				t.Errorf("output of the container: got %q, want %q", got, tc.says)
			}
		})
	}
}

// TestContainerTerminalAndStdinFields checks the effect of stdin and tty on the process
// and on the log.
func TestContainerTerminalAndStdinFields(t *testing.T) {
	n := newNode(t, "tty", 101)
	p := n.RunPod(t, podConfig("tty"))
	for _, tty := range []bool{false, true} {
		name := fmt.Sprint("tty-", tty)
		config := containerConfig(p, name, busybox, "sh", "-c", "test -t 1 && echo terminal; readlink /proc/self/fd/0; echo err >&2")
		config.Tty = tty
		id := n.CreateContainer(t, p, config)
		n.StartContainer(t, id)
		n.WaitExited(t, id)
		b, err := os.ReadFile(filepath.Join(p.Config.GetLogDirectory(), name+".log"))
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Contains(b, []byte("terminal")); got != tty {
			t.Errorf("tty %v: got log %q, want \"terminal\": %t", tty, b, tty)
		}
		// A terminal has one output stream.
		if got := bytes.Contains(b, []byte(" stderr F err")); got == tty {
			t.Errorf("tty %v: got log %q, want stderr: %t", tty, b, !tty)
		}
		if !tty && !bytes.Contains(b, []byte("/dev/null")) {
			t.Errorf("input of a process without stdin: got %q, want /dev/null", b)
		}
	}
}

func TestExecSyncFields(t *testing.T) {
	n := newNode(t, "execsync", 102)
	p := n.RunPod(t, podConfig("execsync"))
	id := n.run(t, p, "c", "sleep", "1000")
	r, err := n.RuntimeService.ExecSync(t.Context(), &cri.ExecSyncRequest{ContainerId: id[:16], Cmd: []string{"sh", "-c", `printf 'out\377'; printf err >&2; exit 42`}, Timeout: harness.PatienceSeconds(30)})
	if err != nil {
		t.Fatal(err)
	}
	if string(r.GetStdout()) != "out\xff" || string(r.GetStderr()) != "err" || r.GetExitCode() != 42 {
		t.Errorf("exec: got stdout %q, stderr %q, exit code %d, want \"out\\xff\", \"err\", 42", r.GetStdout(), r.GetStderr(), r.GetExitCode())
	}
	if _, err := n.RuntimeService.ExecSync(t.Context(), &cri.ExecSyncRequest{ContainerId: id, Cmd: []string{"sleep", "1000"}, Timeout: 1}); err == nil {
		t.Error("exec beyond its timeout succeeded, want an error")
	}
	if got := n.Exec(t, id, "sh", "-c", "ps -o args | grep -c '[s]leep 1000'"); got != "1" {
		t.Errorf("processes in the container: got %s, want only that of the container", got)
	}
}

// TestUnusualNames uses names that an API server refuses but other clients of the CRI use.
func TestUnusualNames(t *testing.T) {
	n := newNode(t, "oddnames", 239)
	config := podConfig("odd")
	config.Metadata = &cri.PodSandboxMetadata{Name: `a b/../../c;IP=1.2.3.4 "ä"`, Namespace: "/x y", Uid: ""}
	config.Labels, config.Annotations = map[string]string{"": "a b", "k/v=;": "ö"}, map[string]string{" ": "", "../x": "\n"}
	p := n.RunPod(t, config)
	if again := n.RunPod(t, config); again.ID != p.ID {
		t.Errorf("repeated request: got pods %s and %s, want one", p.ID, again.ID)
	}
	cc := containerConfig(p, "../c d/e", busybox, "sleep", "1000")
	cc.LogPath = "c d/0.log"
	c := n.CreateContainer(t, p, cc)
	n.StartContainer(t, c)
	st, err := n.RuntimeService.ContainerStatus(t.Context(), &cri.ContainerStatusRequest{ContainerId: c})
	if err != nil || st.GetStatus().GetMetadata().GetName() != "../c d/e" {
		t.Errorf("status: got %v (error %v), want the name of the request", st, err)
	}
	pod, err := n.RuntimeService.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: p.ID})
	if err != nil || !proto.Equal(pod.GetStatus().GetMetadata(), config.Metadata) {
		t.Errorf("pod status: got %v (error %v), want the metadata of the request", pod, err)
	}
	// A restarted daemon has both.
	n.Kill()
	n.restart(t)
	if pods, containers := n.running(t); pods != 1 || containers != 1 {
		t.Errorf("after a restart: got %d pods and %d containers, want one each", pods, containers)
	}
}
