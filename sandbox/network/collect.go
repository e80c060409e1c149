package network

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/sirupsen/logrus"
)

// gcTimeout bounds one collection of what earlier daemons, or attempts that
// failed, left behind. No pod is attached meanwhile, so it is shorter than the
// time that a pod has for its network.
const gcTimeout = time.Minute

const (
	// collectEvery is the least time between two collections.
	collectEvery = time.Minute
	// collectSoon is when one is tried again that met attachments under way.
	collectSoon = time.Second
	// collectTries is how often one that fails is tried.
	collectTries = 3
)

// errAttaching says that a collection has to come later.
var errAttaching = errors.New("pods are being attached")

// gate keeps collections and attachments apart: what a plugin is told to keep
// must not be older than what it finds.
type gate struct {
	mu      sync.Mutex                    // guards all below
	known   map[types.GCAttachment]string // with the name of the network
	unknown bool                          // the networks of some attachments are not known
	busy    int                           // attachments under way
	shut    chan struct{}                 // closed when the collection under way ends; nil without
}

// enter notes an attachment and waits while a collection runs. Who has got leave
// must call it when the attachment is made or has failed.
func (g *gate) enter(ctx context.Context, a types.GCAttachment, network string) (leave func(), err error) {
	for {
		g.mu.Lock()
		shut := g.shut
		if shut == nil {
			g.note(a, network)
			g.busy++
			g.mu.Unlock()
			return g.leave, nil
		}
		g.mu.Unlock()
		select {
		case <-shut:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busy--
}

// note is called with mu held.
func (g *gate) note(a types.GCAttachment, network string) {
	if g.known == nil {
		g.known = make(map[types.GCAttachment]string)
	}
	g.known[a] = network
}

func (g *gate) hasUnknown() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.unknown
}

// inUse reports whether a pod is, or may be, on a network.
func (g *gate) inUse(network string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.unknown {
		return true
	}
	for _, name := range g.known {
		if name == network {
			return true
		}
	}
	return false
}

func (g *gate) forget(a types.GCAttachment) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.known, a)
}

// close keeps attachments out until open. It fails while there are some under
// way, as one that hangs must not hold up all others.
func (g *gate) close() (valid []types.GCAttachment, open func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.busy > 0 || g.shut != nil {
		return nil, nil, errAttaching
	}
	valid = make([]types.GCAttachment, 0, len(g.known))
	for a := range g.known {
		valid = append(valid, a)
	}
	shut := make(chan struct{})
	g.shut = shut
	return valid, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.shut = nil
		close(shut)
	}, nil
}

// Suspect has Run collect what an attachment that failed may have left behind,
// soon.
func (n *Network) Suspect() {
	select {
	case n.suspect <- struct{}{}:
	default:
	}
}

// collect has the plugins of all networks drop what belongs to no pod: leases,
// rules and attachments whose pods are gone, as after a reboot. It needs
// cniVersion 1.1.0 for the plugins' part, and respects disableGC in the
// configuration. errAttaching while pods are being attached.
func (n *Network) collect(ctx context.Context) error {
	valid, open, err := n.gate.close()
	if err != nil {
		return err
	}
	defer open()
	ctx, cancel := context.WithTimeout(ctx, gcTimeout)
	defer cancel()
	var errs []error
	for _, l := range n.loaded.Load().all() {
		if err := n.cni.GCNetworkList(ctx, l.conf, &libcni.GCArgs{ValidAttachments: valid}); err != nil {
			errs = append(errs, fmt.Errorf("collect what is left on network %q: %w", l.conf.Name, err))
		}
	}
	return errors.Join(errs...)
}

// collection says when the next collection is due. It is for one goroutine.
type collection struct {
	wanted bool
	last   time.Time // that one ended, also one that failed
	failed int       // tries since the last success
}

func (c *collection) want() { c.wanted, c.failed = true, 0 }

// next collects if it is time to, and returns when it will be; zero for never.
func (c *collection) next(ctx context.Context, collect func(context.Context) error) time.Time {
	if !c.wanted {
		return time.Time{}
	}
	if at := c.last.Add(collectEvery); !c.last.IsZero() && at.After(time.Now()) {
		return at
	}
	err := collect(ctx)
	if errors.Is(err, errAttaching) {
		return time.Now().Add(collectSoon)
	}
	c.last = time.Now()
	if err == nil {
		c.wanted, c.failed = false, 0
		return time.Time{}
	}
	c.failed++
	if ctx.Err() == nil {
		logrus.WithContext(ctx).WithError(err).Warn("remains on the networks could not be collected")
	}
	c.wanted = c.failed < collectTries
	return c.last.Add(collectEvery)
}
