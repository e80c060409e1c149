package config

import "strings"

// Setting is a key and its value in TOML syntax.
type Setting struct{ Key, Value string }

// Settings returns all keys with their values: first those that have flags, in the order of
// Keys, and then the keys of the runtime handlers as "runtimes.NAME.KEY", sorted by name.
func (c Config) Settings() []Setting {
	var list []Setting
	for _, f := range fields(&c) {
		list = append(list, Setting{f.key, tomlValue(f.value)})
	}
	for _, name := range sortedKeys(c.Runtimes) {
		for _, f := range runtimeFields(c.Runtimes[name]) {
			list = append(list, Setting{"runtimes." + name + "." + f.key, tomlValue(f.value)})
		}
	}
	return list
}

// Defaults returns the default values of all keys that c has, in the order of Settings. Keys
// whose defaults depend on other keys have the defaults for the values of c.
func Defaults(c Config) []Setting {
	d := Default()
	d.RunDir = c.RunDir
	d.Runtimes = make(map[string]Runtime)
	for name, r := range c.Runtimes {
		d.Runtimes[name] = Runtime{Path: r.Path}
	}
	d.setDependentDefaults()
	d.RunDir = Default().RunDir
	list := d.Settings()
	for i, s := range list {
		// A handler has no default for its path.
		if strings.HasPrefix(s.Key, "runtimes.") && strings.HasSuffix(s.Key, ".path") {
			list[i].Value = ""
		}
	}
	return list
}
