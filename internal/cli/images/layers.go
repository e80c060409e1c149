package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/cli/command"
)

// defaultChanges is the number of changes that the command layers shows by default.
const defaultChanges = 1000

func newLayersCommand(env *command.Environment) *cobra.Command {
	var out command.Output
	var all bool
	cmd := &cobra.Command{
		Use:   "layers IMAGE|CONTAINER",
		Short: "Show the layers of an image, or the mount and the changes of a container",
		Long: `Show the layers of an image: digests, sizes, the commands that made them, and the images and
containers that share them.

For a container, show the overlay mount of its root file system, and the files that its writable
layer has added (A), changed (C) and removed (R).

CONTAINER is an id, a unique beginning of an id, or NAMESPACE/POD/CONTAINER. If an image and a
container match, the image is shown; the prefixes "image:" and "container:" select one.`,
		Example: `  criserver layers registry.k8s.io/pause:3.10
  criserver layers default/web/nginx --all`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := env.AdminConnection(cmd.Context())
			if err != nil {
				return err
			}
			limit := int32(defaultChanges)
			if all {
				limit = 0
			}
			q := layersQuery{client: adminv1.NewLayersClient(conn), maxChanges: limit}
			img, container, err := q.find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if img != nil {
				return out.Print(env.Stdout, img, func(t *command.Table) { writeImageLayers(t, img) })
			}
			return out.Print(env.Stdout, container, func(t *command.Table) { writeContainerLayers(t, container) })
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, fmt.Sprintf("show all changes of a container, not only the first %d", defaultChanges))
	out.AddFlag(cmd)
	env.AddConnectionFlags(cmd)
	return cmd
}

// layersQuery asks for the layers of an image or container.
type layersQuery struct {
	client     adminv1.LayersClient
	maxChanges int32
}

// find returns the layers of the image or of the container that name selects.
func (q *layersQuery) find(ctx context.Context, name string) (*adminv1.ImageLayers, *adminv1.ContainerLayers, error) {
	if name, ok := strings.CutPrefix(name, "container:"); ok {
		c, err := q.container(ctx, name)
		return nil, c, err
	}
	name, onlyImage := strings.CutPrefix(name, "image:")
	img, imgErr := q.client.GetImageLayers(ctx, &adminv1.GetImageLayersRequest{Image: name})
	if imgErr == nil || onlyImage || !isMissing(imgErr) {
		return img, nil, imgErr
	}
	c, err := q.container(ctx, name)
	if status.Code(err) == codes.NotFound {
		return nil, nil, fmt.Errorf("no image and no container matches %q", name)
	}
	return nil, c, err
}

// isMissing reports whether an error says that no image has the name. The name of a container can be
// malformed as the name of an image.
func isMissing(err error) bool {
	code := status.Code(err)
	return code == codes.NotFound || code == codes.InvalidArgument
}

// container returns the layers of a container. It merges the messages of the stream.
func (q *layersQuery) container(ctx context.Context, name string) (*adminv1.ContainerLayers, error) {
	stream, err := q.client.GetContainerLayers(ctx, &adminv1.GetContainerLayersRequest{Container: name, MaxChanges: q.maxChanges})
	if err != nil {
		return nil, command.PlainError(err)
	}
	return mergeStream[adminv1.ContainerLayers](stream)
}

// mergeStream returns one message with the content of all messages of a stream.
func mergeStream[T any, M interface {
	*T
	proto.Message
}](stream grpc.ServerStreamingClient[T]) (M, error) {
	merged := M(new(T))
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return merged, nil
		}
		if err != nil {
			return nil, command.PlainError(err)
		}
		proto.Merge(merged, M(part))
	}
}

func writeImageLayers(t *command.Table, r *adminv1.ImageLayers) {
	t.Line("image %s", r.GetId())
	for _, name := range slices.Concat(r.GetTags(), r.GetDigests()) {
		t.Line("name %s", name)
	}
	t.Line("size %s", command.ByteSize(r.GetSize()))
	c := r.GetConfig()
	for _, field := range []struct {
		name  string
		value string
	}{
		{"platform", c.GetPlatform()},
		{"entrypoint", quoted(c.GetEntrypoint())},
		{"cmd", quoted(c.GetCmd())},
		{"user", c.GetUser()},
		{"working directory", c.GetWorkingDir()},
		{"ports", strings.Join(c.GetPorts(), " ")},
		{"volumes", strings.Join(c.GetVolumes(), " ")},
		{"stop signal", c.GetStopSignal()},
		{"containers", shortIDs(r.GetContainers())},
	} {
		if field.value != "" {
			t.Line("%s %s", field.name, field.value)
		}
	}
	t.Line("environment variables %d", c.GetEnvCount())
	for _, key := range slices.Sorted(maps.Keys(c.GetLabels())) {
		t.Line("label %s=%s", key, c.GetLabels()[key])
	}
	t.Line("")
	t.Row("LAYER", "DIFF ID", "DIGEST", "SIZE", "COMPRESSED", "AGE", "CONTAINERS", "SHARED WITH", "CREATED BY")
	number := 0
	for _, s := range r.GetSteps() {
		l := s.GetLayer()
		if l == nil {
			t.Row("", "", "", "", "", "", "", "", shortCommand(s))
			continue
		}
		compressed := ""
		if l.GetCompressedSize() > 0 {
			compressed = command.ByteSize(uint64(l.GetCompressedSize())) //nolint:gosec // greater than 0
		}
		t.Row(number, command.ShortDigest(l.GetDiffId()), command.ShortDigest(l.GetDigest()), command.ByteSize(l.GetSize()), compressed,
			shortDuration(l.GetAge().AsDuration()), len(l.GetContainers()), strings.Join(l.GetSharedWith(), " "), shortCommand(s))
		number++
	}
}

// shortCommand returns the beginning of the command of a step.
func shortCommand(s *adminv1.ImageStep) string {
	const longest = 80
	text := strings.Join(strings.Fields(s.GetCommand()), " ")
	if text == "" {
		text = s.GetComment()
	}
	if r := []rune(text); len(r) > longest {
		text = string(r[:longest-1]) + "…"
	}
	return text
}

// quoted returns words as they are quoted in Go, or "" if there are none.
func quoted(words []string) string {
	parts := make([]string, len(words))
	for i, w := range words {
		parts[i] = fmt.Sprintf("%q", w)
	}
	return strings.Join(parts, " ")
}

func shortIDs(ids []string) string {
	short := make([]string, len(ids))
	for i, id := range ids {
		short[i] = command.ShortID(id)
	}
	return strings.Join(short, " ")
}

// shortDuration returns a duration in its largest unit, as in "3d".
func shortDuration(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day:
		return fmt.Sprintf("%dd", d/day)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}
