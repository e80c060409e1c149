package guest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
	// Setup changes the root file system before the disk is made. It may be nil.
	Setup func(root string) error
}

// commonPackages are what the daemon, its suites and the tests of the kernel's features need in every guest.
var commonPackages = []string{
	"systemd", "systemd-sysv", "udev", "dbus", "kmod", "sudo",
	"apparmor", "crun", "runc", "criu",
	"nftables", "iptables", "iproute2", "procps", "util-linux", "mount", "curl", "jq", "ca-certificates",
	"e2fsprogs", "xfsprogs", "busybox-static", "libseccomp2", "systemd-oomd",
}

// Releases are all guests.
var Releases = []Release{
	{Name: "trixie", Suite: "trixie", Arch: "amd64", Kernel: "linux-image-cloud-amd64", Packages: commonPackages},
	{Name: "bookworm", Suite: "bookworm", Arch: "amd64", Kernel: "linux-image-cloud-amd64", Packages: commonPackages},
	{
		Name: "selinux", Suite: "trixie", Arch: "amd64", Kernel: "linux-image-cloud-amd64",
		Packages: slices.Concat(commonPackages, []string{"selinux-policy-default", "selinux-utils", "policycoreutils", "checkpolicy", "semodule-utils", "auditd"}),
		Append:   "security=selinux selinux=1 enforcing=1 audit=1",
		Setup:    labelFiles,
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

// labelFiles gives the files the SELinux labels of the policy, which the guest itself would do at its first boot, slowly.
func labelFiles(root string) error {
	const config = "SELINUX=enforcing\nSELINUXTYPE=default\n"
	if err := os.WriteFile(filepath.Join(root, "etc/selinux/config"), []byte(config), 0o644); err != nil {
		return err
	}
	out, err := exec.Command("chroot", root, "setfiles", "-F", "/etc/selinux/default/contexts/files/file_contexts", "/").CombinedOutput()
	if err != nil {
		return fmt.Errorf("label files: %w: %s", err, out)
	}
	return nil
}
