// Package qos knows the operator's classes of block I/O and of cache and memory
// bandwidth (RDT), which pods ask for by annotation. A file defines the classes
// of each kind; it is read again for each container that asks, so that a change
// needs no restart. The package looks at the machine and changes nothing.
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

// maxFile bounds a file of classes, in bytes.
const maxFile = 1 << 20

var className = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// Kind is one of the two kinds of classes: how annotations name them.
type Kind struct {
	container, podContainer, pod string
}

// The kinds, with the annotations that containerd and CRI-O read too.
var (
	BlockIOClass = Kind{"io.kubernetes.cri.blockio-class", "blockio.resources.beta.kubernetes.io/container.", "blockio.resources.beta.kubernetes.io/pod"}
	RDTClass     = Kind{"io.kubernetes.cri.rdt-class", "rdt.resources.beta.kubernetes.io/container.", "rdt.resources.beta.kubernetes.io/pod"}
)

// Of finds the class that a container asks for, and the annotation that says so:
// one of its own, one of its pod's with its name, or one for all of the pod. An
// empty class is none.
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

// read decodes a file strictly; keys may be written in upper or lower case.
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
