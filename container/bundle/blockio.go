package bundle

import specs "github.com/opencontainers/runtime-spec/specs-go"

// supportedBlockIO returns limits of block I/O for the container. It drops weights if no I/O scheduler of
// the node supports weights, because then the files for weights do not exist. b can be nil.
func (r *Request) supportedBlockIO(b *specs.LinuxBlockIO) *specs.LinuxBlockIO {
	if b == nil || b.Weight == nil && b.WeightDevice == nil || r.Host.HasBlockIOWeight(r.Pod.CgroupParent) {
		return b
	}
	r.Log.Warn("weights of block I/O are not enforced: no I/O scheduler of this node supports them")
	rates := *b
	rates.Weight, rates.WeightDevice = nil, nil
	return &rates
}
