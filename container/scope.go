package container

import (
	"strconv"
	"time"

	"github.com/criserver/criserver/oci"
)

// gracePeriodKey is the key under which the kubelet sends the grace period of the
// pod, in seconds: as an annotation of each container.
const gracePeriodKey = "io.kubernetes.pod.terminationGracePeriod"

// defaultGracePeriod is the default of a Kubernetes pod.
const defaultGracePeriod = 30 * time.Second

// scope says how systemd stops the container when systemd does it by itself, as
// at a shutdown of the machine. The daemon and the pause stop after the
// container: the end of a pause ends all processes of its PID namespace.
func (m *Manager) scope(c *container, pod Pod) oci.Scope {
	s := oci.Scope{
		StopSignal: c.rec.StopSignal,
		StopTimeout: gracePeriod(
			c.config.GetAnnotations(), c.config.GetLabels(), pod.Config.GetAnnotations(), pod.Config.GetLabels(),
		),
	}
	for _, unit := range []string{m.cfg.DaemonUnit, pod.PauseUnit} {
		if unit != "" {
			s.After = append(s.After, unit)
		}
	}
	return s
}

// gracePeriod returns the grace period that the first of the maps has.
func gracePeriod(from ...map[string]string) time.Duration {
	for _, m := range from {
		// 32 bits of seconds cannot overflow a time.Duration.
		if seconds, err := strconv.ParseInt(m[gracePeriodKey], 10, 32); err == nil {
			return time.Duration(seconds) * time.Second
		}
	}
	return defaultGracePeriod
}
