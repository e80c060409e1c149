package handlers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go/features"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/oci/runtime"
)

const (
	// probeTimeout limits the first probe of a runtime handler. After a probe that
	// timed out, the next one has twice the time.
	probeTimeout    = 2 * time.Minute
	maxProbeTimeout = 16 * time.Minute
	probeRetryDelay = 5 * time.Second
)

// probeResult is the result of a probe of a runtime handler.
type probeResult struct {
	info        Info
	features    *features.Features // nil if the runtime does not report features
	userNSError error              // the reason why the handler does not support user namespaces, or nil
	// HostNetworkUserNSError is the reason why the handler does not support user namespaces of pods with the
	// network of the host, or nil.
	hostNetworkUserNSError error
	timedOut               bool // the result is incomplete, because a deadline passed
}

// prober probes one runtime handler.
type prober struct {
	runtime    *runtime.Runtime
	firstEnded chan struct{} // closed when the first probe has ended
	result     atomic.Pointer[probeResult]
}

func newProber(rt *runtime.Runtime) *prober {
	return &prober{runtime: rt, firstEnded: make(chan struct{})}
}

// wait returns the latest result. It waits for the end of the first probe, which is limited
// by the deadlines of its steps.
func (p *prober) wait() *probeResult {
	<-p.firstEnded
	return p.result.Load()
}

// UserNSTest is the part of a probe that tests whether a runtime supports user namespaces, either of pods with
// their own network or of pods with the network of the host.
type UserNSTest func(ctx context.Context, rt *runtime.Runtime, f *features.Features, hostNetwork bool, timeout time.Duration) error

// Probe probes all handlers. It runs in parallel with the other work of the daemon, because a
// runtime may take long to answer, and only pods with a user namespace and containers with
// certain mount options need the results.
func (s *Set) Probe(ctx context.Context, test UserNSTest) {
	var wg sync.WaitGroup
	for _, p := range s.probers {
		wg.Go(func() { p.run(ctx, test, probeTimeout) })
	}
	wg.Wait()
}

// Unavailable is a handler whose runtime does not answer.
type Unavailable struct {
	Name string
	Err  error
}

// ProbeAdded probes the handlers that are new in this set once, and returns an error for each configured handler whose
// runtime does not answer. configured reports whether a handler is in the configuration; a built-in handler that does
// not answer is only logged, as at the start of the daemon.
func (s *Set) ProbeAdded(ctx context.Context, test UserNSTest, configured func(name string) bool) ([]Unavailable, error) {
	var wg sync.WaitGroup
	for _, p := range s.added {
		wg.Go(func() { p.probeOnce(ctx, test, probeTimeout) })
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("probe runtime handlers: %w", context.Cause(ctx))
	}
	var unavailable []Unavailable
	for _, name := range slices.Sorted(maps.Keys(s.added)) {
		if result := s.added[name].result.Load(); result.info.Error != "" && configured(name) {
			err := fmt.Errorf("the handler is not available, because the OCI runtime does not report its version: %s", result.info.Error)
			unavailable = append(unavailable, Unavailable{Name: name, Err: err})
		}
	}
	return unavailable, nil
}

// failed reports whether the last probe has ended and the runtime did not answer.
func (p *prober) failed() bool {
	result := p.result.Load()
	return result != nil && result.info.Error != ""
}

// RepeatProbes probes the handlers again whose probe in ProbeAdded timed out.
func (s *Set) RepeatProbes(ctx context.Context, test UserNSTest) {
	var wg sync.WaitGroup
	for _, p := range s.added {
		if p.result.Load().timedOut {
			wg.Go(func() { p.run(ctx, test, 2*probeTimeout) })
		}
	}
	wg.Wait()
}

// probeOnce probes the handler, stores the result, and reports whether the probe timed out.
func (p *prober) probeOnce(ctx context.Context, test UserNSTest, timeout time.Duration) (timedOut bool) {
	result := p.probe(ctx, test, timeout)
	if p.result.Swap(result) == nil {
		close(p.firstEnded)
	}
	return result.timedOut
}

// run probes the handler, and again with more time while the probe times out.
func (p *prober) run(ctx context.Context, test UserNSTest, timeout time.Duration) {
	for ; ; timeout = min(2*timeout, maxProbeTimeout) {
		if !p.probeOnce(ctx, test, timeout) || ctx.Err() != nil {
			return
		}
		logrus.WithContext(ctx).WithField("runtime", p.runtime.Name).Warn("the probe of the OCI runtime timed out and is repeated with more time")
		select {
		case <-ctx.Done():
			return
		case <-time.After(probeRetryDelay):
		}
	}
}

func (p *prober) probe(ctx context.Context, test UserNSTest, timeout time.Duration) *probeResult {
	result := p.query(ctx, timeout)
	result.userNSError = test(ctx, p.runtime, result.features, false, timeout)
	result.hostNetworkUserNSError = result.userNSError
	if result.userNSError == nil {
		result.hostNetworkUserNSError = test(ctx, p.runtime, result.features, true, timeout)
	}
	result.timedOut = result.timedOut || errors.Is(result.hostNetworkUserNSError, context.DeadlineExceeded)
	if result.userNSError != nil {
		result.info.NoUserNamespaces = result.userNSError.Error()
	} else if result.hostNetworkUserNSError != nil {
		result.info.NoHostNetworkUserNamespaces = result.hostNetworkUserNSError.Error()
	}
	return result
}

// query asks the runtime for its version and its features. A runtime that does not answer is
// listed without features. A version with known defects is logged and not refused, because a
// refusal would end the pods that use the runtime.
func (p *prober) query(ctx context.Context, timeout time.Duration) *probeResult {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	result := &probeResult{info: Info{Name: p.runtime.Name, Path: p.runtime.Path}}
	log := logrus.WithContext(ctx).WithFields(logrus.Fields{"runtime": p.runtime.Name, "path": p.runtime.Path})
	var err error
	if result.info.Version, err = p.runtime.Version(ctx); err != nil {
		result.info.Error, result.timedOut = err.Error(), ctx.Err() != nil
		log.WithError(err).Warn("the OCI runtime does not report its version")
		return result
	}
	if result.info.Flaw = runtime.Vulnerability(result.info.Version); result.info.Flaw != "" {
		log.WithField("version", result.info.Version).Warn(result.info.Flaw)
	}
	if result.features, err = p.runtime.DetectFeatures(ctx, result.info.Version); err != nil {
		result.timedOut = ctx.Err() != nil
		log.WithError(err).Debug("the OCI runtime does not report its features")
	}
	return result
}

// MountOptions returns the mount options that a handler supports on this kernel, or nil if
// its runtime does not report its features. It waits for the first probe of the handler.
func (s *Set) MountOptions(handler string) []string {
	p := s.prober(handler)
	if p == nil {
		return nil
	}
	f := p.wait().features
	if f == nil {
		return nil
	}
	options := append([]string{}, f.MountOptions...) // not nil, because the options are known
	return slices.DeleteFunc(options, func(o string) bool { return o == "rro" && !kernelHasMountSetattr() })
}

// kernelHasMountSetattr reports whether the kernel has mount_setattr(2). Runtimes use this
// system call, which came with Linux 5.12, to make a tree of mounts read-only.
func kernelHasMountSetattr() bool {
	return !errors.Is(unix.MountSetattr(-1, "", 0, &unix.MountAttr{}), unix.ENOSYS)
}
