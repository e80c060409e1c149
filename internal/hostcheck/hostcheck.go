// Package hostcheck finds out whether a host can run the daemon and its containers. It reads the
// files of the kernel and of the system below a root directory, which is another one in tests, and
// changes nothing. It knows neither the configuration nor the other packages of the daemon: the
// caller passes the necessary values in Options.
package hostcheck

import (
	"cmp"
	"context"
	"fmt"
	"slices"
)

// Severity says how serious a finding is.
type Severity string

// The severities.
const (
	Error   Severity = "error"   // pods do not run, or data is lost
	Warning Severity = "warning" // a feature is missing, or pods may fail under load
	Info    Severity = "info"    // nothing is wrong, but the operator may want to know
)

// rank orders severities, the most serious first.
func (s Severity) rank() int { return slices.Index([]Severity{Error, Warning, Info}, s) }

// Finding is something that is wrong on the host.
type Finding struct {
	Group    string   `json:"group"`
	ID       string   `json:"id"` // of the Kind, as in "kernel.version"
	Severity Severity `json:"severity"`
	Problem  string   `json:"problem"` // what is wrong on this host
	Reason   string   `json:"reason"`  // why the problem matters
	Remedy   string   `json:"remedy"`  // what the operator can do
}

// Options describe the parts of the host that the daemon uses.
type Options struct {
	Root, RunDir string // of the configuration
	Socket       string
	// NRISocket is "" if NRI is off or no plugin can connect.
	NRISocket     string
	StreamAddress string // IP address and port; port 0 is any free port

	CNIConfDirs, CNIBinDirs []string
	DefaultNetwork          string // "": the first network
	DefaultBridge           bool   // the daemon has a network without a configuration
	// ParseNetwork reads a file with a CNI network.
	ParseNetwork func(file string) (Network, error)

	Runtimes []Runtime
	// Flaw returns the known vulnerability of a runtime with a version line, or "".
	Flaw func(versionLine string) string

	AppArmorProfile string // of containers, or "" for none
	// OwnAppArmorProfile says that the daemon loads the profile itself.
	OwnAppArmorProfile bool
	SELinux            bool   // containers get SELinux labels if the host has SELinux
	SystemdCgroups     bool   // the cgroup driver is systemd
	Binary             string // path of the daemon's binary
	Unit               string // name of the daemon's systemd unit
}

// Network is the content of a file with a CNI network.
type Network struct {
	Name    string
	Plugins []string // types, in order
	Bridges []string // names of bridges
	Subnets []string // address ranges, as in "10.88.0.0/16"
}

// Runtime is an OCI runtime of a runtime handler.
type Runtime struct {
	Handler string
	Path    string // "" if the binary is not in the PATH
}

// Check runs the checks of some groups, or of all groups, and returns the findings: the most
// serious first, and otherwise in the order of Groups. It returns an error if a group does not exist.
func Check(ctx context.Context, h Host, o Options, groups ...string) ([]Finding, error) {
	for _, g := range groups {
		if !slices.Contains(Groups(), g) {
			return nil, fmt.Errorf("unknown group of checks %q: the groups are %v", g, Groups())
		}
	}
	c := &checker{ctx: ctx, host: h, Options: o}
	for _, g := range checks {
		if len(groups) > 0 && !slices.Contains(groups, g.name) {
			continue
		}
		c.group = g.name
		for _, check := range g.checks {
			check(c)
		}
	}
	slices.SortStableFunc(c.findings, func(a, b Finding) int { return cmp.Compare(a.Severity.rank(), b.Severity.rank()) })
	return c.findings, ctx.Err()
}

// Groups returns the names of the groups of checks.
func Groups() []string {
	var names []string
	for _, g := range checks {
		names = append(names, g.name)
	}
	return names
}

// checks contains all checks by group.
var checks = []struct {
	name   string
	checks []func(*checker)
}{
	{"kernel", []func(*checker){checkKernelVersion, checkSystemCalls, checkModules, checkNamespaces, checkIDMappedMounts}},
	{"cgroups", []func(*checker){checkCgroupMode, checkControllers}},
	{"storage", []func(*checker){checkStoreFileSystem, checkRunDir, checkSpace}},
	{"security", []func(*checker){checkSeccomp, checkAppArmor, checkSELinux}},
	{"network", []func(*checker){checkNetworks, checkForwarding, checkFirewalls, checkSockets, checkOtherRuntimes}},
	{"runtimes", []func(*checker){checkRuntimes}},
	{"sysctls", []func(*checker){checkSysctls}},
	{"system", []func(*checker){checkSystemd, checkUnit, checkClock, checkHostname, checkSwap}},
}

// checker is the state of one run.
type checker struct {
	ctx  context.Context //nolint:containedctx // of Check, for programs
	host Host
	Options
	group    string
	findings []Finding
}

// report adds a finding of a kind.
func (c *checker) report(id, problem string, args ...any) {
	k := kind(id)
	c.findings = append(c.findings, Finding{
		Group: c.group, ID: id, Severity: k.Severity, Problem: fmt.Sprintf(problem, args...), Reason: k.Reason, Remedy: k.Remedy,
	})
}
