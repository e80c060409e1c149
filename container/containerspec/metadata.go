package containerspec

import (
	"path/filepath"
	"strings"
	"unicode"

	"github.com/criserver/criserver/internal/rootpath"
)

// maxName limits the name of a container, in bytes.
const maxName = 4096

// Image has the references to the image of a container.
type Image struct {
	// Ref is the image that the container is made from: an id, a tag or a digest.
	Ref string
	// UserRef is the image as the user wrote it, or "" if the request does not have it.
	UserRef string
}

func (p *parser) metadata() error {
	md, image := p.Config.GetMetadata(), p.Config.GetImage()
	switch {
	case md.GetName() == "":
		return invalid("config.metadata.name is empty")
	case len(md.GetName()) > maxName:
		return invalid("config.metadata.name has %d bytes, more than %d", len(md.GetName()), maxName)
	case strings.ContainsFunc(md.GetName(), unicode.IsControl):
		// The name never becomes part of a path, so it can contain slashes.
		return invalid("config.metadata.name %q must not contain control characters", md.GetName())
	case image.GetImage() == "":
		return invalid("config.image.image is empty")
	}
	p.spec.Name, p.spec.Attempt = md.GetName(), md.GetAttempt()
	p.spec.Image = Image{Ref: image.GetImage(), UserRef: image.GetUserSpecifiedImage()}
	p.spec.Labels, p.spec.Annotations = p.Config.GetLabels(), p.Config.GetAnnotations()
	return nil
}

func (p *parser) logPath() error {
	dir, path := p.Pod.GetLogDirectory(), p.Config.GetLogPath()
	if path != "" && (!filepath.IsLocal(path) || strings.ContainsAny(path, "\x00\n")) {
		return invalid("config.log_path %q must be a relative path that stays inside the pod's log directory", path)
	}
	if rootpath.TooLong(path) {
		return invalid("config.log_path %s", rootpath.LengthRule)
	}
	if dir == "" || path == "" {
		return nil
	}
	full := filepath.Join(dir, path)
	if rootpath.TooLong(full) {
		return invalid("config.log_path below the pod's log_directory %s", rootpath.LengthRule)
	}
	p.spec.LogPath = full
	return nil
}
