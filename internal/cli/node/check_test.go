package node

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/cli/command"
	"github.com/criserver/criserver/internal/flock"
)

// fakeChecks is the service Check of a daemon.
type fakeChecks struct {
	adminv1.UnimplementedCheckServer
	response *adminv1.CheckImagesResponse
}

func (f *fakeChecks) CheckImages(context.Context, *adminv1.CheckImagesRequest) (*adminv1.CheckImagesResponse, error) {
	return f.response, nil
}

// TestCheckImagesOfDaemon checks an image store that a daemon uses. The daemon verifies the store,
// unless the daemon uses another store.
func TestCheckImagesOfDaemon(t *testing.T) {
	dir := t.TempDir()
	root, socket := filepath.Join(dir, "root"), filepath.Join(dir, "admin.sock")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := flock.TryOpen(filepath.Join(root, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	image := "sha256:" + strings.Repeat("a", 64)
	fake := &fakeChecks{response: &adminv1.CheckImagesResponse{Root: root + "/.", Images: 5, Problems: []*adminv1.ImageProblem{
		{Image: image, Tags: []string{"a:1", "b:1"}, Message: "config.json has changed", User: "container c uses the image"},
		{Layer: "sha256:" + strings.Repeat("b", 64), Message: "files differ"},
	}}}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	adminv1.RegisterCheckServer(g, fake)
	go g.Serve(l)
	defer g.Stop()

	check := func(code int, flags []string, want ...string) {
		t.Helper()
		args := append([]string{"check", "--root", root, "--run-dir", filepath.Join(dir, "run"), "--admin-socket", socket}, flags...)
		got, stdout, stderr := runCommand(t, args...)
		if got != code {
			t.Errorf("%q: got exit code %d, error output %q, want %d", flags, got, stderr, code)
		}
		for _, text := range want {
			if !strings.Contains(stdout+stderr, text) {
				t.Errorf("%q: got output %s%s, want %q in it", flags, stdout, stderr, text)
			}
		}
	}
	only := []string{"--only", "images"}
	check(command.ExitFailure, only,
		"image "+image+" (a:1 b:1): config.json has changed; --repair leaves it as it is: container c uses the image\n",
		"which no image uses: files differ; --repair drops it\n", "5 images checked, 0 repaired\n2 findings, of which 2 are errors\n")
	check(command.ExitFailure, []string{"--only", "images", "--repair"}, "check the image store: "+root+" is in use by another daemon\n")
	fake.response = &adminv1.CheckImagesResponse{Root: dir, Images: 5}
	otherStore := root + " is in use by another daemon, which cannot verify the store: the daemon at " + socket + " has another image store: " + dir + "\n"
	check(command.ExitFailure, only, "check the image store: "+otherStore)
	fake.response = &adminv1.CheckImagesResponse{Root: root, Images: 5}
	check(command.ExitSuccess, only, "5 images checked, 0 repaired\n0 findings")
	g.Stop()
	check(command.ExitFailure, only, "cannot verify the store: the daemon does not run")

	// With other groups, the findings depend on the host.
	_, stdout, stderr := runCommand(t, "check", "--root", root, "--run-dir", filepath.Join(dir, "run"), "--admin-socket", socket)
	if !strings.Contains(stdout, "The image store was not checked: "+root) || !strings.Contains(stdout, " findings, of which ") {
		t.Errorf("all groups: got output %s%s, want the reason why the image store was not checked", stdout, stderr)
	}
}

// TestCheckCommand checks the arguments of the command check, and its output.
func TestCheckCommand(t *testing.T) {
	if code, _, stderr := runCommand(t, "check", "--only", "disk"); code != command.ExitUsage || !strings.Contains(stderr, `--only: unknown group "disk"`) {
		t.Errorf("unknown group: got exit code %d, error output %q", code, stderr)
	}
	dir := t.TempDir()
	args := []string{"check", "--root", filepath.Join(dir, "root"), "--run-dir", filepath.Join(dir, "run"), "--cni.conf-dirs", dir, "--cni.default-bridge", "false"}
	code, stdout, stderr := runCommand(t, append(args, "--only", "network")...)
	if code != command.ExitFailure || stderr != "" || !strings.Contains(stdout, "error network.none: there is no valid CNI network in "+dir) {
		t.Errorf("no network: got exit code %d, output %q, error output %q", code, stdout, stderr)
	}
	code, stdout, stderr = runCommand(t, append(args, "--only", "images", "-o", "json")...)
	if code != command.ExitSuccess || stderr != "" || !strings.Contains(stdout, `"checked": 0`) || !strings.Contains(stdout, `"findings": []`) {
		t.Errorf("empty image store: got exit code %d, output %q, error output %q", code, stdout, stderr)
	}
}
