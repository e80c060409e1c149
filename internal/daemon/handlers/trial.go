package handlers

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
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/runtime"
	"github.com/criserver/criserver/oci/trial"
)

// TrialConfig configures Trials.
type TrialConfig struct {
	Host    *Host
	Root    string              // the directory of the image store, on whose file system the root file systems of containers are
	RunDir  string              // the directory of the state of containers
	Builder func() *oci.Builder // returns the builder in the current settings
}

// Trials tests which runtime handlers support user namespaces.
type Trials struct {
	cfg    TrialConfig
	probes probes
}

// NewTrials returns trials. Nothing runs until the first test.
func NewTrials(cfg TrialConfig) *Trials { return &Trials{cfg, newProbes()} }

// TestUserNamespaces is the test of a runtime that the probes of all handlers use. Tests of several handlers do not run
// at the same time.
func (t *Trials) TestUserNamespaces(ctx context.Context, rt *runtime.Runtime, f *features.Features, hostNetwork bool, timeout time.Duration) error {
	return t.probes.serial(t.test)(ctx, rt, f, hostNetwork, timeout)
}

// probes serializes the tests of handlers.
type probes struct{ slot chan struct{} }

func newProbes() probes { return probes{make(chan struct{}, 1)} }

// serial returns a test that waits until no other test runs. The tests of several handlers must
// not run at the same time: each removes the containers that an interrupted test left behind.
func (p probes) serial(test UserNSTest) UserNSTest {
	return func(ctx context.Context, rt *runtime.Runtime, f *features.Features, hostNetwork bool, timeout time.Duration) error {
		select {
		case p.slot <- struct{}{}:
			defer func() { <-p.slot }()
			return test(ctx, rt, f, hostNetwork, timeout)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// test checks the features of a runtime, and then runs a container in a user
// namespace. The features do not suffice: they do not say whether the kernel can map the IDs
// of overlay layers and of tmpfs, and whether root of a user namespace can reach the
// directory of the root file systems.
func (t *Trials) test(ctx context.Context, rt *runtime.Runtime, f *features.Features, hostNetwork bool, timeout time.Duration) error {
	err := checkUserNSFeatures(f)
	if err == nil {
		err = t.run(ctx, rt, hostNetwork, timeout)
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
// The runtime must also support mounts with mapped IDs, which Kubernetes demands too: without
// them, the files of volumes have owners that do not exist in the pod. A known runtime that
// does not report its features for Linux, such as crun before 1.8.6, can be tried. An unknown
// runtime cannot, because the trial could have effects on the host.
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

// run runs a container in a user namespace.
func (t *Trials) run(ctx context.Context, rt *runtime.Runtime, hostNetwork bool, timeout time.Duration) error {
	release, err := t.cfg.Host.makeCgroupParent()
	if err != nil {
		return err
	}
	defer release()
	chooser := newChooser(t.cfg.RunDir, t.cfg.Host, t.cfg.Builder(), "probe")
	chooser.Timeout = timeout
	err = chooser.TryUserNS(ctx, rt, trial.UserNS{
		Holder:      userns.Holder{Path: t.cfg.Host.MonitorPath, Args: []string{"pause", "trial of user namespaces"}},
		Storage:     t.cfg.Root,
		MountRootFS: rootfs.Trial,
		HostNetwork: hostNetwork,
	})
	if err != nil {
		return fmt.Errorf("trial: %w", err)
	}
	return nil
}
