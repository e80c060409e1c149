package guest

import "slices"

// Release describes a guest: which system is installed and how it is booted.
type Release struct {
	Name     string   // names the guest on the command line and in reports
	Suite    string   // Debian's code name
	Arch     string   // Debian's name of the architecture
	Kernel   string   // Debian package of the kernel
	Packages []string // installed besides the base system
	Append   string   // added to the kernel's command line
	// Setup changes the root file system before the disk is made. It may be nil.
	Setup func(root string) error
}

// commonPackages are what the daemon, its suites and the tests of the kernel's features need in every guest.
var commonPackages = []string{
	"systemd", "systemd-sysv", "udev", "dbus", "kmod", "sudo",
	"apparmor", "crun", "runc", "criu",
	"nftables", "iptables", "iproute2", "procps", "util-linux", "mount", "curl", "jq", "ca-certificates",
	"e2fsprogs", "xfsprogs", "busybox-static", "libseccomp2",
}

// Releases are all guests.
var Releases = []Release{
	{
		Name: "trixie", Suite: "trixie", Arch: "amd64", Kernel: "linux-image-cloud-amd64",
		Packages: slices.Concat(commonPackages, []string{"systemd-oomd"}),
	},
	{
		Name: "bookworm", Suite: "bookworm", Arch: "amd64", Kernel: "linux-image-cloud-amd64",
		Packages: slices.Concat(commonPackages, []string{"systemd-oomd"}),
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
