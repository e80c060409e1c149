package daemon

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/config"
)

// handlerInfo is what a verbose Status tells of a runtime handler.
type handlerInfo struct {
	Name    string `json:"name"`
	Path    string `json:"path"`
	Default bool   `json:"default,omitempty"`
	Version string `json:"version,omitempty"`
	// Flaw is what is known to be wrong with that version.
	Flaw string `json:"flaw,omitempty"`
	// Error is why the runtime did not answer.
	Error string `json:"error,omitempty"`
	// NoUserNamespaces is why pods of it cannot have one of their own.
	NoUserNamespaces string `json:"noUserNamespaces,omitempty"`
}

// status returns nil when all handlers have been probed once. Until then the
// kubelet would see a handler without the features that it has.
func (r *runtimes) status() error {
	for _, name := range r.names() {
		select {
		case <-r.probers[name].first:
		default:
			return fmt.Errorf("runtime handler %q is still being probed: %w", name, errdefs.ErrUnavailable)
		}
	}
	return nil
}

// list returns all handlers, with the features that are known by now. The
// default one is listed under the empty name, too.
func (r *runtimes) list() []*cri.RuntimeHandler {
	var out []*cri.RuntimeHandler
	for name, p := range r.probers {
		f := &cri.RuntimeHandlerFeatures{}
		if found := p.result.Load(); found != nil {
			f = handlerFeatures(found.features)
			f.UserNamespaces = found.userNS == nil
		}
		out = append(out, &cri.RuntimeHandler{Name: name, Features: f})
		if name == r.defaultName {
			out = append(out, &cri.RuntimeHandler{Name: "", Features: f})
		}
	}
	slices.SortFunc(out, func(a, b *cri.RuntimeHandler) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return out
}

// info returns what a verbose Status shows of the handlers.
func (r *runtimes) info() []handlerInfo {
	var out []handlerInfo
	for _, name := range slices.Sorted(maps.Keys(r.probers)) {
		h := handlerInfo{Name: name, Path: r.probers[name].rt.Path, Error: "it is still being probed"}
		if found := r.probers[name].result.Load(); found != nil {
			h = found.info
		}
		h.Default = name == r.defaultName
		out = append(out, h)
	}
	return out
}

func handlerFeatures(f *features.Features) *cri.RuntimeHandlerFeatures {
	if f == nil {
		return &cri.RuntimeHandlerFeatures{}
	}
	return &cri.RuntimeHandlerFeatures{
		RecursiveReadOnlyMounts: slices.Contains(f.MountOptions, "rro") && mountSetattr(),
	}
}

// statusInfo is what a verbose Status adds.
func statusInfo(cfg config.Config, h *host, r *runtimes) map[string]string {
	b, err := json.Marshal(map[string]any{
		"root": cfg.Root, "runDir": cfg.RunDir, "cgroupDriver": h.driver, "cgroupV2": h.cgroups.V2(), "cgroupParent": h.cgroupParent,
		"defaultRuntime": r.defaultName, "runtimes": r.info(), "monitor": h.monitor, "monitorCgroup": h.monitorCgroup,
		"seccomp": h.facts.Seccomp, "appArmor": h.facts.AppArmor, "appArmorProfile": r.builder.DefaultAppArmorProfile(), "seLinux": h.facts.SELinux,
		"cdiSpecDirs": cfg.Container.CDISpecDirs, "cniConfDirs": cfg.CNI.ConfDirs, "cniBinDirs": cfg.CNI.BinDirs,
	})
	if err != nil {
		return nil
	}
	return map[string]string{"config": string(b)}
}
