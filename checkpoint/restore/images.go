package restore

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/mnt"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
)

const (
	// maxEntry is the maximum size of an entry of an image in bytes.
	maxEntry = 4 << 20
	// maxImageEntries is the maximum number of entries of an image.
	maxImageEntries = 1 << 20
	// imageHeader is the size of the two magic numbers at the beginning of an image, in bytes.
	imageHeader = 8
)

// checkImages compares the CRIU images in a directory with the OCI config: the credentials of the processes and the
// mounts. A restore must not give a container more rights than its OCI config. checkImages does not compare the memory
// and the seccomp filters: the processes continue as before the checkpoint, with the rights of the new container.
func checkImages(dir string, config *specs.Spec) error {
	if err := checkDescriptors(path.Join(dir, descriptors)); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	cores, mounts := 0, 0
	for _, e := range entries {
		name, file := e.Name(), path.Join(dir, e.Name())
		switch {
		case strings.HasPrefix(name, "core-"):
			cores++
			err = readImage(file, &core.CoreEntry{}, func(c *core.CoreEntry) error {
				if err := checkCore(c, config); err != nil {
					return fmt.Errorf("thread %.16q of the checkpoint: %w", c.GetThreadCore().GetComm(), err)
				}
				return nil
			})
		case strings.HasPrefix(name, "mountpoints-"):
			mounts++
			err = readImage(file, &mnt.MntEntry{}, func(e *mnt.MntEntry) error { return checkMount(e, config) })
		default:
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if cores == 0 || mounts == 0 {
		return invalid("the checkpoint archive has no images of processes or of mounts")
	}
	return nil
}

// checkDescriptors checks the list of standard streams. runc passes the descriptor of each pipe in the list to CRIU.
// The list must name only standard streams, because runc also has other files open.
func checkDescriptors(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	var list []string
	if err := json.NewDecoder(io.LimitReader(f, maxEntry)).Decode(&list); err != nil {
		return invalid("%s: %v", descriptors, err)
	}
	if len(list) > 3 {
		return invalid("%s has %d entries, at most 3 are allowed", descriptors, len(list))
	}
	return nil
}

// readImage decodes each entry of an image into v, and calls fn.
func readImage[T proto.Message](file string, v T, fn func(T) error) error {
	return scanImage(file, func(raw []byte) error {
		if err := proto.Unmarshal(raw, v); err != nil {
			return invalid("decode entry: %v", err)
		}
		return fn(v)
	})
}

// scanImage calls fn for each entry of an image, without decoding the entry.
func scanImage(file string, fn func(raw []byte) error) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyN(io.Discard, f, imageHeader); err != nil {
		return invalid("the image is too short")
	}
	for range maxImageEntries {
		var size uint32
		if err := binary.Read(f, binary.LittleEndian, &size); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return invalid("the image is truncated")
		}
		if size > maxEntry {
			return invalid("an entry has %d bytes, at most %d are allowed", size, maxEntry)
		}
		b := make([]byte, size)
		if _, err := io.ReadFull(f, b); err != nil {
			return invalid("the image is truncated")
		}
		if err := fn(b); err != nil {
			return err
		}
	}
	return invalid("the image has more than %d entries", maxImageEntries)
}
