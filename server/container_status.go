package server

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
)

// containerItem returns a container as an item of a list.
func (s *Server) containerItem(c *container.Snapshot) *cri.Container {
	return &cri.Container{
		Id:           c.ID,
		PodSandboxId: c.PodID,
		Metadata:     c.Config.GetMetadata(),
		Image:        containerImage(c),
		ImageRef:     s.imageRef(c.ImageID, c.ImageRef),
		ImageId:      c.ImageID,
		State:        containerState(c),
		CreatedAt:    c.CreatedAt.UnixNano(),
		Labels:       c.Config.GetLabels(),
		Annotations:  c.Config.GetAnnotations(),
	}
}

func (s *Server) containerStatus(c *container.Snapshot) *cri.ContainerStatus {
	return &cri.ContainerStatus{
		Id:          c.ID,
		Metadata:    c.Config.GetMetadata(),
		State:       containerState(c),
		CreatedAt:   unixNano(c.CreatedAt),
		StartedAt:   unixNano(c.StartedAt),
		FinishedAt:  unixNano(c.FinishedAt),
		ExitCode:    c.ExitCode,
		Image:       containerImage(c),
		ImageRef:    s.imageRef(c.ImageID, c.ImageRef),
		ImageId:     c.ImageID,
		Reason:      c.Reason,
		Message:     c.Message,
		Labels:      c.Config.GetLabels(),
		Annotations: c.Config.GetAnnotations(),
		Mounts:      c.Mounts,
		LogPath:     c.LogPath,
		Resources:   &cri.ContainerResources{Linux: c.Resources},
		User: &cri.ContainerUser{Linux: &cri.LinuxContainerUser{
			Uid: c.UID, Gid: c.GID, SupplementalGroups: c.SupplementalGroups,
		}},
		StopSignal: stopSignal(c),
	}
}

func containerState(c *container.Snapshot) cri.ContainerState {
	switch c.State {
	case container.Created:
		return cri.ContainerState_CONTAINER_CREATED
	case container.Running:
		return cri.ContainerState_CONTAINER_RUNNING
	case container.Exited:
		return cri.ContainerState_CONTAINER_EXITED
	}
	return cri.ContainerState_CONTAINER_UNKNOWN
}

// containerImage returns the image of a container under the name that the user
// gave it. The kubelet creates containers by the image id that PullImage returned,
// and shows users the name.
func containerImage(c *container.Snapshot) *cri.ImageSpec {
	spec := c.Config.GetImage()
	return &cri.ImageSpec{
		Image: c.ImageRef, Annotations: spec.GetAnnotations(),
		UserSpecifiedImage: spec.GetUserSpecifiedImage(), RuntimeHandler: spec.GetRuntimeHandler(), ImageRef: spec.GetImageRef(),
	}
}

// unixNano returns the nanoseconds from the unix epoch to t. It returns 0 for the
// zero time, which means "not specified" in the CRI.
func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// containerInfo returns the info of a verbose status.
func containerInfo(c *container.Snapshot) (map[string]string, error) {
	info := struct {
		PID            int             `json:"pid,omitempty"`
		PodID          string          `json:"sandboxID"`
		RuntimeHandler string          `json:"runtimeHandler"`
		RootFS         string          `json:"rootfs"`
		CgroupPath     string          `json:"cgroupPath"`
		RunDir         string          `json:"runDir"`
		RuntimeSpec    json.RawMessage `json:"runtimeSpec,omitempty"`
	}{c.PID, c.PodID, c.RuntimeHandler, c.RootFS, c.CgroupPath, c.RunDir, nil}
	// The bundle is on tmpfs. A container whose creation failed has no config.json.
	if b, err := os.ReadFile(filepath.Join(c.RunDir, "config.json")); err == nil && json.Valid(b) {
		info.RuntimeSpec = b
	}
	return verboseInfo(info)
}

// rtMin and rtMax are the first and the last real-time signal in the numbering of
// the C library.
const rtMin, rtMax = 34, 64

// stopSignal returns the signal that stops the container: the signal of the
// request, the signal of the image, or SIGTERM, in this order.
func stopSignal(c *container.Snapshot) cri.Signal {
	if s := c.Config.GetStopSignal(); s != cri.Signal_SIGNAL_RUNTIME_DEFAULT {
		return s
	}
	name := unix.SignalName(c.StopSignal)
	if n := int(c.StopSignal) - rtMin; n >= 0 && c.StopSignal <= rtMax {
		name = realTimeSignalName(n)
	}
	// A signal that has no name in the CRI becomes the zero value, RUNTIME_DEFAULT.
	return cri.Signal(cri.Signal_value["SIGNAL_"+name])
}

// realTimeSignalName returns the CRI's name of the real-time signal rtMin+n. The
// CRI counts the signals up from RTMIN, and the last ones down from RTMAX.
func realTimeSignalName(n int) string {
	switch fromMax := rtMax - rtMin - n; {
	case n == 0:
		return "SIGRTMIN"
	case n <= 15:
		return fmt.Sprintf("SIGRTMINPLUS%d", n)
	case fromMax == 0:
		return "SIGRTMAX"
	default:
		return fmt.Sprintf("SIGRTMAXMINUS%d", fromMax)
	}
}
