// Package basespec parses the OCI config from which the configs of the containers of a runtime
// handler start. It takes the fields that neither the request nor the pod nor the daemon decides,
// ignores those that they always decide, and refuses all others, because a value without effect
// would mislead the operator. Package oci merges the result into the configs of containers.
package basespec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Base is a parsed base config. Nothing writes to a Base or to what its fields refer to.
type Base struct {
	// Env are variables "NAME=VALUE". Variables of the image and of the request replace them.
	Env []string
	// Rlimits replace the operator's default limits of the same type.
	Rlimits []specs.POSIXRlimit
	// Capabilities replace the operator's default capabilities, unless they are nil.
	Capabilities []string
	Scheduler    *specs.Scheduler
	IOPriority   *specs.LinuxIOPriority
	// Mounts are further mounts, in their order.
	Mounts      []specs.Mount
	Hooks       *specs.Hooks
	Annotations map[string]string
	// Devices are device nodes, which DeviceRules allow the container to use.
	Devices     []specs.LinuxDevice
	DeviceRules []specs.LinuxDeviceCgroup
	// PidsLimit replaces the operator's limit, unless it is nil.
	PidsLimit *int64
	// Unified are limits of the unified hierarchy. The limits of the request take precedence.
	Unified     map[string]string
	Personality *specs.LinuxPersonality
}

// daemonMounts are the mounts that the daemon makes in each container. Generated base configs
// contain most of them, and /run, which would hide directories of the image.
var daemonMounts = []string{
	"/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup", "/run", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf",
}

// advice names the alternatives to the fields that are refused.
var advice = map[string]string{
	"linux.sysctl":                   "use pod.default_sysctls",
	"linux.seccomp":                  "use runtimes.NAME.seccomp_profile",
	"process.apparmorProfile":        "use container.apparmor_profile",
	"process.oomScoreAdj":            "the request sets it",
	"linux.resources.memory":         "the request sets it",
	"linux.resources.cpu":            "the request sets it",
	"linux.resources.blockIO":        "use container.blockio_config_file",
	"linux.intelRdt":                 "use container.rdt_config_file",
	"linux.rootfsPropagation":        "the mounts of the request decide it",
	"linux.uidMappings":              "the request sets it",
	"linux.gidMappings":              "the request sets it",
	"linux.resources.hugepageLimits": "the request sets it",
}

// Parse parses a base config. The error names the field and the rule.
func Parse(b []byte) (*Base, error) {
	var s specs.Spec
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, errors.New("must be one JSON object")
	}
	if s.Version != "" && !strings.HasPrefix(s.Version, "1.") {
		return nil, fmt.Errorf("ociVersion: must be 1.x, is %q", s.Version)
	}
	base := take(&s)
	ignore(&s)
	if field := firstSet(reflect.ValueOf(s), ""); field != "" {
		if a := advice[field]; a != "" {
			return nil, fmt.Errorf("%s: is not supported in a base spec; %s", field, a)
		}
		return nil, fmt.Errorf("%s: is not supported in a base spec", field)
	}
	return base, base.check()
}

// take moves the supported fields from s to the result.
func take(s *specs.Spec) *Base {
	b := &Base{Hooks: s.Hooks, Annotations: s.Annotations}
	s.Hooks, s.Annotations = nil, nil
	for _, m := range s.Mounts {
		if !slices.Contains(daemonMounts, filepath.Clean(m.Destination)) {
			b.Mounts = append(b.Mounts, m)
		}
	}
	s.Mounts = nil
	if p := s.Process; p != nil {
		b.Env, b.Rlimits, b.Scheduler, b.IOPriority = p.Env, p.Rlimits, p.Scheduler, p.IOPriority
		p.Env, p.Rlimits, p.Scheduler, p.IOPriority = nil, nil, nil, nil
		if p.Capabilities != nil {
			b.Capabilities = append([]string{}, p.Capabilities.Bounding...)
			p.Capabilities = nil
		}
	}
	if l := s.Linux; l != nil {
		b.Devices, b.Personality = l.Devices, l.Personality
		l.Devices, l.Personality = nil, nil
		if r := l.Resources; r != nil {
			b.DeviceRules, b.Unified = r.Devices, r.Unified
			r.Devices, r.Unified = nil, nil
			if r.Pids != nil {
				b.PidsLimit, r.Pids = r.Pids.Limit, nil
			}
		}
	}
	return b
}

// ignore removes the fields that the request, the pod or the daemon always decides and that
// generated configs contain.
func ignore(s *specs.Spec) {
	s.Version, s.Root, s.Hostname, s.Domainname = "", nil, "", ""
	if p := s.Process; p != nil {
		p.Terminal, p.ConsoleSize, p.User, p.Args, p.Cwd, p.NoNewPrivileges = false, nil, specs.User{}, nil, "", false
	}
	if l := s.Linux; l != nil {
		l.Namespaces, l.CgroupsPath, l.MaskedPaths, l.ReadonlyPaths = nil, "", nil, nil
	}
}

// firstSet returns the path of the first field of a struct that has a value, or "".
func firstSet(v reflect.Value, path string) string {
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		field := v.Field(i)
		if field.Kind() == reflect.Pointer && field.Type().Elem().Kind() == reflect.Struct && !field.IsNil() {
			field = field.Elem()
		}
		switch {
		case field.Kind() == reflect.Struct:
			if set := firstSet(field, path+name+"."); set != "" {
				// The fields of a limit need not be named.
				return parent(set)
			}
		case field.IsZero(), (field.Kind() == reflect.Slice || field.Kind() == reflect.Map) && field.Len() == 0:
		default:
			return path + name
		}
	}
	return ""
}

// parent shortens the path of a field to the object for which there can be advice.
func parent(path string) string {
	for p := path; p != ""; {
		if _, ok := advice[p]; ok {
			return p
		}
		i := strings.LastIndexByte(p, '.')
		if i < 0 {
			break
		}
		p = p[:i]
	}
	return path
}
