package restore

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/mnt"
	"github.com/moby/sys/capability"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// The images of criu say with which credentials the processes run and what is mounted. A restore must not give a
// container more than its OCI config, so both are compared. The content of seccomp filters and of memory is not
// compared: the processes can do what they could do when they were checkpointed, below the limits of the new
// container.

const (
	// maxEntry is the maximum size of an entry of an image in bytes, and maxImageEntries the maximum number of entries.
	maxEntry        = 4 << 20
	maxImageEntries = 1 << 20
	// imageHeader is the size of the two magic numbers at the beginning of an image, in bytes.
	imageHeader = 8
)

// checkImages compares the images in a directory with the OCI config.
func checkImages(dir string, config *specs.Spec) error {
	if err := checkDescriptors(path.Join(dir, descriptors)); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	cores, mounts := 0, 0
	for _, e := range entries {
		name, file := e.Name(), path.Join(dir, e.Name())
		switch {
		case strings.HasPrefix(name, "core-"):
			cores++
			err = readImage(file, &core.CoreEntry{}, func(c *core.CoreEntry) error {
				if err := checkCore(c, config); err != nil {
					return fmt.Errorf("thread %.16q of the checkpoint: %w", c.GetThreadCore().GetComm(), err)
				}
				return nil
			})
		case strings.HasPrefix(name, "mountpoints-"):
			mounts++
			err = readImage(file, &mnt.MntEntry{}, func(e *mnt.MntEntry) error { return checkMount(e, config) })
		default:
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if cores == 0 || mounts == 0 {
		return invalid("the checkpoint archive has no images of processes or of mounts")
	}
	return nil
}

// checkDescriptors checks the list of standard streams. runc passes the descriptor of each pipe in the list to criu.
// The list must name only standard streams, because runc also has other files open.
func checkDescriptors(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	var list []string
	if err := json.NewDecoder(io.LimitReader(f, maxEntry)).Decode(&list); err != nil {
		return invalid("%s: %v", descriptors, err)
	}
	if len(list) > 3 {
		return invalid("%s has %d entries, at most 3 are allowed", descriptors, len(list))
	}
	return nil
}

// readImage calls fn for each entry of an image. All entries are decoded into v.
func readImage[T proto.Message](file string, v T, fn func(T) error) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyN(io.Discard, f, imageHeader); err != nil {
		return invalid("the image is too short")
	}
	for range maxImageEntries {
		var size uint32
		if err := binary.Read(f, binary.LittleEndian, &size); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return invalid("the image is truncated")
		}
		if size > maxEntry {
			return invalid("an entry has %d bytes, at most %d are allowed", size, maxEntry)
		}
		b := make([]byte, size)
		if _, err := io.ReadFull(f, b); err != nil {
			return invalid("the image is truncated")
		}
		proto.Reset(v)
		if err := proto.Unmarshal(b, v); err != nil {
			return invalid("decode entry: %v", err)
		}
		if err := fn(v); err != nil {
			return err
		}
	}
	return invalid("the image has more than %d entries", maxImageEntries)
}

// seccompFilter is the mode of a thread with a seccomp filter.
const seccompFilter = 2

// States of a task that has exited.
const (
	taskDead   = 2
	taskZombie = 6
)

// checkCore compares a thread. A task that has exited has no credentials.
func checkCore(c *core.CoreEntry, config *specs.Spec) error {
	if state := c.GetTc().GetTaskState(); state == taskDead || state == taskZombie {
		return nil
	}
	thread := c.GetThreadCore()
	creds := thread.GetCreds()
	if creds == nil {
		return invalid("a thread has no credentials")
	}
	bounding := capabilitySet(config.Process.Capabilities)
	for name, set := range map[string][]uint32{
		"inheritable": creds.GetCapInh(), "permitted": creds.GetCapPrm(), "effective": creds.GetCapEff(), "bounding": creds.GetCapBnd(),
		"ambient": creds.GetCapAmb(),
	} {
		if !contains(bounding, set) {
			return mismatch("a thread has more %s capabilities than the container may have", name)
		}
	}
	p := config.Process
	if err := checkLSM(creds.GetLsmProfile(), p); err != nil {
		return err
	}
	switch {
	case p.NoNewPrivileges && creds.GetNoNewPrivs() == 0:
		return mismatch("a thread does not have no_new_privs")
	// If all threads of a process have the filter of the first thread, only the first thread has a filter in the images,
	// and CRIU sets the filter for all threads. Only the image of the first thread has a task.
	case config.Linux.Seccomp != nil && c.GetTc() != nil && thread.GetSeccompMode() != seccompFilter:
		return mismatch("a thread has no seccomp filter, but the container has a seccomp profile")
	case p.NoNewPrivileges && p.User.UID != 0 && (creds.GetUid() == 0 || creds.GetEuid() == 0 || creds.GetSuid() == 0 || creds.GetFsuid() == 0):
		return mismatch("a thread runs as root, but the container runs as user %d and cannot gain privileges", p.User.UID)
	}
	return nil
}

// checkLSM compares the label of a thread in an LSM. CRIU does not confine a thread without a label.
func checkLSM(label string, p *specs.Process) error {
	switch {
	case p.SelinuxLabel != "" && label == "":
		return mismatch("a thread has no SELinux label, but the container has %q", p.SelinuxLabel)
	case p.SelinuxLabel != "": // the runtime tells CRIU the label of the container
		return nil
	case p.ApparmorProfile != "" && label != p.ApparmorProfile:
		return mismatch("a thread has the AppArmor profile %q, but the container has %q", label, p.ApparmorProfile)
	case p.ApparmorProfile == "" && label != "" && label != "unconfined":
		return mismatch("a thread has the label %q, but the container has no label", label)
	}
	return nil
}

// capabilitySet returns the bounding set in 32-bit words, as in the images.
func capabilitySet(c *specs.LinuxCapabilities) (set [2]uint32) {
	if c == nil {
		return set
	}
	for _, name := range c.Bounding {
		if n, ok := capabilityNumber(name); ok {
			set[n/32] |= 1 << (n % 32)
		}
	}
	return set
}

// contains reports whether a set of capabilities is in the bounding set.
func contains(bounding [2]uint32, set []uint32) bool {
	for i, word := range set {
		if i >= len(bounding) && word != 0 || i < len(bounding) && word&^bounding[i] != 0 {
			return false
		}
	}
	return true
}

// checkMount compares a mount with the mounts of the OCI config. runc adds mounts for masked and read-only paths,
// devices and the terminal. All of them are bind mounts or empty tmpfs.
func checkMount(e *mnt.MntEntry, config *specs.Spec) error {
	dest := path.Clean("/" + e.GetMountpoint())
	kind := mnt.Fstype(e.GetFstype()) //nolint:gosec // a number of an enumeration
	readOnly := (e.GetFlags()|e.GetSbFlags())&unix.MS_RDONLY != 0
	if dest == "/" {
		if config.Root.Readonly && !readOnly {
			return mismatch("the root file system can be written, but readonly_rootfs is set")
		}
		return nil
	}
	for _, m := range config.Mounts {
		if path.Clean(m.Destination) != dest {
			continue
		}
		// The tmpfs above the cgroup v1 hierarchies is writable. Each hierarchy is a separate, read-only mount in it.
		if isReadOnly(m) && !readOnly && (m.Type != "cgroup" || kind != mnt.Fstype_TMPFS) {
			return mismatch("the mount at %q can be written, but is read-only in the config", dest)
		}
		return checkType(e, m)
	}
	if strings.HasPrefix(dest, "/sys/fs/cgroup/") && !readOnly && hasReadOnlyCgroups(config) {
		return mismatch("the mount at %q can be written, but is read-only in the config", dest)
	}
	known := isOneOf(dest, config.Linux.MaskedPaths) || isOneOf(dest, config.Linux.ReadonlyPaths) || isDevice(dest, config) ||
		dest == "/dev/console" && config.Process.Terminal || strings.HasPrefix(dest, "/sys/fs/cgroup/")
	if !known {
		return mismatch("there is a mount at %q, which the config does not have", dest)
	}
	if e.GetExtKey() != "" {
		return nil // criu takes the source from the runtime
	}
	switch kind {
	case mnt.Fstype_PROC, mnt.Fstype_SYSFS, mnt.Fstype_TMPFS, mnt.Fstype_DEVPTS, mnt.Fstype_CGROUP, mnt.Fstype_CGROUP2, mnt.Fstype_MQUEUE:
		return nil
	}
	return mismatch("the mount at %q has the type %s", dest, kind)
}

// checkType compares the type of a mount. criu takes the source of a bind mount from the runtime, because it is
// external.
func checkType(e *mnt.MntEntry, m specs.Mount) error {
	if isBind(m) {
		if e.GetExtKey() == "" && !e.GetExtMount() {
			return mismatch("the mount at %q is not a bind mount", m.Destination)
		}
		return nil
	}
	types := map[string]mnt.Fstype{
		"proc": mnt.Fstype_PROC, "sysfs": mnt.Fstype_SYSFS, "tmpfs": mnt.Fstype_TMPFS, "devpts": mnt.Fstype_DEVPTS, "mqueue": mnt.Fstype_MQUEUE,
		"cgroup2": mnt.Fstype_CGROUP2,
	}
	kind := mnt.Fstype(e.GetFstype()) //nolint:gosec // a number of an enumeration
	if m.Type == "cgroup" && (kind == mnt.Fstype_TMPFS || kind == mnt.Fstype_CGROUP || kind == mnt.Fstype_CGROUP2 || e.GetExtKey() != "") {
		return nil
	}
	if want, ok := types[m.Type]; !ok || kind != want {
		return mismatch("the mount at %q has the type %s, but is %s in the config", m.Destination, kind, m.Type)
	}
	return nil
}

func hasReadOnlyCgroups(config *specs.Spec) bool {
	return slices.ContainsFunc(config.Mounts, func(m specs.Mount) bool { return m.Type == "cgroup" && isReadOnly(m) })
}

func isOneOf(dest string, paths []string) bool {
	for _, p := range paths {
		if path.Clean(p) == dest {
			return true
		}
	}
	return false
}

func isDevice(dest string, config *specs.Spec) bool {
	for _, d := range config.Linux.Devices {
		if path.Clean(d.Path) == dest {
			return true
		}
	}
	return false
}

// capabilityNumber returns the number of a capability such as "CAP_CHOWN".
func capabilityNumber(name string) (int, bool) {
	c, ok := capabilities()[name]
	return int(c), ok
}

var capabilities = sync.OnceValue(func() map[string]capability.Cap {
	m := make(map[string]capability.Cap)
	for _, c := range capability.ListKnown() {
		m["CAP_"+strings.ToUpper(c.String())] = c
	}
	return m
})
