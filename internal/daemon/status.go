package daemon

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// statusInfo returns the information that a verbose Status response adds.
func (p *parts) statusInfo() map[string]string {
	l, h := p.live.Load(), p.host
	cfg := l.settings
	b, err := json.Marshal(map[string]any{
		"root":            cfg.Root,
		"runDir":          cfg.RunDir,
		"cgroupDriver":    h.cgroupDriver,
		"cgroupV2":        h.cgroups.V2(),
		"cgroupParent":    h.cgroupParent,
		"defaultRuntime":  l.handlers.defaultName,
		"runtimes":        p.handlerInfo(l.handlers),
		"monitor":         h.monitorPath,
		"monitorCgroup":   h.monitorCgroup,
		"seccomp":         h.oci.Seccomp,
		"appArmor":        h.oci.AppArmor,
		"appArmorProfile": l.builder.DefaultAppArmorProfile(),
		"seLinux":         h.oci.SELinux,
		"cdiSpecDirs":     cfg.Container.CDISpecDirs,
		"cniConfDirs":     cfg.CNI.ConfDirs,
		"cniBinDirs":      cfg.CNI.BinDirs,
		// null unless pods use the default bridge
		"defaultBridge": p.pods.DefaultBridge(),
		// of runtime handlers with a default network of their own
		"handlerNetworks": p.pods.HandlerNetworks(),
	})
	if err != nil {
		return nil
	}
	return map[string]string{"config": string(b)}
}

// handlerInfo describes a runtime handler in a verbose Status response.
type handlerInfo struct {
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
}

// handlerInfo describes all handlers, sorted by name, and says which can checkpoint containers.
func (p *parts) handlerInfo(s *handlerSet) []handlerInfo {
	infos := s.info()
	for i := range infos {
		infos[i].NoCheckpoints = p.noCheckpoints(s.probers[infos[i].Name])
	}
	return infos
}

// info describes all handlers, sorted by name.
func (s *handlerSet) info() []handlerInfo {
	var infos []handlerInfo
	for _, name := range s.names() {
		info := handlerInfo{Name: name, Path: s.runtimes[name].Path, Error: "the first probe has not ended"}
		if result := s.probers[name].result.Load(); result != nil {
			info = result.info
		}
		info.Default = name == s.defaultName
		infos = append(infos, info)
	}
	return infos
}

// status returns an error until each handler has been probed once. The RuntimeReady condition
// depends on status, because otherwise the kubelet would see handlers without their features.
func (s *handlerSet) status() error {
	for _, name := range s.names() {
		select {
		case <-s.probers[name].firstEnded:
		default:
			return fmt.Errorf("runtime handler %q: the first probe has not ended: %w", name, errdefs.ErrUnavailable)
		}
	}
	return nil
}

// list returns all handlers, sorted by name, with the features that are known. The list
// contains the default handler also under the empty name.
func (s *handlerSet) list() []*cri.RuntimeHandler {
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

// runtimeFeatures returns the features that do not depend on the handler. The kubelet sends pods with a user namespace
// and the network of the host to every handler with user namespaces if the feature for both is set. So all these
// handlers must support both.
func (s *handlerSet) runtimeFeatures() *cri.RuntimeFeatures {
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
