package handlers

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	adminv1 "github.com/criserver/criserver/admin/v1"
)

// Info describes a runtime handler in a verbose Status response.
type Info struct {
	Name    string `json:"name"`
	Path    string `json:"path"`
	Default bool   `json:"default,omitempty"`
	Version string `json:"version,omitempty"`
	// Flaw describes a known defect of the version.
	Flaw string `json:"flaw,omitempty"`
	// Error is the reason why the runtime did not answer.
	Error string `json:"error,omitempty"`
	// NoUserNamespaces is the reason why the handler does not support user namespaces.
	NoUserNamespaces string `json:"noUserNamespaces,omitempty"`
	// NoHostNetworkUserNamespaces is the reason why the handler supports user namespaces only for pods with their own
	// network.
	NoHostNetworkUserNamespaces string `json:"noHostNetworkUserNamespaces,omitempty"`
	// NoCheckpoints is the reason why containers of the handler cannot be checkpointed.
	NoCheckpoints string `json:"noCheckpoints,omitempty"`
	// Probed reports whether the first probe has ended.
	Probed bool `json:"-"`
}

// Info describes all handlers, sorted by name. NoCheckpoints does not depend on criu.
func (s *Set) Info() []Info {
	var infos []Info
	for _, name := range s.Names() {
		info := Info{Name: name, Path: s.runtimes[name].Path, Error: "the first probe has not ended"}
		if result := s.probers[name].result.Load(); result != nil {
			info, info.Probed = result.info, true
			if err := s.probers[name].checkpointError(result); err != nil {
				info.NoCheckpoints = err.Error()
			}
		}
		info.Default = name == s.defaultName
		infos = append(infos, info)
	}
	return infos
}

// Status returns an error until each handler has been probed once. The RuntimeReady condition
// depends on Status, because otherwise the kubelet would see handlers without their features.
func (s *Set) Status() error {
	for _, name := range s.Names() {
		select {
		case <-s.probers[name].firstEnded:
		default:
			return fmt.Errorf("runtime handler %q: the first probe has not ended: %w", name, errdefs.ErrUnavailable)
		}
	}
	return nil
}

// List returns all handlers, sorted by name, with the features that are known. The list
// contains the default handler also under the empty name.
func (s *Set) List() []*cri.RuntimeHandler {
	var list []*cri.RuntimeHandler
	for name, p := range s.probers {
		f := &cri.RuntimeHandlerFeatures{}
		if result := p.result.Load(); result != nil {
			f.RecursiveReadOnlyMounts = supportsRecursiveReadOnly(result.features)
			f.UserNamespaces = result.userNSError == nil
		}
		list = append(list, &cri.RuntimeHandler{Name: name, Features: f})
		if name == s.defaultName {
			list = append(list, &cri.RuntimeHandler{Name: "", Features: f})
		}
	}
	slices.SortFunc(list, func(a, b *cri.RuntimeHandler) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return list
}

// RuntimeFeatures returns the features that do not depend on the handler. The kubelet sends pods with a user namespace
// and the network of the host to every handler with user namespaces if the feature for both is set. So all these
// handlers must support both.
func (s *Set) RuntimeFeatures() *cri.RuntimeFeatures {
	f := &cri.RuntimeFeatures{SupplementalGroupsPolicy: true, MountOptions: true}
	for _, p := range s.probers {
		result := p.result.Load()
		if result == nil || result.userNSError != nil {
			continue
		}
		if result.hostNetworkUserNSError != nil {
			f.UserNamespacesHostNetwork = false
			break
		}
		f.UserNamespacesHostNetwork = true
	}
	return f
}

func supportsRecursiveReadOnly(f *features.Features) bool {
	return f != nil && slices.Contains(f.MountOptions, "rro") && kernelHasMountSetattr()
}

// AdminStatus describes all handlers for the administration API, sorted by name.
func (s *Set) AdminStatus() []*adminv1.RuntimeHandler {
	var list []*adminv1.RuntimeHandler
	for _, info := range s.Info() {
		h := &adminv1.RuntimeHandler{
			Name: info.Name, Path: info.Path, Default: info.Default, Version: info.Version, Flaw: info.Flaw, Error: info.Error,
			UserNamespacesError: info.NoUserNamespaces,
		}
		if result := s.probers[info.Name].result.Load(); result != nil {
			h.UserNamespaces = result.userNSError == nil
			h.RecursiveReadOnlyMounts = supportsRecursiveReadOnly(result.features)
		}
		list = append(list, h)
	}
	return list
}
