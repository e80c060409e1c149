package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go/features"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

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
			Guest: rt.Type == config.RuntimeTypeRunsc, AllowedAnnotations: rt.AllowedAnnotations,
		}
	}
	for _, name := range config.BuiltinHandlers {
		path, err := exec.LookPath(name)
		if err == nil && handlers[name] == nil {
			handlers[name] = &oci.Runtime{
				Name: name, Path: path, Root: filepath.Join(cfg.RunDir, "runtimes", name), SystemdCgroup: systemd, Guest: name == "runsc",
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

	features *features.Features
}

// probe asks all handlers at once who they are and what they can do. One that
// does not answer is listed without features; one with known flaws is named in
// the log, as to refuse it would end pods that run on it already.
func (r *runtimes) probe(ctx context.Context, cfg config.Config, host *host) {
	r.userNS = make(map[string]error)
	r.info = make([]handlerInfo, len(r.byName))
	var wg sync.WaitGroup
	for i, name := range r.names() {
		wg.Go(func() { r.info[i] = probeHandler(ctx, r.byName[name]) })
	}
	wg.Wait()
	for i := range r.info {
		h := &r.info[i]
		h.Default = h.Name == r.defaultName
		if h.features != nil {
			r.mountOptions[h.Name] = usableMountOptions(h.features.MountOptions)
		}
		handler := &cri.RuntimeHandler{Name: h.Name, Features: handlerFeatures(h.features)}
		r.userNS[h.Name] = r.tryUserNamespaces(ctx, cfg, host, r.byName[h.Name], h.features)
		handler.Features.UserNamespaces = r.userNS[h.Name] == nil
		if err := r.userNS[h.Name]; err != nil {
			h.NoUserNamespaces = err.Error()
		}
		r.handlers = append(r.handlers, handler)
		if h.Default {
			r.handlers = append(r.handlers, &cri.RuntimeHandler{Name: "", Features: handler.GetFeatures()})
		}
	}
	slices.SortFunc(r.handlers, func(a, b *cri.RuntimeHandler) int { return cmp.Compare(a.GetName(), b.GetName()) })
}

func probeHandler(ctx context.Context, rt *oci.Runtime) handlerInfo {
	h := handlerInfo{Name: rt.Name, Path: rt.Path}
	log := logrus.WithContext(ctx).WithFields(logrus.Fields{"runtime": rt.Name, "path": rt.Path})
	var err error
	if h.Version, err = rt.Version(ctx); err != nil {
		h.Error = err.Error()
		log.WithError(err).Warn("OCI runtime does not tell its version")
		return h
	}
	rt.ScopeProperties = rt.SystemdCgroup && oci.SetsScopeProperties(h.Version)
	if h.Flaw = oci.KnownFlaw(h.Version); h.Flaw != "" {
		log.WithField("version", h.Version).Warn(h.Flaw)
	}
	if h.features, err = rt.FeaturesOf(ctx, h.Version); err != nil {
		log.WithError(err).Debug("features of the OCI runtime")
	}
	return h
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
