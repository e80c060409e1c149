package oci

import (
	"cmp"
	"maps"
	"math"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/cgroups/systemd"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// CgroupsPath returns the cgroup of a container below parent: config is the cgroupsPath of the OCI
// config, and path is the path in the cgroup hierarchy.
func (r *Runtime) CgroupsPath(parent, id string) (config, path string) {
	if r.SystemdCgroup {
		slice := parent[strings.LastIndexByte(parent, '/')+1:]
		return slice + ":criserver:" + id, parent + "/criserver-" + id + ".scope"
	}
	path = parent + "/criserver-" + id
	return path, path
}

// ResolveCgroup returns the path in the cgroup hierarchy for the cgroupsPath of an OCI config. The
// cgroupsPath is a path, or with the systemd driver slice:prefix:name.
func (r *Runtime) ResolveCgroup(config string) (string, error) {
	if !r.SystemdCgroup {
		if !cleanAbsolute(config) || filepath.Clean(config) == "/" {
			return "", invalid("%q must be an absolute path without \"..\", not the root", config)
		}
		return filepath.Clean(config), nil
	}
	slice, unit, ok := splitUnit(config)
	if !ok {
		return "", invalid("%q must be of the form name.slice:prefix:name", config)
	}
	parent, err := systemd.ExpandSlice(slice)
	if err != nil {
		return "", invalid("%q must be of the form name.slice:prefix:name: %v", config, err)
	}
	return path.Join(parent, unit), nil
}

// splitUnit returns the slice and the scope of a cgroupsPath of the form slice:prefix:name. Like
// runc, it uses system.slice if the slice is empty.
func splitUnit(config string) (slice, scope string, ok bool) {
	parts := strings.Split(config, ":")
	if len(parts) != 3 || parts[2] == "" || strings.ContainsAny(config, "/\x00") {
		return "", "", false
	}
	scope = parts[2] + ".scope"
	if parts[1] != "" {
		scope = parts[1] + "-" + scope
	}
	return cmp.Or(parts[0], "system.slice"), scope, true
}

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
