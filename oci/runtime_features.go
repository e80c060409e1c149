package oci

import (
	"context"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go/features"
)

// FeaturesOf tells what the runtime can do: what it says itself or, when it is
// older than the question, what is known of the version that its version line
// names. The error is the runtime's, where neither is to be had.
func (r *Runtime) FeaturesOf(ctx context.Context, line string) (*features.Features, error) {
	f, err := r.Features(ctx)
	if err == nil {
		return f, nil
	}
	if known := knownFeatures(line); known != nil {
		return known, nil
	}
	return nil, err
}

// knownFeatures is for crun, which has recursive read-only mounts since 1.4 and
// tells of its features since 1.8.6. What it is silent about counts as missing.
func knownFeatures(line string) *features.Features {
	m := versionLine.FindStringSubmatch(line)
	if m == nil || m[1] != "crun" {
		return nil
	}
	major, _ := strconv.Atoi(m[2])
	minor, _ := strconv.Atoi(m[3])
	f := &features.Features{OCIVersionMin: "1.0.0", OCIVersionMax: "1.1.0"}
	if major > 1 || major == 1 && minor >= 4 {
		f.MountOptions = []string{"rro"}
	}
	return f
}
