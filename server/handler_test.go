package server

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Whatever names an image may name a handler, which must be one that there is.
func TestImagesForUnknownHandlersAreRefused(t *testing.T) {
	s := New(Config{Runtimes: &fakeRuntimes{handlers: []*cri.RuntimeHandler{{Name: ""}, {Name: "runc"}, {Name: "runsc"}}}}) // no manager: none may be asked
	spec := &cri.ImageSpec{Image: "busybox", RuntimeHandler: "kata"}
	for name, call := range map[string]func() error{
		"PullImage": func() error { _, err := s.PullImage(t.Context(), &cri.PullImageRequest{Image: spec}); return err },
		"ImageStatus": func() error {
			_, err := s.ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: spec})
			return err
		},
		"RemoveImage": func() error {
			_, err := s.RemoveImage(t.Context(), &cri.RemoveImageRequest{Image: spec})
			return err
		},
		"ListImages": func() error {
			_, err := s.ListImages(t.Context(), &cri.ListImagesRequest{Filter: &cri.ImageFilter{Image: spec}})
			return err
		},
		"CreateContainer": func() error {
			_, err := s.CreateContainer(t.Context(), &cri.CreateContainerRequest{
				PodSandboxId: "p", Config: &cri.ContainerConfig{Image: spec}, SandboxConfig: &cri.PodSandboxConfig{},
			})
			return err
		},
	} {
		err := call()
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), `image.runtime_handler "kata" is unknown; there are ["runc" "runsc"]`) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, known := range []string{"", "runc", "runsc"} {
		if err := s.checkHandler("image", &cri.ImageSpec{RuntimeHandler: known}); err != nil {
			t.Errorf("%q: %v", known, err)
		}
	}
}
