package guest

import (
	"context"
	"slices"
)

// Release describes a guest: which system is installed and how it is booted.
type Release struct {
	Name     string   // names the guest on the command line and in reports
	Suite    string   // Debian's code name
	Arch     string   // the architecture, in the words of Debian and of Go
	Kernel   string   // Debian package of the kernel
	Packages []string // installed besides the base system
	Append   string   // added to the kernel's command line
	Files    []string // files of the project that Setup uses
	// Setup changes the root file system before the disk is made. It may be nil. top is the
	// top directory of the project.
	Setup func(ctx context.Context, top, root string) error
}

// commonPackages are the packages that the daemon, its suites and the tests of the kernel's features need in every
// guest.
var commonPackages = []string{
	"systemd", "systemd-sysv", "udev", "dbus", "kmod", "sudo",
	"apparmor", "crun", "runc", "criu",
	"nftables", "iptables", "iproute2", "procps", "util-linux", "mount", "curl", "jq", "ca-certificates",
	"e2fsprogs", "xfsprogs", "busybox-static", "libseccomp2", "systemd-oomd",
}

// Releases are all guests.
var Releases = []Release{
	{
		Name: "trixie", Suite: "trixie", Arch: "amd64", Kernel: "linux-image-cloud-amd64",
		Packages: slices.Concat(commonPackages, []string{"libcriu2"}), // the crun of Debian 13 loads it for checkpoints
	},
	{Name: "bookworm", Suite: "bookworm", Arch: "amd64", Kernel: "linux-image-cloud-amd64", Packages: commonPackages},
	{
		Name: "selinux", Suite: "trixie", Arch: "amd64", Kernel: "linux-image-cloud-amd64",
		Packages: slices.Concat(commonPackages, []string{"selinux-policy-default", "selinux-utils", "policycoreutils", "checkpolicy", "semodule-utils", "auditd"}),
		Append:   "security=selinux selinux=1 enforcing=1 audit=1 audit_backlog_limit=8192",
		Files:    []string{policyModule},
		Setup:    enforce,
	},
	{
		Name: "arm64", Suite: "trixie", Arch: "arm64", Kernel: "linux-image-cloud-arm64",
		Packages: commonPackages,
	},
}

// Find returns the guest of a name.
func Find(name string) (Release, bool) {
	i := slices.IndexFunc(Releases, func(r Release) bool { return r.Name == name })
	if i < 0 {
		return Release{}, false
	}
	return Releases[i], true
}
