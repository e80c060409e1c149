package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/internal/msgdiff"
	"github.com/sirupsen/logrus"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RunPod makes a pod sandbox ready and returns its id. The same request asked
// again gets the same pod. A request of the same name and attempt gets it, too,
// while the pod is being made, and afterwards until a caller has its id. Errors:
// ErrInvalidArgument, ErrFailedPrecondition where the machine or the handler has
// no user namespaces, ErrUnavailable where there is no network, and
// ErrAlreadyExists where the name is another pod's.
func (m *Manager) RunPod(ctx context.Context, config *cri.PodSandboxConfig, handler string) (string, error) {
	if err := m.validate(config, handler); err != nil {
		return "", fmt.Errorf("run pod sandbox: %w", err)
	}
	name := nameOf(config)
	id, err := m.runs.Do(ctx, name.String(), func(ctx context.Context) (string, error) {
		return m.findOrCreate(ctx, name, config, handler)
	})
	if err != nil {
		if ctx.Err() != nil {
			err = m.whereItHangs(ctx, name, err)
		}
		return "", fmt.Errorf("run pod sandbox %s: %w", name, err)
	}
	e := m.view.Load().entries[id]
	if e == nil {
		return "", fmt.Errorf("run pod sandbox %s: %q was removed meanwhile: %w", name, id, errdefs.ErrUnavailable)
	}
	// The run that was joined may have been of another request.
	if err := e.mustServe(config.Metadata.Attempt, handler); err != nil {
		return "", fmt.Errorf("run pod sandbox %s: %w", name, err)
	}
	if !proto.Equal(e.config, config) {
		logrus.WithContext(ctx).WithFields(logrus.Fields{"pod": id, "differs": msgdiff.Fields(e.config, config)}).
			Warn("a retry of RunPodSandbox has another config than the first try, which holds")
	}
	if ctx.Err() == nil { // else the caller does not hear of it
		e.claimed.Store(true)
	}
	return id, nil
}

// String is different for different names: it quotes the parts that contain a slash or a
// quotation mark.
func (n podName) String() string {
	part := func(s string) string {
		if strings.ContainsAny(s, `/"`) {
			return strconv.Quote(s)
		}
		return s
	}
	return fmt.Sprintf("%s/%s/%s/%d", part(n.namespace), part(n.name), part(n.uid), n.attempt)
}

func (m *Manager) whereItHangs(ctx context.Context, name podName, err error) error {
	m.mu.Lock()
	s := m.building[name]
	m.mu.Unlock()
	if s == nil {
		return err
	}
	logrus.WithContext(ctx).WithFields(logrus.Fields{"pod": name.String(), "stage": s.String()}).Warn("caller left while its pod sandbox is being made")
	return fmt.Errorf("it is still under way (%s): %w", s, err)
}

// mustServe says whether a pod may stand for a request of its name that it joins.
func (e *entry) mustServe(attempt uint32, handler string) error {
	if !e.rec.ready() {
		return fmt.Errorf("attempt %d is pod sandbox %q, which is not ready (%s); remove it or ask for a higher attempt: %w",
			attempt, e.rec.ID, e.rec.notReadyReason(), errdefs.ErrAlreadyExists)
	}
	if e.rec.Handler != handler {
		return fmt.Errorf("attempt %d is pod sandbox %q, which has the runtime handler %q: %w", attempt, e.rec.ID, e.rec.Handler, errdefs.ErrAlreadyExists)
	}
	return nil
}

// mustBe says whether a pod that was made before may stand for a request of its
// name. No caller may have the id of a pod that was made from another config.
func (e *entry) mustBe(config *cri.PodSandboxConfig, handler string) error {
	if err := e.mustServe(config.Metadata.Attempt, handler); err != nil {
		return err
	}
	if e.claimed.Load() && !proto.Equal(e.config, config) {
		return fmt.Errorf("attempt %d is pod sandbox %q, whose config differs in %v: %w",
			config.Metadata.Attempt, e.rec.ID, msgdiff.Fields(e.config, config), errdefs.ErrAlreadyExists)
	}
	return nil
}

func (m *Manager) findOrCreate(ctx context.Context, name podName, config *cri.PodSandboxConfig, handler string) (string, error) {
	for _, e := range m.view.Load().named(name) {
		if !e.hidden {
			return e.rec.ID, e.mustBe(config, handler)
		}
		// Remains of this very pod, which could hold its host ports.
		if err := m.discard(ctx, e.rec.ID); err != nil {
			return "", fmt.Errorf("remove the remains of an earlier try: %w", err)
		}
	}
	return m.create(ctx, config, handler)
}

func (m *Manager) create(ctx context.Context, config *cri.PodSandboxConfig, handler string) (string, error) {
	id := ids.New()
	rec, err := m.build(ctx, id, config, handler)
	if err != nil {
		return "", err
	}
	m.watchPause(rec)
	logrus.WithContext(ctx).WithFields(logrus.Fields{
		"pod": id, "name": config.Metadata.Name, "namespace": config.Metadata.Namespace, "ips": rec.IPs,
	}).Info("pod sandbox is ready")
	return id, nil
}

func (m *Manager) build(ctx context.Context, id string, config *cri.PodSandboxConfig, handler string) (*record, error) {
	unlock, err := m.ops.Lock(ctx, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	b := &build{m: m, config: config, rec: &record{ID: id, Handler: handler}}
	defer m.track(nameOf(config), &b.stages)()
	if err := b.awaitNetwork(ctx); err != nil {
		return nil, err
	}
	if err := b.begin(); err != nil {
		return nil, err
	}
	if err := b.finish(ctx); err != nil {
		return nil, errors.Join(err, m.rollback(ctx, b, err))
	}
	return b.rec, nil
}

func (m *Manager) track(name podName, s *stages) (untrack func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.building[name] = s
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.building, name)
	}
}

// rollback undoes a pod that could not be made. What cannot be undone at once
// stays visible, for the kubelet to stop and remove.
func (m *Manager) rollback(ctx context.Context, b *build, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.cfg.TeardownTimeout)
	defer cancel()
	e := b.entry()
	err := m.teardown(ctx, e)
	if err == nil {
		err = m.removeRest(ctx, e)
	}
	if err == nil {
		if b.told {
			m.tellRemoved(ctx, m.snapshot(e))
		}
		return nil
	}
	b.rec.StoppedAt = time.Now()
	b.rec.Trouble = fmt.Sprintf("it could not be made: %v; what was made is still being taken down: %v", cause, err)
	m.save(ctx, e)
	m.retries.add(b.rec.ID, retryFirst)
	return fmt.Errorf("roll back: %w", err)
}

// begin plans the pod and writes the intent. It undoes itself.
func (b *build) begin() error {
	if err := b.plan(); err != nil {
		return err
	}
	err := b.label()
	if err == nil {
		err = b.record()
	}
	if err != nil {
		b.m.ports.free(b.rec.ID)
		b.m.unlabel(b.rec, b.config)
	}
	return err
}

func (b *build) record() error {
	dir := b.m.dirs.pod(b.rec.ID)
	if err := os.Mkdir(dir, 0o711); err != nil {
		return err
	}
	if err := b.m.dirs.write(b.rec); err != nil {
		return errors.Join(err, os.Remove(dir))
	}
	return nil
}

func (b *build) plan() (err error) {
	r := b.rec
	r.Version, r.BootID, r.CreatedAt = recordVersion, b.m.boot, time.Now()
	r.CgroupParent = cgroupParent(b.m.cfg, r.ID, b.config)
	if r.Config, err = proto.Marshal(b.config); err != nil {
		return fmt.Errorf("record the request: %w", err)
	}
	if r.HostName, err = hostname(r.ID, b.config); err != nil {
		return err
	}
	if b.sysctls, err = sysctls(b.config, b.m.cfg.AllowedSysctls); err != nil {
		return err
	}
	if hostNetwork(b.config) {
		return nil
	}
	return b.planNetwork()
}
