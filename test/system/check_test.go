package system

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// check runs `criserver check` of the image store on the directories of the node.
func (n *node) check(flags ...string) (out string, err error) {
	return n.runCheck(append([]string{"--only", "images"}, flags...)...)
}

func (n *node) runCheck(flags ...string) (out string, err error) {
	args := append([]string{"check", "--config", filepath.Join(n.Dir, "config.toml")}, flags...)
	b, err := exec.Command(filepath.Join(suite.bin, "criserver"), args...).CombinedOutput()
	return string(b), err
}

// TestCheckAndRepair damages the image store while the daemon is stopped and a container
// runs.
func TestCheckAndRepair(t *testing.T) {
	n := newNode(t, "check", 183)
	reg := newRegistry(t)
	n.trust(t, reg)
	damaged, intact, torn := reg.push(t, "damaged:1", small(t, "damaged")), reg.push(t, "intact:1", small(t, "intact")), reg.push(t, "torn:1", small(t, "torn"))
	ids := map[string]string{}
	for _, ref := range []string{damaged, intact, torn} {
		ids[ref] = n.Pull(t, ref)
	}
	if out, err := n.check(); err != nil || !strings.Contains(out, "4 images checked, 0 repaired") {
		t.Errorf("check while the daemon runs: got error %v, output %s, want 4 images", err, out)
	}
	if out, err := n.check("--repair"); err == nil || !strings.Contains(out, "in use by another daemon") {
		t.Errorf("repair while the daemon runs: got error %v, output %s, want \"in use by another daemon\"", err, out)
	}
	// The findings depend on the host. The checks of the host run nevertheless.
	if out, _ := n.runCheck("--only", "kernel,network", "-o", "json"); !strings.Contains(out, `"findings": [`) || strings.Contains(out, `"images"`) {
		t.Errorf("check of the host while the daemon runs: got output %s, want findings without the image store", out)
	}
	elsewhere := []string{"--admin-socket", filepath.Join(n.Dir, "no.sock")}
	if out, err := n.check(elsewhere...); err == nil || !strings.Contains(out, "in use by another daemon, which cannot verify the store: ") {
		t.Errorf("check with a wrong socket: got error %v, output %s, want the reason", err, out)
	}
	if out, _ := n.runCheck(elsewhere...); !strings.Contains(out, "The image store was not checked: "+n.Dir) {
		t.Errorf("all checks with a wrong socket: got output %s, want the reason why the image store was not checked", out)
	}
	p := n.RunPod(t, podConfig("check"))
	c := n.run(t, p, "c", "sleep", "1000")
	if err := n.Stop(); err != nil {
		t.Fatalf("stop the daemon: %v", err)
	}
	if out, err := n.check("--repair"); err != nil || !strings.Contains(out, "4 images checked, 0 repaired") {
		t.Errorf("check of an intact store: got error %v, output %s, want 4 images and no repair", err, out)
	}

	// After a power failure a file system may have an empty file.
	truncate(t, filepath.Join(n.Dir, "root/layers"), "file", "damaged")
	record := filepath.Join(n.Dir, "root/images", strings.TrimPrefix(ids[torn], "sha256:"), "image.json")
	if err := os.WriteFile(record, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	busyboxFile := filepath.Join(n.Dir, "root/layers", "*", "diff/etc/passwd")
	for range 2 { // without --repair, check changes nothing
		out, err := n.check()
		if err == nil || !strings.Contains(out, "image "+ids[damaged]+" ("+damaged+"): ") || !strings.Contains(out, "image "+ids[torn]+": load image: ") ||
			strings.Contains(out, ids[intact]) || !strings.Contains(out, "2 findings, of which 2 are errors") || strings.Count(out, "; --repair drops it\n") != 2 {
			t.Errorf("check of a damaged store: got error %v, output %s, want both damaged images", err, out)
		}
	}
	out, err := n.check("--repair")
	if err != nil || strings.Count(out, "; dropped\n") != 2 || !strings.Contains(out, "2 repaired") {
		t.Errorf("check --repair: got error %v, output %s, want 2 dropped images", err, out)
	}
	if out, err := n.check(); err != nil || !strings.Contains(out, "2 images checked, 0 repaired") {
		t.Errorf("check after the repair: got error %v, output %s, want 2 images and no repair", err, out)
	}

	// An image in use is reported and not changed.
	found, err := filepath.Glob(busyboxFile)
	if err != nil || len(found) == 0 {
		t.Fatalf("files of the busybox image: got %v (error %v), want one", found, err)
	}
	if err := os.Chmod(found[0], 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := n.check(); err == nil || !strings.Contains(out, "; --repair leaves it as it is: container "+c+" uses the image") {
		t.Errorf("check of a damaged image in use: got error %v, output %s, want the container", err, out)
	}
	if out, err := n.check("--repair"); err == nil || !strings.Contains(out, "not repaired: ") || !strings.Contains(out, "uses the image") {
		t.Errorf("check --repair of a damaged image in use: got error %v, output %s, want no repair", err, out)
	}
	if err := os.Chmod(found[0], 0o644); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Join(n.Dir, "root/trash")); err != nil || len(left) > 0 {
		t.Errorf("trash after the repair: got %v (error %v), want none", left, err)
	}
	n.restart(t)
	if err := os.Chmod(found[0], 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the daemon changes nothing
		out, err := n.check()
		if err == nil || !strings.Contains(out, "image "+n.imageStatus(t, busybox, false).GetImage().GetId()+" (") ||
			!strings.Contains(out, "; --repair leaves it as it is: container "+c+" uses the image") || !strings.Contains(out, "2 images checked, 0 repaired") {
			t.Errorf("check of a damaged image in use while the daemon runs: got error %v, output %s, want the image and the container", err, out)
		}
	}
	if err := os.Chmod(found[0], 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := n.check(); err != nil {
		t.Errorf("check of an intact store while the daemon runs: got error %v, output %s", err, out)
	}
	n.Exec(t, c, "true") // the container still runs
	for ref, want := range map[string]bool{damaged: false, torn: false, intact: true} {
		if (n.imageStatus(t, ref, false).GetImage() != nil) != want {
			t.Errorf("image %s exists: got %t, want %t", ref, !want, want)
		}
		n.Pull(t, ref)
	}
	if err := n.Stop(); err != nil {
		t.Fatalf("stop the daemon: %v", err)
	}
	if out, err := n.check(); err != nil {
		t.Errorf("check at the end: got error %v, output %s, want none", err, out)
	}
	n.restart(t)
}

// truncate truncates the file below dir that has the name and the content.
func truncate(t *testing.T, dir, name, content string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*", "diff", name))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if b, err := os.ReadFile(f); err == nil && string(b) == content {
			if err := unix.Truncate(f, 0); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("no file %s with content %q below %s", name, content, dir)
}
