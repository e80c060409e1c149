package hostcheck

import (
	"slices"
	"strings"
)

func checkSeccomp(c *checker) {
	text, ok := c.host.read("/proc/sys/kernel/seccomp/actions_avail")
	if !ok {
		c.report("security.seccomp", "the kernel has no seccomp filters")
		return
	}
	actions := strings.Fields(text)
	for _, a := range []string{"errno", "kill_process", "log", "user_notif"} {
		if !slices.Contains(actions, a) {
			c.report("security.seccomp_actions", "the kernel does not have the seccomp action %s", a)
		}
	}
}

func checkAppArmor(c *checker) {
	enabled, _ := c.host.read("/sys/module/apparmor/parameters/enabled")
	if !strings.HasPrefix(enabled, "Y") {
		return
	}
	if restricted, ok := c.host.sysctl("kernel.apparmor_restrict_unprivileged_userns"); ok && restricted == 1 {
		c.report("security.unprivileged_userns", "AppArmor restricts user namespaces of processes without privileges")
	}
	if c.AppArmorProfile == "" {
		return
	}
	if c.OwnAppArmorProfile {
		if !c.host.inPath("apparmor_parser") {
			c.report("security.apparmor_parser", "AppArmor is enabled, but apparmor_parser is not installed")
		}
		return
	}
	profiles, ok := c.host.read("/sys/kernel/security/apparmor/profiles")
	if !ok {
		return // only root can read the file
	}
	for line := range strings.Lines(profiles) {
		if name, _, found := strings.Cut(strings.TrimSpace(line), " ("); found && name == c.AppArmorProfile {
			return
		}
	}
	c.report("security.apparmor_profile", "the AppArmor profile %s is not loaded", c.AppArmorProfile)
}

func checkSELinux(c *checker) {
	enforce, ok := c.host.read("/sys/fs/selinux/enforce")
	if !ok {
		return
	}
	if !c.Options.SELinux {
		c.report("security.selinux_off", "SELinux is enabled, but containers have no labels, because selinux is false")
		return
	}
	if enforce != "1" {
		c.report("security.selinux_permissive", "SELinux is enabled, but permissive")
	}
	config, _ := c.host.read("/etc/selinux/config")
	policy := "targeted"
	for line := range strings.Lines(config) {
		if value, found := strings.CutPrefix(strings.TrimSpace(line), "SELINUXTYPE="); found {
			policy = strings.Trim(value, `"`)
		}
	}
	if dir := "/etc/selinux/" + policy + "/contexts"; !c.host.exists(dir + "/lxc_contexts") {
		c.report("security.selinux_contexts", "the policy %s has no file lxc_contexts in %s", policy, dir)
	}
	if label := c.host.Kernel.Label(c.host.path(c.Binary)); label != "" && slices.Contains(strings.Split(label, ":"), "bin_t") {
		c.report("security.selinux_label", "%s has the label %s", c.Binary, label)
	}
}
