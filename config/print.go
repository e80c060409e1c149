package config

import (
	"fmt"
	"io"
	"strings"
)

// Print writes the configuration as TOML with a comment above each key. Load can read the
// output.
func (c Config) Print(w io.Writer) error { return c.print(&printer{w: w}) }

// PrintDefault writes the default configuration as Print does, but with a # before each key, so
// that the output is a configuration file that changes nothing. A key without its # replaces the
// default.
func PrintDefault(w io.Writer) error {
	p := &printer{w: w, keyPrefix: "#"}
	p.line(`# Configuration of criserver. Each key has its default value here; remove the # before a key to
# change it. Drop-in files in the directory criserver.toml.d take precedence over this file. The
# daemon reads the configuration when it starts and when it reloads.
`)
	return Default().print(p)
}

func (c Config) print(p *printer) error {
	table := ""
	for _, f := range fields(&c) {
		name := f.key
		if t, rest, ok := strings.Cut(f.key, "."); ok {
			if t != table {
				p.line("\n[%s]", t)
				table = t
			}
			name = rest
		}
		p.comment(help[f.key])
		p.line("%s%s = %s", p.keyPrefix, name, tomlValue(f.value))
	}
	p.line("")
	p.comment(help["runtimes"])
	for _, name := range sortedKeys(c.Runtimes) {
		p.line("[runtimes.%s]", quote(name))
		for _, f := range runtimeFields(c.Runtimes[name]) {
			p.comment(help["runtimes.NAME."+f.key])
			p.line("%s%s = %s", p.keyPrefix, f.key, tomlValue(f.value))
		}
	}
	return p.err
}

// Reference writes the reference page of all keys, docs/configuration.md.
func Reference(w io.Writer) error {
	p := &printer{w: w}
	p.line(`# Configuration

This page is generated from the code by ` + "`criserver config --reference`" + `. A test checks that it is up to date.

The daemon reads its configuration in this order:

1. the main file: ` + "`" + DefaultFile + "`" + `, or the file that ` + "`--config`" + ` names
2. drop-in files: ` + "`*.toml`" + ` in the directory whose name is the name of the main file with ` + "`.d`" + ` appended, in lexical order
3. command line flags

Later values replace earlier values; a list is replaced as a whole. Every key has a default, so the daemon also runs without a
configuration file. If a key is unknown or a value is invalid, the daemon does not start, and the error names the file, the key and
the rule. ` + "`criserver config`" + ` prints the effective configuration. The daemon reads the configuration when it starts and when it reloads.
It checks the content of a file that a key names when it reads that file; it reads some files at each use.

Each key except the keys of the runtime handlers is also a command line flag: ` + "`cni.conf_dirs`" + ` is ` + "`--cni.conf-dirs a,b`" + `.

The column "reload" says when a changed value takes effect. **yes**: with the next reload, for pods, containers and pulls that begin
after it. **restart**: when the daemon starts; a reload keeps the old value and names the key. [reload.md](reload.md) describes reloads.

| key | default | reload | description |
|---|---|---|---|`)
	c := Default()
	for _, f := range fields(&c) {
		p.line("| `%s` | `%s` | %s | %s |", f.key, tomlValue(f.value), f.reload, cell(help[f.key]))
	}
	p.line("| `runtimes` | | %s | %s |", reloadYes, cell(help["runtimes"]))
	for _, f := range runtimeFields(Runtime{}) {
		key := "runtimes.NAME." + f.key
		p.line("| `%s` | `%s` | %s | %s |", key, tomlValue(f.value), f.reload, cell(help[key]))
	}
	return p.err
}

// cell returns text for a cell of a Markdown table.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// printer writes lines and keeps the first error.
type printer struct {
	w         io.Writer
	keyPrefix string // is written before each key
	err       error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

// comment writes text as a TOML comment, wrapped at 100 columns.
func (p *printer) comment(text string) {
	line := "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > 100 {
			p.line("%s", line)
			line = "#"
		}
		line += " " + word
	}
	p.line("%s", line)
}
