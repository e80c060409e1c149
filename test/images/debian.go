package images

import (
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
)

// fetch downloads Debian packages without installing them, and unpacks all of them below dir. It changes nothing else
// on the machine and starts no services.
func fetch(ctx context.Context, dir string, packages ...string) error {
	return fetchFor(ctx, arch, dir, packages...)
}

// fetchFor is fetch for an architecture. For a foreign architecture it keeps the package lists below dir, because the
// lists of the machine do not contain that architecture.
func fetchFor(ctx context.Context, arch, dir string, packages ...string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	archives, err := os.MkdirTemp(dir, "archives")
	if err != nil {
		return err
	}
	defer os.RemoveAll(archives)

	// apt downloads as an unprivileged user, which cannot write to this directory.
	options := []string{"-q", "-o", "APT::Sandbox::User=root"}
	if arch != runtime.GOARCH {
		state, err := foreignState(archives, arch)
		if err != nil {
			return err
		}
		options = append(options, state...)
	}
	args := append(append(slices.Clone(options), "download"), packages...)
	if out, err := command(ctx, archives, "apt-get", args...); err != nil {
		if _, upErr := command(ctx, "", "apt-get", append(options, "update")...); upErr != nil {
			return fmt.Errorf("download packages: %w\n%s", err, out)
		}
		if out, err = command(ctx, archives, "apt-get", args...); err != nil {
			return fmt.Errorf("download packages: %w\n%s", err, out)
		}
	}
	debs, err := filepath.Glob(filepath.Join(archives, "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range debs {
		if out, err := command(ctx, "", "dpkg-deb", "-x", deb, dir); err != nil {
			return fmt.Errorf("unpack %s: %w\n%s", filepath.Base(deb), err, out)
		}
	}
	return nil
}

// foreignState returns options that make apt use lists of packages for an architecture in dir.
func foreignState(dir, arch string) ([]string, error) {
	for _, name := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return nil, err
		}
	}
	status := filepath.Join(dir, "status")
	if err := os.WriteFile(status, nil, 0o644); err != nil {
		return nil, err
	}
	return []string{
		"-o", "APT::Architecture=" + arch, "-o", "APT::Architectures=" + arch, "-o", "Dir::State::status=" + status,
		"-o", "Dir::State::lists=" + filepath.Join(dir, "lists"), "-o", "Dir::Cache=" + filepath.Join(dir, "cache"),
	}, nil
}

func command(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	return cmd.CombinedOutput()
}

// program adds a dynamically linked program with its loader and its libraries, from the packages that are unpacked at
// root.
func (t *tree) program(name, from, root string) error {
	t.hostFile(name, 0o755, from)
	return t.libraries(root, from)
}

func (t *tree) libraries(root, object string) error {
	f, err := elf.Open(object)
	if err != nil {
		return fmt.Errorf("libraries of %s: %w", object, err)
	}
	defer f.Close()
	if interp := f.Section(".interp"); interp != nil {
		loader, err := interp.Data()
		if err != nil {
			return fmt.Errorf("loader of %s: %w", object, err)
		}
		name := string(loader[:len(loader)-1])
		from, err := find(root, filepath.Base(name)) // in the package this name is an absolute symbolic link
		if err != nil {
			return err
		}
		t.hostFile(name, 0o755, from)
	}
	needed, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("libraries of %s: %w", object, err)
	}
	for _, lib := range needed {
		from, err := find(root, lib)
		if err != nil {
			return err
		}
		name := "lib/" + lib
		if t.known[name] {
			continue
		}
		t.hostFile(name, 0o644, from)
		if err := t.libraries(root, from); err != nil {
			return err
		}
	}
	return nil
}

// find returns the path of a library in the library directories of Debian, one per architecture.
func find(root, lib string) (string, error) {
	for _, dir := range []string{"lib", "usr/lib"} {
		found, err := filepath.Glob(filepath.Join(root, dir, "*-linux-gnu*", lib))
		if err == nil && len(found) > 0 {
			return found[0], nil
		}
	}
	return "", fmt.Errorf("library %s is in none of the unpacked packages", lib)
}
