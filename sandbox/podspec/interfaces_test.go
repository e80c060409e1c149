package podspec

import (
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/sandbox/network"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestNetworks(t *testing.T) {
	node := testNode()
	node.AdditionalNetworks = []string{"one", "two"}
	set := func(networks string) func(*cri.PodSandboxConfig) {
		return func(c *cri.PodSandboxConfig) { c.Annotations = map[string]string{NetworksAnnotation: networks} }
	}
	rules{
		"names":               {set("one,two"), ""},
		"one network twice":   {set("one,one"), ""},
		"interface names":     {set("one@a.1 , two@b_2"), ""},
		"objects":             {set(`[{"name":"one"},{"name":"two","mac":"0a:00:00:00:00:01","ips":["10.0.0.1","fd00::1/64"]}]`), ""},
		"empty array":         {set(`[]`), ""},
		"not allowed":         {set("one,three"), NetworksAnnotation + `] "three" is not one of the networks`},
		"empty":               {set(""), `"" is not one`},
		"trailing comma":      {set("one,"), `"" is not one`},
		"with a namespace":    {set("kube-system/one"), "not one"},
		"eth0":                {set("one@eth0"), `"eth0"`},
		"loopback":            {set("one@lo"), `"lo"`},
		"path":                {set("one@../x"), `"../x"`},
		"two dots":            {set("one@.."), `".."`},
		"long interface name": {set("one@" + strings.Repeat("a", 16)), "1 to 15"},
		"interface twice":     {set("one@x,two@x"), `"x" twice`},
		"generated name":      {set("two@net2,one"), `"net2" twice`},
		"too many":            {set(strings.TrimSuffix(strings.Repeat("one,", 9), ",")), "9 interfaces"},
		"unknown member":      {set(`[{"name":"one","cni-args":{}}]`), "cni-args"},
		"torn array":          {set(`[{"name":"one"}`), "array"},
		"data after array":    {set(`[{"name":"one"}] x`), "after the array"},
		"multicast mac":       {set(`[{"name":"one","mac":"01:00:00:00:00:01"}]`), "mac"},
		"long mac":            {set(`[{"name":"one","mac":"02:00:00:00:00:01:02:03"}]`), "mac"},
		"address by name":     {set(`[{"name":"one","ips":["host"]}]`), "ips"},
		"host network": {func(c *cri.PodSandboxConfig) {
			set("one")(c)
			namespaceOptions(c).Network = cri.NamespaceMode_NODE
		}, NetworksAnnotation},
		"default network that is not allowed": {func(c *cri.PodSandboxConfig) {
			c.Annotations = map[string]string{DefaultNetworkAnnotation: "three"}
		}, DefaultNetworkAnnotation},
	}.check(t, node)

	c := podConfig()
	set(`[{"name":"one","mac":"0a:00:00:00:00:01","ips":["10.0.0.1"]},{"name":"two","interface":"x"}]`)(c)
	c.Annotations[DefaultNetworkAnnotation] = "two"
	want := []network.Interface{{Network: "one", Name: "net1", MAC: "0a:00:00:00:00:01", IPs: []string{"10.0.0.1"}}, {Network: "two", Name: "x"}}
	if spec, err := Parse(c, "", node); err != nil || spec.DefaultNetwork != "two" || !reflect.DeepEqual(spec.Interfaces, want) {
		t.Errorf("got %+v, %v", spec, err)
	}
	// The operator may have removed the networks since the request was stored.
	if spec, err := ParseStored(c, ""); err != nil || !reflect.DeepEqual(spec.Interfaces, want) {
		t.Errorf("stored request: got %+v, %v", spec, err)
	}
	if _, err := Parse(c, "", testNode()); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no additional networks: got error %v", err)
	}
}
