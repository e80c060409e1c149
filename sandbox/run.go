package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/internal/msgdiff"
	"github.com/criserver/criserver/internal/steps"
	"github.com/criserver/criserver/sandbox/podspec"
	"github.com/sirupsen/logrus"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RunPod creates a pod sandbox and returns its id when the pod sandbox is ready.
//
// A repeated request returns the same pod sandbox. While the pod sandbox is being created, and until a caller has
// received its id, this also holds for a request with another config but the same name and attempt.
//
// Errors: ErrInvalidArgument, ErrFailedPrecondition if the node or the runtime handler supports no user namespaces,
// ErrUnavailable if there is no network, and ErrAlreadyExists if another pod sandbox has the name.
func (m *Manager) RunPod(ctx context.Context, config *cri.PodSandboxConfig, handler string) (string, error) {
	settings := m.settings.Load()
	spec, err := podspec.Parse(config, handler, m.node(settings))
	if err != nil {
		return "", fmt.Errorf("run pod sandbox: %w", err)
	}
	id, err := m.runs.Do(ctx, spec.Name.String(), func(ctx context.Context) (string, error) {
		return m.findOrCreate(ctx, settings, spec)
	})
	if err != nil {
		if ctx.Err() != nil {
			err = m.addStages(ctx, spec.Name, err)
		}
		return "", fmt.Errorf("run pod sandbox %s: %w", spec.Name, err)
	}
	e := m.view.Load().entries[id]
	if e == nil {
		return "", fmt.Errorf("run pod sandbox %s: pod sandbox %q has been removed meanwhile: %w", spec.Name, id, errdefs.ErrUnavailable)
	}
	// This call may have joined the creation for another request.
	if err := e.checkJoin(spec); err != nil {
		return "", fmt.Errorf("run pod sandbox %s: %w", spec.Name, err)
	}
	if !proto.Equal(e.spec.Config, config) {
		logrus.WithContext(ctx).WithFields(logrus.Fields{"pod": id, "differs": msgdiff.Fields(e.spec.Config, config)}).
			Warn("retry of RunPodSandbox has another config than the first attempt; the config of the first attempt is used")
	}
	if ctx.Err() == nil { // otherwise the caller does not receive the id
		e.idReturned.Store(true)
	}
	return id, nil
}

// addStages adds the running stages of the creation of a pod sandbox to the error of a caller that has left.
func (m *Manager) addStages(ctx context.Context, name podspec.Name, err error) error {
	m.mu.Lock()
	s := m.building[name]
	m.mu.Unlock()
	if s == nil {
		return err
	}
	logrus.WithContext(ctx).WithFields(logrus.Fields{"pod": name.String(), "stage": s.String()}).Warn("caller left while its pod sandbox is being created")
	return fmt.Errorf("creation is still in progress (%s): %w", s, err)
}

// checkJoin returns nil if a request may use an existing pod sandbox of its name, whose creation
// the request has joined.
func (e *entry) checkJoin(spec *podspec.Spec) error {
	attempt := spec.Name.Attempt
	if !e.rec.ready() {
		return fmt.Errorf("attempt %d is pod sandbox %q, which is not ready (%s); remove it or use a higher attempt: %w",
			attempt, e.rec.ID, e.rec.notReadyReason(), errdefs.ErrAlreadyExists)
	}
	if e.rec.Handler != spec.Handler {
		return fmt.Errorf("attempt %d is pod sandbox %q, which has the runtime handler %q: %w", attempt, e.rec.ID, e.rec.Handler, errdefs.ErrAlreadyExists)
	}
	return nil
}

// checkReuse returns nil if a request may use an existing pod sandbox of its name, which was
// created before the request. Once a caller has the id of the pod sandbox, a request with another
// config is refused.
func (e *entry) checkReuse(spec *podspec.Spec) error {
	if err := e.checkJoin(spec); err != nil {
		return err
	}
	if e.idReturned.Load() && !proto.Equal(e.spec.Config, spec.Config) {
		return fmt.Errorf("attempt %d is pod sandbox %q, whose config differs in %v: %w",
			spec.Name.Attempt, e.rec.ID, msgdiff.Fields(e.spec.Config, spec.Config), errdefs.ErrAlreadyExists)
	}
	return nil
}

func (m *Manager) findOrCreate(ctx context.Context, settings *Settings, spec *podspec.Spec) (string, error) {
	for _, e := range m.view.Load().named(spec.Name) {
		if !e.hidden {
			return e.rec.ID, e.checkReuse(spec)
		}
		// The leftovers of this pod may hold the host ports that the new pod sandbox needs.
		if err := m.discard(ctx, e.rec.ID); err != nil {
			return "", fmt.Errorf("remove leftovers of an earlier attempt: %w", err)
		}
	}
	return m.create(ctx, settings, spec)
}

func (m *Manager) create(ctx context.Context, settings *Settings, spec *podspec.Spec) (_ string, err error) {
	id := ids.New()
	ctx, step := steps.Begin(ctx, steps.PodRun, stepObject(id, spec))
	defer step.EndWith(&err)
	rec, err := m.build(ctx, id, settings, spec)
	if err != nil {
		if m.view.Load().entries[id] == nil {
			steps.Forget(ctx, id)
		}
		return "", err
	}
	m.watchPause(rec)
	logrus.WithContext(ctx).WithFields(logrus.Fields{
		"pod": id, "name": spec.Name.Name, "namespace": spec.Name.Namespace, "ips": rec.IPs,
	}).Info("pod sandbox is ready")
	return id, nil
}

// stepObject identifies a pod for the steps of its operations.
func stepObject(id string, spec *podspec.Spec) steps.Object {
	return steps.Object{Pod: id, Name: spec.Name.Namespace + "/" + spec.Name.Name}
}

// build creates the pod sandbox with its operation lock held.
func (m *Manager) build(ctx context.Context, id string, settings *Settings, spec *podspec.Spec) (*record, error) {
	unlock, err := m.ops.Lock(ctx, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	b := &build{m: m, settings: settings, spec: spec, rec: &record{ID: id, Handler: spec.Handler}}
	if spec.Handler == "" {
		b.rec.DefaultHandler = settings.DefaultHandler
	}
	defer m.track(spec.Name, &b.stages)()
	if err := b.awaitNetwork(ctx); err != nil {
		return nil, err
	}
	if err := b.begin(ctx); err != nil {
		return nil, err
	}
	if err := b.finish(ctx); err != nil {
		return nil, errors.Join(err, m.rollback(ctx, b, err))
	}
	return b.rec, nil
}

// track makes the stages of a creation available to addStages until untrack is called.
func (m *Manager) track(name podspec.Name, s *stages) (untrack func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.building[name] = s
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.building, name)
	}
}

// rollback tears down a pod sandbox whose creation failed. If the teardown fails too, the pod sandbox becomes visible
// as not ready, so that the kubelet can stop and remove it.
func (m *Manager) rollback(ctx context.Context, b *build, cause error) (err error) {
	ctx, step := steps.Start(ctx, steps.PodRollback)
	defer step.EndWith(&err)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.cfg.TeardownTimeout)
	defer cancel()
	e := b.entry()
	err = m.teardown(ctx, e)
	if err == nil {
		err = m.removeRest(ctx, e)
	}
	if err == nil {
		if b.inPlugins {
			m.notify(ctx, m.snapshot(e), Plugins.Removed)
		}
		return nil
	}
	b.rec.StoppedAt = time.Now()
	b.rec.TeardownError = fmt.Sprintf("creation failed: %v; the teardown is not complete: %v", cause, err)
	m.save(ctx, e)
	m.retries.add(b.rec.ID, firstRetryDelay)
	return fmt.Errorf("roll back: %w", err)
}

// begin plans the pod sandbox and writes the intent record. If begin fails, it undoes its own steps.
func (b *build) begin(ctx context.Context) (err error) {
	_, step := steps.Start(ctx, steps.PodRecord)
	defer step.EndWith(&err)
	if err := b.plan(); err != nil {
		return err
	}
	err = b.label()
	if err == nil {
		err = b.record()
	}
	if err != nil {
		b.m.ports.release(b.rec.ID)
		b.m.releaseLabels(b.entry())
	}
	return err
}

// record creates the directory of the pod sandbox and writes the intent record.
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
	r.CgroupParent = b.m.cfg.cgroupParent(r.ID, b.spec.CgroupParent)
	if r.Config, err = proto.Marshal(b.spec.Config); err != nil {
		return fmt.Errorf("encode the config: %w", err)
	}
	if r.HostName, err = hostname(r.ID, b.spec); err != nil {
		return err
	}
	if b.spec.Namespaces.HostNetwork {
		return nil
	}
	return b.planNetwork()
}

// hostname returns the host name inside a pod, which is never empty. A pod with the network of the host shares the UTS
// namespace of the host, and thus its host name.
func hostname(id string, spec *podspec.Spec) (string, error) {
	if spec.Namespaces.HostNetwork {
		return os.Hostname()
	}
	if spec.Hostname == "" {
		return id[:12], nil
	}
	return spec.Hostname, nil
}
