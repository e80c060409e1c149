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

// Mount is a bind mount that the request asks for; its source has been looked
// up on the host.
type Mount struct {
	Source, Destination string
	ReadOnly            bool
	RecursiveReadOnly   bool // needs ReadOnly and private propagation
	Propagation         cri.MountPropagation
	// Options are further mount options: those of the request and, as a bind mount
	// may not undo them, those of the host's mount that the source is on.
	Options []string
	// Mappings of an id-mapped mount, or none.
	UIDMappings, GIDMappings []specs.LinuxIDMapping
	// MapSubmounts has what is mounted below Source mapped too.
	MapSubmounts bool
}

// readOnly: an option says it too, be it the request's or the host's.
func (m Mount) readOnly() bool { return m.ReadOnly || slices.Contains(m.Options, "ro") }

var propagationOption = map[cri.MountPropagation]string{
	cri.MountPropagation_PROPAGATION_PRIVATE:           "rprivate",
	cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER: "rslave",
	cri.MountPropagation_PROPAGATION_BIDIRECTIONAL:     "rshared",
}

// mounts are the usual ones, without those whose place the request takes, the
// image's volumes and the request's, each parent before what lies below it.
func (c *specBuilder) mounts() error {
	var all []specs.Mount
	usual := c.standardMounts()
	for _, m := range c.in.Volumes {
		usual = append(usual, c.bind(m))
	}
	for _, m := range append(usual, c.podFiles()...) {
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

// shutOut says whether one of the usual mounts has no place below a requested
// one: where mounts spread to the host, as it would show up there, and a file in
// what is read-only, as nothing can be made there to mount it on.
func (c *specBuilder) conflicts(m specs.Mount) bool {
	file := strings.HasPrefix(m.Destination, "/etc/")
	return slices.ContainsFunc(c.in.Mounts, func(r Mount) bool {
		below := strings.HasPrefix(m.Destination, filepath.Clean(r.Destination)+"/")
		return below && (r.Propagation == cri.MountPropagation_PROPAGATION_BIDIRECTIONAL || file && r.readOnly())
	})
}

// replaced says whether the request mounts at dst itself, or mounts the host's
// /sys, which brings the cgroups with it.
func (c *specBuilder) replaced(dst string) bool {
	return slices.ContainsFunc(c.in.Mounts, func(m Mount) bool {
		at := filepath.Clean(m.Destination)
		return at == dst || (at == "/sys" && dst == "/sys/fs/cgroup")
	})
}

// ttyGroup owns terminals in all distributions. A user namespace may be so small
// that it has no such group, which the kernel refuses to mount a devpts with.
const ttyGroup = 5

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
	if _, mapped := userns.HostID(c.in.UserGIDs, ttyGroup); mapped || c.in.Namespaces.User == "" {
		mounts[2].Options = append(mounts[2].Options, fmt.Sprintf("gid=%d", ttyGroup))
	}
	if c.in.Namespaces.User != "" && c.in.Namespaces.Net == "" {
		// A sysfs shows a network namespace, and the kernel lets only that one's
		// owner mount it: a user namespace with the host's network binds instead.
		mounts[4] = specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: append(slices.Clone(kernel), "rbind", access)}
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
	shm := c.in.Files.Shm
	if shm == "" {
		shm = "/dev/shm"
	}
	return append(mounts, specs.Mount{Destination: "/dev/shm", Type: "bind", Source: shm, Options: []string{"bind", "rprivate", "nosuid", "nodev", "noexec", "rw"}})
}

// bind renders a requested mount. Where one wants propagation, the container's
// whole tree has to let it pass.
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
