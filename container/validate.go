package container

import (
	"fmt"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/rootpath"
	"github.com/criserver/criserver/oci"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// invalid is an error about the request; the message names the field and the
// rule that it breaks.
func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}

// maxName bounds the name of a container, in bytes.
const maxName = 4096

// validate checks the rules that need neither the machine nor the image.
func validate(c *cri.ContainerConfig) error {
	switch {
	case c.GetMetadata().GetName() == "":
		return invalid("config.metadata.name is empty")
	case len(c.GetMetadata().GetName()) > maxName:
		return invalid("config.metadata.name has %d bytes, more than %d", len(c.GetMetadata().GetName()), maxName)
	case strings.ContainsFunc(c.GetMetadata().GetName(), unicode.IsControl):
		// The name never becomes part of a path, so it can contain slashes.
		return invalid("config.metadata.name %q must not contain control characters", c.GetMetadata().GetName())
	case c.GetImage().GetImage() == "":
		return invalid("config.image.image is empty")
	}
	for _, check := range []func(*cri.ContainerConfig) error{validateCommand, validateEnv, validateMounts, validateDevices, validateUser, validateLogPath} {
		if err := check(c); err != nil {
			return err
		}
	}
	_, err := signalOf(c.GetStopSignal(), "")
	return err
}

func validateEnv(c *cri.ContainerConfig) error {
	for i, kv := range c.GetEnvs() {
		switch {
		case kv.GetKey() == "":
			return invalid("config.envs[%d].key is empty", i)
		case strings.ContainsAny(kv.GetKey(), "=\x00"):
			return invalid("config.envs[%d].key %q must not contain '=' or NUL", i, kv.GetKey())
		case strings.ContainsRune(string(kv.GetValue()), 0):
			return invalid("config.envs[%d].value of %q must not contain a NUL", i, kv.GetKey())
		}
	}
	return nil
}

func validateMounts(c *cri.ContainerConfig) error {
	for i, m := range c.GetMounts() {
		err := oci.CheckMount(m)
		if err == nil {
			err = checkMappings(m)
		}
		if err != nil {
			return fmt.Errorf("config.mounts[%d]: %w", i, err)
		}
	}
	return nil
}

func validateUser(c *cri.ContainerConfig) error {
	sc := c.GetLinux().GetSecurityContext()
	byID, byName := sc.GetRunAsUser() != nil, sc.GetRunAsUsername() != ""
	switch {
	case byID && byName:
		return invalid("config.linux.security_context: run_as_user and run_as_username exclude each other")
	case sc.GetRunAsGroup() != nil && !byID && !byName:
		return invalid("config.linux.security_context: run_as_group needs run_as_user or run_as_username")
	case byID && !validID(sc.GetRunAsUser().GetValue()):
		return invalid("config.linux.security_context.run_as_user %d must be from 0 to %d", sc.GetRunAsUser().GetValue(), maxID)
	case sc.GetRunAsGroup() != nil && !validID(sc.GetRunAsGroup().GetValue()):
		return invalid("config.linux.security_context.run_as_group %d must be from 0 to %d", sc.GetRunAsGroup().GetValue(), maxID)
	}
	if p := sc.GetSupplementalGroupsPolicy(); p != cri.SupplementalGroupsPolicy_Merge && p != cri.SupplementalGroupsPolicy_Strict {
		return invalid("config.linux.security_context.supplemental_groups_policy %d is unknown", p)
	}
	for i, g := range sc.GetSupplementalGroups() {
		if !validID(g) {
			return invalid("config.linux.security_context.supplemental_groups[%d] %d must be from 0 to %d", i, g, maxID)
		}
	}
	return nil
}

func validateLogPath(c *cri.ContainerConfig) error {
	p := c.GetLogPath()
	if p != "" && (!filepath.IsLocal(p) || strings.ContainsAny(p, "\x00\n")) {
		return invalid("config.log_path %q must be a relative path that stays inside the pod's log directory", p)
	}
	if rootpath.TooLong(p) {
		return invalid("config.log_path %s", rootpath.LengthRule)
	}
	return nil
}

// validateInPod checks the rules between a container and its pod.
func validateInPod(c *cri.ContainerConfig, p Pod) error {
	if !p.Ready {
		return fmt.Errorf("pod %q is not ready: %w", short(p.ID), errdefs.ErrFailedPrecondition)
	}
	if err := checkUserNamespace(c, p); err != nil {
		return err
	}
	if rootpath.TooLong(logFile(c, p)) {
		return invalid("config.log_path below the pod's log_directory %s", rootpath.LengthRule)
	}
	// The pod must have been told that privileged containers are to be run in it.
	if c.GetLinux().GetSecurityContext().GetPrivileged() && !p.Config.GetLinux().GetSecurityContext().GetPrivileged() {
		return invalid("config.linux.security_context.privileged: the pod sandbox is not privileged")
	}
	return nil
}

// logFile is the absolute path of the log; "" for none.
func logFile(c *cri.ContainerConfig, p Pod) string {
	dir := p.Config.GetLogDirectory()
	if dir == "" || c.GetLogPath() == "" {
		return ""
	}
	return filepath.Join(dir, c.GetLogPath())
}
