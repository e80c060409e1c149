package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// programSet is the directory of the image that BuildProgram builds.
const programSet = "program"

// BuildProgram builds an image with one static program of the host, which is the entry point, in dir, unless dir has
// the image already. dir has one such image.
func BuildProgram(ctx context.Context, dir, name, program string) error {
	body, err := os.ReadFile(program)
	if err != nil {
		return fmt.Errorf("build %s: %w", name, err)
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return err
	}
	defer unlock()
	sum := sha256.Sum256(body)
	want := name + " " + hex.EncodeToString(sum[:])
	set := filepath.Join(dir, programSet)
	if have, err := os.ReadFile(filepath.Join(set, "stamp")); err == nil && string(have) == want {
		return nil
	}
	scratch, err := os.MkdirTemp(dir, "build")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	made := filepath.Join(scratch, "layout")
	recipes := []recipe{{[]string{name}, programImage("/"+path.Base(program), body)}}
	if err := writeLayout(made, nil, recipes); err != nil {
		return fmt.Errorf("build %s: %w", name, err)
	}
	if err := os.WriteFile(filepath.Join(made, "stamp"), []byte(want), 0o644); err != nil {
		return err
	}
	if err := os.RemoveAll(set); err != nil {
		return err
	}
	return os.Rename(made, set)
}

func programImage(entry string, body []byte) func(*parts) (artifact, error) {
	return func(*parts) (artifact, error) {
		l, err := newTree().
			text("etc/passwd", passwd).text("etc/group", group).dir("tmp", 0o1777).
			file(entry, 0o755, body).
			layer()
		if err != nil {
			return nil, err
		}
		return assemble(v1.Config{Entrypoint: []string{entry}}, l)
	}
}
