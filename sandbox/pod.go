// Package sandbox owns pod sandboxes: their namespaces, networks, files, cgroups and records, and
// their recovery after a restart of the daemon.
//
// A request is parsed once, by the package podspec. The record of a pod stores the request as the
// CRI message that the client sent, which is immutable data. The package knows nothing about
// images, about gRPC servers or about the state of containers; it stops and removes containers
// through the interface [Containers].
package sandbox

import (
	"cmp"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/criserver/criserver/sandbox/network"
	"github.com/criserver/criserver/sandbox/podfiles"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Pod is an immutable snapshot of a pod sandbox.
type Pod struct {
	ID             string
	Config         *cri.PodSandboxConfig // the request; must not be modified
	RuntimeHandler string                // as requested; "" is the default handler
	// DefaultHandler is the handler that "" stood for when the pod was created, or "" if it is unknown.
	DefaultHandler string
	CreatedAt      time.Time
	Ready          bool
	// Unreadable is true if the record of the pod cannot be read. Config and the fields that depend on Config may then
	// be made up.
	Unreadable bool
	// NotReadyReason says why Ready is false, for users.
	NotReadyReason string
	Namespaces     Namespaces
	// NetNSName is the path of the name that other programs know the network namespace by, or "": see NetNS.
	NetNSName string
	// PausePID is the process id of the built-in pause, or 0.
	PausePID int
	// PauseUnit is the systemd scope of the pause, or "".
	PauseUnit string
	// IPs are the addresses of the pod, the primary address first. A pod with the network of the host has none. A
	// stopped pod keeps its addresses.
	IPs []netip.Addr
	// CNIResult is the CNI result of the default network in JSON, or nil.
	CNIResult []byte
	// Interfaces are the interfaces on additional networks, with their CNI results. IPs does not contain their
	// addresses.
	Interfaces []network.Interface
	// NetworkFault is the error of CNI CHECK for a pod that an earlier daemon created, or "".
	NetworkFault string
	// CgroupParent is the path of the pod's cgroup, below which the cgroups of its containers are.
	CgroupParent string
	// Overhead and Resources are the limits of the pod as a whole, from the last update or from the request. They are
	// nil if neither set them.
	Overhead, Resources *cri.LinuxContainerResources
	// ProcessLabel and MountLabel are the SELinux labels of the pod, or "".
	ProcessLabel, MountLabel string
	// HostName is the host name inside the pod.
	HostName string
	// Hosts, Hostname, ResolvConf and Shm are the paths of files that are bind mounted into containers. They belong to
	// root of the containers. Shm is "" if the pod uses the IPC namespace of the host.
	Hosts, Hostname, ResolvConf, Shm string
}

// EffectiveHandler returns the name of the runtime handler that the pod was created with, or "" if the pod has the
// default handler and was created by a daemon that did not record its name.
func (p *Pod) EffectiveHandler() string { return cmp.Or(p.RuntimeHandler, p.DefaultHandler) }

// Namespaces has the paths of the pinned namespaces of a pod. A path is "" if the pod uses the
// namespace of the host, or if each container has its own namespace.
type Namespaces struct {
	Net, IPC, UTS, PID, User string
}

// snapshot returns the Pod of an entry.
func (m *Manager) snapshot(e *entry) *Pod {
	r, dir := e.rec, m.dirs.pod(e.rec.ID)
	p := &Pod{
		ID:             r.ID,
		Config:         e.spec.Config,
		RuntimeHandler: r.Handler,
		DefaultHandler: r.DefaultHandler,
		CreatedAt:      r.CreatedAt,
		Ready:          r.ready(),
		Unreadable:     e.unreadable,
		NotReadyReason: r.notReadyReason(),
		Namespaces:     m.namespaces(e),
		IPs:            r.IPs,
		CNIResult:      r.CNIResult,
		Interfaces:     r.Interfaces,
		NetNSName:      r.NetNSName,
		NetworkFault:   e.networkFault,
		CgroupParent:   cgroupPath(r.CgroupParent),
		ProcessLabel:   r.ProcessLabel,
		MountLabel:     r.MountLabel,
		HostName:       r.HostName,
		Hosts:          filepath.Join(dir, podfiles.Hosts),
		Hostname:       filepath.Join(dir, podfiles.Hostname),
		ResolvConf:     filepath.Join(dir, podfiles.ResolvConf),
	}
	p.Overhead, p.Resources = r.limits(e.spec)
	if !e.spec.Namespaces.HostIPC {
		p.Shm = filepath.Join(dir, podfiles.Shm)
	}
	if r.Pause != nil && r.LostReason == "" {
		p.PausePID = r.Pause.PID
		if m.cfg.CgroupDriver == Systemd {
			p.PauseUnit = pauseUnit(r)
		}
	}
	return p
}

// namespaces returns the paths of the pod's pinned namespaces.
func (m *Manager) namespaces(e *entry) Namespaces {
	pin := func(name string) string { return filepath.Join(m.dirs.pin(e.rec.ID), name) }
	var n Namespaces
	requested := e.spec.Namespaces
	if !requested.HostNetwork {
		n.Net, n.UTS = pin(namespace.Net), pin(namespace.UTS)
	}
	if !requested.HostIPC {
		n.IPC = pin(namespace.IPC)
	}
	if requested.SharedPID {
		n.PID = pin(namespace.PID)
	}
	if requested.User != nil {
		n.User = pin(namespace.User)
	}
	return n
}
