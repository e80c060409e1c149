package system

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// strangeIDs are ids that no pod, container or image has; some are invalid.
var strangeIDs = map[string]string{
	"unknown":   strings.Repeat("0", 64),
	"short":     "g", // no id has this prefix, because ids are hexadecimal
	"a path":    "../../../etc/passwd",
	"a slash":   "/",
	"a dot":     ".",
	"long":      strings.Repeat("a", 1<<20),
	"NUL":       "a\x00b",
	"newline":   "a\nb",
	"a bracket": "[",
	"not ASCII": "\u202e\u0000é",
}

// idField returns the field with the id of the pod or container of a request.
func idField(m protoreflect.MessageDescriptor) protoreflect.FieldDescriptor {
	for _, name := range []protoreflect.Name{"container_id", "pod_sandbox_id"} {
		if f := m.Fields().ByName(name); f != nil {
			return f
		}
	}
	return nil
}

func methods() (all []protoreflect.MethodDescriptor) {
	services := cri.File_staging_src_k8s_io_cri_api_pkg_apis_runtime_v1_api_proto.Services()
	for i := range services.Len() {
		for j := range services.Get(i).Methods().Len() {
			all = append(all, services.Get(i).Methods().Get(j))
		}
	}
	return all
}

// caller calls methods by their descriptors, so that the tests include every new method
// of cri-api.
type caller struct{ conn *grpc.ClientConn }

func newCaller(t *testing.T, socket string) caller {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return caller{conn}
}

func (c caller) call(ctx context.Context, m protoreflect.MethodDescriptor, req proto.Message) error {
	path := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
	if !m.IsStreamingServer() {
		return c.conn.Invoke(ctx, path, req, dynamicpb.NewMessage(m.Output()))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := c.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, path)
	if err != nil {
		return err
	}
	if err := s.SendMsg(req); err != nil {
		return err
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	if m.Name() == "GetContainerEvents" {
		return nil // the stream ends when the client disconnects
	}
	for {
		if err := s.RecvMsg(dynamicpb.NewMessage(m.Output())); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// TestEveryRPCAnswersAnEmptyRequest checks that an empty request either succeeds, or
// fails with the name of the first missing field.
func TestEveryRPCAnswersAnEmptyRequest(t *testing.T) {
	n := newNode(t, "empty", 90)
	c := newCaller(t, n.Socket())
	for _, m := range methods() {
		t.Run(string(m.Name()), func(t *testing.T) {
			err := c.call(t.Context(), m, dynamicpb.NewMessage(m.Input()))
			switch code := status.Code(err); {
			case required[m.Name()] == "":
				if err != nil {
					t.Errorf("empty request: got error %v, want none", err)
				}
			case code != codes.InvalidArgument || !strings.Contains(err.Error(), required[m.Name()]):
				t.Errorf("empty request: got error %v, want InvalidArgument with %s", err, required[m.Name()])
			}
		})
	}
}

// required is the missing field in the error of an empty request.
var required = map[protoreflect.Name]string{
	"RunPodSandbox": "config", "StopPodSandbox": "pod_sandbox_id", "RemovePodSandbox": "pod_sandbox_id",
	"PodSandboxStatus": "pod_sandbox_id", "PodSandboxStats": "pod_sandbox_id", "UpdatePodSandboxResources": "pod_sandbox_id",
	"CreateContainer": "pod_sandbox_id", "StartContainer": "container_id", "StopContainer": "container_id",
	"RemoveContainer": "container_id", "ContainerStatus": "container_id", "UpdateContainerResources": "container_id",
	"ReopenContainerLog": "container_id", "ExecSync": "container_id", "Exec": "container_id", "Attach": "container_id",
	"PortForward": "pod_sandbox_id", "ContainerStats": "container_id",
	"CheckpointContainer": "container_id", "CheckpointPod": "pod_sandbox_id", "RestorePod": "checkpoint_path",
	"UpdateRuntimeConfig": "runtime_config", "ImageStatus": "image", "PullImage": "image", "RemoveImage": "image",
}

// TestStrangeIDsAreNotFound checks that requests with unknown ids are NotFound, except
// for stops and removals, which succeed.
func TestStrangeIDsAreNotFound(t *testing.T) {
	n := newNode(t, "ids", 91)
	c := newCaller(t, n.Socket())
	p := n.RunPod(t, podConfig("bystander"))
	id := n.run(t, p, "c", "sleep", "1000")
	idempotent := []protoreflect.Name{"StopPodSandbox", "RemovePodSandbox", "StopContainer", "RemoveContainer"}
	for _, m := range methods() {
		f := idField(m.Input())
		if f == nil || strings.HasPrefix(string(m.Name()), "Checkpoint") {
			continue
		}
		for what, strange := range strangeIDs {
			t.Run(string(m.Name())+"/"+what, func(t *testing.T) {
				req := completed(m)
				req.Set(f, protoreflect.ValueOfString(strange))
				err := c.call(t.Context(), m, req)
				want := codes.NotFound
				if slices.Contains(idempotent, m.Name()) {
					want = codes.OK
				}
				if status.Code(err) != want {
					t.Errorf("request with an unknown id: got error %.300v, want %s", err, want)
				}
				if err != nil && len(err.Error()) > 5000 {
					t.Errorf("length of the error: got %d bytes, want at most 5000", len(err.Error()))
				}
			})
		}
	}
	n.Exec(t, id, "true")
	if pods, containers := n.running(t); pods != 1 || containers != 1 {
		t.Errorf("after the requests: got %d pods and %d containers, want one each", pods, containers)
	}
}

// completed returns a valid request with the given id.
func completed(m protoreflect.MethodDescriptor) *dynamicpb.Message {
	var template proto.Message
	switch m.Name() {
	case "CreateContainer":
		config := podConfig("none")
		template = &cri.CreateContainerRequest{Config: containerConfig(&pod{Config: config}, "c", busybox, "true"), SandboxConfig: config}
	case "UpdateContainerResources":
		template = &cri.UpdateContainerResourcesRequest{Linux: &cri.LinuxContainerResources{CpuShares: 100}}
	case "UpdatePodSandboxResources":
		template = &cri.UpdatePodSandboxResourcesRequest{Resources: &cri.LinuxContainerResources{CpuShares: 100}}
	case "ExecSync":
		template = &cri.ExecSyncRequest{Cmd: []string{"true"}}
	case "Exec":
		template = &cri.ExecRequest{Cmd: []string{"true"}, Stdout: true}
	case "Attach":
		template = &cri.AttachRequest{Stdout: true}
	default:
		return dynamicpb.NewMessage(m.Input())
	}
	b, err := proto.Marshal(template)
	if err != nil {
		panic(err)
	}
	req := dynamicpb.NewMessage(m.Input())
	if err := proto.Unmarshal(b, req); err != nil {
		panic(err)
	}
	return req
}

// TestListsOfStrangeIDsAreEmpty checks that a filter with an unknown id returns an empty
// list.
func TestListsOfStrangeIDsAreEmpty(t *testing.T) {
	n := newNode(t, "lists", 92)
	p := n.RunPod(t, podConfig("bystander"))
	n.run(t, p, "c", "sleep", "1000")
	for what, strange := range strangeIDs {
		if !strings.ContainsAny(strange, "\x00\u202e") {
			t.Run(what, func(t *testing.T) { n.emptyLists(t, strange) })
		}
	}
}

func (c *clients) emptyLists(t *testing.T, id string) {
	ctx := t.Context()
	pods, err := c.RuntimeService.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{Id: id}})
	if err != nil || len(pods.GetItems()) > 0 {
		t.Errorf("pods: got %v (error %v), want none", pods, err)
	}
	list, err := c.RuntimeService.ListContainers(ctx, &cri.ListContainersRequest{Filter: &cri.ContainerFilter{Id: id}})
	if err != nil || len(list.GetContainers()) > 0 {
		t.Errorf("containers: got %v (error %v), want none", list, err)
	}
	list, err = c.RuntimeService.ListContainers(ctx, &cri.ListContainersRequest{Filter: &cri.ContainerFilter{PodSandboxId: id}})
	if err != nil || len(list.GetContainers()) > 0 {
		t.Errorf("containers of the pod: got %v (error %v), want none", list, err)
	}
	podStats, err := c.RuntimeService.ListPodSandboxStats(ctx, &cri.ListPodSandboxStatsRequest{Filter: &cri.PodSandboxStatsFilter{Id: id}})
	if err != nil || len(podStats.GetStats()) > 0 {
		t.Errorf("stats of pods: got %v (error %v), want none", podStats, err)
	}
	stats, err := c.RuntimeService.ListContainerStats(ctx, &cri.ListContainerStatsRequest{Filter: &cri.ContainerStatsFilter{Id: id}})
	if err != nil || len(stats.GetStats()) > 0 {
		t.Errorf("stats of containers: got %v (error %v), want none", stats, err)
	}
	stats, err = c.RuntimeService.ListContainerStats(ctx, &cri.ListContainerStatsRequest{Filter: &cri.ContainerStatsFilter{PodSandboxId: id}})
	if err != nil || len(stats.GetStats()) > 0 {
		t.Errorf("stats of the pod's containers: got %v (error %v), want none", stats, err)
	}
}
