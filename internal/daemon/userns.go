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

	"github.com/criserver/criserver/image/rootfs"
	"github.com/criserver/criserver/internal/userns"
	"github.com/criserver/criserver/oci/runtime"
	"github.com/criserver/criserver/oci/trial"
)

// userNamespaceError returns the reason why pods of a handler cannot have a user namespace,
// or nil if they can. It waits for the first probe of the handler.
func (s *handlerSet) userNamespaceError(handler string) error {
	p := s.prober(handler)
	if p == nil {
		return nil // the caller refuses a handler that does not exist
	}
	return p.wait().userNSError
}

// hostNetworkUserNSError returns the reason why pods of a handler with the network of the host cannot have a user
// namespace, or nil if they can. It waits for the first probe of the handler.
func (s *handlerSet) hostNetworkUserNSError(handler string) error {
	p := s.prober(handler)
	if p == nil {
		return nil // the caller refuses a handler that does not exist
	}
	return p.wait().hostNetworkUserNSError
}

// mapsSubmounts reports whether the runtime of a handler can map the IDs of a mount together
// with the mounts below it. The option came with version 1.2 of the OCI runtime
// specification. mapsSubmounts waits for the first probe of the handler.
func (s *handlerSet) mapsSubmounts(handler string) bool {
	p := s.prober(handler)
	if p == nil {
		return false
	}
	f := p.wait().features
	if f == nil {
		return false
	}
	var major, minor int
	_, err := fmt.Sscanf(f.OCIVersionMax, "%d.%d", &major, &minor)
	return err == nil && (major > 1 || major == 1 && minor >= 2)
}

// testUserNamespaces checks the features of a runtime, and then runs a container in a user
// namespace. The features do not suffice: they do not say whether the kernel can map the IDs
// of overlay layers and of tmpfs, and whether root of a user namespace can reach the
// directory of the root file systems.
func (p *parts) testUserNamespaces(ctx context.Context, rt *runtime.Runtime, f *features.Features, hostNetwork bool, timeout time.Duration) error {
	err := checkUserNSFeatures(f)
	if err == nil {
		err = p.runUserNSTrial(ctx, rt, hostNetwork, timeout)
	}
	log := logrus.WithContext(ctx).WithFields(logrus.Fields{"runtime": rt.Name, "hostNetwork": hostNetwork})
	if err != nil {
		log.WithError(err).Info("the runtime handler does not support user namespaces")
		return err
	}
	log.Debug("the runtime handler supports user namespaces")
	return nil
}

// checkUserNSFeatures returns an error if a runtime cannot run pods with user namespaces.
// As Kubernetes does, it demands mounts with mapped IDs too, because without them no user of
// such a pod would own the files of volumes. A known runtime that does not report its
// features for Linux, as crun before 1.8.6, may be tried. An unknown runtime may not,
// because the trial could have effects on the host.
func checkUserNSFeatures(f *features.Features) error {
	switch {
	case f == nil:
		return errors.New("the OCI runtime does not report its features")
	case f.Linux == nil:
		return nil
	case !slices.Contains(f.Linux.Namespaces, string(specs.UserNamespace)):
		return errors.New("the OCI runtime does not support user namespaces")
	}
	if m := f.Linux.MountExtensions; m == nil || m.IDMap == nil || m.IDMap.Enabled == nil || !*m.IDMap.Enabled {
		return errors.New("the OCI runtime does not support mounts with mapped IDs")
	}
	return nil
}

// runUserNSTrial runs a container in a user namespace.
func (p *parts) runUserNSTrial(ctx context.Context, rt *runtime.Runtime, hostNetwork bool, timeout time.Duration) error {
	release, err := p.host.makeCgroupParent()
	if err != nil {
		return err
	}
	defer release()
	chooser := newChooser(p.settings, p.host, p.live.Load().builder, "probe")
	chooser.Timeout = timeout
	err = chooser.TryUserNS(ctx, rt, trial.UserNS{
		Holder:      userns.Holder{Path: p.host.monitorPath, Args: []string{"pause", "trial of user namespaces"}},
		Storage:     p.settings.Root,
		MountRootFS: rootfs.Trial,
		HostNetwork: hostNetwork,
	})
	if err != nil {
		return fmt.Errorf("trial: %w", err)
	}
	return nil
}
