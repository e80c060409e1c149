package config

import (
	"reflect"
	"strconv"
	"strings"
	"time"
)

// field is one key of the configuration, found by walking the struct.
type field struct {
	key   string // full name, as in "cni.conf_dirs"
	value reflect.Value
}

func (f field) isList() bool { return f.value.Kind() == reflect.Slice }

func (f field) isText() bool {
	return f.value.Kind() == reflect.String || f.value.Type() == reflect.TypeFor[time.Duration]()
}

// fields lists the keys in the order of the struct, those of tables after those
// of the top, as TOML needs it. Handlers are not among them.
func fields(c *Config) []field {
	var top, tables []field
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		key := v.Type().Field(i).Tag.Get("toml")
		switch f := v.Field(i); f.Kind() {
		case reflect.Struct:
			for j := range f.NumField() {
				tables = append(tables, field{key + "." + f.Type().Field(j).Tag.Get("toml"), f.Field(j)})
			}
		case reflect.Map:
		default:
			top = append(top, field{key, f})
		}
	}
	return append(top, tables...)
}

func lookup(key string) (field, bool) {
	c := Default()
	for _, f := range fields(&c) {
		if f.key == key {
			return f, true
		}
	}
	return field{}, false
}

// Keys lists every key that a command line flag can set.
func Keys() []string {
	c := Default()
	var keys []string
	for _, f := range fields(&c) {
		keys = append(keys, f.key)
	}
	return keys
}

// FlagName is the command line flag of a key: "cni.conf_dirs" is cni.conf-dirs.
func FlagName(key string) string { return strings.ReplaceAll(key, "_", "-") }

// Help returns what a key means.
func Help(key string) string { return help[key] }

// tomlValue writes a value as TOML.
func tomlValue(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return quote(x.String())
	case string:
		return quote(x)
	case []string:
		items := make([]string, len(x))
		for i, s := range x {
			items[i] = quote(s)
		}
		return "[" + strings.Join(items, ", ") + "]"
	case bool:
		return strconv.FormatBool(x)
	default:
		return strconv.FormatInt(v.Int(), 10)
	}
}

// quote writes a TOML basic string. Its escapes for control characters are
// \uXXXX, where Go's would be \x.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			b.WriteString(`\u00`)
			b.WriteString(strconv.FormatInt(int64(r)+0x100, 16)[1:])
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
