package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/criserver/criserver/internal/steps"
	"github.com/criserver/criserver/sandbox/network/nat"
)

// errAttaching says that GC must wait until no pod is being attached.
var errAttaching = errors.New("pods are being attached")

// attachments has the attachments of all pods. It keeps GC and ADD apart: the list of valid attachments that a plugin
// gets must include everything that the plugin finds.
type attachments struct {
	mu         sync.Mutex // guards the fields below
	networks   map[types.GCAttachment]string
	unreadable bool          // some records cannot be read, so the networks of some pods are unknown
	attaching  int           // running attachments
	collecting chan struct{} // closed at the end of the running GC; nil if no GC runs
}

// begin adds an attachment. It waits until a running GC has ended. The caller must call end when the pod is attached or
// the attempt has failed.
func (s *attachments) begin(ctx context.Context, a types.GCAttachment, network string) (end func(), err error) {
	for {
		s.mu.Lock()
		collecting := s.collecting
		if collecting == nil {
			s.add(a, network)
			s.attaching++
			s.mu.Unlock()
			return s.end, nil
		}
		s.mu.Unlock()
		_, step := steps.Start(ctx, steps.LockWait, steps.Lock("CNI GC"))
		select {
		case <-collecting:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if step.End(err); err != nil {
			return nil, err
		}
	}
}

func (s *attachments) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attaching--
}

// add is called with mu held.
func (s *attachments) add(a types.GCAttachment, network string) {
	if s.networks == nil {
		s.networks = make(map[types.GCAttachment]string)
	}
	s.networks[a] = network
}

func (s *attachments) remove(a types.GCAttachment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.networks, a)
}

func (s *attachments) hasUnreadable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unreadable
}

// InUse reports whether a pod is, or may be, attached to a network.
func (s *attachments) InUse(network string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unreadable {
		return true
	}
	for _, name := range s.networks {
		if name == network {
			return true
		}
	}
	return false
}

// beginGC returns the valid attachments and blocks new attachments until end is called. It returns errAttaching while
// pods are being attached: GC does not wait, because an ADD that hangs would block all other pods.
func (s *attachments) beginGC() (valid []types.GCAttachment, end func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.attaching > 0 || s.collecting != nil {
		return nil, nil, errAttaching
	}
	valid = make([]types.GCAttachment, 0, len(s.networks))
	for a := range s.networks {
		valid = append(valid, a)
	}
	collecting := make(chan struct{})
	s.collecting = collecting
	return valid, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.collecting = nil
		close(collecting)
	}, nil
}

// WhileIdle calls fn, and attaches no pod during the call. If a pod is being attached or GC runs, WhileIdle does not
// call fn and returns nil.
func (s *attachments) WhileIdle(fn func() error) error {
	_, end, err := s.beginGC()
	if errors.Is(err, errAttaching) {
		return nil
	}
	if err != nil {
		return err
	}
	defer end()
	return fn()
}

// RestoreAttachments adds the attachments of a pod that an earlier daemon has attached. It must be called before Run.
func (n *Network) RestoreAttachments(pod string, interfaces ...Interface) {
	for _, i := range interfaces {
		l, err := parseList(i.Plan)
		if err != nil {
			n.RestoreUnreadable(pod, i.Name)
			continue
		}
		n.attachments.mu.Lock()
		n.attachments.add(i.attachment(pod), l.conf.Name)
		n.attachments.mu.Unlock()
		if l.masquerade != nil {
			n.masquerades.Restore(*l.masquerade, i.attachment(pod))
		}
	}
}

// RestoreUnreadable adds the attachments of a pod whose record cannot be read. The daemon then removes nothing from the
// tables of earlier daemons, because it cannot know what the pod needs.
func (n *Network) RestoreUnreadable(pod string, ifNames ...string) {
	n.attachments.mu.Lock()
	defer n.attachments.mu.Unlock()
	n.attachments.unreadable = true
	for _, name := range ifNames {
		n.attachments.add(types.GCAttachment{ContainerID: pod, IfName: name}, "")
	}
}

// RestoreHostPorts adds the host ports of a pod that an earlier daemon has attached. It must be called before Run.
func (n *Network) RestoreHostPorts(pod string, i Interface, mappings []PortMapping) {
	l, err := parseList(i.Plan)
	if err != nil || l.hostPorts == nil {
		return
	}
	addrs, err := podAddresses(i.Result)
	if err != nil {
		return // the pod was not attached completely and will be detached
	}
	n.ports.Restore(*l.hostPorts, pod, nat.PodPorts{Addrs: addrs, Mappings: mappings})
}

// CachedAttachments returns the attachments of a pod in the cache of the CNI library, with the configurations that the
// pod was attached with. It serves pods whose record is lost.
func (n *Network) CachedAttachments(pod string) ([]Interface, error) {
	found, err := n.cni().GetCachedAttachments(pod)
	if err != nil {
		return nil, fmt.Errorf("get cached attachments of pod %q: %w", pod, err)
	}
	var out []Interface
	for _, a := range found {
		i := Interface{Network: a.Network, Name: a.IfName, Plan: a.Config}
		if _, err := parseList(i.Plan); err != nil {
			return out, fmt.Errorf("read cached attachment of pod %q to network %q: %w", pod, a.Network, err)
		}
		if a.ContainerID == pod && json.Valid(i.Plan) {
			out = append(out, i)
		}
	}
	return out, nil
}
