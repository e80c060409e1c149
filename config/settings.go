package config

// Setting is a key and its value in TOML syntax.
type Setting struct{ Key, Value string }

// Settings returns all keys with their values: first those that have flags, in the order of
// Keys, and then those of the runtime handlers as "runtimes.NAME.KEY", sorted by name.
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
