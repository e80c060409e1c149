package nri

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// observations is an Observer that records its notifications.
type observations struct{ lines []string }

func (o *observations) PluginAnswered(plugin, event string, d time.Duration) {
	o.lines = append(o.lines, fmt.Sprint("answered ", plugin, " ", event, " ", d))
}

func (o *observations) PluginFailed(plugin, event string, err error) {
	o.lines = append(o.lines, fmt.Sprint("failed ", plugin, " ", event, " ", err))
}

func (o *observations) PluginsConnected(n int) {
	o.lines = append(o.lines, fmt.Sprint("connected ", n))
}

// TestObserver checks that the observer is notified of answers, failures and connections, and that it is optional.
func TestObserver(t *testing.T) {
	o := &observations{}
	for _, m := range []*Manager{{cfg: Config{Observer: o}}, {}} {
		p := pluginMetrics{m}
		p.RecordPluginLatency("10-a", "CreateContainer", time.Second)
		p.RecordPluginInvocation("10-a", "CreateContainer", nil)
		p.RecordPluginInvocation("10-a", "StopContainer", errors.New("refused"))
		p.UpdatePluginCount(2)
		if call := m.failedCall.Load(); call == nil || m.plugins.Load() != 2 {
			t.Errorf("got the failed call %v and %d plugins, want a call and 2 plugins", call, m.plugins.Load())
		}
	}
	if want := []string{"answered 10-a CreateContainer 1s", "failed 10-a StopContainer refused", "connected 2"}; !slices.Equal(o.lines, want) {
		t.Errorf("got %q, want %q", o.lines, want)
	}
}
