package main

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/oci"
)

// handlersOf are the handlers of the configuration, and the well-known ones that
// are in the PATH.
func handlersOf(cfg config.Config, systemd bool) (map[string]*oci.Runtime, error) {
	handlers := make(map[string]*oci.Runtime)
	for name, rt := range cfg.Runtimes {
		path := rt.Path
		if path == "" {
			var err error
			if path, err = exec.LookPath(name); err != nil {
				return nil, fmt.Errorf("runtimes.%s.path: %w", name, err)
			}
		}
		handlers[name] = &oci.Runtime{
			Name: name, Path: path, Root: rt.Root, SystemdCgroup: systemd, Options: rt.Options,
			Guest: rt.Type == config.RuntimeTypeRunsc, AllowedAnnotations: rt.AllowedAnnotations, ScopeProperties: systemd,
		}
	}
	for _, name := range config.BuiltinHandlers {
		path, err := exec.LookPath(name)
		if err == nil && handlers[name] == nil {
			handlers[name] = &oci.Runtime{
				Name: name, Path: path, Root: filepath.Join(cfg.RunDir, "runtimes", name), SystemdCgroup: systemd, Guest: name == "runsc",
				ScopeProperties: systemd,
			}
		}
	}
	return handlers, nil
}

// hasGuests says whether the pods of a handler have kernels of their own.
func (r *runtimes) hasGuests(handler string) bool {
	if handler == "" {
		handler = r.defaultName
	}
	rt := r.byName[handler]
	return rt != nil && rt.Guest
}

// handlerInfo is what a verbose Status tells of a runtime handler.
type handlerInfo struct {
	Name    string `json:"name"`
	Path    string `json:"path"`
	Default bool   `json:"default,omitempty"`
	Version string `json:"version,omitempty"`
	// Flaw is what is known to be wrong with that version.
	Flaw string `json:"flaw,omitempty"`
	// Error is why the runtime did not answer.
	Error string `json:"error,omitempty"`
	// NoUserNamespaces is why pods of it cannot have one of their own.
	NoUserNamespaces string `json:"noUserNamespaces,omitempty"`
}

// mountSetattr says whether the kernel has mount_setattr(2), of Linux 5.12, by
// which runtimes make whole trees of mounts read-only.
func mountSetattr() bool {
	return !errors.Is(unix.MountSetattr(-1, "", 0, &unix.MountAttr{}), unix.ENOSYS)
}

// usableMountOptions leaves out of what a runtime knows what the kernel cannot
// do. The result is not nil: it is known what it can do.
func usableMountOptions(known []string) []string {
	usable := append([]string{}, known...)
	return slices.DeleteFunc(usable, func(o string) bool { return o == "rro" && !mountSetattr() })
}
