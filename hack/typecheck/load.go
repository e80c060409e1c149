package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// listed is a package as "go list -json" describes it.
type listed struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	DepOnly    bool
	ImportMap  map[string]string
	Module     *struct{ GoVersion string }
	Error      *struct{ Err string }
}

// load lists the packages that match the patterns, with their tests and with all
// packages that they import, in the order of their dependencies.
func load(arch, tags string, patterns []string) ([]listed, error) {
	const fields = "-json=ImportPath,Dir,GoFiles,DepOnly,ImportMap,Module,Error"
	cmd := exec.Command("go", append([]string{"list", "-e", "-deps", "-test", "-tags", tags, fields}, patterns...)...)
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list packages of linux/%s: %w", arch, err)
	}
	var all []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list packages of linux/%s: %w", arch, err)
		}
		all = append(all, p)
	}
}
