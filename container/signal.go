package container

import (
	"strconv"
	"strings"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	rtMin = 34 // SIGRTMIN as the C library has it: two are its own
	rtMax = 64
)

// signalOf returns the signal that asks a container to stop: the request's, else
// the image's STOPSIGNAL, else SIGTERM. An unknown STOPSIGNAL is no reason to refuse
// the container: the signal is SIGTERM then, and a warning is logged.
func signalOf(requested cri.Signal, image string) (unix.Signal, error) {
	if requested != cri.Signal_SIGNAL_RUNTIME_DEFAULT {
		full, known := cri.Signal_name[int32(requested)]
		if !known {
			return 0, invalid("config.stop_signal %d is unknown", requested)
		}
		// SIGNAL_SIGRTMINPLUS3 is SIGRTMIN+3 elsewhere.
		name := strings.NewReplacer("PLUS", "+", "MINUS", "-").Replace(strings.TrimPrefix(full, "SIGNAL_"))
		if sig, ok := parseSignal(name); ok {
			return sig, nil
		}
		return 0, invalid("config.stop_signal %s cannot be sent on this machine", full)
	}
	if image == "" {
		return unix.SIGTERM, nil
	}
	if sig, ok := parseSignal(image); ok {
		return sig, nil
	}
	logrus.WithField("signal", image).Warn("the image's stop signal is unknown: use SIGTERM")
	return unix.SIGTERM, nil
}

// parseSignal knows "SIGTERM", "term", "15" and "SIGRTMIN+3".
func parseSignal(s string) (unix.Signal, bool) {
	if n, err := strconv.Atoi(s); err == nil {
		return unix.Signal(n), n > 0 && n <= rtMax
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	for base, number := range map[string]int{"SIGRTMIN": rtMin, "SIGRTMAX": rtMax} {
		if offset, ok := strings.CutPrefix(name, base); ok {
			n := 0
			if offset != "" {
				var err error
				if n, err = strconv.Atoi(offset); err != nil {
					return 0, false
				}
			}
			sig := number + n
			return unix.Signal(sig), sig >= rtMin && sig <= rtMax
		}
	}
	// Second names, which the table does not know.
	if other, ok := map[string]unix.Signal{"SIGCLD": unix.SIGCHLD, "SIGPOLL": unix.SIGPOLL, "SIGIOT": unix.SIGIOT}[name]; ok {
		return other, true
	}
	sig := unix.SignalNum(name)
	return sig, sig != 0
}
