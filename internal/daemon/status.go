package daemon

import (
	"encoding/json"

	"github.com/criserver/criserver/internal/daemon/handlers"
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
		"defaultRuntime":  l.handlers.Default(),
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

// handlerInfo describes all handlers, sorted by name, and says which can checkpoint containers.
func (p *parts) handlerInfo(s *handlers.Set) []handlers.Info {
	infos := s.Info()
	for i := range infos {
		if !infos[i].Probed || infos[i].NoCheckpoints != "" {
			continue
		}
		if _, err := p.criu.Last(); err != nil {
			infos[i].NoCheckpoints = err.Error()
		}
	}
	return infos
}
