package server

import "github.com/containerd/errdefs"

// ignoreNotFound returns nil for a NotFound error. The CRI demands it of stop and
// remove, which must succeed for an object that does not exist.
func ignoreNotFound(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}
