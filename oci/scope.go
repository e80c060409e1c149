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

// systemdProperty is the prefix of the annotations that runc and crun turn into
// properties of a container's systemd scope.
const systemdProperty = "org.systemd.property."

// Bounds of the time that systemd gives a scope to stop. systemd takes 0 for no
// bound, and gives up a shutdown itself after half an hour.
const minScopeStop, maxScopeStop = time.Second, 30 * time.Minute

// Scope says how systemd stops the scope of a container when it stops the scope
// by itself, as at a shutdown of the machine.
type Scope struct {
	// After are the units that stop after the scope.
	After []string
	// StopTimeout is the time between StopSignal and SIGKILL.
	StopTimeout time.Duration
	// StopSignal goes to all processes of the scope.
	StopSignal unix.Signal
}

// Apply adds the properties of the scope to a config, and removes all other
// properties from it. The values are in the text form of GVariant.
//
// The properties include TasksMax, for which systemd otherwise has a default: a
// share of the tasks that the machine can have. With CollectMode, systemd forgets
// the scope also when the scope has failed. A scope fails when the runtime is
// killed while it makes the container, or when a process does not end in time.
//
// runc and crun set DefaultDependencies=no, with which nothing would stop a scope
// before the last step of a shutdown. So Apply adds the two dependencies by which
// a shutdown stops the scope.
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
