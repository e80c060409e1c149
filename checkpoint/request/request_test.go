package request

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/checkpoint/archive"
)

var testKey = archive.Key(bytes.Repeat([]byte{1}, 32))

func marshal(t *testing.T, m proto.Message) json.RawMessage {
	t.Helper()
	b, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func testPod() *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: "web", Namespace: "ns", Uid: "u1"}, Hostname: "web", LogDirectory: "/var/log/pods/ns_web_u1",
		Labels:      map[string]string{labelPodName: "web", labelPodUID: "u1", labelPodNamespace: "ns", "app": "a"},
		Annotations: map[string]string{"text": "<&>"},
	}
}

func testContainer(name string) *cri.ContainerConfig {
	return &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: name, Attempt: 2}, Image: &cri.ImageSpec{Image: "r.example/a:1"}, LogPath: name + "/2.log",
		Labels: map[string]string{labelContainerName: name, labelPodName: "web", labelPodUID: "u1"},
		Envs:   []*cri.KeyValue{{Key: "A", Value: []byte("secret")}},
	}
}

// writePod writes the manifest of a pod checkpoint, signed with testKey.
func writePod(t *testing.T, alter func(*archive.Manifest)) (dir string) {
	t.Helper()
	m := &archive.Manifest{
		Origin: archive.Origin{Version: archive.Version, Architecture: runtime.GOARCH, Runtime: archive.Runtime{Handler: "runc"}},
		Pod:    archive.Pod{Config: marshal(t, testPod())},
	}
	for i, name := range []string{"a", "b"} {
		m.Containers = append(m.Containers, archive.ManifestContainer{
			Name: name, ImageID: "sha256:" + name, Config: marshal(t, testContainer(name)),
			File: archive.File{Path: archive.ContainerPath(i, name), SHA256: strings.Repeat("0", 64)},
		})
	}
	if alter != nil {
		alter(m)
	}
	if err := m.Sign(testKey); err != nil {
		t.Fatal(err)
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, archive.ManifestFile), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestPod(t *testing.T) {
	dir := writePod(t, nil)
	r, err := Pod(PodOptions{Dir: dir, Key: testKey})
	if err != nil {
		t.Fatal(err)
	}
	if r.GetCheckpointPath() != dir || r.GetRuntimeHandler() != "runc" || !proto.Equal(r.GetConfig(), testPod()) || len(r.GetContainerConfigs()) != 2 {
		t.Errorf("got %v", r)
	}
	want := testContainer("b")
	want.Image = &cri.ImageSpec{Image: "sha256:b", UserSpecifiedImage: "r.example/a:1"}
	if got := r.GetContainerConfigs()[1]; !proto.Equal(got, want) {
		t.Errorf("container: got %v, want %v", got, want)
	}
}

// TestPodWithAnotherName checks the values that the kubelet derives from the name and the uid.
func TestPodWithAnotherName(t *testing.T) {
	dir := writePod(t, nil)
	for _, tc := range []struct{ name, uid string }{{"copy", ""}, {"copy", "u2"}, {"", "u2"}} {
		r, err := Pod(PodOptions{Dir: dir, Key: testKey, Name: tc.name, UID: tc.uid})
		if err != nil {
			t.Fatal(err)
		}
		p := r.GetConfig()
		name, uid := p.GetMetadata().GetName(), p.GetMetadata().GetUid()
		if tc.name != "" && name != tc.name || tc.name == "" && name != "web" || tc.uid != "" && uid != tc.uid || tc.uid == "" && len(uid) != 36 {
			t.Errorf("%v: got name %q, uid %q", tc, name, uid)
		}
		if p.GetLogDirectory() != "/var/log/pods/ns_"+name+"_"+uid || p.GetHostname() != "web" {
			t.Errorf("%v: got log directory %q, host name %q", tc, p.GetLogDirectory(), p.GetHostname())
		}
		for _, labels := range []map[string]string{p.GetLabels(), r.GetContainerConfigs()[0].GetLabels()} {
			if labels[labelPodName] != name || labels[labelPodUID] != uid {
				t.Errorf("%v: labels %v", tc, labels)
			}
		}
		if _, ok := r.GetContainerConfigs()[0].GetLabels()[labelPodNamespace]; ok {
			t.Error("a label is new")
		}
	}
}

func TestPodWithOtherConfigs(t *testing.T) {
	earlier := func(m *archive.Manifest) { m.Containers[1].Config = nil }
	given := testContainer("b")
	given.WorkingDir = "/given"
	config := &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: "given"}}
	r, err := Pod(PodOptions{Dir: writePod(t, earlier), Key: testKey, Config: config, Containers: []*cri.ContainerConfig{given}})
	if err != nil {
		t.Fatal(err)
	}
	if r.GetConfig() != config || !proto.Equal(r.GetContainerConfigs()[1], given) || r.GetContainerConfigs()[0].GetMetadata().GetName() != "a" {
		t.Errorf("got %v", r)
	}
	for name, tc := range map[string]struct {
		alter func(*archive.Manifest)
		given []*cri.ContainerConfig
		says  string
	}{
		"no config":        {earlier, nil, `config of container "b": an earlier version`},
		"no pod config":    {func(m *archive.Manifest) { m.Pod.Config = nil }, nil, "config of the pod: an earlier version"},
		"unknown field":    {func(m *archive.Manifest) { m.Containers[0].Config = []byte(`{"new": 1}`) }, nil, `config of container "a"`},
		"unknown config":   {nil, []*cri.ContainerConfig{testContainer("c")}, `config of container "c" is given`},
		"config given two": {nil, []*cri.ContainerConfig{given, given}, `two configs of container "b"`},
	} {
		if _, err := Pod(PodOptions{Dir: writePod(t, tc.alter), Key: testKey, Containers: tc.given}); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: got %v, want %q", name, err, tc.says)
		}
	}
}

// TestPodIsVerified checks that no config comes from a manifest without a valid signature.
func TestPodIsVerified(t *testing.T) {
	dir := writePod(t, nil)
	if r, err := Pod(PodOptions{Dir: dir, Key: bytes.Repeat([]byte{2}, 32)}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("another key: got %v, %v", r, err)
	}
	file := filepath.Join(dir, archive.ManifestFile)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, old := range []string{"secret", `"web"`, "r.example", "sha256:a"} {
		if old == "secret" { // bytes are in base64
			old = "c2VjcmV0"
		}
		changed := bytes.Replace(b, []byte(old), bytes.ToUpper([]byte(old)), 1)
		if bytes.Equal(changed, b) {
			t.Fatalf("%q is not in the manifest", old)
		}
		if err := os.WriteFile(file, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := Pod(PodOptions{Dir: dir, Key: testKey}); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("%q was changed: got %v, %v", old, r, err)
		}
	}
	if _, err := Pod(PodOptions{Dir: t.TempDir(), Key: testKey}); !errdefs.IsNotFound(err) {
		t.Errorf("no manifest: got %v", err)
	}
}

// writeArchive writes an archive that is signed with testKey.
func writeArchive(t *testing.T, info *archive.ContainerInfo) (path string) {
	t.Helper()
	var b bytes.Buffer
	w := archive.NewWriter(t.Context(), &b, time.Now(), testKey)
	err := w.JSON(archive.InfoFile, info)
	if err == nil {
		err = w.Bytes(archive.ImagePath("pages-1.img"), bytes.Repeat([]byte{5}, 10000))
	}
	_, closeErr := w.Close()
	path = filepath.Join(t.TempDir(), "a.tar")
	if err := errors.Join(err, closeErr, os.WriteFile(path, b.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	return path
}

func testInfo(t *testing.T) *archive.ContainerInfo {
	t.Helper()
	return &archive.ContainerInfo{
		Origin:    archive.Origin{Version: archive.Version},
		Container: archive.Container{Name: "a", Config: marshal(t, testContainer("a"))},
	}
}

func TestContainer(t *testing.T) {
	path := writeArchive(t, testInfo(t))
	pod := &cri.PodSandboxMetadata{Name: "other", Namespace: "ns", Uid: "u9"}
	for name, tc := range map[string]struct {
		rename  string
		present []*cri.ContainerMetadata
		attempt uint32
		log     string
	}{
		"free name":   {"", []*cri.ContainerMetadata{{Name: "b", Attempt: 7}}, 2, "a/2.log"},
		"same name":   {"", []*cri.ContainerMetadata{{Name: "a", Attempt: 2}, {Name: "a", Attempt: 4}}, 5, "a/5.log"},
		"new name":    {"c", []*cri.ContainerMetadata{{Name: "a", Attempt: 2}}, 0, "c/0.log"},
		"name exists": {"c", []*cri.ContainerMetadata{{Name: "c", Attempt: 0}}, 1, "c/1.log"},
	} {
		c, err := Container(t.Context(), ContainerOptions{Path: path, Key: testKey, Name: tc.rename, Pod: pod, Present: tc.present})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := tc.rename
		if want == "" {
			want = "a"
		}
		if m := c.GetMetadata(); m.GetName() != want || m.GetAttempt() != tc.attempt || c.GetLogPath() != tc.log {
			t.Errorf("%s: got %v, log %q", name, m, c.GetLogPath())
		}
		if l := c.GetLabels(); l[labelContainerName] != want || l[labelPodUID] != "u9" || l[labelPodName] != "other" {
			t.Errorf("%s: labels %v", name, l)
		}
		if c.GetImage().GetImage() != path || c.GetImage().GetUserSpecifiedImage() != "r.example/a:1" || string(c.GetEnvs()[0].GetValue()) != "secret" {
			t.Errorf("%s: got %v", name, c)
		}
	}
}

// TestContainerIsVerified checks that no config comes from an archive without a valid signature.
func TestContainerIsVerified(t *testing.T) {
	pod := &cri.PodSandboxMetadata{}
	path := writeArchive(t, testInfo(t))
	if c, err := Container(t.Context(), ContainerOptions{Path: path, Key: bytes.Repeat([]byte{2}, 32), Pod: pod}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("another key: got %v, %v", c, err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"changed": bytes.Replace(b, []byte("r.example"), []byte("R.example"), 1), "truncated": b[:len(b)-2048], "truncated entry": b[:4096], "empty": nil,
	} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err := Container(t.Context(), ContainerOptions{Path: path, Key: testKey, Pod: pod}); err == nil {
			t.Errorf("%s: got %v", name, c)
		}
	}
	info := testInfo(t)
	info.Container.Config = nil
	if _, err := Container(t.Context(), ContainerOptions{Path: writeArchive(t, info), Key: testKey, Pod: pod}); err == nil || !strings.Contains(err.Error(), "earlier version") {
		t.Errorf("no config: got %v", err)
	}
	// A config that is given needs no archive; the daemon verifies the archive.
	if c, err := Container(t.Context(), ContainerOptions{Path: "/none", Config: testContainer("a"), Pod: pod}); err != nil || c.GetImage().GetImage() != "/none" {
		t.Errorf("config given: got %v, %v", c, err)
	}
}

func TestReadConfigs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("metadata: {name: web, namespace: ns}\nlog_directory: /logs\nlinux: {security_context: {namespace_options: {network: NODE}}}\n")
	if c, err := ReadPodConfig(file); err != nil || c.GetLogDirectory() != "/logs" || c.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() != cri.NamespaceMode_NODE {
		t.Errorf("YAML: got %v, %v", c, err)
	}
	write(`{"metadata": {"name": "a"}, "image": {"image": "i"}, "envs": [{"key": "A", "value": "eA=="}], "logPath": "a.log"}`)
	if c, err := ReadContainerConfig(file); err != nil || string(c.GetEnvs()[0].GetValue()) != "x" || c.GetLogPath() != "a.log" {
		t.Errorf("JSON: got %v, %v", c, err)
	}
	for text, says := range map[string]string{"{": file, `{"wrong": 1}`: `"wrong"`, "{}": "metadata.name", `{"metadata": {"attempt": "x"}}`: file} {
		write(text)
		if _, err := ReadContainerConfig(file); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want %q", text, err, says)
		}
	}
}
