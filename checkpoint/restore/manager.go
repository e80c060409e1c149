package restore

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/internal/criu"
	"github.com/criserver/criserver/internal/flight"
	"github.com/criserver/criserver/sandbox"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Pods manages pod sandboxes. *sandbox.Manager implements Pods.
type Pods interface {
	RunPod(ctx context.Context, config *cri.PodSandboxConfig, handler string) (string, error)
	Get(id string) (*sandbox.Pod, error)
	List() []*sandbox.Pod
	Stop(ctx context.Context, id string) error
	Remove(ctx context.Context, id string) error
}

// Containers manages containers. *container.Manager implements Containers.
type Containers interface {
	CreateRestored(ctx context.Context, podID string, config *cri.ContainerConfig, r container.Restore) (string, error)
}

// Config is the input of New.
type Config struct {
	// Dir has a record for each running restore. It is on a file system that a reboot empties.
	Dir string
	// KeyFile has the key of the checkpoints that can be restored.
	KeyFile string
	// Archives reports whether containers can be created from archives.
	Archives func() bool
	// CgroupV2 reports whether the controllers of the node are on the unified hierarchy.
	CgroupV2   bool
	Pods       Pods
	Containers Containers
	// CRIU returns a criu program that works with the OCI runtime of a handler. If containers of the handler cannot be
	// restored, CRIU returns an ErrNotImplemented with the reason.
	CRIU func(ctx context.Context, handler string) (criu.Program, error)
	// ReadImage mounts the image with an id read-only, calls read with the mount point, and unmounts the image. If read
	// returns an error, ReadImage returns this error.
	ReadImage func(ctx context.Context, id string, read func(dir string) error) error
}

// Manager restores pods and containers from checkpoints.
type Manager struct {
	cfg  Config
	pods flight.Group[*cri.RestorePodResponse] // by the name of the pod
	// interrupted are the restores that Load has found and Recover ends.
	interrupted []interrupted
	// recovered is closed when Recover has ended. Restores wait for it, so that the pods of interrupted restores do not
	// exist any more.
	recovered chan struct{}
}

// New returns a Manager. The caller calls Load once, and then Recover once, when pods and containers can be removed.
func New(cfg Config) *Manager { return &Manager{cfg: cfg, recovered: make(chan struct{})} }

// environment returns an environment in which an OCI runtime finds the program criu.
func environment(criu string) []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "PATH=") })
	return append(env, "PATH="+filepath.Dir(criu)+":"+os.Getenv("PATH"))
}

// restoreArgs returns the options of the runtime's restore. Each checkpoint contains the file locks of the processes.
// With the mode "ignore", CRIU runs in the cgroup of the container, and the restored processes stay there. In every
// other mode, CRIU applies the cgroups and limits of the checkpoint.
func restoreArgs() []string { return []string{"--file-locks", "--manage-cgroups-mode", "ignore"} }

// invalid returns an ErrInvalidArgument. The message names the field of the request and the rule that the field breaks.
func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}

// mismatch returns the error for a request that does not fit the checkpoint.
func mismatch(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrFailedPrecondition)...)
}
