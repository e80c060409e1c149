package systemd

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

// beforeReboot has the values that TestBeforeReboot stores for TestAfterReboot.
type beforeReboot struct {
	BootID   string
	Images   []string
	IDs      []string // of pods and containers
	Stubborn []string // containers that ignore their stop signal
}

const rebootDir = stateDir + "/reboot"

// stubbornGrace is the grace period of the container that ignores its stop
// signal, in seconds.
const stubbornGrace = 8

func bootID(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func (c *client) imageNames(t *testing.T) []string {
	t.Helper()
	r, err := c.ImageService.ListImages(limited(t), &cri.ListImagesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range r.GetImages() {
		names = append(names, i.GetId()+" "+strings.Join(i.GetRepoTags(), " "))
	}
	slices.Sort(names)
	return names
}

// TestBeforeReboot runs containers that write down how the shutdown of the host
// ends them. `systemctl reboot` and TestAfterReboot follow.
func TestBeforeReboot(t *testing.T) {
	c := installed(t)
	// The journal of this boot must be readable in the next one.
	if err := os.MkdirAll("/var/log/journal", 0o755); err != nil {
		t.Fatal(err)
	}
	command(t, "systemctl", "restart", "systemd-journald.service")
	command(t, "journalctl", "--flush")
	if err := os.RemoveAll(rebootDir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(rebootDir, 0o777); err != nil {
		t.Fatal(err)
	}
	f := newFleet(t, c)
	p := c.runPod(t, podConfig("reboot"))
	state := beforeReboot{BootID: bootID(t), Images: c.imageNames(t), IDs: []string{p.ID, f.plain.ID, f.ending.ID}}
	for _, m := range f.members {
		state.IDs = append(state.IDs, m.id, m.pod.ID)
		if !m.counts { // a shell without a handler, as the first process of its PID namespace
			state.Stubborn = append(state.Stubborn, m.id)
		}
	}
	// systemd sends the signal to all processes of a container, also to those that the handler has just started.
	const graceful = `end() { echo $1; until now=$(date +%s); do :; done; echo $1 $now >>/host/NAME; sleep 3; echo saved; echo saved >>/host/NAME; exit 0; }
		trap 'end term' TERM; trap 'end usr1' USR1; while true; do usleep 100000; done`
	const stubborn = `trap '' TERM; while true; do date +%s >/host/beat; mv /host/beat /host/NAME; usleep 200000; done`
	for _, kind := range []struct {
		name, script string
		signal       cri.Signal
		grace        int
	}{
		{"graceful", graceful, cri.Signal_SIGNAL_RUNTIME_DEFAULT, 120},
		{"signal", graceful, cri.Signal_SIGNAL_SIGUSR1, 120},
		{"stubborn", stubborn, cri.Signal_SIGNAL_RUNTIME_DEFAULT, stubbornGrace},
	} {
		name := kind.name
		config := containerConfig(p, name, "sh", "-c", strings.ReplaceAll(kind.script, "NAME", name))
		config.Mounts = []*cri.Mount{{HostPath: rebootDir, ContainerPath: "/host"}}
		config.StopSignal = kind.signal
		config.Annotations = map[string]string{"io.kubernetes.pod.terminationGracePeriod": itoa(kind.grace)} // like the kubelet
		id := c.RunContainer(t, p, config)
		state.IDs = append(state.IDs, id)
		if name == "stubborn" {
			state.Stubborn = append(state.Stubborn, id)
		}
	}
	eventually(t, 10*time.Second, func() error { _, err := os.Stat(rebootDir + "/stubborn"); return err })
	b, err := json.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(rebootDir+"/state.json", b, 0o644); err != nil {
		t.Fatal(err)
	}
	command(t, "sync")
}

// TestAfterReboot checks how the containers of TestBeforeReboot ended, and that
// the daemon starts without them.
func TestAfterReboot(t *testing.T) {
	var state beforeReboot
	b, err := os.ReadFile(rebootDir + "/state.json")
	if err != nil {
		t.Fatalf("TestBeforeReboot has not run: %v", err)
	}
	if err := json.Unmarshal(b, &state); err != nil {
		t.Fatal(err)
	}
	if state.BootID == bootID(t) {
		t.Fatal("the host has not been rebooted since TestBeforeReboot")
	}
	serving(t, 0)
	t.Run("containers ended gracefully", func(t *testing.T) { testShutdown(t, state) })
	t.Run("the daemon starts without them", func(t *testing.T) { testBoot(t, state) })
}

func testShutdown(t *testing.T, state beforeReboot) {
	term := endedGracefully(t, "graceful", "term")
	endedGracefully(t, "signal", "usr1")
	b, err := os.ReadFile(rebootDir + "/stubborn")
	if err != nil {
		t.Fatal(err)
	}
	last, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	if had := last - term; had < stubbornGrace-2 || had > stubbornGrace+int(harness.Patience(2*time.Second).Seconds()) {
		t.Errorf("the container that ignores its stop signal was killed after %d s; its grace period is %d s", had, stubbornGrace)
	}
	out, err := exec.Command("journalctl", "--no-pager", "-b", "-1", "-o", "short-unix").Output()
	if err != nil {
		t.Fatalf("journal of the boot before: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	for _, line := range lines {
		expected := slices.ContainsFunc(state.Stubborn, func(id string) bool { return strings.Contains(line, id) })
		if strings.Contains(line, "timed out") && !expected {
			t.Errorf("the shutdown waited for a timeout: %s", line)
		}
	}
	end, _ := strconv.ParseFloat(strings.Fields(lines[len(lines)-1])[0], 64)
	t.Logf("the journal ends %.0f s after the stop signal", end-float64(term))
}

// endedGracefully checks that a container received its stop signal and had the
// time to end by itself. It returns the time of the signal, in seconds.
func endedGracefully(t *testing.T, name, signal string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(rebootDir, name))
	if err != nil {
		t.Fatalf("container %s received no stop signal: %v", name, err)
	}
	words := strings.Fields(string(b))
	if len(words) != 3 || words[0] != signal || words[2] != "saved" {
		t.Fatalf("container %s wrote %q: it was killed in its grace period", name, words)
	}
	// Its monitor lived longer and wrote the last line to the log.
	log, err := os.ReadFile(filepath.Join(stateDir, "logs", "reboot", name+".log"))
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(log)), " stdout F saved") {
		t.Errorf("the log of container %s does not end with its last line: %v: %s", name, err, log)
	}
	second, err := strconv.Atoi(words[1])
	if err != nil {
		t.Fatal(err)
	}
	return second
}

func testBoot(t *testing.T, state beforeReboot) {
	c := dial(t)
	for _, e := range journal(t, "-b", "-u", unit) {
		bad := strings.Contains(e.Message, "level=warning") || strings.Contains(e.Message, "level=error")
		if bad && !strings.Contains(e.Message, oldRuntime) {
			t.Errorf("the start after the reboot logged: %s", e.Message)
		}
	}
	pods, err := c.RuntimeService.ListPodSandbox(limited(t), &cri.ListPodSandboxRequest{})
	if err != nil || len(pods.GetItems()) > 0 {
		t.Errorf("after the reboot there are the pods %v, %v", pods.GetItems(), err)
	}
	containers, err := c.RuntimeService.ListContainers(limited(t), &cri.ListContainersRequest{})
	if err != nil || len(containers.GetContainers()) > 0 {
		t.Errorf("after the reboot there are the containers %v, %v", containers.GetContainers(), err)
	}
	if now := c.imageNames(t); !slices.Equal(now, state.Images) {
		t.Errorf("the images are %v, they were %v", now, state.Images)
	}
	eventually(t, 6*time.Second, func() error {
		for what := range traces(t) {
			for _, id := range state.IDs {
				if strings.Contains(what, id) {
					return fmt.Errorf("left behind from the boot before: %s", what)
				}
			}
		}
		return nil
	})
	systemctl(t, "stop", unit)
	command(t, "criserver", "check", "--only", "images")
	systemctl(t, "start", unit)
	p := c.runPod(t, podConfig("afterwards")) // without a pull
	id := c.RunContainer(t, p, containerConfig(p, "afterwards", "sh", "-c", "echo fine; exit 3"))
	if s := c.WaitExited(t, id); s.GetExitCode() != 3 {
		t.Errorf("exit code %d, want 3", s.GetExitCode())
	}
	c.removeAll(t)
}
