package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"github.com/sirupsen/logrus"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/image/rootfs"
	"github.com/criserver/criserver/internal/userns"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/sandbox"
)

// userNamespaces says why pods of a handler cannot have a user namespace of
// their own, or nil when they can. It waits for the first probe of the handler.
func (r *runtimes) userNamespaces(handler string) error {
	p := r.handler(handler)
	if p == nil {
		return nil // the caller refuses a handler that does not exist
	}
	return p.await().userNS
}

// tryUserNamespaces goes by what the runtime says of itself, and believes that
// it can only when it has done it: whether the kernel maps the ids of overlay's
// layers and of tmpfs, whether root in a user namespace gets to where root file
// systems are mounted, no list of features tells.
func (r *runtimes) tryUserNamespaces(ctx context.Context, cfg config.Config, h *host, rt *oci.Runtime, f *features.Features, within time.Duration) error {
	err := saysUserNamespaces(f)
	if err == nil {
		err = r.proveUserNamespaces(ctx, cfg, h, rt, within)
	}
	log := logrus.WithContext(ctx).WithField("runtime", rt.Name)
	if err != nil {
		log.WithError(err).Info("no user namespaces for pods of this handler")
		return err
	}
	log.Debug("user namespaces for pods of this handler")
	return nil
}

// mapsSubmounts says whether a handler's runtime knows the option for it, which
// came with version 1.2 of the config. It waits for the first probe of the
// handler.
func (r *runtimes) mapsSubmounts(handler string) bool {
	p := r.handler(handler)
	if p == nil {
		return false
	}
	f := p.await().features
	if f == nil {
		return false
	}
	var major, minor int
	_, err := fmt.Sscanf(f.OCIVersionMax, "%d.%d", &major, &minor)
	return err == nil && (major > 1 || major == 1 && minor >= 2)
}

// saysUserNamespaces: without mounts of mapped ids volumes would belong to
// nobody in such a pod, so both are demanded, as by Kubernetes. A runtime that is
// known and says nothing of it, as crun before 1.8.6, is just tried; a stranger is
// not: who knows what it does to the host on the way.
func saysUserNamespaces(f *features.Features) error {
	switch {
	case f == nil:
		return errors.New("the OCI runtime does not say what it can do")
	case f.Linux == nil:
		return nil
	case !slices.Contains(f.Linux.Namespaces, string(specs.UserNamespace)):
		return errors.New("the OCI runtime does not know user namespaces")
	}
	if m := f.Linux.MountExtensions; m == nil || m.IDMap == nil || m.IDMap.Enabled == nil || !*m.IDMap.Enabled {
		return errors.New("the OCI runtime does not map the ids of mounts")
	}
	return nil
}

func (r *runtimes) proveUserNamespaces(ctx context.Context, cfg config.Config, h *host, rt *oci.Runtime, within time.Duration) error {
	if h.driver != sandbox.Systemd {
		if err := h.cgroups.Make(h.cgroupParent); err != nil {
			return err
		}
		defer h.cgroups.Release(h.cgroupParent)
	}
	c := &oci.Chooser{RunDir: cfg.RunDir, Prober: h.monitor, ProberArgs: []string{"probe"}, CgroupParent: h.cgroupParent, Cgroups: h.cgroups, Builder: r.builder, Within: within}
	err := c.TryUserNS(ctx, rt, oci.UserNSTrial{
		Holder:      userns.Holder{Path: h.monitor, Args: []string{"pause", "trial of user namespaces"}},
		Storage:     cfg.Root,
		MountRootFS: rootfs.Trial,
	})
	if err != nil {
		return fmt.Errorf("trial: %w", err)
	}
	return nil
}
