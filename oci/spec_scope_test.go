package oci

import (
	"maps"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestScopeProperties(t *testing.T) {
	shared := map[string]string{"io.example": "kept", "org.systemd.property.ExecStart": "'removed'"}
	spec := &specs.Spec{Annotations: shared}
	Scope{After: []string{"criserver.service", "criserver-pause-1.scope"}, StopTimeout: 45 * time.Second, StopSignal: unix.SIGINT}.Apply(spec)
	want := map[string]string{
		"io.example":                           "kept",
		"org.systemd.property.CollectMode":     "'inactive-or-failed'",
		"org.systemd.property.Conflicts":       "['shutdown.target']",
		"org.systemd.property.Before":          "['shutdown.target']",
		"org.systemd.property.After":           "['criserver.service', 'criserver-pause-1.scope']",
		"org.systemd.property.TasksMax":        "uint64 18446744073709551615",
		"org.systemd.property.TimeoutStopUSec": "uint64 45000000",
		"org.systemd.property.KillSignal":      "int32 2",
	}
	if !maps.Equal(spec.Annotations, want) {
		t.Errorf("got %v", spec.Annotations)
	}
	if len(shared) != 2 {
		t.Error("the map of the caller was changed")
	}
	limit := int64(70)
	limited := &specs.Spec{Linux: &specs.Linux{Resources: &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}}}
	Scope{}.Apply(limited)
	if got := limited.Annotations["org.systemd.property.TasksMax"]; got != "uint64 70" {
		t.Errorf("TasksMax is %q", got)
	}
	for timeout, want := range map[time.Duration]string{0: "uint64 1000000", -time.Second: "uint64 1000000", 1000 * time.Hour: "uint64 1800000000"} {
		spec := &specs.Spec{}
		Scope{StopTimeout: timeout, StopSignal: unix.SIGTERM}.Apply(spec)
		if got := spec.Annotations["org.systemd.property.TimeoutStopUSec"]; got != want || len(spec.Annotations) != 5 {
			t.Errorf("timeout %s: %v", timeout, spec.Annotations)
		}
	}
}
