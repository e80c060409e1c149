package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"

	"github.com/BurntSushi/toml"
)

// Source defines where the configuration is read from.
type Source struct {
	// File is the main file. It must exist unless it is DefaultFile. The drop-in
	// files are the *.toml files of the directory File + ".d", in lexical order.
	File string
	// Flags contains the values of command line flags by key, as TOML values or
	// without quotes. They take precedence over all files.
	Flags map[string]string
}

// Load reads, merges and validates the configuration. Tables are merged key by key, and
// lists are replaced. The error describes all invalid keys with their file and the rule
// that they violate.
func Load(src Source) (Config, error) {
	c := Default()
	files, err := src.files()
	if err != nil {
		return Config{}, err
	}
	origins := make(map[string]string) // the file or flag that set a key
	var errs []error
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, merge(&c, file, string(b), origins))
	}
	for _, key := range sortedKeys(src.Flags) {
		errs = append(errs, merge(&c, "--"+FlagName(key), flagTOML(key, src.Flags[key]), origins))
	}
	if err := errors.Join(errs...); err != nil {
		return Config{}, err
	}
	c.setDependentDefaults()
	if err := c.validate(origins); err != nil {
		return Config{}, err
	}
	return c, nil
}

// files returns the main file, if it exists, and the drop-in files.
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

// merge decodes TOML text into c. It stores source, the name of the file or flag, as the
// origin of each key in the text.
func merge(c *Config, source, text string, origins map[string]string) error {
	runtimes := c.Runtimes
	c.Runtimes = nil
	md, err := toml.Decode(text, c)
	c.Runtimes = mergeRuntimes(runtimes, c.Runtimes, md)
	if err != nil {
		return fmt.Errorf("%s: %s", source, tomlMessage(err))
	}
	var errs []error
	for _, key := range md.Undecoded() {
		errs = append(errs, fmt.Errorf("%s: %s: unknown key", source, key))
	}
	for _, key := range md.Keys() {
		origins[key.String()] = source
	}
	return errors.Join(errs...)
}

// mergeRuntimes merges decoded handlers into the handlers of earlier files key by key. The
// TOML library would replace a handler as a whole, because it is a struct in a map.
func mergeRuntimes(earlier, decoded map[string]Runtime, md toml.MetaData) map[string]Runtime {
	if earlier == nil {
		return decoded
	}
	for name, r := range decoded {
		merged := earlier[name]
		from, to := reflect.ValueOf(r), reflect.ValueOf(&merged).Elem()
		for i := range from.NumField() {
			if md.IsDefined("runtimes", name, from.Type().Field(i).Tag.Get("toml")) {
				to.Field(i).Set(from.Field(i))
			}
		}
		earlier[name] = merged
	}
	return earlier
}

// tomlMessage returns the message of an error of the TOML library without the prefix of the
// library, because merge puts the name of the file in its place.
func tomlMessage(err error) string {
	var parse toml.ParseError
	if errors.As(err, &parse) {
		return strings.TrimPrefix(parse.Error(), "toml: ")
	}
	return strings.TrimPrefix(err.Error(), "toml: ")
}

// flagTOML returns the value of a command line flag as a line of TOML. On the command line,
// the elements of a list may be separated by commas, and strings need no quotes.
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
