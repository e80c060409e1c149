package handlers

import (
	"fmt"
)

// UserNamespaceError returns the reason why pods of a handler cannot have a user namespace,
// or nil if they can. It waits for the first probe of the handler.
func (s *Set) UserNamespaceError(handler string) error {
	p := s.prober(handler)
	if p == nil {
		return nil // the caller refuses a handler that does not exist
	}
	return p.wait().userNSError
}

// HostNetworkUserNSError returns the reason why pods of a handler with the network of the host cannot have a user
// namespace, or nil if they can. It waits for the first probe of the handler.
func (s *Set) HostNetworkUserNSError(handler string) error {
	p := s.prober(handler)
	if p == nil {
		return nil // the caller refuses a handler that does not exist
	}
	return p.wait().hostNetworkUserNSError
}

// MapsSubmounts reports whether the runtime of a handler can map the IDs of a mount together
// with the mounts below it. The option came with version 1.2 of the OCI runtime
// specification. mapsSubmounts waits for the first probe of the handler.
func (s *Set) MapsSubmounts(handler string) bool {
	p := s.prober(handler)
	if p == nil {
		return false
	}
	f := p.wait().features
	if f == nil {
		return false
	}
	var major, minor int
	_, err := fmt.Sscanf(f.OCIVersionMax, "%d.%d", &major, &minor)
	return err == nil && (major > 1 || major == 1 && minor >= 2)
}
