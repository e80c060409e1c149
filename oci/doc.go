// Package oci builds OCI runtime specs. It is pure: it reads nothing but its input. Package host reads
// the facts about the host, and package runtime calls the OCI runtimes. The package does not know the
// life cycles of pods and containers.
package oci

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// invalid returns an error about a request. The message names the field and the rule.
func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}
