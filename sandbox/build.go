package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/criserver/criserver/sandbox/network"
	"github.com/criserver/criserver/sandbox/podspec"
	"golang.org/x/sync/errgroup"
)

// build is a pod in the making. Whatever it did when it fails is teardown's.
type build struct {
	m         *Manager
	spec      *podspec.Spec
	rec       *record
	sysctls   []namespace.Sysctl
	stages    stages
	cgroup    bool // holds its cgroup
	inPlugins bool // see entry
}

// finish makes what the intent announced, side by side where it can, and shows
// the pod.
func (b *build) finish(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, b.m.cfg.SetupTimeout)
	defer cancel()
	g, gctx := errgroup.WithContext(bounded)
	g.Go(func() error { return b.files() })
	g.Go(func() error { return b.isolate(gctx) })
	if err := g.Wait(); err != nil {
		return err
	}
	if err := b.hosts(); err != nil {
		return err
	}
	if err := b.consult(bounded); err != nil {
		return err
	}
	b.rec.ReadyAt = time.Now()
	if err := b.m.dirs.write(b.rec); err != nil {
		b.rec.ReadyAt = time.Time{}
		return err
	}
	// From here on the record is shared and no longer written to.
	e := b.entry()
	b.m.publish(e)
	if b.inPlugins {
		b.m.cfg.Plugins.Shown(e.pod)
	}
	return nil
}

func (b *build) entry() *entry {
	e := newEntry(b.rec, b.spec)
	e.cgroup, e.inPlugins = b.cgroup, b.inPlugins
	return e
}

// files makes what needs no namespace: the cgroup, the log directory, files.
func (b *build) files() error {
	defer b.stages.enter("files")()
	if b.m.cfg.CgroupDriver == Cgroupfs {
		if err := b.m.cfg.Cgroups.Make(b.rec.CgroupParent); err != nil {
			return err
		}
		b.cgroup = true
	}
	if dir := b.spec.LogDirectory; dir != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make log directory: %w", err)
		}
	}
	conf, err := resolvConf(b.spec.DNS)
	if err == nil {
		err = b.writeFile(resolvConfFile, conf)
	}
	if err != nil {
		return fmt.Errorf("make resolv.conf: %w", err)
	}
	if err := b.writeFile(hostnameFile, []byte(b.rec.HostName+"\n")); err != nil {
		return err
	}
	if b.spec.Namespaces.HostIPC {
		return nil
	}
	return b.mountShm()
}

// isolate makes the namespaces, and in them what a pod has of its own.
func (b *build) isolate(ctx context.Context) error {
	early := slices.DeleteFunc(slices.Clone(b.sysctls), ofInterface)
	ownNet, ownIPC := !b.spec.Namespaces.HostNetwork, !b.spec.Namespaces.HostIPC
	spec := namespace.Spec{
		Dir: b.m.dirs.pin(b.rec.ID), Net: ownNet, UTS: ownNet, IPC: ownIPC,
		Hostname: b.rec.HostName, Sysctls: early,
	}
	owned, err := b.own(ctx, &spec)
	if err != nil {
		return err
	}
	leave := b.stages.enter("namespaces")
	err = namespace.Make(spec)
	leave()
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	if b.spec.Namespaces.SharedPID && !owned {
		g.Go(func() error { return b.pause(ctx, nil, 0) })
	}
	if ownNet {
		g.Go(func() error { return b.attach(ctx) })
	}
	return g.Wait()
}

func (b *build) networkPod() network.Pod {
	return networkPod(b.rec, filepath.Join(b.m.dirs.pin(b.rec.ID), namespace.Net), b.spec)
}

// hosts comes last, as it names the addresses.
func (b *build) hosts() error {
	content := hosts(b.rec.IPs, b.rec.HostName)
	if b.spec.Namespaces.HostNetwork {
		host, err := hostFile("/etc/hosts")
		if err != nil {
			return errors.Join(errors.New("make hosts"), err)
		}
		if len(host) > 0 {
			content = host
		}
	}
	return b.writeFile(hostsFile, content)
}
