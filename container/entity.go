package container

import (
	"cmp"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/criserver/criserver/container/containerspec"
	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/internal/userns"
	"github.com/criserver/criserver/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// container is the manager's own view. What the request fixed never changes;
// what happens to it is added to facts, from which each Snapshot is derived.
type container struct {
	id        string
	dir       string // run directory and bundle
	rec       *record
	config    *cri.ContainerConfig
	podConfig *cri.PodSandboxConfig
	userMaps  userns.Maps // of the user namespace of the pod; empty for the host's
	runtime   *oci.Runtime
	mounts    []*cri.Mount // effective: see effectiveMounts

	snap  atomic.Pointer[Snapshot] // nil while in the making
	stage atomic.Pointer[string]   // of the creation, for people

	ended       chan struct{} // closed when the end is recorded
	monitorGone chan struct{} // closed when the monitor has ended

	idReturned atomic.Bool // a caller of Create has the id

	consulted bool          // plugins were asked about its creation; for create alone
	made      *specs.Spec   // what came of it, until the creation is done
	endTold   chan struct{} // closed when plugins know of the end, or need not
	toldOnce  sync.Once

	meter cgroup.StatsCache // of its cgroup

	mu           sync.Mutex // guards all below, and the state file
	facts        facts
	unwatched    bool           // the end could not be watched for
	startFailure string         // why the process was never run
	process      *specs.Process // what exec starts from; nil until needed
	stops        int            // Stop calls that wait for the end
}

func newContainer(dir string, rec *record, config *cri.ContainerConfig, podConfig *cri.PodSandboxConfig) *container {
	return &container{
		id: rec.ID, dir: dir, rec: rec, config: config, podConfig: podConfig, runtime: &rec.Runtime,
		mounts: effectiveMounts(config, rec.Volumes), userMaps: containerspec.UserMaps(podConfig),
		ended: make(chan struct{}), monitorGone: make(chan struct{}), endTold: make(chan struct{}),
	}
}

func (c *container) name() name {
	md := c.config.GetMetadata()
	return name{c.rec.PodID, md.GetName(), md.GetAttempt()}
}

func (c *container) rootfs() string { return filepath.Join(c.dir, "rootfs") }

func (c *container) log() *logrus.Entry {
	return logrus.WithFields(logrus.Fields{"container": c.id, "pod": c.rec.PodID})
}

// enter names the stage that a creation is in.
func (c *container) enter(stage string) { c.stage.Store(&stage) }

// change alters the facts, writes them and shows them. What cannot be written
// is still shown: memory is right, and only a restart would miss it.
func (c *container) change(alter func(*facts)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changeLocked(alter)
}

func (c *container) changeLocked(alter func(*facts)) error {
	alter(&c.facts)
	err := c.facts.write(c.dir)
	c.publish()
	return err
}

// publish is called with mu held.
func (c *container) publish() {
	if c.facts.Created == 0 && c.facts.End == nil {
		return
	}
	c.snap.Store(c.snapshot())
}

func (c *container) snapshot() *Snapshot {
	f := &c.facts
	s := &Snapshot{
		ID: c.id, PodID: c.rec.PodID, Config: c.config, PodConfig: c.podConfig, RuntimeHandler: c.runtime.Name,
		ImageID: c.rec.ImageID, ImageRef: c.rec.ImageRef, LogPath: c.rec.LogPath, StopSignal: c.rec.StopSignal,
		CreatedAt: at(f.Created), StartedAt: at(f.Started),
		Resources: f.resources(c.config), Extra: f.Extra, Mounts: c.mounts,
		UID: f.UID, GID: f.GID, SupplementalGroups: f.Groups,
		RootFS: c.rootfs(), CgroupPath: c.rec.CgroupPath, RunDir: c.dir,
		ProcessCgroup: cmp.Or(f.ProcessCgroup, c.rec.CgroupPath),
	}
	switch {
	case f.End != nil:
		s.State, s.FinishedAt = Exited, at(f.End.Finished)
		s.ExitCode, s.Reason, s.Message = f.End.ExitCode, f.End.Reason, f.End.Message
		return s
	case f.Unread != "":
		s.State, s.Message = Unknown, "files of the container cannot be read: "+f.Unread
	case c.unwatched:
		s.State, s.Message = Unknown, "the process cannot be watched"
	case f.Started != 0:
		s.State = Running
	default:
		s.State = Created
	}
	s.PID = f.Init.PID
	if f.MonitorLost && s.State != Unknown {
		s.Message = "the monitor process was killed: the log and attach are lost"
	}
	return s
}

// finish records the end, once; whoever comes second is ignored.
func (c *container) finish(e end) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.facts.End != nil {
		return false
	}
	if c.startFailure != "" {
		e.ExitCode, e.Reason, e.Message = exitCannotRun, ReasonContainerCannotRun, c.startFailure
	}
	if err := c.changeLocked(func(f *facts) { f.End = &e }); err != nil {
		c.log().WithError(err).Warn("the container's end is not on disk")
	}
	close(c.ended)
	return true
}

func (c *container) hasEnded() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// refs returns the init process and the monitor.
func (c *container) refs() (init, monitor proc.Ref) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.facts.Init, c.facts.Monitor
}

func at(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

func (s State) String() string {
	switch s {
	case Created:
		return "created"
	case Running:
		return "running"
	case Exited:
		return "exited"
	case Unknown:
		return "in an unknown state"
	}
	return fmt.Sprintf("State(%d)", int(s))
}
