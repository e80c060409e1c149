package container

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/criserver/criserver/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Plugins are told of each step in a container's life; some they may change or
// refuse. Every call may take as long as plugins are given time for, and is
// made with the operation lock of the container held, but never another lock.
type Plugins interface {
	// Create may change spec, from which the container is about to be made, until
	// it returns; after that it is read. What plugins want changed for other
	// containers is done by then. Created or Removed follows.
	Create(ctx context.Context, s *Snapshot, spec *specs.Spec) (Adjustment, error)
	Created(ctx context.Context, s *Snapshot)
	Start(ctx context.Context, s *Snapshot) error
	Started(ctx context.Context, s *Snapshot)
	// Update returns the limits to set. others, which may be nil, makes what
	// changes plugins want for other containers; it is called without any lock.
	Update(ctx context.Context, s *Snapshot, l Limits) (own Limits, others func(context.Context), err error)
	Updated(ctx context.Context, s *Snapshot)
	// Stopped is for a container that has ended, once. others: see Update.
	Stopped(ctx context.Context, s *Snapshot) (others func(context.Context))
	// Removed is for a container that has gone, also one that could not be made;
	// spec is the config it had, nil where that is not known.
	Removed(ctx context.Context, s *Snapshot, spec *specs.Spec)
	// Any says whether there are plugins at this moment.
	Any() bool
}

// Limits are limits to set: those that the CRI has words for, where 0 and ""
// mean "as they are", and others.
type Limits struct {
	CRI   *cri.LinuxContainerResources
	Extra *specs.LinuxResources
}

// Adjustment is what plugins want of a new container beyond what they changed
// in its config.
type Adjustment struct {
	Asked bool // whether there was a plugin at all
	Limits
	OOMScoreAdj            *int    // nil for the request's
	BlockIOClass, RDTClass *string // "" for none, nil for the request's
	CDIDevices             []string
}

// tellTimeout bounds the telling of a container's end, the wait for its
// operation lock included.
const tellTimeout = time.Minute

// applyPlugins lets plugins change the config of a container in the making.
func (m *Manager) applyPlugins(ctx context.Context, c *container, p *plan, spec *specs.Spec) (*specs.Spec, error) {
	if m.cfg.Plugins == nil {
		return spec, nil
	}
	c.enter("NRI plugins")
	c.consulted, c.made = true, spec
	cgroup := spec.Linux.CgroupsPath
	a, err := m.cfg.Plugins.Create(ctx, c.preview(), spec)
	if err != nil || !a.Asked {
		return spec, err
	}
	// A plugin that connects now is shown what the others have made of it.
	if spec, err = cloneSpec(spec); err != nil {
		return nil, err
	}
	if err := m.settle(c, p, spec, a); err != nil {
		return nil, err
	}
	return spec, c.replan(spec, cgroup)
}

// settle does the part of an adjustment for which there are rules.
func (m *Manager) settle(c *container, p *plan, spec *specs.Spec, a Adjustment) error {
	if err := m.adjustClasses(c, p, spec, a); err != nil {
		return err
	}
	if len(a.CDIDevices) > 0 {
		if err := m.cfg.CDI.Inject(spec, a.CDIDevices); err != nil {
			return fmt.Errorf("devices that plugins want: %w", err)
		}
		c.setGroups(spec.Process.User.AdditionalGids)
	}
	if a.OOMScoreAdj != nil || a.Extra != nil || (a.CRI != nil && !proto.Equal(a.CRI, &cri.LinuxContainerResources{})) {
		if err := m.adjustLimits(c, p, spec, a); err != nil {
			return fmt.Errorf("limits that plugins want: %w", err)
		}
	}
	for _, w := range m.cfg.Builder.Fit(spec) {
		c.log().Warn(w)
	}
	return nil
}

// adjustClasses looks up the classes of the operator that plugins name.
func (m *Manager) adjustClasses(c *container, p *plan, spec *specs.Spec, a Adjustment) (err error) {
	if class := a.BlockIOClass; class != nil {
		if p.blockIO = nil; *class != "" {
			if p.blockIO, err = m.cfg.BlockIO.Class(*class); err != nil {
				return fmt.Errorf("blockio_class that plugins want: %w", err)
			}
		}
		spec.Linux.Resources.BlockIO = m.supportedBlockIO(c, p)
	}
	if class := a.RDTClass; class != nil {
		if spec.Linux.IntelRdt = nil; *class != "" {
			if spec.Linux.IntelRdt, err = m.cfg.RDT.Class(*class); err != nil {
				return fmt.Errorf("rdt_class that plugins want: %w", err)
			}
		}
	}
	return nil
}

func cloneSpec(spec *specs.Spec) (*specs.Spec, error) {
	b, err := oci.Encode(spec)
	if err != nil {
		return nil, err
	}
	var out specs.Spec
	return &out, json.Unmarshal(b, &out)
}

// adjustLimits goes by the rules of the builder, as for a request that had asked
// for these limits itself.
func (m *Manager) adjustLimits(c *container, p *plan, spec *specs.Spec, a Adjustment) error {
	u, err := m.cfg.Builder.Adjusted(p.spec.Resources, a.CRI)
	if err != nil {
		return err
	}
	for _, w := range u.Warnings {
		c.log().Warn(w)
	}
	if a.OOMScoreAdj != nil {
		spec.Process.OOMScoreAdj = a.OOMScoreAdj
		u.Now.OomScoreAdj = int64(*a.OOMScoreAdj)
	}
	r := spec.Linux.Resources
	r.CPU, r.Memory, r.HugepageLimits, r.Unified = u.Resources.CPU, u.Resources.Memory, u.Resources.HugepageLimits, u.Resources.Unified
	oci.Overlay(r, a.Extra)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.facts.setResources(u.Now)
}

// replan corrects the record of the intent where plugins have changed it.
func (c *container) replan(spec *specs.Spec, cgroup string) error {
	own := slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
		return n.Type == specs.PIDNamespace && n.Path == ""
	})
	moved := spec.Linux.CgroupsPath != cgroup
	if !moved && (own || c.rec.SharedPID) {
		return nil
	}
	if moved {
		path, err := c.runtime.ResolveCgroup(spec.Linux.CgroupsPath)
		if err != nil {
			return fmt.Errorf("cgroups_path that plugins want: %w", err)
		}
		c.rec.CgroupPath = path
	}
	c.rec.SharedPID = c.rec.SharedPID || !own
	if err := c.rec.setMessages(c.config, c.podConfig); err != nil {
		return err
	}
	defer func() { c.rec.Config, c.rec.PodConfig = nil, nil }()
	return c.rec.write(c.dir)
}

// preview is the snapshot of what is not shown yet.
func (c *container) preview() *Snapshot {
	if s := c.snap.Load(); s != nil {
		return s
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.snapshot()
}

// SetLimits is UpdateResources for those who are Plugins: they are not asked
// again.
func (m *Manager) SetLimits(ctx context.Context, id string, l Limits) error {
	c, err := m.find(id)
	if err != nil {
		return fmt.Errorf("set limits of container: %w", err)
	}
	unlock, err := m.ops.Lock(ctx, c.id)
	if err != nil {
		return fmt.Errorf("set limits of container %q: %w", short(c.id), err)
	}
	defer unlock()
	s := c.snap.Load()
	if s.State != Created && s.State != Running {
		return errWrongState("set limits of", s)
	}
	err = c.mustUpdate()
	if err == nil {
		err = m.setLimits(ctx, c, s, l)
	}
	if err != nil {
		return fmt.Errorf("set limits of container %q: %w", short(c.id), err)
	}
	return nil
}

// tellEnd tells plugins of a container's end, once, without keeping the caller.
func (m *Manager) tellEnd(c *container) {
	if m.cfg.Plugins == nil {
		c.told()
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended { // who starts the next daemon synchronizes plugins anew
		c.told()
		return
	}
	m.tells.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), tellTimeout)
		defer cancel()
		unlock, err := m.ops.Lock(ctx, c.id)
		if err != nil {
			c.log().WithError(err).Warn("plugins are not told of the container's end yet")
			return
		}
		others := m.tellEndLocked(ctx, c)
		unlock()
		others(ctx)
	})
}

// endTells waits for those who are being told, and lets nobody else be.
func (m *Manager) endTells() {
	m.mu.Lock()
	m.ended = true
	m.mu.Unlock()
	m.tells.Wait()
}

// tellEndLocked is called with the operation lock held, and its result without.
func (m *Manager) tellEndLocked(ctx context.Context, c *container) (others func(context.Context)) {
	others = func(context.Context) {}
	if c.isTold() || m.cfg.Plugins == nil || !m.known(c) {
		c.told()
		return others
	}
	defer c.told()
	if do := m.cfg.Plugins.Stopped(ctx, c.snap.Load()); do != nil {
		others = do
	}
	return others
}

// awaitTold waits until plugins know of the end, as what follows it may need
// what they do then. It is no failure when they do not.
func (c *container) awaitTold(ctx context.Context) {
	select {
	case <-c.endTold:
	case <-ctx.Done():
	}
}

func (c *container) told() { c.toldOnce.Do(func() { close(c.endTold) }) }

func (c *container) isTold() bool {
	select {
	case <-c.endTold:
		return true
	default:
		return false
	}
}

// Spec reads the OCI config that the container was made from.
func (s *Snapshot) Spec() (*specs.Spec, error) {
	b, err := os.ReadFile(filepath.Join(s.RunDir, configFile))
	if err != nil {
		return nil, err
	}
	var spec specs.Spec
	if err := json.Unmarshal(b, &spec); err != nil {
		return nil, fmt.Errorf("%s: %w", configFile, err)
	}
	return &spec, nil
}
