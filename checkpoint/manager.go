// Package checkpoint writes checkpoints of containers and pods. A checkpoint freezes the containers, dumps the
// processes through the OCI runtime and CRIU, compares the root file systems with the images, and writes the archives.
// The containers continue to run after the checkpoint. Package checkpoint/restore restores them.
//
// The daemon can die at any instruction. Before a checkpoint freezes containers, it writes an intent record. Recover
// of the next daemon reads the record, thaws the containers, and removes the incomplete output.
//
// The package uses the managers of containers and pods. The managers do not import the package. Package
// checkpoint/archive defines the format.
package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/checkpoint/archive"
	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/image"
	"github.com/criserver/criserver/internal/boot"
	"github.com/criserver/criserver/internal/criu"
	"github.com/criserver/criserver/sandbox"
	"golang.org/x/sys/unix"
)

// Containers manages containers. *container.Manager implements Containers.
type Containers interface {
	Get(id string) (*container.Snapshot, error)
	List() []*container.Snapshot
	Hold(ctx context.Context, id string) (*container.Held, context.Context, error)
}

// Pods manages pod sandboxes. *sandbox.Manager implements Pods.
type Pods interface {
	Get(id string) (*sandbox.Pod, error)
}

// Images has the root file systems of containers. *image.Manager implements Images.
type Images interface {
	ContainerRootFS(containerID string) (image.ContainerRootFS, error)
}

// Cgroups thaws cgroups. *cgroup.Tree implements Cgroups.
type Cgroups interface {
	Thaw(path string) error
	// MemoryUsage returns the memory use of a cgroup in bytes, or 0 if it is unknown.
	MemoryUsage(path string) int64
}

// Programs finds the programs that a checkpoint needs.
type Programs interface {
	// Programs returns CRIU and the version of the OCI runtime of a handler. If containers of the handler cannot be
	// checkpointed, Programs returns an ErrNotImplemented with the reason.
	Programs(ctx context.Context, handler string) (criu.Program, string, error)
}

// Observer is notified of checkpoints that have ended. Its method must not wait.
type Observer interface {
	Checkpointed(r Result)
}

// Kinds of checkpoints.
const (
	KindContainer = "container"
	KindPod       = "pod"
)

// Result describes a checkpoint that has ended.
type Result struct {
	Kind     string // KindContainer or KindPod
	Err      error  // nil for a success
	Duration time.Duration
	Frozen   time.Duration // how long the containers were frozen
	Bytes    int64         // size of all files of the checkpoint
}

// Config is the input of New.
type Config struct {
	// Dir is the directory of the intent records. A reboot must not empty Dir, because the incomplete output of a
	// checkpoint is on a disk.
	Dir string
	// KeyFile has the key of all checkpoints of the node. Recover makes the file if the file does not exist.
	KeyFile    string
	Engine     string // name and version of the daemon
	CgroupV2   bool
	Containers Containers
	Pods       Pods
	Images     Images
	Cgroups    Cgroups
	Programs   Programs
	Observer   Observer // can be nil
}

// Manager writes checkpoints. A container is part of at most one checkpoint at a time.
//
// A checkpoint holds the operation locks of its containers, which it takes in the order of their ids.
type Manager struct {
	cfg  Config
	boot string

	keyMu sync.Mutex // held while the key is read or made
}

// New returns a Manager. The caller calls Recover once before it writes a checkpoint, after the recovery of
// containers.
func New(cfg Config) (*Manager, error) {
	id, err := boot.ID()
	if err != nil {
		return nil, err
	}
	return &Manager{cfg: cfg, boot: id}, nil
}

// Progress is the progress of a running checkpoint.
type Progress struct {
	// Phase is PhaseFreeze, PhaseDump, PhaseFiles or PhaseWrite.
	Phase string
	// Container is the name of the container that is dumped or written, or "".
	Container string
	// Bytes is the number of bytes that the phase has written. Total is an estimate of the final number, or 0.
	Bytes, Total int64
}

// Phases of a checkpoint.
const (
	PhaseFreeze = "freeze" // the containers are being frozen
	PhaseDump   = "dump"   // CRIU writes the images of processes
	PhaseFiles  = "files"  // the changed files of the root file systems are being written
	PhaseWrite  = "write"  // the archives are being written; the containers run again
)

// defaultTimeout limits a checkpoint of a container if the request has no timeout. Without a limit, the container
// could stay frozen.
const defaultTimeout = 10 * time.Minute

func (m *Manager) observe(r Result) {
	if m.cfg.Observer != nil {
		m.cfg.Observer.Checkpointed(r)
	}
}

// origin describes this node and the runtime of a handler.
func (m *Manager) origin(handler string, program criu.Program, runtimeVersion string, at time.Time) archive.Origin {
	return archive.Origin{
		Version: archive.Version, CheckpointedAt: at, Engine: m.cfg.Engine, Architecture: architecture, Kernel: kernelRelease(),
		CgroupV2: m.cfg.CgroupV2, CRIU: program.Version, Runtime: archive.Runtime{Handler: handler, Version: runtimeVersion},
	}
}

// invalid returns an ErrInvalidArgument. The message names the field of the request and its rule.
func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}

// short shortens an id for messages.
func short(id string) string { return id[:min(len(id), 12)] }

// classify adds the cause of ctx to the error of a checkpoint if ctx has ended, and ErrResourceExhausted if the disk
// is full.
func classify(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil && !errors.Is(err, context.Cause(ctx)):
		return errors.Join(context.Cause(ctx), err)
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: %w", err, errdefs.ErrResourceExhausted)
	}
	return err
}
