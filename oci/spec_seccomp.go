package oci

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// SeccompDefaults are the operator's settings. Profiles are in the JSON format of Docker.
type SeccompDefaults struct {
	// Profile is the profile for "RuntimeDefault"; nil for the built-in one.
	Profile []byte
	// Privileged is the profile of privileged containers, and replaces the profile of the request; nil for
	// none.
	Privileged []byte
	// DefaultForAll gives the default profile to containers whose request names none.
	DefaultForAll bool
}

// CheckSeccomp returns an error if a profile is not valid.
func CheckSeccomp(profile []byte) error {
	_, err := seccomp.LoadProfile(string(profile), &specs.Spec{
		Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}, Linux: &specs.Linux{},
	})
	return err
}

// SeccompProfile returns the profile that a request names in the current or in the deprecated
// field. According to the CRI, a request without a profile is unconfined, unless DefaultForAll
// is set. path is the file of a profile of the node.
func (b *Builder) SeccompProfile(sc *cri.LinuxContainerSecurityContext) (kind cri.SecurityProfile_ProfileType, path string, err error) {
	switch p := sc.GetSeccomp(); {
	case sc.GetPrivileged():
		return cri.SecurityProfile_Unconfined, "", nil
	case p != nil:
		// Some clients use the prefix of the deprecated field here too.
		kind, path = p.GetProfileType(), strings.TrimPrefix(p.GetLocalhostRef(), "localhost/")
	case sc.GetSeccompProfilePath() == "" && b.defaults.Seccomp.DefaultForAll:
		return cri.SecurityProfile_RuntimeDefault, "", nil
	default:
		if kind, path, err = legacySeccomp(sc.GetSeccompProfilePath()); err != nil {
			return 0, "", err
		}
	}
	switch {
	case kind < cri.SecurityProfile_RuntimeDefault || kind > cri.SecurityProfile_Localhost:
		return 0, "", invalid("linux.security_context.seccomp: profile type %d is unknown", kind)
	case kind != cri.SecurityProfile_Localhost && path != "":
		return 0, "", invalid("linux.security_context.seccomp: localhost_ref %q needs the profile type Localhost", path)
	case kind == cri.SecurityProfile_Localhost && !cleanAbsolute(path):
		return 0, "", invalid("linux.security_context.seccomp: localhost_ref %q must be an absolute path", path)
	}
	return kind, path, nil
}

func legacySeccomp(ref string) (cri.SecurityProfile_ProfileType, string, error) {
	switch path, local := strings.CutPrefix(ref, "localhost/"); {
	case ref == "", ref == "unconfined":
		return cri.SecurityProfile_Unconfined, "", nil
	case ref == "runtime/default", ref == "docker/default":
		return cri.SecurityProfile_RuntimeDefault, "", nil
	case local:
		return cri.SecurityProfile_Localhost, path, nil
	}
	return 0, "", invalid("linux.security_context.seccomp_profile_path %q is unknown", ref)
}

// seccompFilter sets the seccomp filter of the profile that the request selects.
func (c *specBuilder) seccompFilter() error {
	kind, path, err := c.SeccompProfile(c.in.Security)
	if err != nil {
		return err
	}
	localhostProfile := c.in.SeccompProfile
	if c.privileged() && c.defaults.Seccomp.Privileged != nil {
		kind, path, localhostProfile = cri.SecurityProfile_Localhost, "for privileged containers", c.defaults.Seccomp.Privileged
	}
	if kind == cri.SecurityProfile_Unconfined {
		return nil
	}
	if !c.host.Seccomp {
		return fmt.Errorf("linux.security_context.seccomp: the kernel has no seccomp filters: %w", errdefs.ErrFailedPrecondition)
	}
	if kind == cri.SecurityProfile_RuntimeDefault {
		profile := &c.seccomp
		if c.in.DefaultSeccomp != nil {
			profile = &c.in.DefaultSeccomp.cache
		}
		if c.spec.Linux.Seccomp, err = profile.get(c.spec); err != nil {
			return fmt.Errorf("default seccomp profile: %w", err)
		}
		return nil
	}
	if c.spec.Linux.Seccomp, err = seccomp.LoadProfile(string(localhostProfile), c.spec); err != nil {
		return invalid("linux.security_context.seccomp: profile %q: %v", path, err)
	}
	return nil
}

// DefaultSeccomp is a profile for "RuntimeDefault" that replaces the profile of a Builder. It is safe
// for concurrent use.
type DefaultSeccomp struct{ cache seccompCache }

// NewDefaultSeccomp returns a DefaultSeccomp with the content of a profile. The caller checks the content with
// CheckSeccomp first.
func (b *Builder) NewDefaultSeccomp(profile []byte) *DefaultSeccomp {
	return &DefaultSeccomp{cache: seccompCache{x32: b.host.X32, profile: profile}}
}

// seccompCache caches the default profile for each capability set. Few sets are in use, but
// requests choose them, so its size is limited.
type seccompCache struct {
	x32     bool   // the kernel has the x32 ABI
	profile []byte // the operator's profile, or nil

	mu       sync.Mutex // guards profiles
	profiles map[string]*specs.LinuxSeccomp
}

const seccompCacheSize = 64

// withoutX32 removes the x32 ABI if the kernel does not have it; its system calls stay
// forbidden without being listed. runc builds the filter for each architecture at every create
// and exec, which takes half of its time.
func withoutX32(p *specs.LinuxSeccomp) *specs.LinuxSeccomp {
	less := *p
	less.Architectures = slices.DeleteFunc(slices.Clone(p.Architectures), func(a specs.Arch) bool { return a == specs.ArchX32 })
	return &less
}

// get returns a shared profile, which the caller must not modify.
func (s *seccompCache) get(spec *specs.Spec) (*specs.LinuxSeccomp, error) {
	key := strings.Join(spec.Process.Capabilities.Bounding, ",")
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := s.profiles[key]; ok {
		return p, nil
	}
	p, err := s.load(spec)
	if err != nil {
		return nil, err
	}
	if !s.x32 {
		p = withoutX32(p)
	}
	if s.profiles == nil || len(s.profiles) >= seccompCacheSize {
		s.profiles = make(map[string]*specs.LinuxSeccomp)
	}
	s.profiles[key] = p
	return p, nil
}

func (s *seccompCache) load(spec *specs.Spec) (*specs.LinuxSeccomp, error) {
	if s.profile != nil {
		return seccomp.LoadProfile(string(s.profile), spec)
	}
	return seccomp.GetDefaultProfile(spec)
}
