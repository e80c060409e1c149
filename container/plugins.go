package container

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/criserver/criserver/container/bundle"
	"github.com/criserver/criserver/container/record"
	"github.com/criserver/criserver/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Plugins are notified of each step in the life of a container, and can change or refuse
// some steps. A call can take as long as the timeout of the plugins. The caller holds
// the operation lock of the container, but no other lock.
type Plugins interface {
	// Create can change spec until it returns, and reads spec afterwards. The updates of
	// other containers that plugins request are complete when Create returns. The
	// adjustment is nil if no plugin is connected. A call of Created or Removed follows.
	Create(ctx context.Context, s *Snapshot, spec *specs.Spec) (*bundle.Adjustment, error)
	Created(ctx context.Context, s *Snapshot)
	Start(ctx context.Context, s *Snapshot) error
	Started(ctx context.Context, s *Snapshot)
	// Update returns the limits to set. otherUpdates, which can be nil, makes the updates
	// of other containers that plugins request. It is called without any lock.
	Update(ctx context.Context, s *Snapshot, l Limits) (limits Limits, otherUpdates func(context.Context), err error)
	Updated(ctx context.Context, s *Snapshot)
	// Stopped is called once for a container that has exited. For otherUpdates see Update.
	Stopped(ctx context.Context, s *Snapshot) (otherUpdates func(context.Context))
	// Removed is called for a container that was removed, or whose creation failed.
	Removed(ctx context.Context, s *Snapshot)
	// HasPlugins reports whether a plugin is connected now.
	HasPlugins() bool
}

// Limits are limits to set.
type Limits struct {
	// CRI has the limits that the CRI can express. 0 and "" mean "unchanged".
	CRI   *cri.LinuxContainerResources
	Extra *specs.LinuxResources
}

// applyPlugins lets plugins change the OCI config of a new container.
func (m *Manager) applyPlugins(ctx context.Context, c *container, r *bundle.Request, spec *specs.Spec) (*specs.Spec, error) {
	if m.cfg.Plugins == nil {
		return spec, nil
	}
	c.enter("NRI plugins")
	c.pluginConfig = spec
	cgroup := spec.Linux.CgroupsPath
	a, err := m.cfg.Plugins.Create(ctx, c.preview().withSpec(spec), spec)
	if err != nil || a == nil {
		return spec, err
	}
	// A plugin that connects now reads c.pluginConfig, so the changes below need a copy.
	if spec, err = cloneSpec(spec); err != nil {
		return nil, err
	}
	limits, err := r.Adjust(spec, a)
	if err == nil && limits != nil {
		c.mu.Lock()
		err = c.status.SetResources(limits)
		c.mu.Unlock()
	}
	if err != nil {
		return nil, err
	}
	return spec, c.updateRecord(spec, cgroup)
}

func cloneSpec(spec *specs.Spec) (*specs.Spec, error) {
	b, err := oci.Encode(spec)
	if err != nil {
		return nil, err
	}
	var out specs.Spec
	return &out, json.Unmarshal(b, &out)
}

// updateRecord writes the intent record again if plugins have changed the cgroup or the
// PID namespace. cgroup is the cgroups path before the change.
func (c *container) updateRecord(spec *specs.Spec, cgroup string) error {
	newPID := slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
		return n.Type == specs.PIDNamespace && n.Path == ""
	})
	moved := spec.Linux.CgroupsPath != cgroup
	if !moved && (newPID || c.rec.SharedPID) {
		return nil
	}
	if moved {
		path, err := c.runtime.ResolveCgroup(spec.Linux.CgroupsPath)
		if err != nil {
			return fmt.Errorf("cgroups_path that plugins request: %w", err)
		}
		c.rec.CgroupPath = path
	}
	c.rec.SharedPID = c.rec.SharedPID || !newPID
	if err := c.rec.SetMessages(c.config, c.podConfig); err != nil {
		return err
	}
	defer func() { c.rec.Config, c.rec.PodConfig = nil, nil }()
	return c.rec.Write(c.dir)
}

// Spec returns the OCI config of a container. It reads the file of the config, unless the
// snapshot contains the config.
func (s *Snapshot) Spec() (*specs.Spec, error) {
	if s.spec != nil {
		return s.spec, nil
	}
	b, err := os.ReadFile(filepath.Join(s.RunDir, record.ConfigFile))
	if err != nil {
		return nil, err
	}
	var spec specs.Spec
	if err := json.Unmarshal(b, &spec); err != nil {
		return nil, fmt.Errorf("%s: %w", record.ConfigFile, err)
	}
	return &spec, nil
}

// withSpec returns a copy of the snapshot that contains the OCI config, for events before
// the file of the config is written or after it is removed.
func (s Snapshot) withSpec(spec *specs.Spec) *Snapshot {
	s.spec = spec
	return &s
}
