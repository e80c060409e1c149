package record

import (
	"testing"

	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestRecordKeepsMessages(t *testing.T) {
	c := &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "a"}, Command: []string{"/bin/sh"}}
	c.Envs = []*cri.KeyValue{{Key: "RAW", Value: []byte{0xff, 0xfe}}}
	p := &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: "p"}, Labels: map[string]string{"k": "v"}}
	var r Record
	if err := r.SetMessages(c, p); err != nil {
		t.Fatal(err)
	}
	gotC, gotP, err := r.Messages()
	if err != nil || !proto.Equal(gotC, c) || !proto.Equal(gotP, p) {
		t.Errorf("%v, %v, %v", gotC, gotP, err)
	}
}
