package docs

import (
	"regexp"
	"strings"
	"testing"
)

var (
	// keyName matches inline code that looks like a key of the configuration, with or without a value.
	keyName = regexp.MustCompile(`^([a-z]+)\.([a-z_]+)( = .*)?$`)
	// row matches the name in the first column of a table.
	row = regexp.MustCompile("^\\| `([a-z][A-Za-z_.]*)`")
)

// named are tables whose first column has names that look like keys: keys, steps of timelines, and findings on a host.
var named = []string{"docs/configuration.md", "docs/tracing.md", "docs/host-check.md"}

// notKeys are other names: files, fields of messages, and attributes of traces.
var notKeys = map[string]bool{"metrics.sock": true, "container.log": true, "image.json": true, "image.image_ref": true, "container.id": true}

// TestKeys checks that the keys of the configuration in inline code exist. docs/configuration.md has all keys, because
// another test compares the page with the code.
func TestKeys(t *testing.T) {
	known, tables := make(map[string]bool), make(map[string]bool)
	all := pages(t)
	for _, p := range all {
		for _, name := range named {
			if p.name != name {
				continue
			}
			for _, line := range p.prose {
				if m := row.FindStringSubmatch(line); m != nil {
					known[m[1]] = true
					if table, _, ok := strings.Cut(m[1], "."); ok && name == "docs/configuration.md" {
						tables[table] = true
					}
				}
			}
		}
	}
	if len(known) < 150 || len(tables) < 8 {
		t.Fatalf("names in %q: got %d in %d tables, want at least 150 in 8", named, len(known), len(tables))
	}
	for _, p := range all {
		for i, line := range p.prose {
			for _, m := range span.FindAllStringSubmatch(line, -1) {
				key, _, _ := strings.Cut(m[1], " ")
				if k := keyName.FindStringSubmatch(m[1]); k != nil && tables[k[1]] && !known[key] && !notKeys[key] {
					t.Errorf("%s:%d: the configuration has no key %s", p.name, i+1, key)
				}
			}
		}
	}
}
