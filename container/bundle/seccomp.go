package bundle

import (
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/rootpath"
)

// maxSeccompProfile limits the file of a seccomp profile, in bytes.
const maxSeccompProfile = 4 << 20

// readSeccomp reads the file of a seccomp profile of the node, or nothing for "".
func readSeccomp(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	b, err := rootpath.ReadFile("/", file, maxSeccompProfile)
	if err != nil {
		return nil, fmt.Errorf("config.linux.security_context.seccomp: localhost_ref: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return b, nil
}
