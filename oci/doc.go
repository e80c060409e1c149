// Package oci builds OCI runtime specs and calls OCI runtimes. The building
// (spec*.go) is pure: data in, a specs.Spec out. The calling (runtime*.go) and
// the looking at the machine (host*.go) are impure and know nothing of how a
// spec came about. The package knows nothing of pods' or containers' lives.
package oci

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// invalid is an error about the request; the message names the field and the
// rule that it breaks.
func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}
