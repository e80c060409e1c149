// Package oci builds OCI runtime specs. Building a spec (spec*.go, resources*.go) is pure: it reads
// nothing but its input. Reading facts about the host (host*.go) is separate from it. Package
// runtime calls the OCI runtimes. The package does not know the life cycles of pods and containers.
package oci

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// invalid returns an error about a request. The message names the field and the rule.
func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}
