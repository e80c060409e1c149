package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/checkpoint/archive"
	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/image/layer"
	"github.com/criserver/criserver/internal/criu"
	"github.com/sirupsen/logrus"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// createTimeout limits the creation of the pod sandbox, which the request cannot cancel.
	createTimeout = 2 * time.Minute
	// removeTimeout limits the removal of an incomplete pod.
	removeTimeout = 5 * time.Minute
)

// RestorePod creates a pod sandbox and all containers of a pod checkpoint. The containers are CREATED and have no
// process. If RestorePod fails, it removes the pod sandbox and the containers before it returns.
//
// Errors: ErrInvalidArgument for a call without a deadline and for a request or a checkpoint that breaks a rule;
// ErrNotFound if there is no checkpoint; ErrDataLoss for a file that differs from the manifest; ErrFailedPrecondition
// if the checkpoint does not fit the request or the node; ErrAlreadyExists if the pod exists; ErrNotImplemented if
// containers of the handler cannot be restored; and the errors of the creation of pods and containers.
func (m *Manager) RestorePod(ctx context.Context, r *cri.RestorePodRequest) (*cri.RestorePodResponse, error) {
	resp, err := m.restorePod(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("restore pod from %q: %w", r.GetCheckpointPath(), err)
	}
	return resp, nil
}

func (m *Manager) restorePod(ctx context.Context, r *cri.RestorePodRequest) (*cri.RestorePodResponse, error) {
	if err := checkRequest(r); err != nil {
		return nil, err
	}
	if _, ok := ctx.Deadline(); !ok {
		return nil, invalid("the call must have a deadline")
	}
	select {
	case <-m.recovered:
	case <-ctx.Done():
		return nil, fmt.Errorf("the removal of pods whose restore was interrupted is in progress: %w", context.Cause(ctx))
	}
	key := keyOf(r.GetConfig())
	return m.pods.Do(ctx, key.String(), func(ctx context.Context) (*cri.RestorePodResponse, error) {
		s, err := m.open(ctx, r)
		if err != nil {
			return nil, err
		}
		defer s.dir.Close()
		if err := m.checkAbsent(key); err != nil {
			return nil, err
		}
		return s.run(ctx, key)
	})
}

// session is one restore of a pod.
type session struct {
	m        *Manager
	r        *cri.RestorePodRequest
	dir      *os.Root // of the checkpoint
	manifest *archive.Manifest
	criu     criu.Program
}

// open opens the checkpoint and checks everything that can be checked without a pod.
func (m *Manager) open(ctx context.Context, r *cri.RestorePodRequest) (_ *session, err error) {
	handler := r.GetRuntimeHandler()
	s := &session{m: m, r: r}
	if s.criu, err = m.cfg.CRIU(ctx, handler); err != nil {
		return nil, err
	}
	if s.dir, err = os.OpenRoot(r.GetCheckpointPath()); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = errors.Join(err, errdefs.ErrNotFound)
		}
		return nil, fmt.Errorf("checkpoint_path: %w", err)
	}
	if s.manifest, err = archive.ReadManifest(s.dir); err == nil {
		err = m.checkManifest(r, s.manifest)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("checkpoint_path: %w", err), s.dir.Close())
	}
	if err := checkNames(r.GetContainerConfigs(), s.manifest); err != nil {
		return nil, errors.Join(err, s.dir.Close())
	}
	return s, nil
}

// checkManifest returns an error if the checkpoint is not from this node, or does not fit the request.
func (m *Manager) checkManifest(r *cri.RestorePodRequest, manifest *archive.Manifest) error {
	if err := errors.Join(m.checkOrigin(&manifest.Origin), checkPod(r, manifest)); err != nil {
		return err
	}
	key, err := archive.ReadKey(m.cfg.KeyFile)
	if err != nil {
		return err
	}
	return manifest.Verify(key)
}

// checkAbsent returns an ErrAlreadyExists if a pod has the name. A rollback of the restore would remove this pod.
func (m *Manager) checkAbsent(key podKey) error {
	for _, p := range m.cfg.Pods.List() {
		if keyOf(p.Config) == key {
			return fmt.Errorf("pod sandbox %q exists: %w", p.ID, errdefs.ErrAlreadyExists)
		}
	}
	return nil
}

// run creates the pod. The intent record is removed last. After an error, run removes the pod of the name: checkAbsent
// has found none before.
func (s *session) run(ctx context.Context, key podKey) (_ *cri.RestorePodResponse, err error) {
	done, err := s.m.writeIntent(key)
	if err != nil {
		return nil, err
	}
	resp, err := s.create(ctx)
	if err != nil {
		if removeErr := s.m.removePods(ctx, s.m.find(key)); removeErr != nil {
			// The record stays, so that the next daemon tries again.
			return nil, errors.Join(err, fmt.Errorf("remove the incomplete pod: %w", removeErr))
		}
		return nil, errors.Join(err, done())
	}
	if err := done(); err != nil {
		return nil, errors.Join(err, s.m.removePods(ctx, s.m.find(key)))
	}
	logrus.WithContext(ctx).WithFields(logrus.Fields{"pod": resp.GetPodSandboxId(), "containers": len(resp.GetRestoredContainers())}).
		Info("pod restored from a checkpoint")
	return resp, nil
}

// create creates the pod sandbox and the containers.
func (s *session) create(ctx context.Context) (*cri.RestorePodResponse, error) {
	// RunPod continues for some time after its caller has left, so that a retry can join. create does not retry, so it
	// waits for the result of RunPod.
	podCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), createTimeout)
	defer cancel()
	id, err := s.m.cfg.Pods.RunPod(podCtx, s.r.GetConfig(), s.r.GetRuntimeHandler())
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	pod, err := s.m.cfg.Pods.Get(id)
	if err != nil {
		return nil, err
	}
	if h := pod.EffectiveHandler(); h != "" && h != s.manifest.Runtime.Handler {
		return nil, mismatch("the default runtime handler %q is not the handler of the checkpoint, %q", h, s.manifest.Runtime.Handler)
	}
	for _, part := range s.manifest.Parts { // all parts are files of /dev/shm
		if pod.Shm == "" {
			return nil, mismatch("the checkpoint has files of /dev/shm, which the pod does not have")
		}
		if err := s.unpackShm(ctx, part.File, pod.Shm); err != nil {
			return nil, err
		}
	}
	resp := &cri.RestorePodResponse{PodSandboxId: id}
	for _, config := range s.r.GetContainerConfigs() {
		containerID, err := s.createContainer(ctx, id, config)
		if err != nil {
			return nil, err
		}
		resp.RestoredContainers = append(resp.RestoredContainers,
			&cri.RestoredContainer{Name: config.GetMetadata().GetName(), ContainerId: containerID})
	}
	return resp, nil
}

// unpackShm writes the files of /dev/shm.
func (s *session) unpackShm(ctx context.Context, file archive.File, dir string) error {
	return s.read(ctx, file, func(r io.Reader) error {
		if err := layer.Apply(ctx, dir, r, layer.Limits{Entries: archive.MaxEntries, Bytes: file.Size}); err != nil {
			return fmt.Errorf("%s: %w", file.Path, err)
		}
		return nil
	})
}

// createContainer creates one container.
func (s *session) createContainer(ctx context.Context, podID string, config *cri.ContainerConfig) (string, error) {
	name := config.GetMetadata().GetName()
	for _, c := range s.manifest.Containers {
		if c.Name != name {
			continue
		}
		u := &unpacker{ctx: ctx, m: s.m, size: c.Size, criu: s.criu.Version}
		return s.m.cfg.Containers.CreateRestored(ctx, podID, config, container.Restore{
			Unpack: func(ctx context.Context, rootfs, images string) error {
				err := s.read(ctx, c.File, func(r io.Reader) error { return u.unpack(ctx, archive.NewReader(r), rootfs, images) })
				if err == nil && u.info.Container.Name != name {
					err = mismatch("%s has container %q, not %q", c.Path, u.info.Container.Name, name)
				}
				return err
			},
			Check: u.check, Args: restoreArgs(), Env: environment(s.criu.Path),
		})
	}
	return "", invalid("container %q is not in the checkpoint", name) // checkNames has excluded this case
}
