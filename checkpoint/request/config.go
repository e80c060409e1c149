package request

import (
	"errors"
	"fmt"
	"os"

	"github.com/criserver/criserver/checkpoint/archive"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/yaml"
)

// ReadPodConfig reads the config of a pod from a file with the JSON of protobuf, or the same as YAML.
func ReadPodConfig(file string) (*cri.PodSandboxConfig, error) {
	config := &cri.PodSandboxConfig{}
	if err := readFile(file, config); err != nil {
		return nil, err
	}
	if config.GetMetadata().GetName() == "" {
		return nil, fmt.Errorf("%s: metadata.name must be given", file)
	}
	return config, nil
}

// ReadContainerConfig reads the config of a container from a file with the JSON of protobuf, or the same as YAML.
func ReadContainerConfig(file string) (*cri.ContainerConfig, error) {
	config := &cri.ContainerConfig{}
	if err := readFile(file, config); err != nil {
		return nil, err
	}
	if config.GetMetadata().GetName() == "" {
		return nil, fmt.Errorf("%s: metadata.name must be given", file)
	}
	return config, nil
}

// readFile reads a message from a file. An unknown field is an error.
func readFile(file string, m proto.Message) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if b, err = yaml.YAMLToJSON(b); err == nil { // JSON is YAML
		err = protojson.Unmarshal(b, m)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// parse reads a config of a checkpoint whose signature was verified. A field that this version does not know comes from
// a later version of the daemon, and must not be ignored.
func parse(raw []byte, m proto.Message) error {
	if len(raw) == 0 {
		return errNoConfig
	}
	return protojson.Unmarshal(raw, m)
}

// errNoConfig is the error for a checkpoint of a daemon that wrote no configs.
var errNoConfig = errors.New("an earlier version of the daemon has written the checkpoint without this config, so a file with the config must be given")

// containerConfig returns the config of a container in a checkpoint.
func containerConfig(name string, raw []byte) (*cri.ContainerConfig, error) {
	config := &cri.ContainerConfig{}
	if err := parse(raw, config); err != nil {
		return nil, fmt.Errorf("config of container %q: %w", name, err)
	}
	return config, nil
}

// useImage makes the image of the checkpoint the image of a container. The reference of the original request may name
// another image by now.
func useImage(config *cri.ContainerConfig, c *archive.ManifestContainer) {
	if config.Image == nil {
		config.Image = &cri.ImageSpec{}
	}
	if config.Image.UserSpecifiedImage == "" {
		config.Image.UserSpecifiedImage = config.Image.Image
	}
	config.Image.Image = c.ImageID
}
