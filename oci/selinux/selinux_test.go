package selinux

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fake is a machine with the policy of a usual one. Its files have labels in a
// map.
type fake struct {
	next      int
	reserved  map[string]bool // levels
	files     map[string]string
	relabels  []string
	unlabeled bool // the file system has no labels
	bare      bool // the policy has no labels for containers
	silent    bool // the policy does not let the daemon ask whether it has a label
	noSuper   bool // the policy does not have the type of unconfined containers
}

func newFake() *fake { return &fake{reserved: map[string]bool{}, files: map[string]string{}} }

func level(label string) string { return strings.SplitN(label, ":", 4)[3] }

func (f *fake) Init(options []string) (string, string, error) {
	switch {
	case f.bare:
		return "", "", nil
	case slices.Equal(options, []string{"disable"}):
		return "", "system_u:object_r:container_file_t:s0:c1022,c1023", nil
	}
	f.next++
	p, m := fmt.Sprintf("system_u:system_r:container_t:s0:c%d,c900", f.next), fmt.Sprintf("system_u:object_r:container_file_t:s0:c%d,c900", f.next)
	o := &cri.SELinuxOption{}
	for _, option := range options {
		name, value, _ := strings.Cut(option, ":")
		*map[string]*string{"user": &o.User, "role": &o.Role, "type": &o.Type, "level": &o.Level}[name] = value
	}
	p, m = override(p, m, o)
	f.reserved[level(p)] = true
	return p, m, nil
}

func (f *fake) Reserve(label string) error { f.reserved[level(label)] = true; return nil }

func (f *fake) Release(label string) { delete(f.reserved, level(label)) }

func (f *fake) Check(label string) error {
	if f.silent {
		return &fs.PathError{Op: "open", Path: "/sys/fs/selinux/context", Err: unix.EACCES}
	}
	if strings.Contains(label, ":bogus_t:") || strings.HasSuffix(label, ":s0,c4,c5") || f.noSuper && strings.Contains(label, ":spc_t:") {
		return unix.EINVAL
	}
	return nil
}

func (f *fake) FileLabel(path string) (string, error) {
	if f.unlabeled {
		return "", unix.ENOTSUP
	}
	return f.files[path], nil
}

func (f *fake) SetFileLabel(path, label string) error {
	if f.unlabeled {
		return unix.ENOTSUP
	}
	f.files[path] = label
	return nil
}

func (f *fake) Relabel(path, label string) error {
	f.relabels = append(f.relabels, path)
	return f.SetFileLabel(path, label)
}

func TestPodsHaveUniqueCategories(t *testing.T) {
	f := newFake()
	l := &Labels{f}
	first, _, err := l.Pod(nil)
	if err != nil {
		t.Fatal(err)
	}
	second, mount, err := l.Pod(&cri.SELinuxOption{Type: "other_t"})
	if err != nil || level(first) == level(second) || !strings.Contains(second, ":other_t:") || !strings.HasPrefix(mount, "system_u:object_r:container_file_t:"+level(second)) {
		t.Errorf("%s, %s, %s, %v", first, second, mount, err)
	}
	named, _, err := l.Pod(&cri.SELinuxOption{Level: "s0:c7,c8"})
	if err != nil || level(named) != "s0:c7,c8" {
		t.Errorf("%s, %v", named, err)
	}
	l.Release(first, nil)
	l.Release(named, &cri.SELinuxOption{Level: "s0:c7,c8"})
	if f.reserved[level(first)] || !f.reserved[level(second)] || !f.reserved["s0:c7,c8"] {
		t.Errorf("reserved: %v", f.reserved)
	}

	// After a restart, the labels of existing pods are kept.
	f = newFake()
	l = &Labels{f}
	if err := errors.Join(l.Keep(second), l.Keep("")); err != nil || !f.reserved[level(second)] || len(f.reserved) != 1 {
		t.Errorf("reserved: %v, %v", f.reserved, err)
	}
}

func TestOptionsRefused(t *testing.T) {
	f := newFake()
	l := &Labels{f}
	for name, o := range map[string]*cri.SELinuxOption{
		"unknown type": {Type: "bogus_t"}, "comma": {Type: "a,b"}, "colon": {User: "a:b"}, "line": {Level: "s0\n"}, "quote": {Level: `s0"`},
	} {
		if _, _, err := l.Pod(o); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "selinux_options") {
			t.Errorf("%s of a pod: %v", name, err)
		}
		r := Request{PodProcess: "system_u:system_r:container_t:s0:c1,c2", PodMount: "system_u:object_r:container_file_t:s0:c1,c2", Options: o}
		for _, r.Unconfined = range []bool{false, true} {
			if _, _, err := l.Container(r); !errdefs.IsInvalidArgument(err) {
				t.Errorf("%s of a container, unconfined %v: %v", name, r.Unconfined, err)
			}
		}
	}
	r := Request{PodProcess: "system_u:system_r:container_t:s0:c1,c2", Options: &cri.SELinuxOption{Level: "s0,c4,c5"}, Unconfined: true}
	if _, _, err := l.Container(r); !errdefs.IsInvalidArgument(err) {
		t.Errorf("malformed level: %v", err)
	}
	if len(f.reserved) > 0 {
		t.Errorf("reserved levels after refusals: got %v, want none", f.reserved)
	}
}

func TestLabelsOfContainers(t *testing.T) {
	const process, mount = "system_u:system_r:container_t:s0:c1,c2", "system_u:object_r:container_file_t:s0:c1,c2"
	const privateMount = "system_u:object_r:container_file_t:s0:c1022,c1023"
	for name, tc := range map[string]struct {
		r              Request
		process, mount string
	}{
		"the pod's":       {Request{}, process, mount},
		"empty options":   {Request{Options: &cri.SELinuxOption{}}, process, mount},
		"type":            {Request{Options: &cri.SELinuxOption{Type: "spc_t"}}, "system_u:system_r:spc_t:s0:c1,c2", mount},
		"level":           {Request{Options: &cri.SELinuxOption{Level: "s0:c5"}}, "system_u:system_r:container_t:s0:c5", "system_u:object_r:container_file_t:s0:c5"},
		"all":             {Request{Options: &cri.SELinuxOption{User: "u", Role: "r", Type: "t", Level: "s1"}}, "u:r:t:s1", "u:object_r:container_file_t:s1"},
		"unconfined":      {Request{Unconfined: true}, "system_u:system_r:spc_t:s0", privateMount},
		"options ignored": {Request{Unconfined: true, Options: &cri.SELinuxOption{Type: "t"}}, "system_u:system_r:spc_t:s0", privateMount},
	} {
		tc.r.PodProcess, tc.r.PodMount = process, mount
		p, m, err := (&Labels{newFake()}).Container(tc.r)
		if err != nil || p != tc.process || m != tc.mount {
			t.Errorf("%s: %q, %q, %v", name, p, m, err)
		}
	}
	f := newFake()
	f.noSuper = true
	if p, m, err := (&Labels{f}).Container(Request{PodProcess: process, PodMount: mount, Unconfined: true}); p != "" || m != privateMount || err != nil {
		t.Errorf("policy without the type of unconfined containers: %q, %q, %v", p, m, err)
	}
}

func TestPolicyWithoutContainers(t *testing.T) {
	f := newFake()
	f.bare = true
	l := &Labels{f}
	if p, m, err := l.Pod(nil); p != "" || m != "" || err != nil {
		t.Errorf("%q, %q, %v", p, m, err)
	}
	if p, m, err := l.Container(Request{}); p != "" || m != "" || err != nil {
		t.Errorf("%q, %q, %v", p, m, err)
	}
	if p, _, err := l.Container(Request{Unconfined: true, Options: &cri.SELinuxOption{Type: "t"}}); p != "" || err != nil {
		t.Errorf("unconfined: %q, %v", p, err)
	}
	if _, _, err := l.Container(Request{Options: &cri.SELinuxOption{Type: "t"}}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("container with options: got error %v, want FailedPrecondition", err)
	}
	l.Release("", nil)
}

func TestPolicyThatDoesNotAnswer(t *testing.T) {
	f := newFake()
	f.silent = true
	l := &Labels{f}
	process, mount, err := l.Pod(nil)
	if process == "" || err != nil {
		t.Errorf("pod: %q, %v", process, err)
	}
	r := Request{PodProcess: process, PodMount: mount, Unconfined: true}
	if p, _, err := l.Container(r); p != "system_u:system_r:spc_t:s0" || err != nil {
		t.Errorf("unconfined container: %q, %v", p, err)
	}
}

func TestRelabel(t *testing.T) {
	f := newFake()
	l := &Labels{f}
	const label = "system_u:object_r:container_file_t:s0:c1,c2"
	for range 3 {
		if err := l.Relabel("/volume", label); err != nil {
			t.Fatal(err)
		}
	}
	if len(f.relabels) != 1 || f.files["/volume"] != label {
		t.Errorf("relabelled %v, %v", f.relabels, f.files)
	}
	if err := l.Relabel("/volume", ""); err != nil || len(f.relabels) != 1 {
		t.Errorf("without a label: %v, %v", err, f.relabels)
	}
	if err := l.File("/file", label); err != nil || f.files["/file"] != label {
		t.Errorf("%v, %v", f.files, err)
	}
	f.unlabeled = true
	if err := errors.Join(l.Relabel("/nfs", label), l.File("/nfs/f", label)); err != nil {
		t.Errorf("a file system without labels: %v", err)
	}
}

// FuzzOptions checks that accepted options have no quote, blank or line break, and a comma only in the level,
// because a label becomes part of mount options.
func FuzzOptions(f *testing.F) {
	f.Add("system_u", "system_r", "container_t", "s0:c1,c2")
	f.Add("a:b", `"`, "x y", "s0\n")
	f.Fuzz(func(t *testing.T, u, r, typ, level string) {
		o := &cri.SELinuxOption{User: u, Role: r, Type: typ, Level: level}
		if CheckOptions(o) != nil {
			return
		}
		if strings.ContainsAny(u+r+typ+level, "\"' \t\n\x00") || strings.ContainsAny(u+r+typ, ":,") {
			t.Errorf("accepted: %v", o)
		}
		p, m := override("system_u:system_r:container_t:s0:c1,c2", "system_u:object_r:container_file_t:s0:c1,c2", o)
		if strings.Count(p, ":") < 3 || strings.Count(m, ":") < 3 {
			t.Errorf("labels %q, %q", p, m)
		}
	})
}
