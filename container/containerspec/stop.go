package containerspec

import (
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The real-time signals as the C library counts them: it reserves the first two.
const (
	rtMin = 34
	rtMax = 64
)

// GracePeriodKey is the annotation or label of each container in which the kubelet
// sends the grace period of the pod, in seconds.
const GracePeriodKey = "io.kubernetes.pod.terminationGracePeriod"

// defaultGracePeriod is the default of a Kubernetes pod.
const defaultGracePeriod = 30 * time.Second

func (p *parser) stop() error {
	c := p.Config
	p.spec.GracePeriod = gracePeriod(c.GetAnnotations(), c.GetLabels(), p.Pod.GetAnnotations(), p.Pod.GetLabels())
	requested := c.GetStopSignal()
	if requested == cri.Signal_SIGNAL_RUNTIME_DEFAULT {
		return nil
	}
	full, known := cri.Signal_name[int32(requested)]
	if !known {
		return invalid("config.stop_signal %d is unknown", requested)
	}
	// The CRI writes SIGNAL_SIGRTMINPLUS3 for SIGRTMIN+3.
	name := strings.NewReplacer("PLUS", "+", "MINUS", "-").Replace(strings.TrimPrefix(full, "SIGNAL_"))
	sig, ok := parseSignal(name)
	if !ok {
		return invalid("config.stop_signal %s cannot be sent on this machine", full)
	}
	p.spec.StopSignal = sig
	return nil
}

// ValidSignal reports whether the kernel has a signal of this number.
func ValidSignal(sig unix.Signal) bool { return sig > 0 && sig <= rtMax }

// parseSignal accepts the forms "SIGTERM", "term", "15" and "SIGRTMIN+3".
func parseSignal(s string) (unix.Signal, bool) {
	if n, err := strconv.Atoi(s); err == nil {
		return unix.Signal(n), ValidSignal(unix.Signal(n))
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	for base, number := range map[string]int{"SIGRTMIN": rtMin, "SIGRTMAX": rtMax} {
		if offset, ok := strings.CutPrefix(name, base); ok {
			return realTimeSignal(number, offset)
		}
	}
	// The table of x/sys does not have these second names.
	if other, ok := map[string]unix.Signal{"SIGCLD": unix.SIGCHLD, "SIGPOLL": unix.SIGPOLL, "SIGIOT": unix.SIGIOT}[name]; ok {
		return other, true
	}
	sig := unix.SignalNum(name)
	return sig, sig != 0
}

func realTimeSignal(base int, offset string) (unix.Signal, bool) {
	n := 0
	if offset != "" {
		var err error
		if n, err = strconv.Atoi(offset); err != nil {
			return 0, false
		}
	}
	sig := base + n
	return unix.Signal(sig), sig >= rtMin && sig <= rtMax
}

// gracePeriod returns the grace period in the first of the maps that has a valid one.
func gracePeriod(from ...map[string]string) time.Duration {
	for _, m := range from {
		// 32 bits of seconds cannot overflow a time.Duration.
		if seconds, err := strconv.ParseInt(m[GracePeriodKey], 10, 32); err == nil {
			return time.Duration(seconds) * time.Second
		}
	}
	return defaultGracePeriod
}
