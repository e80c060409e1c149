package server

import (
	"context"
	"encoding/json"
	"iter"
	"maps"
	"slices"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/sandbox"
)

// RunPodSandbox makes a pod sandbox ready.
func (s *Server) RunPodSandbox(ctx context.Context, req *cri.RunPodSandboxRequest) (*cri.RunPodSandboxResponse, error) {
	if req.GetConfig() == nil {
		return nil, missing("config")
	}
	id, err := s.cfg.Pods.RunPod(ctx, req.GetConfig(), req.GetRuntimeHandler())
	if err != nil {
		return nil, err
	}
	return &cri.RunPodSandboxResponse{PodSandboxId: id}, nil
}

// StopPodSandbox ends the pod's containers and releases its network. It is
// idempotent; an unknown pod is stopped.
func (s *Server) StopPodSandbox(ctx context.Context, req *cri.StopPodSandboxRequest) (*cri.StopPodSandboxResponse, error) {
	if req.GetPodSandboxId() == "" {
		return nil, missing("pod_sandbox_id")
	}
	return &cri.StopPodSandboxResponse{}, ifFound(s.cfg.Pods.Stop(ctx, req.GetPodSandboxId()))
}

// RemovePodSandbox removes the pod with its containers. It is idempotent.
func (s *Server) RemovePodSandbox(ctx context.Context, req *cri.RemovePodSandboxRequest) (*cri.RemovePodSandboxResponse, error) {
	if req.GetPodSandboxId() == "" {
		return nil, missing("pod_sandbox_id")
	}
	return &cri.RemovePodSandboxResponse{}, ifFound(s.cfg.Pods.Remove(ctx, req.GetPodSandboxId()))
}

// UpdatePodSandboxResources notes what a pod as a whole may have.
func (s *Server) UpdatePodSandboxResources(ctx context.Context, req *cri.UpdatePodSandboxResourcesRequest) (*cri.UpdatePodSandboxResourcesResponse, error) {
	if req.GetPodSandboxId() == "" {
		return nil, missing("pod_sandbox_id")
	}
	return &cri.UpdatePodSandboxResourcesResponse{}, s.cfg.Pods.UpdateResources(ctx, req.GetPodSandboxId(), req.GetOverhead(), req.GetResources())
}

// PodSandboxStatus describes one pod.
func (s *Server) PodSandboxStatus(_ context.Context, req *cri.PodSandboxStatusRequest) (*cri.PodSandboxStatusResponse, error) {
	if req.GetPodSandboxId() == "" {
		return nil, missing("pod_sandbox_id")
	}
	pod, err := s.cfg.Pods.Get(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	resp := &cri.PodSandboxStatusResponse{Status: podStatus(pod)}
	if req.GetVerbose() {
		resp.Info, err = podInfo(pod)
	}
	return resp, err
}

// ListPodSandbox lists the pods that the filter lets through.
func (s *Server) ListPodSandbox(_ context.Context, req *cri.ListPodSandboxRequest) (*cri.ListPodSandboxResponse, error) {
	return &cri.ListPodSandboxResponse{Items: slices.Collect(s.podItems(req.GetFilter()))}, nil
}

func (s *Server) podItems(f *cri.PodSandboxFilter) iter.Seq[*cri.PodSandbox] {
	match := podFilter(f)
	return func(yield func(*cri.PodSandbox) bool) {
		for _, p := range s.cfg.Pods.List() {
			if match(p) && !yield(podItem(p)) {
				return
			}
		}
	}
}

func podState(p *sandbox.Pod) cri.PodSandboxState {
	if p.Ready {
		return cri.PodSandboxState_SANDBOX_READY
	}
	return cri.PodSandboxState_SANDBOX_NOTREADY
}

func podItem(p *sandbox.Pod) *cri.PodSandbox {
	return &cri.PodSandbox{
		Id:             p.ID,
		Metadata:       p.Config.GetMetadata(),
		State:          podState(p),
		CreatedAt:      p.CreatedAt.UnixNano(),
		Labels:         p.Config.GetLabels(),
		Annotations:    p.Config.GetAnnotations(),
		RuntimeHandler: p.RuntimeHandler,
	}
}

func podStatus(p *sandbox.Pod) *cri.PodSandboxStatus {
	st := &cri.PodSandboxStatus{
		Id:             p.ID,
		Metadata:       p.Config.GetMetadata(),
		State:          podState(p),
		CreatedAt:      p.CreatedAt.UnixNano(),
		Network:        &cri.PodSandboxNetworkStatus{},
		Labels:         p.Config.GetLabels(),
		Annotations:    p.Config.GetAnnotations(),
		RuntimeHandler: p.RuntimeHandler,
		Linux: &cri.LinuxPodSandboxStatus{Namespaces: &cri.Namespace{
			Options: namespaceOptions(p),
		}},
	}
	for i, ip := range p.IPs {
		if i == 0 {
			st.Network.Ip = ip.String()
			continue
		}
		st.Network.AdditionalIps = append(st.Network.AdditionalIps, &cri.PodIP{Ip: ip.String()})
	}
	return st
}

// namespaceOptions are those of the request; without any, all are the pod's.
func namespaceOptions(p *sandbox.Pod) *cri.NamespaceOption {
	if o := p.Config.GetLinux().GetSecurityContext().GetNamespaceOptions(); o != nil {
		return o
	}
	return &cri.NamespaceOption{}
}

func podInfo(p *sandbox.Pod) (map[string]string, error) {
	return verbose(struct {
		PID            int               `json:"pid,omitempty"`
		NotReadyReason string            `json:"notReadyReason,omitempty"`
		Namespaces     map[string]string `json:"namespaces"`
		CgroupParent   string            `json:"cgroupParent"`
		CNIResult      json.RawMessage   `json:"cniResult,omitempty"`
		Interfaces     []podInterface    `json:"interfaces,omitempty"`
		NetworkFault   string            `json:"networkFault,omitempty"`
		// What is in force, after updates; the config is what was asked for.
		Overhead  *cri.LinuxContainerResources `json:"overhead,omitempty"`
		Resources *cri.LinuxContainerResources `json:"resources,omitempty"`
		Config    *cri.PodSandboxConfig        `json:"config"`
	}{p.PausePID, p.NotReadyReason, namespacePaths(p.Namespaces), p.CgroupParent, p.CNIResult, podInterfaces(p), p.NetworkFault, p.Overhead, p.Resources, p.Config})
}

// podInterface is an interface of a pod beside eth0.
type podInterface struct {
	Name    string          `json:"name"`
	Network string          `json:"network"`
	Result  json.RawMessage `json:"cniResult,omitempty"`
}

func podInterfaces(p *sandbox.Pod) []podInterface {
	var out []podInterface
	for _, i := range p.Interfaces {
		out = append(out, podInterface{i.Name, i.Network, i.Result})
	}
	return out
}

// namespacePaths lists the pinned namespaces by type; the host's are left out.
func namespacePaths(ns sandbox.Namespaces) map[string]string {
	paths := map[string]string{"net": ns.Net, "ipc": ns.IPC, "uts": ns.UTS, "pid": ns.PID, "user": ns.User}
	maps.DeleteFunc(paths, func(_, path string) bool { return path == "" })
	return paths
}

// verbose puts what there is to tell under the key "info", where crictl and
// other clients look for it.
func verbose(v any) (map[string]string, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return map[string]string{"info": string(b)}, nil
}
