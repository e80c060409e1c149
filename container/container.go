package container

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/criserver/criserver/container/containerspec"
	"github.com/criserver/criserver/container/record"
	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/internal/userns"
	"github.com/criserver/criserver/oci/runtime"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// container is a container in the memory of the manager. The fields from the request
// never change. Each Snapshot is derived from these fields and the status.
type container struct {
	id        string
	dir       string // run directory and bundle
	rec       *record.Record
	config    *cri.ContainerConfig
	podConfig *cri.PodSandboxConfig
	userMaps  userns.Maps // of the user namespace of the pod; empty for the host's
	runtime   *runtime.Runtime
	mounts    []*cri.Mount // see effectiveMounts

	// configError is not nil if the stored config breaks a rule: see checkConfig.
	configError error

	snap  atomic.Pointer[Snapshot] // nil during the creation
	stage atomic.Pointer[string]   // of the creation, for error messages

	exited        chan struct{} // closed when the exit is recorded
	monitorExited chan struct{} // closed when the monitor has exited

	idReturned atomic.Bool // a caller of Create has received the id

	pluginConfig     *specs.Spec   // the OCI config that plugins have received, until the creation ends
	exitNotified     chan struct{} // closed when plugins are notified of the exit, or need not be
	exitNotifiedOnce sync.Once

	meter cgroup.StatsCache // of the cgroup

	mu           sync.Mutex // guards the fields below, and the state file
	status       record.Status
	unwatched    bool           // the exit of the first process cannot be watched
	startFailure string         // why the first process never ran, or ""
	process      *specs.Process // template for exec; nil until it is needed
	stops        int            // number of Stop calls that wait for the exit

	cancelCheckpoint context.CancelCauseFunc // ends the running checkpoint; nil without a checkpoint
}

func newContainer(dir string, rec *record.Record, config *cri.ContainerConfig, podConfig *cri.PodSandboxConfig) *container {
	return &container{
		id: rec.ID, dir: dir, rec: rec, config: config, podConfig: podConfig, runtime: &rec.Runtime,
		mounts: effectiveMounts(config, rec.Volumes), userMaps: containerspec.UserMaps(podConfig),
		exited: make(chan struct{}), monitorExited: make(chan struct{}), exitNotified: make(chan struct{}),
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

// enter sets the stage of the creation.
func (c *container) enter(stage string) { c.stage.Store(&stage) }

// change alters the status, writes it to the state file and publishes it. If the write
// fails, the status is published nevertheless, because the change has happened. Only a
// restart of the daemon would lose the change.
func (c *container) change(alter func(*record.Status)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changeLocked(alter)
}

func (c *container) changeLocked(alter func(*record.Status)) error {
	alter(&c.status)
	err := c.status.Write(c.dir)
	c.publish()
	return err
}

// commit alters the status only if the new status can be written to the state file.
func (c *container) commit(alter func(*record.Status) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.status
	if err := alter(&next); err != nil {
		return err
	}
	if err := next.Write(c.dir); err != nil {
		return err
	}
	c.status = next
	c.publish()
	return nil
}

// publish makes a Snapshot of the status visible. The caller holds mu.
func (c *container) publish() {
	if c.status.Created == 0 && c.status.Exit == nil {
		return
	}
	c.snap.Store(c.snapshot())
}

// preview returns the published Snapshot, or the Snapshot that would be published now
// for a container in its creation.
func (c *container) preview() *Snapshot {
	if s := c.snap.Load(); s != nil {
		return s
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.snapshot()
}

// snapshot derives a Snapshot. The caller holds mu.
func (c *container) snapshot() *Snapshot {
	st := &c.status
	s := &Snapshot{
		ID: c.id, PodID: c.rec.PodID, Config: c.config, PodConfig: c.podConfig, RuntimeHandler: c.runtime.Name,
		ImageID: c.rec.ImageID, ImageRef: c.rec.ImageRef, LogPath: c.rec.LogPath, StopSignal: c.rec.StopSignal,
		CreatedAt: unixTime(st.Created), StartedAt: unixTime(st.Started),
		Resources: st.Resources(c.config), Extra: st.Extra, Mounts: c.mounts,
		UID: st.UID, GID: st.GID, SupplementalGroups: st.Groups,
		RootFS: c.rootfs(), CgroupPath: c.rec.CgroupPath, RunDir: c.dir,
		ProcessCgroup: cmp.Or(st.ProcessCgroup, c.rec.CgroupPath), MonitorLost: st.MonitorLost,
	}
	switch {
	case st.Exit != nil:
		s.State, s.FinishedAt = Exited, unixTime(st.Exit.Finished)
		s.ExitCode, s.Reason, s.Message = st.Exit.ExitCode, st.Exit.Reason, st.Exit.Message
		return s
	case st.ReadError != "":
		s.State, s.Message = Unknown, "files of the container cannot be read: "+st.ReadError
	case c.unwatched:
		s.State, s.Message = Unknown, "the process cannot be watched"
	case st.Started != 0:
		s.State = Running
	default:
		s.State = Created
	}
	s.PID = st.Init.PID
	if st.MonitorLost && s.State != Unknown {
		s.Message = "the monitor process was killed: the log is incomplete and attach is not possible"
	}
	return s
}

// setExit records the exit and reports true. If an exit is recorded already, setExit
// does nothing.
func (c *container) setExit(e record.Exit) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status.Exit != nil {
		return false
	}
	if c.startFailure != "" {
		e.ExitCode, e.Reason, e.Message = exitCannotRun, ReasonContainerCannotRun, c.startFailure
	}
	if err := c.changeLocked(func(s *record.Status) { s.Exit = &e }); err != nil {
		c.log().WithError(err).Warn("write the exit of the container to its state file")
	}
	close(c.exited)
	return true
}

func (c *container) hasExited() bool {
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}

// refs returns the first process and the monitor.
func (c *container) refs() (init, monitor proc.Ref) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status.Init, c.status.Monitor
}

// unixTime returns the zero time for 0.
func unixTime(nanoseconds int64) time.Time {
	if nanoseconds == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanoseconds)
}

// String returns the state as it stands in error messages.
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
