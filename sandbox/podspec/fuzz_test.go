package podspec

import (
	"testing"

	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// FuzzParse checks that Parse returns either a Spec or an error, that ParseStored always returns a
// Spec, and that neither of them modifies the request.
func FuzzParse(f *testing.F) {
	full := userPod()
	full.Annotations = map[string]string{NetworksAnnotation: `[{"name":"one"}]`, DefaultNetworkAnnotation: "one", ingressBandwidth: "1M"}
	full.PortMappings = []*cri.PortMapping{{HostPort: 80, ContainerPort: 80, HostIp: "::1"}}
	full.Linux.Sysctls = map[string]string{"net.ipv4.ping_group_range": "0 1"}
	for _, c := range []*cri.PodSandboxConfig{{}, podConfig(), full} {
		b, err := proto.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, "")
	}
	node := testNode()
	node.AdditionalNetworks = []string{"one"}
	f.Fuzz(func(t *testing.T, b []byte, handler string) {
		c := &cri.PodSandboxConfig{}
		if proto.Unmarshal(b, c) != nil {
			return
		}
		before := proto.Clone(c)
		spec, err := Parse(c, handler, node)
		if (spec == nil) != (err != nil) {
			t.Errorf("Parse returned %+v, %v", spec, err)
		}
		stored, storedErr := ParseStored(c, handler)
		if stored == nil {
			t.Error("ParseStored returned no spec")
		}
		if err == nil && storedErr != nil {
			t.Errorf("ParseStored refuses a request that Parse accepts: %v", storedErr)
		}
		if !proto.Equal(before, c) {
			t.Error("the request was modified")
		}
	})
}
