package system

import (
	"errors"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

// collect reads all messages of a stream.
func collect[M, T any](t *testing.T, recv func() (M, error), items func(M) []T) []T {
	t.Helper()
	var all []T
	for {
		m, err := recv()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(items(m)) == 0 {
			t.Error("the stream has a message without items")
		}
		all = append(all, items(m)...)
	}
}

func TestStatsOfPodsAndContainers(t *testing.T) {
	n := newNode(t, "stats", 71)
	p, other := n.RunPod(t, podConfig("busy")), n.RunPod(t, podConfig("idle"))
	id := n.run(t, p, "burn", "sh", "-c", "while :; do :; done")
	n.run(t, other, "sleep", "sleep", "1000")

	cs := n.containerStats(t, id)
	if cs.GetCpu().GetUsageCoreNanoSeconds() == nil || cs.GetMemory().GetWorkingSetBytes().GetValue() == 0 || cs.GetMemory().GetAvailableBytes().GetValue() == 0 {
		t.Errorf("stats of the container: got %v, want CPU usage, working set and available memory", cs)
	}
	fs, err := n.ImageService.ImageFsInfo(t.Context(), &cri.ImageFsInfoRequest{})
	if err != nil || len(fs.GetContainerFilesystems()) != 1 {
		t.Fatalf("container file systems: got %v (error %v), want one", fs, err)
	}
	if w := cs.GetWritableLayer(); w.GetTimestamp() == 0 || w.GetUsedBytes() == nil ||
		w.GetFsId().GetMountpoint() != fs.GetContainerFilesystems()[0].GetFsId().GetMountpoint() {
		t.Errorf("writable layer: got %v, want a timestamp, used bytes and the container file system", w)
	}
	for end := time.Now().Add(harness.Patience(30 * time.Second)); n.containerStats(t, id).GetCpu().GetUsageNanoCores().GetValue() == 0; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("usage_nano_cores of a busy container: got 0 until the deadline")
		}
	}

	r, err := n.RuntimeService.PodSandboxStats(t.Context(), &cri.PodSandboxStatsRequest{PodSandboxId: p.ID})
	if err != nil {
		t.Fatal(err)
	}
	l := r.GetStats().GetLinux()
	if l.GetCpu().GetUsageCoreNanoSeconds().GetValue() == 0 || l.GetMemory().GetUsageBytes().GetValue() == 0 || l.GetProcess().GetProcessCount().GetValue() != 1 {
		t.Errorf("stats of the pod: got %v, want CPU and memory usage and one process", l)
	}
	if len(l.GetContainers()) != 1 || l.GetContainers()[0].GetAttributes().GetId() != id {
		t.Errorf("containers in the stats of the pod: got %v, want %s", l.GetContainers(), id)
	}
	if net := l.GetNetwork(); net.GetDefaultInterface().GetName() != "eth0" || len(net.GetInterfaces()) != 1 || net.GetInterfaces()[0].GetName() != "lo" {
		t.Errorf("interfaces in the stats of the pod: got %v, want eth0 as the default and lo", net)
	}
	if _, err := n.RuntimeService.PodSandboxStats(t.Context(), &cri.PodSandboxStatsRequest{PodSandboxId: "nosuchpod"}); status.Code(err) != codes.NotFound {
		t.Errorf("stats of an unknown pod: got error %v, want NotFound", err)
	}

	m, err := n.RuntimeService.ListPodSandboxMetrics(t.Context(), &cri.ListPodSandboxMetricsRequest{})
	if err != nil || len(m.GetPodMetrics()) != 2 || len(m.GetPodMetrics()[0].GetContainerMetrics()) != 1 {
		t.Errorf("metrics: got %v (error %v), want two pods with one container each", m, err)
	}

	for name, tc := range map[string]struct {
		filter *cri.PodSandboxStatsFilter
		want   int
	}{
		"all":     {nil, 2},
		"id":      {&cri.PodSandboxStatsFilter{Id: p.ID}, 1},
		"label":   {&cri.PodSandboxStatsFilter{LabelSelector: map[string]string{"test": "idle"}}, 1},
		"nothing": {&cri.PodSandboxStatsFilter{Id: p.ID, LabelSelector: map[string]string{"test": "idle"}}, 0},
	} {
		list, err := n.RuntimeService.ListPodSandboxStats(t.Context(), &cri.ListPodSandboxStatsRequest{Filter: tc.filter})
		if err != nil || len(list.GetStats()) != tc.want {
			t.Errorf("list with filter %s: got %d pods (error %v), want %d", name, len(list.GetStats()), err, tc.want)
		}
		stream, err := n.RuntimeService.StreamPodSandboxStats(t.Context(), &cri.StreamPodSandboxStatsRequest{Filter: tc.filter})
		if err != nil {
			t.Fatal(err)
		}
		if got := collect(t, stream.Recv, (*cri.StreamPodSandboxStatsResponse).GetPodSandboxStats); len(got) != tc.want {
			t.Errorf("stream with filter %s: got %d pods, want %d", name, len(got), tc.want)
		}
	}
}

func (n *node) containerStats(t *testing.T, id string) *cri.ContainerStats {
	t.Helper()
	r, err := n.RuntimeService.ContainerStats(t.Context(), &cri.ContainerStatsRequest{ContainerId: id})
	if err != nil {
		t.Fatal(err)
	}
	return r.GetStats()
}

func TestStreamsEqualLists(t *testing.T) {
	n := newNode(t, "streams", 72)
	p := n.RunPod(t, podConfig("one"))
	id := n.run(t, p, "c", "sleep", "1000")
	ctx := t.Context()
	pods, err := n.RuntimeService.StreamPodSandboxes(ctx, &cri.StreamPodSandboxesRequest{Filter: &cri.PodSandboxFilter{Id: p.ID}})
	if err != nil {
		t.Fatal(err)
	}
	if got := collect(t, pods.Recv, (*cri.StreamPodSandboxesResponse).GetPodSandboxes); len(got) != 1 || got[0].GetId() != p.ID {
		t.Errorf("streamed pods: got %v, want %s", got, p.ID)
	}
	containers, err := n.RuntimeService.StreamContainers(ctx, &cri.StreamContainersRequest{Filter: &cri.ContainerFilter{PodSandboxId: p.ID}})
	if err != nil {
		t.Fatal(err)
	}
	if got := collect(t, containers.Recv, (*cri.StreamContainersResponse).GetContainers); len(got) != 1 || got[0].GetId() != id {
		t.Errorf("streamed containers: got %v, want %s", got, id)
	}
	stats, err := n.RuntimeService.StreamContainerStats(ctx, &cri.StreamContainerStatsRequest{Filter: &cri.ContainerStatsFilter{Id: id}})
	if err != nil {
		t.Fatal(err)
	}
	if got := collect(t, stats.Recv, (*cri.StreamContainerStatsResponse).GetContainerStats); len(got) != 1 || got[0].GetAttributes().GetId() != id {
		t.Errorf("streamed stats: got %v, want those of %s", got, id)
	}
	for ref, want := range map[string]int{busybox: 1, "": 1, "registry.k8s.io/no/such:1": 0} {
		images, err := n.ImageService.StreamImages(ctx, &cri.StreamImagesRequest{Filter: &cri.ImageFilter{Image: &cri.ImageSpec{Image: ref}}})
		if err != nil {
			t.Fatal(err)
		}
		if got := collect(t, images.Recv, (*cri.StreamImagesResponse).GetImages); len(got) != want {
			t.Errorf("streamed images with filter %q: got %v, want %d", ref, got, want)
		}
	}
}

func TestContainerStatsFilters(t *testing.T) {
	n := newNode(t, "statfilter", 105)
	p, q := n.RunPod(t, podConfig("one")), n.RunPod(t, podConfig("two"))
	labelled := containerConfig(p, "a", busybox, "sleep", "1000")
	labelled.Labels = map[string]string{"app": "a", "tier": "x"}
	a := n.CreateContainer(t, p, labelled)
	n.StartContainer(t, a)
	b, c := n.run(t, p, "b", "sleep", "1000"), n.run(t, q, "c", "sleep", "1000")
	for name, tc := range map[string]struct {
		filter *cri.ContainerStatsFilter
		want   []string
	}{
		"none":       {nil, []string{a, b, c}},
		"id":         {&cri.ContainerStatsFilter{Id: c}, []string{c}},
		"prefix":     {&cri.ContainerStatsFilter{Id: c[:20]}, []string{c}},
		"pod":        {&cri.ContainerStatsFilter{PodSandboxId: p.ID}, []string{a, b}},
		"label":      {&cri.ContainerStatsFilter{LabelSelector: map[string]string{"app": "a"}}, []string{a}},
		"labels":     {&cri.ContainerStatsFilter{LabelSelector: map[string]string{"app": "a", "tier": "y"}}, nil},
		"both":       {&cri.ContainerStatsFilter{PodSandboxId: q.ID, LabelSelector: map[string]string{"app": "a"}}, nil},
		"pod and id": {&cri.ContainerStatsFilter{PodSandboxId: p.ID, Id: b}, []string{b}},
	} {
		list, err := n.RuntimeService.ListContainerStats(t.Context(), &cri.ListContainerStatsRequest{Filter: tc.filter})
		if err != nil {
			t.Fatal(err)
		}
		stream, err := n.RuntimeService.StreamContainerStats(t.Context(), &cri.StreamContainerStatsRequest{Filter: tc.filter})
		if err != nil {
			t.Fatal(err)
		}
		streamed := collect(t, stream.Recv, (*cri.StreamContainerStatsResponse).GetContainerStats)
		for how, stats := range map[string][]*cri.ContainerStats{"list": list.GetStats(), "stream": streamed} {
			var got []string
			for _, s := range stats {
				got = append(got, s.GetAttributes().GetId())
			}
			if !sameSet(got, tc.want) {
				t.Errorf("%s by %s: got %v, want %v", name, how, got, tc.want)
			}
		}
	}
}
