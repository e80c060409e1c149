package server

import (
	"context"
	"encoding/json"
	"fmt"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/image"
)

// Name is the name of the runtime in the answer to Version.
const Name = "criserver"

const (
	// apiVersion is the version of the CRI.
	apiVersion = "v1"
	// kubeletAPIVersion is the version of the kubelet runtime API. It has never
	// changed.
	kubeletAPIVersion = "0.1.0"
)

// Version returns the name and the version of the runtime and the version of the
// CRI. The version in the request has no effect, because v1 is the only version.
func (s *Server) Version(context.Context, *cri.VersionRequest) (*cri.VersionResponse, error) {
	return &cri.VersionResponse{
		Version:           kubeletAPIVersion,
		RuntimeName:       Name,
		RuntimeVersion:    s.cfg.Version,
		RuntimeApiVersion: apiVersion,
	}, nil
}

// Status returns the conditions RuntimeReady and NetworkReady, which the CRI
// requires, and the features of the runtime handlers. RuntimeReady is false until the
// daemon has probed all handlers, because the kubelet reads their features from the
// same answer. A condition that is false has the reason in its message; it is no
// error.
func (s *Server) Status(_ context.Context, req *cri.StatusRequest) (*cri.StatusResponse, error) {
	network := &cri.RuntimeCondition{Type: cri.NetworkReady, Status: true}
	if err := s.cfg.Pods.NetworkStatus(); err != nil {
		network.Status, network.Reason, network.Message = false, "NetworkPluginNotReady", err.Error()
	}
	// The daemon serves the CRI only after it has restored its state and found a
	// runtime.
	runtime := &cri.RuntimeCondition{Type: cri.RuntimeReady, Status: true}
	if err := s.cfg.Runtimes.Status(); err != nil {
		runtime.Status, runtime.Reason, runtime.Message = false, "RuntimeNotReady", err.Error()
	}
	resp := &cri.StatusResponse{
		Status:          &cri.RuntimeStatus{Conditions: []*cri.RuntimeCondition{runtime, network}},
		RuntimeHandlers: s.cfg.Runtimes.Handlers(),
		Features:        s.cfg.Runtimes.Features(),
	}
	if req.GetVerbose() {
		pulls, err := s.pullInfo()
		if err != nil {
			return nil, err
		}
		resp.Info = s.cfg.Info()
		resp.Info["pulls"] = pulls
	}
	return resp, nil
}

// pullInfo returns the running pulls as JSON for the verbose Status.
func (s *Server) pullInfo() (string, error) {
	pulls := s.cfg.Images.Pulls()
	if pulls == nil {
		pulls = []image.PullProgress{} // [] instead of null
	}
	b, err := json.Marshal(pulls)
	return string(b), err
}

// RuntimeConfig returns the cgroup driver that the kubelet must use. It never changes
// while the daemon runs, as the CRI demands.
func (s *Server) RuntimeConfig(context.Context, *cri.RuntimeConfigRequest) (*cri.RuntimeConfigResponse, error) {
	return &cri.RuntimeConfigResponse{Linux: &cri.LinuxRuntimeConfiguration{CgroupDriver: s.cfg.CgroupDriver}}, nil
}

// UpdateRuntimeConfig sets the address ranges of the node's pods. An empty pod_cidr
// changes nothing, as the CRI demands (NetworkConfig.pod_cidr).
//
// Errors: InvalidArgument for a malformed range, and FailedPrecondition if the
// template of the CNI configuration is broken.
func (s *Server) UpdateRuntimeConfig(ctx context.Context, req *cri.UpdateRuntimeConfigRequest) (*cri.UpdateRuntimeConfigResponse, error) {
	if req.GetRuntimeConfig() == nil {
		return nil, missing("runtime_config")
	}
	if err := s.cfg.Pods.SetPodCIDR(ctx, req.GetRuntimeConfig().GetNetworkConfig().GetPodCidr()); err != nil {
		return nil, fmt.Errorf("runtime_config.network_config.pod_cidr: %w", err)
	}
	return &cri.UpdateRuntimeConfigResponse{}, nil
}
