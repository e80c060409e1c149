// Package qos reads the operator's classes of block I/O and of cache and memory bandwidth
// (RDT), which pods request by annotation. A file defines the classes of each kind. The file is
// read for each container that requests a class, so changes need no restart. The package reads
// facts about the host and changes nothing.
package qos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"

	"github.com/containerd/errdefs"
	"go.yaml.in/yaml/v3"
)

// maxFile is the maximum size of a file of classes, in bytes.
const maxFile = 1 << 20

var className = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// Kind is a kind of classes, with the annotations that select a class.
type Kind struct {
	container, podContainer, pod string
}

// The kinds of classes. containerd and CRI-O read the same annotations.
var (
	BlockIOClass = Kind{"io.kubernetes.cri.blockio-class", "blockio.resources.beta.kubernetes.io/container.", "blockio.resources.beta.kubernetes.io/pod"}
	RDTClass     = Kind{"io.kubernetes.cri.rdt-class", "rdt.resources.beta.kubernetes.io/container.", "rdt.resources.beta.kubernetes.io/pod"}
)

// Of returns the class that a container requests, and the annotation that names the class: an
// annotation of the container, an annotation of the pod for this container, or an annotation of
// the pod for all its containers. An empty class means none.
func (k Kind) Of(name string, container, pod map[string]string) (class, annotation string) {
	for _, from := range []struct {
		key string
		in  map[string]string
	}{{k.container, container}, {k.podContainer + name, pod}, {k.pod, pod}} {
		if class, ok := from.in[from.key]; ok {
			return class, from.key
		}
	}
	return "", ""
}

// read decodes a file and refuses unknown keys. Keys may be written in upper or lower case.
func read(file string, into any) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return err
	}
	if len(b) > maxFile {
		return fmt.Errorf("%s has more than %d bytes", file, maxFile)
	}
	var tree map[string]any
	if err := yaml.Unmarshal(b, &tree); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	asJSON, err := json.Marshal(tree)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	dec := json.NewDecoder(bytes.NewReader(asJSON))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

func unknown(class, file string) error {
	return fmt.Errorf("there is no class %q in %s: %w", class, file, errdefs.ErrInvalidArgument)
}

func unconfigured(what string) error {
	return fmt.Errorf("this node has no classes of %s: %w", what, errdefs.ErrFailedPrecondition)
}
