package images

import (
	"fmt"
	"strings"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/cli/command"
)

// changeLetters are the letters of the table for the kinds of changes.
var changeLetters = map[adminv1.ChangeKind]string{
	adminv1.ChangeKind_CHANGE_KIND_ADDED:   "A",
	adminv1.ChangeKind_CHANGE_KIND_CHANGED: "C",
	adminv1.ChangeKind_CHANGE_KIND_REMOVED: "R",
}

func writeContainerLayers(t *command.Table, r *adminv1.ContainerLayers) {
	t.Line("container %s of pod %s/%s (%s)", r.GetName(), r.GetPodNamespace(), r.GetPodName(), command.ShortID(r.GetId()))
	t.Line("image %s", r.GetImage())
	writeOverlay(t, r.GetMount())
	t.Line("")
	if len(r.GetChanges()) > 0 {
		t.Row("CHANGE", "TYPE", "SIZE", "PATH", "NOTE")
		for _, c := range r.GetChanges() {
			t.Row(changeLetters[c.GetKind()], c.GetType(), fileSize(c), c.GetPath(), changeNote(c))
		}
		t.Line("")
	}
	s := r.GetSummary()
	for _, total := range []struct {
		name  string
		total *adminv1.ChangeTotal
	}{{"added", s.GetAdded()}, {"changed", s.GetChanged()}, {"removed", s.GetRemoved()}} {
		t.Line("%s: %d with %s", total.name, total.total.GetCount(), command.ByteSize(uint64(max(0, total.total.GetBytes())))) //nolint:gosec // not negative
	}
	if s.GetTruncated() {
		t.Line("only the first %d changes are shown; --all shows all", len(r.GetChanges()))
	}
	if s.GetIncomplete() {
		t.Line("the comparison took too long, so changes are missing")
	}
	if s.GetSkipped() > 0 {
		t.Line("%d files could not be read", s.GetSkipped())
	}
}

func writeOverlay(t *command.Table, m *adminv1.OverlayMount) {
	state := ""
	if !m.GetMounted() {
		state = " (not mounted)"
	}
	t.Line("mount point %s%s", m.GetTarget(), state)
	for _, l := range m.GetLower() {
		layer := "cover"
		if l.GetDiffId() != "" {
			layer = command.ShortDigest(l.GetDiffId())
		}
		t.Line("lower %s (%s)", l.GetPath(), layer)
	}
	t.Line("upper %s", m.GetUpper())
	t.Line("work %s", m.GetWork())
	options := strings.Join(m.GetOptions(), ",")
	if m.GetIdmapped() {
		options = strings.TrimPrefix(options+",idmapped", ",")
	}
	if options != "" {
		t.Line("options %s", options)
	}
}

// fileSize returns the size of a regular file, or "".
func fileSize(c *adminv1.LayerChange) string {
	if c.GetType() != "file" {
		return ""
	}
	return command.ByteSize(uint64(max(0, c.GetSize()))) //nolint:gosec // not negative
}

// changeNote describes the special properties of a change.
func changeNote(c *adminv1.LayerChange) string {
	var notes []string
	if c.GetMetadataOnly() {
		notes = append(notes, "metadata only")
	}
	if c.GetOpaque() {
		notes = append(notes, "made again, the content in the image is removed")
	}
	if c.GetHardLink() {
		notes = append(notes, "hard link")
	}
	if from := c.GetRenamedFrom(); from != "" {
		notes = append(notes, fmt.Sprintf("renamed from %s", from))
	}
	return strings.Join(notes, ", ")
}
