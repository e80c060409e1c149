package config

import (
	"reflect"
	"strconv"
	"strings"
	"time"
)

// field is a key of the configuration and its value in a Config.
type field struct {
	key    string // full name, as in "cni.conf_dirs"
	value  reflect.Value
	reload string // the reload tag: reloadYes or reloadRestart
}

// The values of the reload tag.
const (
	reloadYes     = "yes"
	reloadRestart = "restart"
)

func newField(prefix string, f reflect.StructField, v reflect.Value) field {
	return field{key: prefix + f.Tag.Get("toml"), value: v, reload: f.Tag.Get("reload")}
}

func (f field) isList() bool { return f.value.Kind() == reflect.Slice }

func (f field) isText() bool {
	return f.value.Kind() == reflect.String || f.value.Type() == reflect.TypeFor[time.Duration]()
}

// fields returns the keys of c in the order of the struct fields, except that keys of tables
// follow all other keys, as TOML requires. The keys of runtime handlers are not included.
func fields(c *Config) []field {
	var top, tables []field
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		structField := v.Type().Field(i)
		switch f := v.Field(i); f.Kind() {
		case reflect.Struct:
			for j := range f.NumField() {
				tables = append(tables, newField(structField.Tag.Get("toml")+".", f.Type().Field(j), f.Field(j)))
			}
		case reflect.Map:
		default:
			top = append(top, newField("", structField, f))
		}
	}
	return append(top, tables...)
}

// runtimeFields returns the keys of a runtime handler, without the prefix "runtimes.NAME.".
func runtimeFields(r Runtime) []field {
	v := reflect.ValueOf(r)
	var out []field
	for i := range v.NumField() {
		out = append(out, newField("", v.Type().Field(i), v.Field(i)))
	}
	return out
}

// lookup returns the key of that name and its default value.
func lookup(key string) (field, bool) {
	c := Default()
	for _, f := range fields(&c) {
		if f.key == key {
			return f, true
		}
	}
	return field{}, false
}

// Keys returns the keys that have command line flags.
func Keys() []string {
	c := Default()
	var keys []string
	for _, f := range fields(&c) {
		keys = append(keys, f.key)
	}
	return keys
}

// RuntimeKeys returns the keys of a runtime handler, as in "runtimes.NAME.path".
func RuntimeKeys() []string {
	var keys []string
	for _, f := range runtimeFields(Runtime{}) {
		keys = append(keys, "runtimes.NAME."+f.key)
	}
	return keys
}

// FlagName returns the name of the command line flag of a key. The flag of "cni.conf_dirs" is
// "cni.conf-dirs".
func FlagName(key string) string { return strings.ReplaceAll(key, "_", "-") }

// Help returns the description of a key.
func Help(key string) string { return help[key] }

// tomlValue returns a value in TOML syntax.
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

// quote returns a TOML basic string. strconv.Quote does not fit, because TOML has no \x
// escapes.
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
