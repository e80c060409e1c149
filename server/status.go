package server

import (
	"context"
	"fmt"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Name is the runtime's name in Version.
const Name = "criserver"

// apiVersion is the version of the CRI that is served.
const apiVersion = "v1"

// kubeletAPIVersion is that of the kubelet's runtime API, which never changed.
const kubeletAPIVersion = "0.1.0"

// Version tells who serves what.
func (s *Server) Version(context.Context, *cri.VersionRequest) (*cri.VersionResponse, error) {
	return &cri.VersionResponse{
		Version:           kubeletAPIVersion,
		RuntimeName:       Name,
		RuntimeVersion:    s.cfg.Version,
		RuntimeApiVersion: apiVersion,
	}, nil
}

// Status tells whether pods can run and be attached to the network. The runtime
// is ready when the daemon knows the features of all handlers: the kubelet takes
// them from the same answer.
func (s *Server) Status(_ context.Context, req *cri.StatusRequest) (*cri.StatusResponse, error) {
	network := &cri.RuntimeCondition{Type: cri.NetworkReady, Status: true}
	if err := s.cfg.Pods.NetworkStatus(); err != nil {
		network.Status, network.Reason, network.Message = false, "NetworkPluginNotReady", err.Error()
	}
	// A daemon that answers has restored its state and found a runtime.
	runtime := &cri.RuntimeCondition{Type: cri.RuntimeReady, Status: true}
	if err := s.cfg.Runtimes.Status(); err != nil {
		runtime.Status, runtime.Reason, runtime.Message = false, "RuntimeNotReady", err.Error()
	}
	resp := &cri.StatusResponse{
		Status:          &cri.RuntimeStatus{Conditions: []*cri.RuntimeCondition{runtime, network}},
		RuntimeHandlers: s.cfg.Runtimes.Handlers(),
		Features:        s.cfg.Features,
	}
	if req.GetVerbose() {
		pulls, err := s.pulls()
		if err != nil {
			return nil, err
		}
		resp.Info = s.cfg.Info()
		resp.Info["pulls"] = pulls
	}
	return resp, nil
}

// RuntimeConfig tells the kubelet which cgroup driver to use.
func (s *Server) RuntimeConfig(context.Context, *cri.RuntimeConfigRequest) (*cri.RuntimeConfigResponse, error) {
	return &cri.RuntimeConfigResponse{Linux: &cri.LinuxRuntimeConfiguration{CgroupDriver: s.cfg.CgroupDriver}}, nil
}

// UpdateRuntimeConfig is told what the kubelet knows of the node: the address
// ranges of its pods. An empty one says nothing (CRI, NetworkConfig).
func (s *Server) UpdateRuntimeConfig(ctx context.Context, req *cri.UpdateRuntimeConfigRequest) (*cri.UpdateRuntimeConfigResponse, error) {
	if req.GetRuntimeConfig() == nil {
		return nil, missing("runtime_config")
	}
	if err := s.cfg.Pods.SetPodCIDR(ctx, req.GetRuntimeConfig().GetNetworkConfig().GetPodCidr()); err != nil {
		return nil, fmt.Errorf("runtime_config.network_config.pod_cidr: %w", err)
	}
	return &cri.UpdateRuntimeConfigResponse{}, nil
}
