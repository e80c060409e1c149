package server

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// checkHandler refuses what is asked for a runtime handler that does not exist,
// as ImageSpec.runtime_handler demands. An image is the same for every handler
// there is, so nothing else follows from its name.
func (s *Server) checkHandler(field string, spec *cri.ImageSpec) error {
	name := spec.GetRuntimeHandler()
	if name == "" {
		return nil
	}
	var known []string
	for _, h := range s.cfg.Runtimes.Handlers() {
		if h.GetName() == name {
			return nil
		}
		if h.GetName() != "" { // that is the default one, once more
			known = append(known, h.GetName())
		}
	}
	return status.Errorf(codes.InvalidArgument, "%s.runtime_handler %q is unknown; there are %q", field, name, known)
}
