package cgroup

import "testing"

func TestWeighsBlockIO(t *testing.T) {
	for name, tc := range map[string]struct {
		v2    bool
		files map[string]string
		want  bool
	}{
		"v2":                           {true, map[string]string{"a.slice/pod/io.max": "", "a.slice/pod/io.weight": ""}, true},
		"v2 without a scheduler":       {true, map[string]string{"a.slice/pod/io.max": ""}, false},
		"v2, slice does not exist":     {true, map[string]string{"a.slice/io.max": "", "a.slice/io.bfq.weight": ""}, true},
		"v2, no controller in the pod": {true, map[string]string{"a.slice/pod/cgroup.procs": "", "b.slice/io.max": "", "b.slice/io.weight": ""}, true},
		"v2, no controller":            {true, map[string]string{"a.slice/pod/cgroup.procs": ""}, false},
		"v1":                           {false, map[string]string{"a.slice/pod/cgroup.procs": "", "a.slice/pod/blkio.bfq.weight": ""}, true},
		"v1 without a scheduler":       {false, map[string]string{"a.slice/pod/cgroup.procs": ""}, false},
	} {
		dir := t.TempDir()
		writeFiles(t, dir, tc.files)
		key := "blkio"
		if tc.v2 {
			key = ""
		}
		if got := newTree(tc.v2, map[string]string{key: dir}).HasBlockIOWeight("/a.slice/pod"); got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	if newTree(false, map[string]string{"memory": "/m"}).HasBlockIOWeight("/a") {
		t.Error("true without the controller")
	}
}
