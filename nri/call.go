package nri

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/containerd/nri/pkg/api"
	"google.golang.org/grpc/status"
)

// callPlugins calls call, which sends one event to all plugins, if a plugin is connected.
// record updates the pending objects; it may be nil. No plugin is synchronized between record
// and the end of call. So a plugin that connects at the same time receives the event, or its
// synchronization contains the pending object that record has added.
func (m *Manager) callPlugins(ctx context.Context, record func(), call func(context.Context) error) error {
	if m.recordWithoutPlugins(record) {
		return nil
	}
	select {
	case m.callSlot <- struct{}{}:
		defer func() { <-m.callSlot }()
	case <-ctx.Done():
		return fmt.Errorf("wait for NRI plugins: %w", context.Cause(ctx))
	}
	block := m.nri.BlockPluginSync()
	defer block.Unblock()
	if record != nil {
		record()
	}
	if m.plugins.Load() == 0 {
		return nil
	}
	m.failedCall.Store(nil)
	return m.pluginError(call(ctx))
}

// Count returns the number of plugins that are connected and synchronized.
func (m *Manager) Count() int { return int(m.plugins.Load()) }

// Socket returns the path of the socket to which plugins connect, or "" if there is none.
func (m *Manager) Socket() string { return m.cfg.Socket }

// HasPlugins reports whether a plugin is connected.
func (m *Manager) HasPlugins() bool { return m.plugins.Load() > 0 }

// recordWithoutPlugins calls record and returns true if no plugin is connected. On a node
// without plugins, an event costs only the two atomic operations of this function.
func (m *Manager) recordWithoutPlugins(record func()) bool {
	block := m.nri.BlockPluginSync()
	defer block.Unblock()
	if m.plugins.Load() > 0 {
		return false
	}
	if record != nil {
		record()
	}
	return true
}

// pluginError adds the name of the plugin that failed to err. It drops the gRPC code of the
// plugin, because the client would mistake a plugin's NotFound for an answer about the pod.
func (m *Manager) pluginError(err error) error {
	if err == nil {
		return nil
	}
	source := "NRI"
	if call := m.failedCall.Load(); call != nil {
		source = "NRI " + *call
	}
	if s, ok := status.FromError(err); ok && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s: %s", source, s.Message())
	}
	return fmt.Errorf("%s: %w", source, err)
}

// pendingObjects contains the pods and containers that were sent to plugins and that the
// runtime does not list yet.
type pendingObjects struct {
	mu         sync.Mutex // guards the maps
	pods       map[string]*api.PodSandbox
	containers map[string]*Container
}

func newPendingObjects() pendingObjects {
	return pendingObjects{pods: make(map[string]*api.PodSandbox), containers: make(map[string]*Container)}
}

func (o *pendingObjects) addPod(p *api.PodSandbox) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pods[p.GetId()] = p
}

func (o *pendingObjects) addContainer(c *Container) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.containers[c.Status.GetId()] = c
}

// remove removes a pod or container that the runtime lists, or whose creation has failed.
func (o *pendingObjects) remove(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.pods, id)
	delete(o.containers, id)
}

// list returns copies of both maps.
func (o *pendingObjects) list() (map[string]*api.PodSandbox, map[string]*Container) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.pods), maps.Clone(o.containers)
}
