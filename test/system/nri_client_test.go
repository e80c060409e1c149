package system

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// runningPlugin is a plugin process.
type runningPlugin struct {
	log string
	cmd *exec.Cmd
}

// startPlugin starts a plugin and waits until it is synchronized.
func (n *node) startPlugin(t *testing.T) *runningPlugin {
	t.Helper()
	p := &runningPlugin{log: filepath.Join(t.TempDir(), "events"), cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), pluginVariable+"="+p.log, pluginSocket+"="+n.NRISocket())
	p.cmd.Stderr = os.Stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.kill() })
	p.await(t, "Synchronize")
	// The daemon writes this log entry after it has added the plugin.
	waitFor(t, "the plugin to be counted", func() bool { return strings.Contains(n.LogTail(), "plugins=1") })
	return p
}

func (p *runningPlugin) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// events returns the names of the events of a pod or container.
func (p *runningPlugin) events(t *testing.T, id string) []string {
	t.Helper()
	var out []string
	for _, line := range p.lines(t) {
		if f := strings.Fields(line); len(f) > 1 && f[1] == id {
			out = append(out, f[0])
		}
	}
	return out
}

func (p *runningPlugin) lines(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile(p.log)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

func (p *runningPlugin) await(t *testing.T, line string) string {
	t.Helper()
	found := ""
	waitFor(t, "the plugin's "+line, func() bool {
		i := slices.IndexFunc(p.lines(t), func(l string) bool { return strings.HasPrefix(l, line) })
		if i >= 0 {
			found = p.lines(t)[i]
		}
		return i >= 0
	})
	return found
}

// withPluginAction sets the annotation that makes the plugin of the tests act in an event.
func withPluginAction(p *cri.PodSandboxConfig, event, action string) *cri.PodSandboxConfig {
	p.Annotations = map[string]string{"ask/" + event: action}
	return p
}
