package request

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/checkpoint/archive"
	"github.com/criserver/criserver/internal/ctxio"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ContainerOptions are the input of Container.
type ContainerOptions struct {
	// Path is the absolute path of the archive of a container.
	Path string
	Key  archive.Key
	// Config replaces the config in the archive, unless it is nil.
	Config *cri.ContainerConfig
	// Name replaces the name of the container, unless it is empty.
	Name string
	// Pod identifies the pod of the new container.
	Pod *cri.PodSandboxMetadata
	// Present has the containers of the pod.
	Present []*cri.ContainerMetadata
}

// Container returns the config for CreateContainer. If the config comes from the archive, Container reads the complete
// archive, because the signature is at the end. The attempt is greater than the attempt of each container of the pod
// with the same name.
//
// Errors: the errors of archive.Open and archive.NewAuthenticReader, and an error for a config that is missing or not
// valid.
func Container(ctx context.Context, o ContainerOptions) (*cri.ContainerConfig, error) {
	config := o.Config
	if config == nil {
		info, err := readInfo(ctx, o.Path, o.Key)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o.Path, err)
		}
		if config, err = containerConfig(info.Container.Name, info.Container.Config); err != nil {
			return nil, err
		}
	}
	if config.Metadata == nil {
		config.Metadata = &cri.ContainerMetadata{}
	}
	place(config, &o)
	image := config.GetImage().GetUserSpecifiedImage()
	if image == "" {
		image = config.GetImage().GetImage()
	}
	config.Image = &cri.ImageSpec{Image: o.Path, UserSpecifiedImage: image, RuntimeHandler: config.GetImage().GetRuntimeHandler()}
	return config, nil
}

// place gives the container a name and an attempt that are free in the pod, and the log path and the labels that the
// kubelet derives from both.
func place(config *cri.ContainerConfig, o *ContainerOptions) {
	meta := config.Metadata
	name, attempt := meta.Name, meta.Attempt
	if o.Name != "" && o.Name != name {
		meta.Name, meta.Attempt = o.Name, 0
	}
	for _, other := range o.Present {
		if other.GetName() == meta.Name && other.GetAttempt() >= meta.Attempt {
			meta.Attempt = other.GetAttempt() + 1
		}
	}
	if config.LogPath != "" && (meta.Name != name || meta.Attempt != attempt) {
		config.LogPath = fmt.Sprintf("%s/%d.log", meta.Name, meta.Attempt)
	}
	relabel(config.Labels, podLabels(o.Pod))
	relabel(config.Labels, map[string]string{labelContainerName: meta.Name})
}

// readInfo returns the description of the container in an archive that a daemon with the key has written.
func readInfo(ctx context.Context, path string, key archive.Key) (*archive.ContainerInfo, error) {
	f, err := archive.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var raw []byte
	for in := archive.NewAuthenticReader(ctxio.NewReader(ctx, f), key); ; {
		e, err := in.Next()
		switch {
		case errors.Is(err, io.EOF) && raw == nil:
			return nil, fmt.Errorf("the archive has no %s: %w", archive.InfoFile, errdefs.ErrInvalidArgument)
		case errors.Is(err, io.EOF):
			return archive.ParseInfo(raw)
		case err != nil && ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil:
			return nil, err
		case e.Name == archive.InfoFile:
			if raw, err = e.Bytes(); err != nil {
				return nil, err
			}
		}
	}
}
