package server

import (
	"context"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RestorePod creates a pod sandbox and its containers from the checkpoint of a pod. The
// containers are CREATED and have executed nothing. If RestorePod fails, it has removed
// the pod sandbox and the containers.
//
// Errors: InvalidArgument for a call without a deadline, an option, a request that breaks
// a rule, containers that differ from the containers of the checkpoint, and a damaged
// checkpoint; NotFound if there is no checkpoint; DataLoss for a file that differs from its
// digest; FailedPrecondition if the checkpoint does not fit the request or the node;
// AlreadyExists if the pod exists; Unimplemented if the runtime handler cannot restore;
// DeadlineExceeded; and the errors of RunPodSandbox and CreateContainer.
func (s *Server) RestorePod(ctx context.Context, req *cri.RestorePodRequest) (*cri.RestorePodResponse, error) {
	resp, err := s.cfg.Restores.RestorePod(ctx, req)
	if err != nil {
		return nil, notSupported("RestorePod", err)
	}
	return resp, nil
}
