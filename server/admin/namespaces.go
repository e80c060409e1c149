package admin

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/internal/nsinfo"
	"github.com/criserver/criserver/sandbox"
)

// ListNamespaces returns the Linux namespaces of pods and of their processes.
//
// Errors: NotFound if the pod does not exist, and InvalidArgument if several pods match.
func (s *Server) ListNamespaces(_ context.Context, req *adminv1.ListNamespacesRequest) (*adminv1.ListNamespacesResponse, error) {
	pods, err := s.selectPods("pod", req.GetPod())
	if err != nil {
		return nil, err
	}
	host, err := nsinfo.Host.Process(os.Getpid())
	if err != nil {
		return nil, err
	}
	containers := make(map[string][]*container.Snapshot)
	for _, c := range s.cfg.Containers.List() {
		if c.PID != 0 && isAlive(c) {
			containers[c.PodID] = append(containers[c.PodID], c)
		}
	}
	resp := &adminv1.ListNamespacesResponse{}
	for _, kind := range nsinfo.Kinds {
		if inode, ok := host[kind]; ok {
			resp.Host = append(resp.Host, &adminv1.Namespace{Kind: kind, Inode: inode, Host: true})
		}
	}
	for _, p := range pods {
		list := containers[p.ID]
		slices.SortFunc(list, func(a, b *container.Snapshot) int { return a.CreatedAt.Compare(b.CreatedAt) })
		resp.Pods = append(resp.Pods, podNamespaces(nsinfo.Host, host, p, list))
	}
	return resp, nil
}

// podNamespaces reads the namespaces of a pod and of the first processes of its containers.
// host contains the namespaces of the daemon.
func podNamespaces(r nsinfo.Reader, host nsinfo.Set, p *sandbox.Pod, containers []*container.Snapshot) *adminv1.PodNamespaces {
	meta := p.Config.GetMetadata()
	out := &adminv1.PodNamespaces{Id: p.ID, Name: meta.GetName(), Namespace: meta.GetNamespace(), Ready: p.Ready}
	l := namespaceList{host: host, out: out}
	l.addPin("net", p.Namespaces.Net)
	l.addPin("ipc", p.Namespaces.IPC)
	l.addPin("uts", p.Namespaces.UTS)
	l.addPin("pid", p.Namespaces.PID)
	l.addPin("user", p.Namespaces.User)
	if p.PausePID != 0 {
		l.addProcess(r, &adminv1.NamespaceMember{Name: "pause", Pid: int32(p.PausePID)})
	}
	for _, c := range containers {
		l.addProcess(r, &adminv1.NamespaceMember{Name: c.Config.GetMetadata().GetName(), ContainerId: c.ID, Pid: int32(c.PID)})
	}
	if p.Namespaces.User != "" {
		l.addMappings(r)
	}
	slices.SortStableFunc(out.Namespaces, func(a, b *adminv1.Namespace) int { return strings.Compare(a.Kind, b.Kind) })
	return out
}

// namespaceList collects the distinct namespaces of a pod.
type namespaceList struct {
	host nsinfo.Set
	out  *adminv1.PodNamespaces
	pids []int // processes of the pod
}

// add returns the entry of a namespace, and makes it if necessary.
func (l *namespaceList) add(kind string, inode uint64) *adminv1.Namespace {
	for _, ns := range l.out.Namespaces {
		if ns.Kind == kind && ns.Inode == inode {
			return ns
		}
	}
	ns := &adminv1.Namespace{Kind: kind, Inode: inode, Host: l.host[kind] == inode}
	l.out.Namespaces = append(l.out.Namespaces, ns)
	return ns
}

// addPin adds a namespace that is mounted on a file. An empty path means that the pod has no
// such namespace.
func (l *namespaceList) addPin(kind, path string) {
	if path == "" {
		return
	}
	inode, err := nsinfo.Pinned(path)
	if err != nil {
		l.fail("%s namespace of the pod: %v", kind, err)
		return
	}
	l.add(kind, inode).Path = path
}

// addProcess adds the namespaces of a process.
func (l *namespaceList) addProcess(r nsinfo.Reader, m *adminv1.NamespaceMember) {
	set, err := r.Process(int(m.GetPid()))
	if err != nil {
		l.fail("%s: %v", m.GetName(), err)
		return
	}
	l.pids = append(l.pids, int(m.GetPid()))
	for _, kind := range nsinfo.Kinds {
		if inode, ok := set[kind]; ok {
			ns := l.add(kind, inode)
			ns.Members = append(ns.Members, m)
		}
	}
}

// addMappings adds the id mappings of the pod's user namespace, which every process of the pod
// shows.
func (l *namespaceList) addMappings(r nsinfo.Reader) {
	if len(l.pids) == 0 {
		l.fail("id mappings: the pod has no process that shows them")
		return
	}
	uids, gids, err := r.IDMappings(l.pids[0])
	if err != nil {
		l.fail("id mappings: %v", err)
		return
	}
	l.out.UidMappings, l.out.GidMappings = mappings(uids), mappings(gids)
}

func mappings(list []nsinfo.Mapping) []*adminv1.IDMapping {
	out := make([]*adminv1.IDMapping, 0, len(list))
	for _, m := range list {
		out = append(out, &adminv1.IDMapping{Inside: m.Inside, Outside: m.Outside, Length: m.Length})
	}
	return out
}

func (l *namespaceList) fail(format string, args ...any) {
	l.out.Errors = append(l.out.Errors, fmt.Sprintf(format, args...))
}
