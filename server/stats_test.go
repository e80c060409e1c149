package server

import (
	"iter"
	"slices"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/sandbox"
)

// statsPods is a Pods whose stats contain no numbers.
type statsPods struct{ fakePods }

func (p *statsPods) List() []*sandbox.Pod { return slices.Clone(p.pods) }

func (p *statsPods) Stats(pods []*sandbox.Pod) []sandbox.Stats {
	var all []sandbox.Stats
	for _, pod := range pods {
		all = append(all, sandbox.Stats{Pod: pod})
	}
	return all
}

// statsContainers is a Containers whose stats contain no numbers.
type statsContainers struct{ fakeContainers }

func (c *statsContainers) StatsOf(match func(*container.Snapshot) bool) iter.Seq[container.Stats] {
	return func(yield func(container.Stats) bool) {
		for _, s := range c.list {
			if match(s) && !yield(container.Stats{Container: s}) {
				return
			}
		}
	}
}

// TestStatsAndMetricsOfReadyPods checks that the lists contain the pods that are
// ready, each with its own containers.
func TestStatsAndMetricsOfReadyPods(t *testing.T) {
	pod := func(id string, ready bool) *sandbox.Pod {
		return &sandbox.Pod{ID: id, Ready: ready, Config: &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: id}}}
	}
	snapshot := func(id, pod string) *container.Snapshot {
		return &container.Snapshot{ID: id, PodID: pod, Config: &cri.ContainerConfig{}}
	}
	c := serve(t, Config{
		Pods:       &statsPods{fakePods{pods: []*sandbox.Pod{pod("p", true), pod("stopped", false), pod("q", true)}}},
		Containers: &statsContainers{fakeContainers{list: []*container.Snapshot{snapshot("pc", "p"), snapshot("sc", "stopped"), snapshot("qc", "q")}}},
	})
	want := []string{"p", "pc", "q", "qc"}

	stats, err := c.ListPodSandboxStats(t.Context(), &cri.ListPodSandboxStatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range stats.GetStats() {
		got = append(got, p.GetAttributes().GetId())
		for _, ctr := range p.GetLinux().GetContainers() {
			got = append(got, ctr.GetAttributes().GetId())
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("stats of %q, want %q", got, want)
	}

	ids := func(pods []*cri.PodSandboxMetrics) (ids []string) {
		for _, p := range pods {
			ids = append(ids, p.GetPodSandboxId())
			for _, ctr := range p.GetContainerMetrics() {
				ids = append(ids, ctr.GetContainerId())
			}
		}
		return ids
	}
	metrics, err := c.ListPodSandboxMetrics(t.Context(), &cri.ListPodSandboxMetricsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got := ids(metrics.GetPodMetrics()); !slices.Equal(got, want) {
		t.Errorf("metrics of %q, want %q", got, want)
	}
	stream, err := c.StreamPodSandboxMetrics(t.Context(), &cri.StreamPodSandboxMetricsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if got := ids(m.GetPodSandboxMetrics()); !slices.Equal(got, want) {
		t.Errorf("streamed metrics of %q, want %q", got, want)
	}

	d, err := c.ListMetricDescriptors(t.Context(), &cri.ListMetricDescriptorsRequest{})
	if err != nil || len(d.GetDescriptors()) == 0 {
		t.Errorf("descriptors %v, %v", d, err)
	}
}
