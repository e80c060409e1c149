package server

import (
	"testing"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
)

func TestStopSignalIsTheEffectiveOne(t *testing.T) {
	for _, c := range []struct {
		asked cri.Signal
		used  unix.Signal
		want  cri.Signal
	}{
		{cri.Signal_SIGNAL_SIGIOT, unix.SIGABRT, cri.Signal_SIGNAL_SIGIOT}, // by the name that was asked for
		{0, unix.SIGTERM, cri.Signal_SIGNAL_SIGTERM},
		{0, unix.SIGQUIT, cri.Signal_SIGNAL_SIGQUIT},
		{0, 34, cri.Signal_SIGNAL_SIGRTMIN},
		{0, 37, cri.Signal_SIGNAL_SIGRTMINPLUS3},
		{0, 49, cri.Signal_SIGNAL_SIGRTMINPLUS15},
		{0, 50, cri.Signal_SIGNAL_SIGRTMAXMINUS14},
		{0, 64, cri.Signal_SIGNAL_SIGRTMAX},
		{0, 0, cri.Signal_SIGNAL_RUNTIME_DEFAULT}, // never set
	} {
		got := stopSignal(&container.Snapshot{StopSignal: c.used, Config: &cri.ContainerConfig{StopSignal: c.asked}})
		if got != c.want {
			t.Errorf("%s, %d: got %s, want %s", c.asked, c.used, got, c.want)
		}
	}
	for sig := unix.Signal(rtMin); sig <= rtMax; sig++ {
		if stopSignal(&container.Snapshot{StopSignal: sig, Config: &cri.ContainerConfig{}}) == 0 {
			t.Errorf("signal %d has no name", sig)
		}
	}
}
