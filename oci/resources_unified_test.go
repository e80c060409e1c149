package oci

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// TestUnifiedKeys checks that the host decides which keys are valid.
func TestUnifiedKeys(t *testing.T) {
	h := testHost()
	h.Live = fakeFacts{unified: map[string]string{"memory.hihg": "does not exist in this kernel"}}
	for key, want := range map[string]string{"memory.high": "", "memory.hihg": `unified: "memory.hihg" does not exist in this kernel`} {
		r := &limits{Unified: map[string]string{key: "1"}}
		err := NewBuilder(h, Defaults{}).CheckNewResources(r)
		if (want == "") != (err == nil) || err != nil && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), want)) {
			t.Errorf("unified key %s: got error %v, want %q", key, err, want)
		}
	}
	h.Live = nil
	if err := NewBuilder(h, Defaults{}).CheckNewResources(&limits{Unified: map[string]string{"memory.hihg": "1"}}); err != nil {
		t.Errorf("unified key on an unknown host: got error %v, want none", err)
	}
}
