package daemon

import (
	"context"
	"errors"

	"github.com/opencontainers/go-digest"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/image"
	"github.com/criserver/criserver/sandbox"
)

// podAdapter implements container.Pods. build sets pods after it has built both managers,
// because each refers to the other.
type podAdapter struct{ pods *sandbox.Manager }

// Pod returns the properties of a pod sandbox that its containers use.
func (a *podAdapter) Pod(id string) (container.Pod, error) {
	p, err := a.pods.Get(id)
	if err != nil {
		return container.Pod{}, err
	}
	config := p.Config
	if p.Unreadable {
		config = nil // the record of the pod is not readable; the records of its containers contain the config
	}
	return container.Pod{
		ID:             p.ID,
		Ready:          p.Ready,
		Config:         config,
		RuntimeHandler: p.EffectiveHandler(),
		CgroupParent:   p.CgroupParent,
		PauseUnit:      p.PauseUnit,
		NetNS:          p.NetNS(),
		IPCNS:          p.Namespaces.IPC,
		UTSNS:          p.Namespaces.UTS,
		PIDNS:          p.Namespaces.PID,
		UserNS:         p.Namespaces.User,
		ProcessLabel:   p.ProcessLabel,
		MountLabel:     p.MountLabel,
		Hosts:          p.Hosts,
		Hostname:       p.Hostname,
		ResolvConf:     p.ResolvConf,
		Shm:            p.Shm,
	}, nil
}

func (a *podAdapter) MarkNotReady(id, reason string) { a.pods.MarkNotReady(id, reason) }

// imageAdapter implements container.Images.
type imageAdapter struct{ images *image.Manager }

func (a imageAdapter) Image(ref string) (container.Image, error) {
	img, err := a.images.Get(ref)
	if err != nil {
		return container.Image{}, err
	}
	name := img.ID.String()
	if len(img.RepoTags) > 0 {
		name = img.RepoTags[0]
	}
	return container.Image{ID: img.ID.String(), Ref: name, Config: img.Config.Config, Annotations: img.Annotations}, nil
}

func (a imageAdapter) Mount(ctx context.Context, r container.RootFS) error {
	_, err := a.images.MountRootFSWith(ctx, digest.Digest(r.ImageID), r.ContainerID, r.Target, image.MountOptions{UserNS: r.UserNS, MountLabel: r.Label})
	return err
}

func (a imageAdapter) MountVolume(ctx context.Context, v container.ImageVolume) (string, error) {
	return a.images.MountVolume(ctx, image.VolumeRequest{
		ImageID: digest.Digest(v.ImageID), ContainerID: v.ContainerID, Index: v.Index, SubPath: v.SubPath,
		Options: image.MountOptions{UserNS: v.UserNS, MountLabel: v.Label},
	})
}

func (a imageAdapter) Unmount(ctx context.Context, containerID string) error {
	return errors.Join(a.images.UnmountVolumes(ctx, containerID), a.images.UnmountRootFS(ctx, containerID))
}

// handlerAdapter implements server.Runtimes.
type handlerAdapter struct{ parts *parts }

func (a handlerAdapter) Handlers() []*cri.RuntimeHandler { return a.parts.live.Load().handlers.List() }

func (a handlerAdapter) Features() *cri.RuntimeFeatures {
	return a.parts.live.Load().handlers.RuntimeFeatures()
}

func (a handlerAdapter) Status() error { return a.parts.live.Load().handlers.Status() }
