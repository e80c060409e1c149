package oci

import (
	"maps"
	"math"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// systemdProperty is the prefix of the annotations that runc and crun convert to properties of
// a container's systemd scope.
const systemdProperty = "org.systemd.property."

// minScopeStop and maxScopeStop limit the stop timeout of a scope. For systemd, 0 means no
// timeout. systemd gives up a shutdown after half an hour.
const minScopeStop, maxScopeStop = time.Second, 30 * time.Minute

// Scope says how systemd stops the scope of a container without the daemon, for instance at a
// shutdown of the host.
type Scope struct {
	// After contains the units that systemd must stop after the scope.
	After []string
	// StopTimeout is the time between StopSignal and SIGKILL.
	StopTimeout time.Duration
	// StopSignal is sent to all processes of the scope.
	StopSignal unix.Signal
}

// Apply adds the properties of the scope to a config, and removes all other properties. The
// values are in the text format of GVariant.
//
// TasksMax is set because systemd otherwise uses a default: a share of the host's maximum
// number of tasks. With CollectMode, systemd also removes a failed scope. A scope fails if the
// runtime is killed while it creates the container, or if a process does not exit in time.
//
// runc and crun set DefaultDependencies=no, with which systemd would not stop a scope before
// the last step of a shutdown. Therefore Apply adds the two dependencies by which a shutdown
// stops the scope.
func (s Scope) Apply(spec *specs.Spec) {
	spec.Annotations = maps.Clone(spec.Annotations)
	if spec.Annotations == nil {
		spec.Annotations = make(map[string]string)
	}
	maps.DeleteFunc(spec.Annotations, func(key, _ string) bool { return strings.HasPrefix(key, systemdProperty) })
	set := func(name, value string) { spec.Annotations[systemdProperty+name] = value }
	set("CollectMode", "'inactive-or-failed'")
	set("Conflicts", "['shutdown.target']")
	set("Before", "['shutdown.target']")
	if len(s.After) > 0 {
		set("After", "['"+strings.Join(s.After, "', '")+"']")
	}
	tasks := uint64(math.MaxUint64) // no limit
	if r := spec.Linux; r != nil && r.Resources != nil && r.Resources.Pids != nil && r.Resources.Pids.Limit != nil && *r.Resources.Pids.Limit > 0 {
		tasks = uint64(*r.Resources.Pids.Limit)
	}
	set("TasksMax", "uint64 "+strconv.FormatUint(tasks, 10))
	timeout := min(max(s.StopTimeout, minScopeStop), maxScopeStop)
	set("TimeoutStopUSec", "uint64 "+strconv.FormatInt(timeout.Microseconds(), 10))
	if s.StopSignal != 0 && s.StopSignal != unix.SIGTERM {
		set("KillSignal", "int32 "+strconv.Itoa(int(s.StopSignal)))
	}
}
