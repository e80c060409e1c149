package hostcheck

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const minSystemd = 249

// checkSystemd checks the version of systemd, if systemd runs.
func checkSystemd(c *checker) {
	if !c.host.exists("/run/systemd/system") {
		c.report("system.no_systemd", "the host does not run systemd")
		return
	}
	out, err := c.host.Run(c.ctx, "systemctl", "--version")
	var v int
	if _, scanErr := fmt.Sscanf(out, "systemd %d", &v); err != nil || scanErr != nil {
		return // as in a container without systemctl
	}
	if v < minSystemd {
		c.report("system.systemd", "systemd %d is older than %d", v, minSystemd)
	}
}

// checkUnit checks the properties of the daemon's unit, if the unit is installed.
func checkUnit(c *checker) {
	if c.Unit == "" || !c.host.exists("/run/systemd/system") {
		return
	}
	out, err := c.host.Run(c.ctx, "systemctl", "show", "--property=LoadState,KillMode,Delegate,LimitNOFILE,LimitNPROC,TasksMax", c.Unit)
	if err != nil {
		return
	}
	unit := make(map[string]string)
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		unit[name] = value
	}
	if unit["LoadState"] != "loaded" {
		return
	}
	if unit["KillMode"] != "process" {
		c.report("system.kill_mode", "KillMode of %s is %s", c.Unit, unit["KillMode"])
	}
	if unit["Delegate"] != "yes" {
		c.report("system.delegate", "Delegate of %s is %s", c.Unit, unit["Delegate"])
	}
	for _, limit := range []struct {
		name string
		min  uint64
	}{{"LimitNOFILE", 65536}, {"LimitNPROC", 32768}, {"TasksMax", 32768}} {
		// "infinity" is not a number.
		if n, err := strconv.ParseUint(unit[limit.name], 10, 64); err == nil && n < limit.min {
			c.report("system.limits", "%s of %s is %d, less than %d", limit.name, c.Unit, n, limit.min)
		}
	}
}

// earliest is before the first release of the daemon.
var earliest = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

func checkClock(c *checker) {
	if now := c.host.Kernel.Now(); now.Before(earliest) {
		c.report("system.clock", "the clock shows %s", now.UTC().Format(time.RFC3339))
	} else if !c.host.Kernel.ClockSynchronized() {
		c.report("system.clock_sync", "no time service keeps the clock")
	}
}

// nodeName is the syntax of the names of Kubernetes nodes (RFC 1123).
var nodeName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

func checkHostname(c *checker) {
	name, ok := c.host.read("/proc/sys/kernel/hostname")
	if !ok {
		return
	}
	lower := strings.ToLower(name) // the kubelet does the same
	if !nodeName.MatchString(lower) || lower == "localhost" || strings.HasPrefix(lower, "localhost.") || lower == "(none)" {
		c.report("system.hostname", "the host name is %q", name)
	}
}

// checkSwap looks for swap devices. The first line of /proc/swaps is a header.
func checkSwap(c *checker) {
	swaps, _ := c.host.read("/proc/swaps")
	if lines := strings.Split(swaps, "\n"); len(lines) > 1 {
		device, _, _ := strings.Cut(lines[1], " ")
		c.report("system.swap", "swap is on: %s", device)
	}
}
