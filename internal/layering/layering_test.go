package layering

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/criserver/criserver/"

// allowed lists, for each folder, the folders of this module it may import. A
// name stands for itself and all below it.
var allowed = map[string][]string{
	"internal":       {"internal"},
	"conmon":         {"internal", "conmon"},
	"conmon/monitor": {"internal", "conmon"},
	"oci":            {"internal", "oci"},
	"image":          {"internal", "image"},
	"container":      {"oci", "conmon", "internal"},
	"sandbox":        {"internal", "sandbox"},
	"server":         {"server", "sandbox", "container", "image", "internal"},
	"nri":            {"internal"},
	"config":         {},
	"cmd/conmon":     {"conmon"},
	"hack/typecheck": {},
	"cmd/criserver":  {"config", "server", "sandbox", "container", "image", "oci", "conmon", "nri", "internal"},
}

// stdAndX marks folders that import nothing from outside but golang.org/x and,
// in internal, the classes of error, which are every package's vocabulary.
var stdAndX = []string{"internal", "conmon"}

const errdefs = "github.com/containerd/errdefs"

// libraries are what single packages import besides that.
var libraries = map[string][]string{
	// The protocol of systemd's manager over D-Bus.
	"internal/systemd": {"github.com/coreos/go-systemd/v22/dbus", "github.com/godbus/dbus/v5"},
	// It compares messages of any kind.
	"internal/msgdiff": {"google.golang.org/protobuf/proto", "google.golang.org/protobuf/reflect/protoreflect"},
}

type pkg struct {
	ImportPath string
	Imports    []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-tags", "containers_image_openpgp,nri_no_wasm", "-json=ImportPath,Imports", "../../...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func within(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, folder+"/")
}

// rule returns the most specific folder that has a rule.
func rule(path string) (string, bool) {
	best, found := "", false
	for folder := range allowed {
		if within(path, folder) && len(folder) >= len(best) {
			best, found = folder, true
		}
	}
	return best, found
}

func TestImports(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range packages(t) {
		path := strings.TrimPrefix(p.ImportPath, module)
		folder, ok := rule(path)
		if !ok {
			t.Errorf("%s: no rule says what it may import", path)
			continue
		}
		seen[folder] = true
		for _, imp := range p.Imports {
			checkImport(t, path, folder, imp)
		}
	}
	for folder := range allowed {
		if !seen[folder] {
			t.Errorf("the rule for %s is about nothing", folder)
		}
	}
}

func checkImport(t *testing.T, path, folder, imp string) {
	t.Helper()
	if own, ok := strings.CutPrefix(imp, module); ok {
		for _, a := range allowed[folder] {
			if within(own, a) {
				return
			}
		}
		t.Errorf("%s imports %s, which the layering forbids", path, own)
		return
	}
	// NRI's errors are gRPC's, though it speaks ttrpc.
	if folder == "nri" && imp == "google.golang.org/grpc/status" {
		return
	}
	if strings.HasPrefix(imp, "google.golang.org/grpc") && folder != "server" && folder != "cmd/criserver" {
		t.Errorf("%s imports %s: gRPC belongs to server", path, imp)
	}
	first, _, _ := strings.Cut(imp, "/")
	for _, low := range stdAndX {
		if within(path, low) && strings.Contains(first, ".") && first != "golang.org" && (imp != errdefs || low != "internal") &&
			!slices.Contains(libraries[path], imp) {
			t.Errorf("%s imports %s: only the standard library and golang.org/x may be used there", path, imp)
		}
	}
}
