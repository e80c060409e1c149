package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/image"
	layerdiff "github.com/criserver/criserver/image/changes"
	"github.com/criserver/criserver/internal/mounttable"
)

const (
	// compareTime is the longest time of a comparison of layers.
	compareTime = time.Minute
	// changeBatch is the number of changes in one message.
	changeBatch = 500
)

// GetContainerLayers returns the mount of a container's root file system and the changes in its
// writable layer.
//
// Errors: NotFound if the container or its root file system does not exist. InvalidArgument if
// several containers match, or if max_changes is negative.
func (s *Server) GetContainerLayers(req *adminv1.GetContainerLayersRequest, out grpc.ServerStreamingServer[adminv1.ContainerLayers]) error {
	if req.GetMaxChanges() < 0 {
		return fmt.Errorf("max_changes: must not be negative, is %d: %w", req.GetMaxChanges(), errdefs.ErrInvalidArgument)
	}
	c, err := s.selectContainer("container", req.GetContainer())
	if err != nil {
		return err
	}
	rootfs, err := s.cfg.Images.ContainerRootFS(c.ID)
	if err != nil {
		return err
	}
	userNS := userNamespace(c)
	mount, err := overlayMount(&rootfs, userNS != nil)
	if err != nil {
		return err
	}
	err = out.Send(&adminv1.ContainerLayers{
		Id: c.ID, Name: c.Config.GetMetadata().GetName(), Image: rootfs.ImageID.String(), Mount: mount,
		PodName: c.PodConfig.GetMetadata().GetName(), PodNamespace: c.PodConfig.GetMetadata().GetNamespace(),
	})
	if err != nil {
		return err
	}
	return sendChanges(&rootfs, userNS, int64(req.GetMaxChanges()), out)
}

// overlayMount describes the mount of a root file system.
func overlayMount(r *image.ContainerRootFS, idmapped bool) (*adminv1.OverlayMount, error) {
	m := &adminv1.OverlayMount{Target: r.Target, Upper: r.Upper, Work: r.Work, Idmapped: idmapped}
	for _, l := range r.Lower {
		m.Lower = append(m.Lower, &adminv1.LowerDirectory{Path: l.Path, DiffId: l.DiffID.String()})
	}
	mounts, err := mounttable.Read(mountinfo.SingleEntryFilter(r.Target))
	if err != nil {
		return nil, fmt.Errorf("read mount table: %w", err)
	}
	for _, found := range mounts {
		if found.FSType == "overlay" {
			m.Mounted, m.Options = true, overlayOptions(found.VFSOptions)
		}
	}
	return m, nil
}

// overlayOptions returns the options of an overlay without those for the directories. The kernel shows
// directories as descriptors of the process that mounted the overlay if it was mounted with mount(2).
func overlayOptions(all string) []string {
	var options []string
	for o := range strings.SplitSeq(all, ",") {
		key, _, _ := strings.Cut(o, "=")
		switch key {
		case "lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir", "":
		default:
			options = append(options, o)
		}
	}
	return options
}

// sendChanges compares the layers of a root file system and sends the changes, at most limit unless it
// is 0, and the summary.
func sendChanges(r *image.ContainerRootFS, userNS *cri.UserNamespace, limit int64, out grpc.ServerStreamingServer[adminv1.ContainerLayers]) error {
	ctx, cancel := context.WithTimeout(out.Context(), compareTime)
	defer cancel()
	layers := layerdiff.Layers{Upper: r.Upper}
	for _, l := range r.Lower {
		layers.Lower = append(layers.Lower, l.Path)
	}
	if userNS != nil {
		layers.MapUID, layers.MapGID = idMap(userNS.GetUids()), idMap(userNS.GetGids())
	}
	batch, sent := &adminv1.ContainerLayers{}, int64(0)
	truncated := false
	summary, err := layerdiff.Compare(ctx, layers, func(c layerdiff.Change) error {
		if limit > 0 && sent == limit {
			truncated = true
			return nil
		}
		sent++
		batch.Changes = append(batch.Changes, layerChange(c))
		if len(batch.Changes) < changeBatch {
			return nil
		}
		full := batch
		batch = &adminv1.ContainerLayers{}
		return out.Send(full)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("compare layers: %w: %w", err, errdefs.ErrNotFound)
	}
	if err != nil {
		return err
	}
	batch.Summary = changeSummary(&summary)
	batch.Summary.Truncated = truncated
	return out.Send(batch)
}

var changeKinds = map[layerdiff.Kind]adminv1.ChangeKind{
	layerdiff.Added:   adminv1.ChangeKind_CHANGE_KIND_ADDED,
	layerdiff.Changed: adminv1.ChangeKind_CHANGE_KIND_CHANGED,
	layerdiff.Removed: adminv1.ChangeKind_CHANGE_KIND_REMOVED,
}

func layerChange(c layerdiff.Change) *adminv1.LayerChange {
	const replacement = "\uFFFD" // strings of protobuf must be UTF-8
	return &adminv1.LayerChange{
		Kind: changeKinds[c.Kind], Path: strings.ToValidUTF8(c.Path, replacement), Type: string(c.Type), Size: c.Size,
		MetadataOnly: c.Metadata, Opaque: c.Opaque, HardLink: c.HardLink, RenamedFrom: strings.ToValidUTF8(c.From, replacement),
	}
}

func changeSummary(s *layerdiff.Summary) *adminv1.ChangeSummary {
	total := func(t layerdiff.Total) *adminv1.ChangeTotal {
		return &adminv1.ChangeTotal{Count: t.Count, Bytes: t.Bytes}
	}
	return &adminv1.ChangeSummary{
		Added: total(s.Added), Changed: total(s.Changed), Removed: total(s.Removed), Skipped: s.Skipped, Incomplete: s.Incomplete,
	}
}

// userNamespace returns the user namespace of a container, or nil if the container uses the user
// namespace of the host.
func userNamespace(c *container.Snapshot) *cri.UserNamespace {
	u := c.PodConfig.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions()
	if u == nil || u.GetMode() != cri.NamespaceMode_POD {
		return nil
	}
	return u
}

// idMap returns the function that maps ids in a user namespace to ids on the host. An id without a
// mapping stays the same.
func idMap(mappings []*cri.IDMapping) func(uint32) uint32 {
	return func(id uint32) uint32 {
		for _, m := range mappings {
			if id >= m.GetContainerId() && id-m.GetContainerId() < m.GetLength() {
				return m.GetHostId() + id - m.GetContainerId()
			}
		}
		return id
	}
}
