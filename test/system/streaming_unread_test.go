package system

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"k8s.io/client-go/tools/remotecommand"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestAttachWithUnreadInput attaches with an input that the container never reads. The
// client must receive all output, and no error when the container exits.
func TestAttachWithUnreadInput(t *testing.T) {
	n := newNode(t, "unread", 212)
	p := n.RunPod(t, podConfig("unread"))
	var want strings.Builder
	for i := range 30000 {
		fmt.Fprintln(&want, i+1)
	}
	want.WriteString("result\n")
	for transport := range executors {
		t.Run(transport, func(t *testing.T) {
			var all sync.WaitGroup
			for i := range 12 {
				config := containerConfig(p, fmt.Sprintf("%s%d", strings.ToLower(transport), i), busybox, "sh", "-c", "sleep 3; seq 1 30000; echo result")
				config.Stdin, config.StdinOnce = true, true
				id := n.CreateContainer(t, p, config)
				n.StartContainer(t, id)
				r, err := n.RuntimeService.Attach(t.Context(), &cri.AttachRequest{ContainerId: id, Stdin: true, Stdout: true})
				if err != nil {
					t.Fatal(err)
				}
				x, err := executors[transport](parse(t, r.GetUrl()))
				if err != nil {
					t.Fatal(err)
				}
				all.Go(func() {
					var out bytes.Buffer
					o := remotecommand.StreamOptions{Stdin: bytes.NewReader(make([]byte, 1<<20)), Stdout: &out}
					if err := x.StreamWithContext(t.Context(), o); err != nil {
						t.Errorf("attach: got error %v, want none", err)
					}
					if out.String() != want.String() {
						t.Errorf("%d bytes of output, want %d", out.Len(), want.Len())
					}
				})
			}
			all.Wait()
		})
	}
}
