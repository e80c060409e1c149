package sandbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/criserver/criserver/internal/steps"
	"github.com/criserver/criserver/internal/userns"
	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/criserver/criserver/sandbox/network"
	"github.com/criserver/criserver/sandbox/podfiles"
	"github.com/criserver/criserver/sandbox/podspec"
	"golang.org/x/sync/errgroup"
)

// build creates one pod. If the creation fails, teardown undoes its side effects.
type build struct {
	m         *Manager
	settings  *Settings // in force when the request arrived
	spec      *podspec.Spec
	rec       *record
	stages    stages
	cgroup    bool // see entry
	inPlugins bool // see entry
}

// finish creates the resources of the pod, concurrently where possible, and publishes the pod. The intent record must
// exist.
func (b *build) finish(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, b.m.cfg.SetupTimeout)
	defer cancel()
	g, gctx := errgroup.WithContext(bounded)
	g.Go(func() error { return b.files(gctx) })
	g.Go(func() error { return b.isolate(gctx) })
	if err := g.Wait(); err != nil {
		return err
	}
	if err := b.hosts(); err != nil {
		return err
	}
	if err := b.runPlugins(bounded); err != nil {
		return err
	}
	b.rec.ReadyAt = time.Now()
	if err := b.m.dirs.write(b.rec); err != nil {
		b.rec.ReadyAt = time.Time{}
		return err
	}
	// The view shares the record from here on, so build must not modify the record any more.
	e := b.entry()
	b.m.publish(e)
	b.m.notify(ctx, e.pod, Plugins.Published)
	return nil
}

func (b *build) entry() *entry {
	e := newEntry(b.rec, b.spec)
	e.cgroup, e.inPlugins = b.cgroup, b.inPlugins
	return e
}

// files creates what does not depend on a namespace: the cgroup, the log directory and the files of the pod.
func (b *build) files(ctx context.Context) (err error) {
	defer b.stages.enter("files")()
	ctx, step := steps.Start(ctx, steps.PodFiles)
	defer step.EndWith(&err)
	if b.m.cfg.CgroupDriver == Cgroupfs {
		_, make := steps.Start(ctx, steps.CgroupCreate)
		err := b.m.cfg.Cgroups.Make(b.rec.CgroupParent)
		if make.End(err); err != nil {
			return err
		}
		b.cgroup = true
	}
	if dir := b.spec.LogDirectory; dir != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("create log directory: %w", err)
		}
	}
	dir := b.podFiles()
	if err := dir.WriteResolvConf(b.spec.DNS); err != nil {
		return err
	}
	if err := dir.WriteHostname(b.rec.HostName); err != nil {
		return err
	}
	if b.spec.Namespaces.HostIPC {
		return nil
	}
	return dir.MountShm(b.settings.ShmSize, b.rec.MountLabel)
}

// hosts writes the pod's /etc/hosts. The network must exist, because the file has the addresses of the pod.
func (b *build) hosts() error {
	return b.podFiles().WriteHosts(b.rec.IPs, b.rec.HostName, b.spec.Namespaces.HostNetwork)
}

// podFiles returns the directory of the files that are bind mounted into containers.
func (b *build) podFiles() podfiles.Dir {
	d := podfiles.Dir{Path: b.m.dirs.pod(b.rec.ID)}
	d.UID, d.GID = b.spec.Namespaces.Root()
	if labels := b.m.cfg.Labels; labels != nil {
		d.Label = func(path string) error { return labels.File(path, b.rec.MountLabel) }
	}
	return d
}

// isolate creates the namespaces of the pod, and then its pause and its network in the namespaces.
func (b *build) isolate(ctx context.Context) error {
	requested := b.spec.Namespaces
	ns := namespace.Spec{
		Dir: b.m.dirs.pin(b.rec.ID), Net: !requested.HostNetwork, NetName: b.rec.NetNSName, UTS: !requested.HostNetwork, IPC: !requested.HostIPC,
		Hostname: b.rec.HostName, Sysctls: b.spec.Sysctls,
	}
	if requested.User != nil {
		if err := b.setOwner(ctx, &ns); err != nil {
			return err
		}
	}
	leave := b.stages.enter("namespaces")
	_, step := steps.Start(ctx, steps.PodNamespaces)
	err := namespace.Make(ns)
	step.End(err)
	leave()
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	if requested.SharedPID && requested.User == nil {
		g.Go(func() error { return b.pause(ctx, nil, 0) })
	}
	if !requested.HostNetwork {
		g.Go(func() error { return b.attach(ctx) })
	}
	return g.Wait()
}

// setOwner makes the user namespace of the pod the owner of its other namespaces. A shared PID
// namespace must have this owner too, because otherwise no process in it could mount /proc. For a
// shared PID namespace, setOwner therefore starts the pause first, and the pause creates all
// namespaces.
func (b *build) setOwner(ctx context.Context, ns *namespace.Spec) error {
	maps := b.spec.Namespaces.User
	ns.Owner = &namespace.Owner{Maps: *maps, Holder: userns.Holder{
		Path: b.m.cfg.PausePath, Args: []string{"pause", "namespaces of " + b.rec.ID},
	}, QueueLabel: b.rec.MountLabel}
	if !b.spec.Namespaces.SharedPID {
		return nil
	}
	if err := os.Mkdir(ns.Dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := b.pause(ctx, maps, ns.Flags()); err != nil {
		return err
	}
	ns.Owner.PID = b.rec.Pause.PID
	return nil
}

// networkPod returns the pod as CNI plugins see it. The namespace need not exist yet.
func (b *build) networkPod() network.Pod {
	return networkPod(b.rec, cmp.Or(b.rec.NetNSName, b.m.dirs.netns(b.rec.ID)), b.spec)
}

// stages records which stages of a creation are in progress, so that the error of a caller that has left can name
// the stages.
type stages struct {
	mu     sync.Mutex // guards active
	active map[string]time.Time
}

// enter begins a stage. The caller must call leave when the stage ends.
func (s *stages) enter(name string) (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active == nil {
		s.active = make(map[string]time.Time)
	}
	s.active[name] = time.Now()
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.active, name)
	}
}

func (s *stages) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, name := range slices.Sorted(maps.Keys(s.active)) {
		out = append(out, fmt.Sprintf("%s for %s", name, time.Since(s.active[name]).Round(time.Millisecond)))
	}
	if len(out) == 0 {
		return "between two stages"
	}
	return strings.Join(out, ", ")
}
