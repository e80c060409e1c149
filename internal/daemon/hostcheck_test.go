package daemon

import (
	"slices"
	"testing"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/internal/hostcheck"
)

func TestHostOptions(t *testing.T) {
	cfg := config.Default()
	cfg.Runtimes = map[string]config.Runtime{"kata": {Path: "/opt/kata"}, "crun": {Path: "/opt/crun"}}
	cfg.CNI.ConfTemplate, cfg.NRI.DisableConnections = "/template", true
	o := hostOptions(cfg)
	if len(o.Runtimes) < 2 || !slices.Contains(o.Runtimes, hostcheck.Runtime{Handler: "kata", Path: "/opt/kata"}) ||
		!slices.Contains(o.Runtimes, hostcheck.Runtime{Handler: "crun", Path: "/opt/crun"}) {
		t.Errorf("runtimes %v", o.Runtimes)
	}
	if o.DefaultBridge || o.NRISocket != "" || !o.OwnAppArmorProfile || o.Binary == "" {
		t.Errorf("options %+v", o)
	}
	findings, err := CheckHost(t.Context(), cfg, "runtimes")
	if err != nil || len(findings) < 2 || findings[0].ID != "runtimes.missing" {
		t.Errorf("findings %+v, %v; want the missing runtimes", findings, err)
	}
}
