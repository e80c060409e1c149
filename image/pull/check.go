package pull

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/signature"
)

// FileError is the error of a file that would make pulls fail.
type FileError struct {
	Key    string // of the configuration, such as "image.policy"
	System bool   // the Config does not name the file: it is a file of the system
	Err    error
}

func (e *FileError) Error() string { return e.Key + ": " + e.Err.Error() }

// Unwrap returns the error without the key.
func (e *FileError) Unwrap() error { return e.Err }

// Check reads the files that the Config names, or the files of the system, and returns an error
// for each file that would make pulls fail. A file that does not exist is an error only if pulls
// need it.
func (p *Puller) Check() []*FileError {
	var errs []*FileError
	add := func(key string, named bool, err error) {
		if err != nil {
			errs = append(errs, &FileError{"image." + key, !named, err})
		}
	}
	_, err := sysregistriesv2.TryUpdatingCache(p.sys)
	sysregistriesv2.InvalidateCache() // see Pull
	add("registries_conf", p.cfg.RegistriesConf != "" || p.cfg.RegistriesConfDir != "", err)
	_, err = p.loadPolicy("")
	add("policy", p.cfg.PolicyPath != "", err)
	add("policy_dir", true, p.checkPolicyDir())
	add("registries_d", p.cfg.RegistriesD != "", p.checkRegistriesD())
	add("auth_file", true, p.checkAuthFile())
	return errs
}

// checkPolicyDir checks the policies of all namespaces.
func (p *Puller) checkPolicyDir() error {
	if p.cfg.PolicyDir == "" {
		return nil
	}
	files, err := filepath.Glob(filepath.Join(p.cfg.PolicyDir, "*.json"))
	if err != nil {
		return err
	}
	var errs []error
	for _, file := range files {
		if _, err := signature.NewPolicyFromFile(file); err != nil {
			errs = append(errs, fmt.Errorf("read signature policy: %w", err))
		}
	}
	return errors.Join(errs...)
}

// checkRegistriesD checks the files that say where signatures are stored. The name is only an
// argument, to which no file refers.
func (p *Puller) checkRegistriesD() error {
	name, err := reference.ParseNormalizedNamed("registry.invalid/image:tag")
	if err != nil {
		return err
	}
	ref, err := docker.NewReference(name)
	if err != nil {
		return err
	}
	_, err = docker.SignatureStorageBaseURL(p.sys, ref, false)
	return err
}

// checkAuthFile checks the syntax of the auth file. It reads no credentials, and its errors
// contain nothing of the file.
func (p *Puller) checkAuthFile() error {
	if p.cfg.AuthFile == "" {
		return nil
	}
	b, err := os.ReadFile(p.cfg.AuthFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a pull then has no credentials
	}
	if err != nil {
		return err
	}
	var file struct {
		Auths       map[string]struct{ Auth, IdentityToken string } `json:"auths"`
		CredHelpers map[string]string                               `json:"credHelpers"`
	}
	if json.Unmarshal(b, &file) != nil {
		return fmt.Errorf("%s is not in the format of containers-auth.json(5)", p.cfg.AuthFile)
	}
	return nil
}
