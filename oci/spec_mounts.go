package oci

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/criserver/criserver/internal/userns"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Mount is a requested bind mount. Its source has been resolved on the host.
type Mount struct {
	Source, Destination string
	ReadOnly            bool
	RecursiveReadOnly   bool // needs ReadOnly and private propagation
	Propagation         cri.MountPropagation
	// Options are further mount options: the options of the request, and the restrictions of the
	// host's mount that has the source, because a bind mount must keep them.
	Options []string
	// Mappings of an id-mapped mount, or none.
	UIDMappings, GIDMappings []specs.LinuxIDMapping
	// MapSubmounts applies the mappings also to the mounts below Source.
	MapSubmounts bool
}

// readOnly reports whether the mount is read-only. The option "ro" can come from the request or
// from the host's mount.
func (m Mount) readOnly() bool { return m.ReadOnly || slices.Contains(m.Options, "ro") }

var propagationOption = map[cri.MountPropagation]string{
	cri.MountPropagation_PROPAGATION_PRIVATE:           "rprivate",
	cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER: "rslave",
	cri.MountPropagation_PROPAGATION_BIDIRECTIONAL:     "rshared",
}

// mounts sets the mounts of the spec: the standard mounts, the mounts of the base config, the volumes
// of the image, the files of the pod, and the requested mounts. Requested mounts replace others at
// the same destination. Mounts are sorted so that no mount hides a mount below it.
func (c *specBuilder) mounts() error {
	var all []specs.Mount
	defaults := append(c.standardMounts(), c.baseMounts()...)
	for _, m := range c.in.Volumes {
		defaults = append(defaults, c.bind(m))
	}
	for _, m := range append(defaults, c.podFiles()...) {
		if !c.replaced(m.Destination) && !c.conflicts(m) {
			all = append(all, m)
		}
	}
	for _, m := range c.in.Mounts {
		all = append(all, c.bind(m))
	}
	slices.SortStableFunc(all, func(a, b specs.Mount) int { return cmp.Compare(depth(a.Destination), depth(b.Destination)) })
	c.spec.Mounts = all
	return nil
}

func depth(p string) int { return strings.Count(filepath.Clean(p), "/") }

// conflicts reports whether m, which was not requested, cannot be mounted below a requested mount.
// Below a mount with bidirectional propagation, m would also appear on the host. Below a read-only
// mount, the runtime cannot create the file on which a file is mounted.
func (c *specBuilder) conflicts(m specs.Mount) bool {
	file := strings.HasPrefix(m.Destination, "/etc/")
	return slices.ContainsFunc(c.in.Mounts, func(r Mount) bool {
		below := strings.HasPrefix(m.Destination, filepath.Clean(r.Destination)+"/")
		return below && (r.Propagation == cri.MountPropagation_PROPAGATION_BIDIRECTIONAL || file && r.readOnly())
	})
}

// replaced reports whether a requested mount replaces the mount at dst. A requested /sys also
// replaces the cgroups, because the host's /sys contains them.
func (c *specBuilder) replaced(dst string) bool {
	return slices.ContainsFunc(c.in.Mounts, func(m Mount) bool {
		requested := filepath.Clean(m.Destination)
		return requested == dst || (requested == "/sys" && dst == "/sys/fs/cgroup")
	})
}

// ttyGroup is the group of terminals in all distributions. The kernel refuses to mount a devpts
// with this group in a user namespace that is too small to contain it.
const ttyGroup = 5

// standardMounts returns the mounts of every container, such as /proc, /dev and /sys.
func (c *specBuilder) standardMounts() []specs.Mount {
	kernel := []string{"nosuid", "noexec", "nodev"}
	access := "ro"
	if c.privileged() {
		access = "rw"
	}
	mounts := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: kernel},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: kernel},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: append(slices.Clone(kernel), access)},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: append(slices.Clone(kernel), "relatime", access)},
	}
	if c.in.WritableCgroups && c.host.CgroupV2 {
		// The cgroup namespace of the container confines the writes. v1 has no such namespace.
		mounts[5].Options[len(mounts[5].Options)-1] = "rw"
	}
	if _, mapped := userns.HostID(c.in.UserGIDs, ttyGroup); mapped || c.in.Namespaces.User == "" {
		mounts[2].Options = append(mounts[2].Options, fmt.Sprintf("gid=%d", ttyGroup))
	}
	if c.in.Namespaces.User != "" && c.in.Namespaces.Net == "" {
		// A sysfs belongs to a network namespace, and only the user namespace that owns the network
		// namespace can mount it. With the network of the host, the host's /sys is bind-mounted, together with
		// the mounts below it.
		options := append(slices.Clone(kernel), "rbind", "rprivate", access)
		if access == "ro" {
			options = append(options, "rro")
			c.atLeast(versionRecursiveMounts)
		}
		mounts[4] = specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: options}
	}
	return mounts
}

func (c *specBuilder) podFiles() []specs.Mount {
	access := "rw"
	if c.in.Security.GetReadonlyRootfs() {
		access = "ro"
	}
	var mounts []specs.Mount
	for _, f := range []struct{ dst, src string }{
		{"/etc/hosts", c.in.Files.Hosts}, {"/etc/hostname", c.in.Files.Hostname}, {"/etc/resolv.conf", c.in.Files.ResolvConf},
	} {
		if f.src != "" {
			mounts = append(mounts, specs.Mount{Destination: f.dst, Type: "bind", Source: f.src, Options: []string{"bind", "rprivate", "nosuid", "nodev", "noexec", access}})
		}
	}
	const localtime = "/etc/localtime"
	if src := c.in.Files.Localtime; src != "" && !c.baseHasMount(localtime) {
		mounts = append(mounts, specs.Mount{Destination: localtime, Type: "bind", Source: src, Options: []string{"bind", "rprivate", "nosuid", "nodev", "noexec", "ro"}})
	}
	shm := c.in.Files.Shm
	if shm == "" {
		shm = "/dev/shm"
	}
	return append(mounts, specs.Mount{Destination: "/dev/shm", Type: "bind", Source: shm, Options: []string{"bind", "rprivate", "nosuid", "nodev", "noexec", "rw"}})
}

// bind returns a requested mount in the form of the OCI spec. If the mount has propagation, bind
// also sets the propagation of the root of the container, without which it would have no effect.
func (c *specBuilder) bind(m Mount) specs.Mount {
	opts := []string{"rbind", propagationOption[m.Propagation]}
	switch {
	case m.RecursiveReadOnly:
		opts = append(opts, "ro", "rro")
		c.atLeast(versionRecursiveMounts)
	case m.readOnly():
		opts = append(opts, "ro")
	default:
		opts = append(opts, "rw")
	}
	for _, o := range m.Options {
		if !slices.Contains(opts, o) {
			opts = append(opts, o)
		}
	}
	switch l := c.spec.Linux; {
	case m.Propagation == cri.MountPropagation_PROPAGATION_BIDIRECTIONAL:
		l.RootfsPropagation = "rshared"
	case m.Propagation == cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER && l.RootfsPropagation == "":
		l.RootfsPropagation = "rslave"
	}
	if len(m.UIDMappings)+len(m.GIDMappings) > 0 {
		c.atLeast(versionRecursiveMounts)
		if m.MapSubmounts {
			opts = append(opts, "ridmap")
			c.atLeast(versionIDMap)
		}
	}
	return specs.Mount{
		Destination: m.Destination, Type: "bind", Source: m.Source, Options: opts,
		UIDMappings: m.UIDMappings, GIDMappings: m.GIDMappings,
	}
}
