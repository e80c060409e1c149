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

// RunPodSandbox creates a pod sandbox and returns when the pod sandbox is ready, as
// the CRI demands. A request that repeats an earlier one returns the pod sandbox of
// the earlier request.
//
// Errors: InvalidArgument for a config that violates a rule or for an unknown
// runtime handler, AlreadyExists if the pod sandbox with this name and attempt has
// another config or is not ready, FailedPrecondition if a host port is in use or the
// node lacks a feature, and Unavailable while the pod network is not ready or the
// daemon still probes the runtime handler.
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

// StopPodSandbox kills the containers of a pod sandbox and releases its network.
//
// Errors: InvalidArgument for an empty or ambiguous id. The CRI demands that
// StopPodSandbox is idempotent: a pod sandbox that is stopped or does not exist is
// no error.
func (s *Server) StopPodSandbox(ctx context.Context, req *cri.StopPodSandboxRequest) (*cri.StopPodSandboxResponse, error) {
	if req.GetPodSandboxId() == "" {
		return nil, missing("pod_sandbox_id")
	}
	return &cri.StopPodSandboxResponse{}, ignoreNotFound(s.cfg.Pods.Stop(ctx, req.GetPodSandboxId()))
}

// RemovePodSandbox removes a pod sandbox with its containers. It kills the
// containers that run, as the CRI demands.
//
// Errors: InvalidArgument for an empty or ambiguous id. The CRI demands that
// RemovePodSandbox is idempotent: a pod sandbox that does not exist is no error.
func (s *Server) RemovePodSandbox(ctx context.Context, req *cri.RemovePodSandboxRequest) (*cri.RemovePodSandboxResponse, error) {
	if req.GetPodSandboxId() == "" {
		return nil, missing("pod_sandbox_id")
	}
	return &cri.RemovePodSandboxResponse{}, ignoreNotFound(s.cfg.Pods.Remove(ctx, req.GetPodSandboxId()))
}

// UpdatePodSandboxResources records the resources of a ready pod sandbox. It does
// not change cgroups: by the rule of the CRI, the kubelet has changed the cgroup of
// the pod before the call.
//
// Errors: InvalidArgument for resources that violate a rule, NotFound, and
// FailedPrecondition if the pod sandbox is not ready.
func (s *Server) UpdatePodSandboxResources(ctx context.Context, req *cri.UpdatePodSandboxResourcesRequest) (*cri.UpdatePodSandboxResourcesResponse, error) {
	if req.GetPodSandboxId() == "" {
		return nil, missing("pod_sandbox_id")
	}
	return &cri.UpdatePodSandboxResourcesResponse{}, s.cfg.Pods.UpdateResources(ctx, req.GetPodSandboxId(), req.GetOverhead(), req.GetResources())
}

// PodSandboxStatus returns the status of one pod sandbox, and the states of its
// containers. A kubelet with Evented PLEG uses these states if the answer has a
// timestamp. The timestamp is taken before the states are read: the states include
// every event with an earlier timestamp.
//
// Errors: InvalidArgument for an empty or ambiguous id, and NotFound, as the CRI
// demands an error for a pod sandbox that does not exist.
func (s *Server) PodSandboxStatus(_ context.Context, req *cri.PodSandboxStatusRequest) (*cri.PodSandboxStatusResponse, error) {
	if req.GetPodSandboxId() == "" {
		return nil, missing("pod_sandbox_id")
	}
	timestamp := s.clock.now()
	pod, err := s.cfg.Pods.Get(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	resp := &cri.PodSandboxStatusResponse{Status: podStatus(pod), ContainersStatuses: s.containerStatuses(pod.ID), Timestamp: timestamp}
	if req.GetVerbose() {
		resp.Info, err = podInfo(pod)
	}
	return resp, err
}

// ListPodSandbox lists the pod sandboxes that fulfil all conditions of the filter.
//
// Errors: ResourceExhausted if the list is too large for a message.
func (s *Server) ListPodSandbox(_ context.Context, req *cri.ListPodSandboxRequest) (*cri.ListPodSandboxResponse, error) {
	return &cri.ListPodSandboxResponse{Items: slices.Collect(s.pods(req.GetFilter()))}, nil
}

// StreamPodSandboxes returns the list of ListPodSandbox in messages of bounded size,
// each with at least one item, as the CRI demands.
func (s *Server) StreamPodSandboxes(req *cri.StreamPodSandboxesRequest, out cri.RuntimeService_StreamPodSandboxesServer) error {
	return sendBatches(s.pods(req.GetFilter()), func(items []*cri.PodSandbox) error {
		return out.Send(&cri.StreamPodSandboxesResponse{PodSandboxes: items})
	})
}

func (s *Server) pods(f *cri.PodSandboxFilter) iter.Seq[*cri.PodSandbox] {
	match := matchPod(f)
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

// podItem returns a pod sandbox as an item of a list.
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
	status := &cri.PodSandboxStatus{
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
			status.Network.Ip = ip.String()
			continue
		}
		status.Network.AdditionalIps = append(status.Network.AdditionalIps, &cri.PodIP{Ip: ip.String()})
	}
	return status
}

// namespaceOptions returns the namespace options of the request. A request without
// options has the zero value, by which the pod gets its own namespaces.
func namespaceOptions(p *sandbox.Pod) *cri.NamespaceOption {
	if o := p.Config.GetLinux().GetSecurityContext().GetNamespaceOptions(); o != nil {
		return o
	}
	return &cri.NamespaceOption{}
}

// podInfo returns the info of a verbose status.
func podInfo(p *sandbox.Pod) (map[string]string, error) {
	return verboseInfo(struct {
		PID            int               `json:"pid,omitempty"`
		NotReadyReason string            `json:"notReadyReason,omitempty"`
		Namespaces     map[string]string `json:"namespaces"`
		CgroupParent   string            `json:"cgroupParent"`
		CNIResult      json.RawMessage   `json:"cniResult,omitempty"`
		Interfaces     []podInterface    `json:"interfaces,omitempty"`
		NetworkFault   string            `json:"networkFault,omitempty"`
		// Overhead and Resources are the current values, after updates. Config is the
		// config of the request.
		Overhead  *cri.LinuxContainerResources `json:"overhead,omitempty"`
		Resources *cri.LinuxContainerResources `json:"resources,omitempty"`
		Config    *cri.PodSandboxConfig        `json:"config"`
	}{p.PausePID, p.NotReadyReason, namespacePaths(p), p.CgroupParent, p.CNIResult, podInterfaces(p), p.NetworkFault, p.Overhead, p.Resources, p.Config})
}

// podInterface is a network interface of a pod in addition to eth0.
type podInterface struct {
	Name    string          `json:"name"`
	Network string          `json:"network"`
	Result  json.RawMessage `json:"cniResult,omitempty"`
}

func podInterfaces(p *sandbox.Pod) []podInterface {
	var interfaces []podInterface
	for _, i := range p.Interfaces {
		interfaces = append(interfaces, podInterface{i.Name, i.Network, i.Result})
	}
	return interfaces
}

// namespacePaths returns the paths of the namespaces by type. It omits the
// types for which the pod is in the namespace of the host.
func namespacePaths(p *sandbox.Pod) map[string]string {
	ns := p.Namespaces
	paths := map[string]string{"net": p.NetNS(), "ipc": ns.IPC, "uts": ns.UTS, "pid": ns.PID, "user": ns.User}
	maps.DeleteFunc(paths, func(_, path string) bool { return path == "" })
	return paths
}

// verboseInfo returns v as JSON under the key "info", where crictl and other
// clients look for the info of a verbose status.
func verboseInfo(v any) (map[string]string, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return map[string]string{"info": string(b)}, nil
}
