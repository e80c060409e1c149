package restore

import (
	"strings"
	"sync"

	core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"github.com/moby/sys/capability"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// seccompFilter is the mode of a thread with a seccomp filter.
const seccompFilter = 2

// States of a task that has exited.
const (
	taskDead   = 2
	taskZombie = 6
)

// checkCore compares the rights of a thread with the OCI config. A task that has exited has no credentials.
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

// checkLSM compares the SELinux label or the AppArmor profile of a thread with the OCI config. CRIU does not confine a
// thread without a label.
func checkLSM(label string, p *specs.Process) error {
	switch {
	case p.SelinuxLabel != "" && label == "":
		return mismatch("a thread has no SELinux label, but the container has %q", p.SelinuxLabel)
	case p.SelinuxLabel != "": // CRIU uses the label of the new container, see container.labelArgs
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

// capabilityNumber returns the number of a capability such as "CAP_CHOWN".
func capabilityNumber(name string) (int, bool) {
	c, ok := capabilities()[name]
	return int(c), ok
}

// capabilities returns the numbers of all capabilities by name.
var capabilities = sync.OnceValue(func() map[string]capability.Cap {
	m := make(map[string]capability.Cap)
	for _, c := range capability.ListKnown() {
		m["CAP_"+strings.ToUpper(c.String())] = c
	}
	return m
})
