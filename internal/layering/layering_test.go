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

// compositionRoot is the only package that imports all others. The packages below it are its parts.
const compositionRoot = "internal/daemon"

// commandLine contains the commands of criserver, in packages for groups of commands.
const commandLine = "internal/cli"

// commands is what all packages of commands share, and commandTests is what their tests share.
const (
	commands     = commandLine + "/command"
	commandTests = commandLine + "/clitest"
)

// programs lists the folders below internal that are no helper packages. A rule that allows
// internal does not allow them.
var programs = []string{compositionRoot, commandLine}

// tracing is the only package that may import OpenTelemetry.
const tracing = "internal/tracing"

// The parts of the monitor. Package conmon/monitor connects them.
const (
	monitorSys     = "conmon/monitor/sys"
	monitorLog     = "conmon/monitor/crilog"
	monitorOOM     = "conmon/monitor/oom"
	monitorRuntime = "conmon/monitor/runtime"
	monitorCRIU    = "conmon/monitor/criu"
)

// The parts of sandbox/network that do not know package network.
const (
	defaultBridge = "sandbox/network/defaultbridge"
	podCIDR       = "sandbox/network/podcidr"
)

// allowed lists, for each folder, the folders of this module that its packages may
// import. A folder name includes the folders below it. The most specific rule applies.
var allowed = map[string][]string{
	"internal":           {"internal"},
	tracing:              {"internal/steps"},
	"conmon":             {"internal", "conmon"},
	"conmon/monitor":     {"internal", "conmon"},
	monitorSys:           {},
	monitorLog:           {monitorSys},
	monitorOOM:           {monitorSys},
	monitorRuntime:       {monitorSys, "conmon/wire"},
	monitorCRIU:          {monitorSys, "conmon/wire"},
	"oci":                {"internal", "oci"},
	"oci/runtime":        {"internal"},
	"image":              {"internal", "image"},
	"container":          {"container", "oci", "conmon", "internal"},
	"container/bundle":   {"container/containerspec", "oci", "internal"},
	"container/record":   {"container/limits", "container/containerspec", "oci", "internal"},
	"container/limits":   {"oci", "internal"},
	"container/guest":    {"container/record", "oci", "internal"},
	"container/exits":    {"conmon", "internal"},
	"sandbox":            {"internal", "sandbox"},
	defaultBridge:        {"sandbox/network/bridge", "sandbox/network/podcidr", "internal"},
	podCIDR:              {},
	"sandbox/podfiles":   {"internal"},
	"server":             {"server", "admin", "checkpoint", "sandbox", "container", "image", "internal"},
	"admin":              {},
	"nri":                {"internal"},
	"checkpoint":         {"checkpoint", "container", "sandbox", "image", "oci", "internal"},
	"checkpoint/archive": {"internal"},
	"checkpoint/inspect": {"checkpoint/archive", "internal"},
	"checkpoint/request": {"checkpoint/archive", "internal"},
	"config":             {},
	"cmd/conmon":         {"conmon"},
	"hack/typecheck":     {},
	"hack/clidocs":       {"config", commandLine},
	"packaging":          {},
	compositionRoot:      {"config", "admin", "server", "checkpoint", "sandbox", "container", "image", "oci", "conmon", "nri", "internal", compositionRoot},
	"cmd/criserver":      {commandLine},

	// The parts of the composition root do not import it.
	compositionRoot + "/defaults":       {"config", "container", "oci", "internal"},
	compositionRoot + "/handlers":       {"config", "admin", "container", "image/rootfs", "oci", compositionRoot + "/defaults", "internal"},
	compositionRoot + "/listen":         {"config", "server/streaming"},
	compositionRoot + "/plugins":        {"config", "container", "sandbox", "nri", "internal"},
	compositionRoot + "/servicemanager": {"internal"},
	compositionRoot + "/wipe":           {"container", "image", "sandbox", "internal"},
	compositionRoot + "/telemetry":      {"config", "server/metrics", "server/streaming", compositionRoot + "/listen", "internal"},

	// The packages of commands do not import each other, and only commands for the node call the composition root.
	commandLine:                  {commandLine},
	commands:                     {"config"},
	commandTests:                 {"server/admin", commands},
	commandLine + "/node":        {"config", "admin", compositionRoot, commands, "internal"},
	commandLine + "/pods":        {"admin", commands, "internal"},
	commandLine + "/images":      {"admin", commands, "internal"},
	commandLine + "/networks":    {"admin", commands, commandLine + "/networks", "internal"},
	commandLine + "/checkpoints": {"config", "checkpoint/archive", "checkpoint/inspect", "checkpoint/request", commands, "internal"},
}

// grpcUsers lists the folders whose packages may import gRPC.
var grpcUsers = []string{"server", "admin", compositionRoot, commandLine, tracing}

// stdAndX lists the rules whose packages import only the standard library and
// golang.org/x. Packages below internal may also import the error classes of errdefs.
var stdAndX = []string{"internal", "conmon", "conmon/monitor", monitorSys, monitorLog, monitorOOM, monitorRuntime, monitorCRIU}

// metricsPackage is the only package that may import the Prometheus library.
const metricsPackage = "server/metrics"

const errdefs = "github.com/containerd/errdefs"

// libraries lists the other libraries that single packages of stdAndX may import.
var libraries = map[string][]string{
	// The D-Bus protocol of systemd's manager.
	"internal/systemd": {"github.com/coreos/go-systemd/v22/dbus", "github.com/godbus/dbus/v5"},
	// The types and filters of the mount table.
	"internal/mounttable": {"github.com/moby/sys/mountinfo"},
	// inotify.
	"internal/dirwatch": {"github.com/fsnotify/fsnotify"},
	// Package msgdiff compares protobuf messages of any type.
	"internal/msgdiff": {"google.golang.org/protobuf/proto", "google.golang.org/protobuf/reflect/protoreflect"},
}

// pure lists the packages that build values from their input alone. They must not import the packages of impure, which
// read or change the host.
var (
	pure   = []string{"oci"}
	impure = []string{"net", "os", "os/exec", "syscall", module + "oci/runtime"}
)

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
			t.Errorf("no rule says what %s may import", path)
			continue
		}
		seen[folder] = true
		for _, imp := range p.Imports {
			checkImport(t, path, folder, imp)
		}
	}
	for folder := range allowed {
		if !seen[folder] {
			t.Errorf("the rule for %s applies to no package", folder)
		}
	}
}

func checkImport(t *testing.T, path, folder, imp string) {
	t.Helper()
	if slices.Contains(pure, path) && slices.Contains(impure, imp) {
		t.Errorf("%s imports %s, but must not read or change the host", path, imp)
	}
	if target, ok := strings.CutPrefix(imp, module); ok {
		permitted := slices.ContainsFunc(allowed[folder], func(a string) bool { return within(target, a) })
		if i := slices.IndexFunc(programs, func(p string) bool { return within(target, p) }); i >= 0 {
			permitted = slices.ContainsFunc(allowed[folder], func(a string) bool { return within(a, programs[i]) && within(target, a) })
		}
		if !permitted {
			t.Errorf("%s imports %s, which the layering forbids", path, target)
		}
		return
	}
	// NRI returns gRPC status errors, although it speaks ttrpc.
	if folder == "nri" && imp == "google.golang.org/grpc/status" {
		return
	}
	if strings.HasPrefix(imp, "google.golang.org/grpc") && !slices.ContainsFunc(grpcUsers, func(user string) bool { return within(folder, user) }) {
		t.Errorf("%s imports %s: only %s may import gRPC", path, imp, strings.Join(grpcUsers, ", "))
	}
	if imp == "github.com/spf13/cobra" && !within(folder, commandLine) && folder != "hack/clidocs" {
		t.Errorf("%s imports %s: only %s may import it", path, imp, commandLine)
	}
	if strings.HasPrefix(imp, "go.opentelemetry.io/") && folder != tracing {
		t.Errorf("%s imports %s: only %s may import OpenTelemetry", path, imp, tracing)
	}
	if strings.HasPrefix(imp, "github.com/prometheus/") && path != metricsPackage {
		t.Errorf("%s imports %s: only %s may import the Prometheus library", path, imp, metricsPackage)
	}
	first, _, _ := strings.Cut(imp, "/")
	external := strings.Contains(first, ".") && first != "golang.org"
	if !external || !slices.Contains(stdAndX, folder) || folder == "internal" && imp == errdefs || slices.Contains(libraries[path], imp) {
		return
	}
	t.Errorf("%s imports %s: packages of %s may import only the standard library and golang.org/x", path, imp, folder)
}
