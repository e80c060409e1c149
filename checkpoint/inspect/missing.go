package inspect

import (
	"fmt"
	"strings"

	"github.com/criserver/criserver/checkpoint/archive"
)

// maxListed is the maximum number of mount points in an element of NotContained.
const maxListed = 20

// notContained returns the objects that a restore needs and the checkpoint does not contain.
func notContained(c *Checkpoint) []string {
	var list []string
	seen := make(map[string]bool)
	for _, container := range c.Containers {
		image := container.ImageRef
		if container.ImageID != "" && container.ImageID != image {
			image = strings.TrimSpace(image + " " + container.ImageID)
		}
		if !seen[image] {
			seen[image] = true
			list = append(list, "the image "+image)
		}
	}
	for _, container := range c.Containers {
		if n := len(container.BindMounts); n > 0 {
			names := strings.Join(container.BindMounts[:min(n, maxListed)], ", ")
			if n > maxListed {
				names += fmt.Sprintf(" and %d more", n-maxListed)
			}
			list = append(list, fmt.Sprintf("the files of the node that are mounted in container %s: %s", container.Name, names))
		}
	}
	if c.Pod.Network != archive.NamespaceOfNode {
		list = append(list, "the addresses, routes and firewall rules of the pod")
	}
	return list
}
