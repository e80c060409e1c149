package container

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/conmon/wire"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Restore is the checkpoint from which a container is restored. Only files of the root file system and
// process images come from the checkpoint. Everything else comes from the request, as in CreateContainer.
type Restore struct {
	// Unpack writes the changed files of the checkpoint to the directory rootfs, which is mounted,
	// and the process images to the empty directory images.
	Unpack func(ctx context.Context, rootfs, images string) error
	// Check returns an error if the checkpoint does not fit the container. It is called after Unpack.
	Check func(ctx context.Context, t RestoreTarget) error
	// Args are options of the runtime's restore command.
	Args []string
	// Env is the environment of the runtime, or nil for the environment of the daemon.
	Env []string
}

// RestoreTarget is a container to which a checkpoint must fit.
type RestoreTarget struct {
	Config  *specs.Spec // of the OCI bundle; must not be modified
	ImageID string
	Images  string // the directory of the process images
}

// checkRestorable returns an error if no container of the pod can be restored.
func (p *plan) checkRestorable() error {
	switch {
	case p.runtime.Guest:
		return fmt.Errorf("runtime handler %q cannot restore containers from checkpoints: %w", p.runtime.Name, errdefs.ErrNotImplemented)
	case p.pod.UserNS != "":
		return fmt.Errorf("containers in a user namespace cannot be restored from checkpoints: %w", errdefs.ErrNotImplemented)
	case p.pod.PIDNS != "" || p.spec.PID.Mode == cri.NamespaceMode_TARGET || p.spec.PID.Mode == cri.NamespaceMode_NODE:
		return fmt.Errorf("containers that share a PID namespace cannot be restored from checkpoints: %w", errdefs.ErrNotImplemented)
	}
	return nil
}

// checkpointAnnotations are the annotations of images that contain the checkpoint of a container in place of a root
// file system. CRI-O reads the first one; checkpointctl writes the second one.
var checkpointAnnotations = []string{"io.kubernetes.cri-o.annotations.checkpoint.name", "org.criu.checkpoint.container.name"}

// CheckpointImageError is the error of Create for an image that contains a checkpoint. CreateRestored can make the
// container.
type CheckpointImageError struct {
	ImageID    string
	ref        string
	annotation string
}

func (e *CheckpointImageError) Error() string {
	return fmt.Sprintf("image %q has the annotation %s and so contains a checkpoint in place of a root file system", e.ref, e.annotation)
}

// Unwrap returns ErrNotImplemented.
func (e *CheckpointImageError) Unwrap() error { return errdefs.ErrNotImplemented }

// checkNoCheckpoint returns a CheckpointImageError for an image that contains a checkpoint. Without the error, the
// runtime would look for the command of the container in the files of the checkpoint.
func checkNoCheckpoint(image Image) error {
	for _, key := range checkpointAnnotations {
		if _, ok := image.Annotations[key]; ok {
			return &CheckpointImageError{ImageID: image.ID, ref: image.Ref, annotation: key}
		}
	}
	return nil
}

// checkRetry returns a CheckpointImageError if the image of the request contains a checkpoint, from which c was
// restored: the record of c has the image of the checkpoint, so the configs of c and of the request differ.
func (m *Manager) checkRetry(c *container, p *plan) error {
	if c.rec.Restore == nil || p.restore != nil {
		return nil
	}
	image, err := m.cfg.Images.Image(p.spec.Image.Ref)
	if err != nil {
		return nil //nolint:nilerr // reuse reports the difference between the requests
	}
	return checkNoCheckpoint(image)
}

// restoreEnv returns the environment of the runtime's restore.
func (p *plan) restoreEnv() []string {
	env := p.restore.Env
	if env == nil {
		env = os.Environ()
	}
	if p.cgroupNS {
		env = append(slices.Clip(env), wire.CgroupNamespace)
	}
	return env
}

// labelArgs returns the options with which the processes get the SELinux labels of the new container. Without the
// options CRIU restores the labels of the checkpoint, whose categories belong to another pod.
func labelArgs(config *specs.Spec) (args []string) {
	if config.Process.SelinuxLabel != "" {
		args = append(args, "--lsm-profile", "selinux:"+config.Process.SelinuxLabel)
	}
	if config.Linux != nil && config.Linux.MountLabel != "" {
		args = append(args, "--lsm-mount-context", config.Linux.MountLabel)
	}
	return args
}

// hasNewCgroupNamespace reports whether the runtime creates a cgroup namespace for the container.
func hasNewCgroupNamespace(config *specs.Spec) bool {
	return config.Linux != nil && slices.ContainsFunc(config.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
		return n.Type == specs.CgroupNamespace && n.Path == ""
	})
}

// restoreLog is the log file of CRIU in the run directory of a container.
const restoreLog = "restore.log"

// unpackCheckpoint unpacks the checkpoint of a container that is restored.
func (m *Manager) unpackCheckpoint(ctx context.Context, c *container, p *plan) error {
	if p.restore == nil {
		return nil
	}
	c.enter("unpack checkpoint")
	images := c.rec.Restore.Images
	if err := os.Mkdir(images, 0o700); err != nil {
		return err
	}
	return p.restore.Unpack(ctx, c.rootfs(), images)
}

// removeImages removes the process images of a container, if it has some.
func (c *container) removeImages() {
	if c.rec.Restore == nil {
		return
	}
	if err := os.RemoveAll(c.rec.Restore.Images); err != nil {
		c.log().WithError(err).Warn("remove the process images of the checkpoint")
	}
}

// removeOrphanedImages removes the process images that belong to no container. After a reboot
// no container has a record, but the images are on a disk.
func (m *Manager) removeOrphanedImages() {
	if m.cfg.RestoreDir == "" {
		return
	}
	entries, err := os.ReadDir(m.cfg.RestoreDir)
	if err != nil {
		logrus.WithError(err).Warn("list the process images of checkpoints")
		return
	}
	for _, e := range entries {
		if !m.Holds(e.Name()) {
			if err := os.RemoveAll(filepath.Join(m.cfg.RestoreDir, e.Name())); err != nil {
				logrus.WithError(err).Warn("remove the process images of a container that does not exist")
			}
		}
	}
}

// adjustRestored sets the limits of a restored container that are not in its OCI config, or that criu
// takes from the checkpoint.
func (m *Manager) adjustRestored(c *container) error {
	if err := m.adjustProcess(c, m.settings.Load().Builder); err != nil {
		return err
	}
	p, err := c.baseProcess()
	if err != nil || p.OOMScoreAdj == nil {
		return err
	}
	return m.limitsTarget(c, c.snap.Load()).SetOOMScoreAdj(*p.OOMScoreAdj)
}

// restoreFailure adds the first error of criu to the error of the runtime, which says only that criu
// has failed.
func (c *container) restoreFailure(err error) error {
	f, openErr := os.Open(filepath.Join(c.dir, restoreLog))
	if openErr != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// Without CAP_SYS_RESOURCE, criu reports an error about its own limit and continues.
		if line := lines.Text(); strings.Contains(line, "Error (") && !strings.Contains(line, "RLIMIT_NOFILE") {
			return fmt.Errorf("%w: criu: %s", err, line[:min(len(line), maxCriuError)])
		}
	}
	return err
}

// maxCriuError limits the part of the log of criu in an error, in bytes.
const maxCriuError = 512
