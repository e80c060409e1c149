// Package oci builds OCI runtime specs and calls OCI runtimes. Building a spec (spec*.go,
// resources*.go) is pure: it reads nothing but its input. Calling a runtime (runtime*.go) and
// reading facts about the host (host*.go) are impure and do not know how a spec was built. The
// package does not know the life cycles of pods and containers.
package oci

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// invalid returns an error about a request. The message names the field and the rule.
func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}
