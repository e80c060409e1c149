package config

import (
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// Change is a key whose value differs between two configurations.
type Change struct {
	Key string // full name, as in "cni.conf_dirs" or "runtimes.kata.path"
	// Old and New are the values in TOML syntax. A value is "" if the runtime handler of the key
	// does not exist in that configuration.
	Old, New string
	// Restart says that the new value takes effect only when the daemon starts.
	Restart bool
}

// Reload returns the configuration of a daemon that has the configuration c and reads the
// configuration next: the values of next, except for the keys that need a restart. changes
// contains all differences between c and next, in the order of Keys, followed by the runtime
// handlers. Reload returns an error if the values of next do not fit the values of c that
// remain in effect.
func (c Config) Reload(next Config) (effective Config, changes []Change, err error) {
	effective = next
	effective.Runtimes = maps.Clone(next.Runtimes)
	origins := make(map[string]string)
	mine, theirs, result := fields(&c), fields(&next), fields(&effective)
	for i, f := range mine {
		origins[f.key] = "new configuration"
		if reflect.DeepEqual(f.value.Interface(), theirs[i].value.Interface()) {
			continue
		}
		restart := f.reload == reloadRestart || c.togglesTLS(next, f.key) || c.movesMetrics(next, f.key)
		if restart {
			result[i].value.Set(f.value)
			origins[f.key] = "running daemon"
		}
		changes = append(changes, Change{Key: f.key, Old: tomlValue(f.value), New: tomlValue(theirs[i].value), Restart: restart})
	}
	effective.moveRuntimeRoots(next.RunDir)
	changes = append(changes, c.runtimeChanges(effective)...)
	if err := effective.validate(origins); err != nil {
		return Config{}, nil, fmt.Errorf("the new values do not fit the values that remain until a restart: %w", err)
	}
	return effective, changes, nil
}

// togglesTLS reports whether next turns TLS of the streaming server on or off with a key. URLs
// that clients have already received would become invalid.
func (c Config) togglesTLS(next Config, key string) bool {
	return (key == "streaming.tls_cert" || key == "streaming.tls_key") && (c.Streaming.TLSCert == "") != (next.Streaming.TLSCert == "")
}

// movesMetrics reports whether the keys of the metrics keep their values because next turns the metrics on or off,
// and so the counters of the daemon, or because next derives the path of the socket from another run directory.
func (c Config) movesMetrics(next Config, key string) bool {
	if !strings.HasPrefix(key, "metrics.") {
		return false
	}
	toggles := (c.Metrics.Address == MetricsOff) != (next.Metrics.Address == MetricsOff)
	return toggles || next.RunDir != c.RunDir && next.Metrics.Address == filepath.Join(next.RunDir, metricsSocketName)
}

// moveRuntimeRoots replaces the state directories of runtimes that are derived from another run
// directory.
func (c *Config) moveRuntimeRoots(runDir string) {
	if runDir == c.RunDir {
		return
	}
	for name, r := range c.Runtimes {
		if r.Root == RuntimeRoot(runDir, name) {
			r.Root = RuntimeRoot(c.RunDir, name)
			c.Runtimes[name] = r
		}
	}
}

// runtimeChanges returns the keys of runtime handlers that differ, by name.
func (c Config) runtimeChanges(next Config) (changes []Change) {
	names := slices.AppendSeq(sortedKeys(c.Runtimes), maps.Keys(next.Runtimes))
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		before, existed := c.Runtimes[name]
		after, exists := next.Runtimes[name]
		theirs := runtimeFields(after)
		for i, f := range runtimeFields(before) {
			change := Change{Key: "runtimes." + name + "." + f.key}
			if existed {
				change.Old = tomlValue(f.value)
			}
			if exists {
				change.New = tomlValue(theirs[i].value)
			}
			if change.Old != change.New {
				changes = append(changes, change)
			}
		}
	}
	return changes
}
