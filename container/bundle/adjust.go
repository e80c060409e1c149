package bundle

import (
	"fmt"

	"github.com/criserver/criserver/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Adjustment contains the changes that plugins request for a new container, in addition to
// their changes of the OCI config.
type Adjustment struct {
	// CRI has the limits that the CRI can express. 0 and "" mean "unchanged".
	CRI                    *cri.LinuxContainerResources
	Extra                  *specs.LinuxResources
	OOMScoreAdj            *int    // nil keeps the value of the request
	BlockIOClass, RDTClass *string // "" means no class; nil keeps the class of the request
	CDIDevices             []string
}

// Adjust changes an OCI config that Build has made as an adjustment requests, with the rules for requests. It returns
// the limits in force, or nil if the adjustment does not change the limits.
func (r *Request) Adjust(spec *specs.Spec, a *Adjustment) (limits *cri.LinuxContainerResources, err error) {
	if err := r.adjustClasses(spec, a); err != nil {
		return nil, err
	}
	if len(a.CDIDevices) > 0 {
		if err := r.Settings.CDI.Inject(spec, a.CDIDevices); err != nil {
			return nil, fmt.Errorf("devices that plugins request: %w", err)
		}
	}
	if a.OOMScoreAdj != nil || a.Extra != nil || (a.CRI != nil && !proto.Equal(a.CRI, &cri.LinuxContainerResources{})) {
		if limits, err = r.adjustLimits(spec, a); err != nil {
			return nil, fmt.Errorf("limits that plugins request: %w", err)
		}
	}
	for _, w := range r.Settings.Builder.FitToHost(spec) {
		r.Log.Warn(w)
	}
	return limits, nil
}

// adjustClasses looks up the classes that plugins request.
func (r *Request) adjustClasses(spec *specs.Spec, a *Adjustment) (err error) {
	if class := a.BlockIOClass; class != nil {
		var blockIO *specs.LinuxBlockIO
		if *class != "" {
			if blockIO, err = r.Settings.BlockIO.Class(*class); err != nil {
				return fmt.Errorf("blockio_class that plugins request: %w", err)
			}
		}
		spec.Linux.Resources.BlockIO = r.supportedBlockIO(blockIO)
	}
	if class := a.RDTClass; class != nil {
		if spec.Linux.IntelRdt = nil; *class != "" {
			if spec.Linux.IntelRdt, err = r.Settings.RDT.Class(*class); err != nil {
				return fmt.Errorf("rdt_class that plugins request: %w", err)
			}
		}
	}
	return nil
}

// adjustLimits applies the rules of the builder as if the request had these limits.
func (r *Request) adjustLimits(spec *specs.Spec, a *Adjustment) (*cri.LinuxContainerResources, error) {
	u, err := r.Settings.Builder.Adjust(r.Spec.Resources, a.CRI)
	if err != nil {
		return nil, err
	}
	for _, w := range u.Warnings {
		r.Log.Warn(w)
	}
	if a.OOMScoreAdj != nil {
		spec.Process.OOMScoreAdj = a.OOMScoreAdj
		u.Now.OomScoreAdj = int64(*a.OOMScoreAdj)
	}
	res := spec.Linux.Resources
	res.CPU, res.Memory, res.HugepageLimits, res.Unified = u.Resources.CPU, u.Resources.Memory, u.Resources.HugepageLimits, u.Resources.Unified
	oci.MergeResources(res, a.Extra)
	return u.Now, nil
}
