package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/BurntSushi/toml"
)

// Source says where configuration is read from.
type Source struct {
	// File is the main file. It must exist unless it is DefaultFile. Drop-ins
	// are the *.toml files of the directory File + ".d", in lexical order.
	File string
	// Flags are values given on the command line by key, in the form of a
	// TOML value or as a bare word. They win over every file.
	Flags map[string]string
}

// Load reads, merges and checks the configuration. A table is merged key by
// key, a list is replaced. The error names every offence: its file, key and rule.
func Load(src Source) (Config, error) {
	c := Default()
	origin := make(map[string]string)
	files, err := src.files()
	if err != nil {
		return Config{}, err
	}
	var errs []error
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, merge(&c, file, string(b), origin))
	}
	for _, key := range sortedKeys(src.Flags) {
		errs = append(errs, merge(&c, "--"+FlagName(key), flagTOML(key, src.Flags[key]), origin))
	}
	if err := errors.Join(errs...); err != nil {
		return Config{}, err
	}
	c.fill()
	if err := c.check(origin); err != nil {
		return Config{}, err
	}
	return c, nil
}

func (s Source) files() ([]string, error) {
	if s.File == "" {
		s.File = DefaultFile
	}
	var files []string
	_, err := os.Stat(s.File)
	switch {
	case err == nil:
		files = append(files, s.File)
	case s.File != DefaultFile || !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	dropins, err := filepath.Glob(filepath.Join(s.File+".d", "*.toml"))
	if err != nil {
		return nil, fmt.Errorf("configuration drop-ins of %s: %w", s.File, err)
	}
	sort.Strings(dropins)
	return append(files, dropins...), nil
}

// merge decodes one piece of TOML over c and notes in origin where each key
// came from.
func merge(c *Config, name, text string, origin map[string]string) error {
	kept := c.Runtimes
	c.Runtimes = nil
	md, err := toml.Decode(text, c)
	c.Runtimes = mergeRuntimes(kept, c.Runtimes, md)
	if err != nil {
		return fmt.Errorf("%s: %s", name, describe(err))
	}
	var errs []error
	for _, key := range md.Undecoded() {
		errs = append(errs, fmt.Errorf("%s: %s: unknown key", name, key))
	}
	for _, key := range md.Keys() {
		origin[key.String()] = name
	}
	return errors.Join(errs...)
}

// mergeRuntimes lets a drop-in set one key of a handler and keep the others,
// which decoding into a map of structs does not.
func mergeRuntimes(kept, read map[string]Runtime, md toml.MetaData) map[string]Runtime {
	if kept == nil {
		return read
	}
	for name, r := range read {
		old := kept[name]
		for key, field := range map[string][2]*string{
			"path": {&old.Path, &r.Path}, "type": {&old.Type, &r.Type}, "root": {&old.Root, &r.Root},
		} {
			if md.IsDefined("runtimes", name, key) {
				*field[0] = *field[1]
			}
		}
		if md.IsDefined("runtimes", name, "allowed_annotations") {
			old.AllowedAnnotations = r.AllowedAnnotations
		}
		if md.IsDefined("runtimes", name, "options") {
			old.Options = r.Options
		}
		kept[name] = old
	}
	return kept
}

// describe cuts the library's prefix off, as the file is named before it.
func describe(err error) string {
	var parse toml.ParseError
	if errors.As(err, &parse) {
		return strings.TrimPrefix(parse.Error(), "toml: ")
	}
	return strings.TrimPrefix(err.Error(), "toml: ")
}

// flagTOML writes a command line value as TOML. Lists may be given with commas,
// strings without quotes.
func flagTOML(key, value string) string {
	f, ok := lookup(key)
	if !ok {
		return key + " = " + value
	}
	switch {
	case f.isList() && !strings.HasPrefix(value, "["):
		var items []string
		for _, s := range strings.Split(value, ",") {
			if s != "" {
				items = append(items, quote(s))
			}
		}
		return key + " = [" + strings.Join(items, ", ") + "]"
	case f.isText() && !strings.HasPrefix(value, `"`):
		return key + " = " + quote(value)
	}
	return key + " = " + value
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
