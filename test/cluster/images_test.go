package cluster

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestImages checks pulls that fail, and a registry that is down. It runs alone, because other tests pull images.
func TestImages(t *testing.T) {
	s := newSpace(t)
	s.apply(podOf("missing", "node1", "", container("main", "registry.test/missing:1", "true", "")))
	s.apply(sleeper("warm", "node1", "", ""))
	s.waiting("missing", "ImagePullBackOff") // the state between two attempts
	s.ready("warm")
	t.Run("registry is down", func(t *testing.T) {
		if testing.Short() {
			t.Skip("the kubelet waits between two attempts to pull an image")
		}
		s := space{t, s.name}
		if err := suite.StopRegistry(); err != nil {
			t.Fatal(err)
		}
		s.apply(
			podOf("unreachable", "node1", "", container("main", "registry.test/zstd:1", sleepScript, "")),
			sleeper("present", "node1", "", `"imagePullPolicy": "IfNotPresent"`),
		)
		s.waiting("unreachable", "ImagePullBackOff", "ErrImagePull")
		s.ready("present") // the node has the image
		if err := suite.StartRegistry(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.ready("unreachable") // the next attempt of the kubelet succeeds
	})
}

// waiting waits until the container of a pod waits for one of the reasons.
func (s space) waiting(pod string, reasons ...string) {
	s.Helper()
	eventually(s.T, 60*time.Second, func() error {
		statuses := s.pod(pod).Status.ContainerStatuses
		if len(statuses) == 0 || statuses[0].State.Waiting == nil {
			return errors.New("the container does not wait")
		}
		if got := statuses[0].State.Waiting; !strings.Contains(strings.Join(reasons, " "), got.Reason) {
			return fmt.Errorf("reason: %s: %s", got.Reason, got.Message)
		}
		return nil
	})
}
