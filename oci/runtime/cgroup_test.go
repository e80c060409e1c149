package runtime

import "testing"

func TestCgroupsPath(t *testing.T) {
	r := &Runtime{}
	if c, p := r.CgroupsPath("/a/pod", "id"); c != "/a/pod/criserver-id" || p != c {
		t.Errorf("cgroupfs: %s, %s", c, p)
	}
	r.SystemdCgroup = true
	if c, p := r.CgroupsPath("/kubepods.slice/kubepods-pod1.slice", "id"); c != "kubepods-pod1.slice:criserver:id" || p != "/kubepods.slice/kubepods-pod1.slice/criserver-id.scope" {
		t.Errorf("systemd: %s, %s", c, p)
	}
}
