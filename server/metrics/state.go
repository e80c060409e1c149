package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/image"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/sandbox"
)

// Pods is the part of the pod manager that a scrape reads. *sandbox.Manager implements Pods.
type Pods interface {
	List() []*sandbox.Pod
	// NetworkReason returns why pods cannot be attached to the default network, one of NetworkReasons, or "".
	NetworkReason() string
}

// Containers is the part of the container manager that a scrape reads. *container.Manager implements Containers.
type Containers interface{ List() []*container.Snapshot }

// Images is the part of the image store that a scrape reads. *image.Manager implements Images.
type Images interface{ Totals() image.Totals }

// Sources are the parts of the daemon whose state a scrape reads.
type Sources struct {
	Pods       Pods
	Containers Containers
	Images     Images
	// RuntimeStatus returns nil if the OCI runtimes are ready.
	RuntimeStatus func() error
	// Root and RunDir are the state directories of the daemon.
	Root, RunDir string
}

// Watch adds the metrics that are read from the state of the daemon at each scrape. It must be called once.
func (m *Metrics) Watch(s Sources) { m.registry.MustRegister(newStateCollector(s)) }

// reasonProbing is the reason of the condition runtime while the daemon probes the runtimes.
const reasonProbing = "probing"

// stateCollector reads the state of the daemon. Nothing in it waits: lists are snapshots, and statfs(2) reads from
// memory.
type stateCollector struct {
	Sources
	pods, containers, monitors             *prometheus.Desc
	ready, notReady                        *prometheus.Desc
	images, layers, imageBytes             *prometheus.Desc
	pullBytes, pullLayers                  *prometheus.Desc
	fsSize, fsAvailable, fsInodesAvailable *prometheus.Desc
	defunct                                *prometheus.Desc
}

func newStateCollector(s Sources) *stateCollector {
	return &stateCollector{
		Sources:           s,
		pods:              desc("pods", "Pod sandboxes, by state.", "state"),
		containers:        desc("containers", "Containers, by state.", "state"),
		monitors:          desc("monitors", "Monitors of containers that have not exited."),
		ready:             desc("ready", "Whether a condition of the CRI is true.", "condition"),
		notReady:          desc("not_ready", "Whether a condition of the CRI is false for this reason.", "condition", "reason"),
		images:            desc("images", "Images in the store."),
		layers:            desc("image_layers", "Layers in the store."),
		imageBytes:        desc("image_layers_bytes", "Disk usage of the layers in the store."),
		pullBytes:         desc("image_pull_received_bytes_total", "Compressed bytes of layers that were received from registries."),
		pullLayers:        desc("image_pull_layers_total", "Layers of pulled images, by source: the registry, or the store if the layer existed already.", "source"),
		fsSize:            desc("filesystem_size_bytes", "Size of the file system of a state directory.", "directory"),
		fsAvailable:       desc("filesystem_available_bytes", "Free space of the file system of a state directory.", "directory"),
		fsInodesAvailable: desc("filesystem_available_inodes", "Free inodes of the file system of a state directory. File systems without a limit of inodes have none.", "directory"),
		defunct:           desc("defunct_children", "Child processes of the daemon that have exited and that the daemon has not reaped."),
	}
}

// Describe implements prometheus.Collector.
func (c *stateCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.pods, c.containers, c.monitors, c.ready, c.notReady, c.images, c.layers, c.imageBytes, c.pullBytes, c.pullLayers,
		c.fsSize, c.fsAvailable, c.fsInodesAvailable, c.defunct,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *stateCollector) Collect(ch chan<- prometheus.Metric) {
	c.collectPods(ch)
	c.collectContainers(ch)
	c.collectConditions(ch)
	c.collectImages(ch)
	c.collectFilesystem(ch, "root", c.Root)
	c.collectFilesystem(ch, "run_dir", c.RunDir)
	if n, err := proc.Defunct(); err == nil {
		ch <- gauge(c.defunct, float64(n))
	}
}

func (c *stateCollector) collectPods(ch chan<- prometheus.Metric) {
	ready, notReady := 0, 0
	for _, p := range c.Pods.List() {
		if p.Ready {
			ready++
		} else {
			notReady++
		}
	}
	ch <- gauge(c.pods, float64(ready), "ready")
	ch <- gauge(c.pods, float64(notReady), "not_ready")
}

// states are the values of the label state of containers.
var states = map[container.State]string{
	container.Created: "created", container.Running: "running", container.Exited: "exited", container.Unknown: "unknown",
}

func (c *stateCollector) collectContainers(ch chan<- prometheus.Metric) {
	number, monitors := make(map[container.State]int), 0
	for _, s := range c.Containers.List() {
		number[s.State]++
		if s.State != container.Exited && !s.MonitorLost {
			monitors++
		}
	}
	for state, name := range states {
		ch <- gauge(c.containers, float64(number[state]), name)
	}
	ch <- gauge(c.monitors, float64(monitors))
}

func (c *stateCollector) collectConditions(ch chan<- prometheus.Metric) {
	reason := ""
	if c.RuntimeStatus() != nil {
		reason = reasonProbing
	}
	c.collectCondition(ch, "runtime", reason, []string{reasonProbing})
	c.collectCondition(ch, "network", c.Pods.NetworkReason(), sandbox.NetworkReasons())
}

func (c *stateCollector) collectCondition(ch chan<- prometheus.Metric, condition, reason string, reasons []string) {
	ch <- gauge(c.ready, oneIf(reason == ""), condition)
	for _, r := range reasons {
		ch <- gauge(c.notReady, oneIf(r == reason), condition, r)
	}
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (c *stateCollector) collectImages(ch chan<- prometheus.Metric) {
	t := c.Images.Totals()
	ch <- gauge(c.images, float64(t.Images))
	ch <- gauge(c.layers, float64(t.Layers))
	ch <- gauge(c.imageBytes, float64(t.LayerBytes))
	ch <- counter(c.pullBytes, float64(t.Received))
	ch <- counter(c.pullLayers, float64(t.Fetched), "registry")
	ch <- counter(c.pullLayers, float64(t.Reused), "store")
}

func (c *stateCollector) collectFilesystem(ch chan<- prometheus.Metric, name, path string) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return
	}
	ch <- gauge(c.fsSize, float64(st.Blocks)*float64(st.Bsize), name)
	ch <- gauge(c.fsAvailable, float64(st.Bavail)*float64(st.Bsize), name)
	if st.Files > 0 {
		ch <- gauge(c.fsInodesAvailable, float64(st.Ffree), name)
	}
}
