package main

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/cpuguy83/go-md2man/v2/md2man"

	"github.com/criserver/criserver/config"
)

// settingsManual returns the man page criserver.toml(5).
func settingsManual(date time.Time) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `%% "CRISERVER.TOML" "5" "%s" "criserver" "criserver"

# NAME

criserver.toml - configuration file of criserver

# SYNOPSIS

%s, and *.toml in the directory %s.d

# DESCRIPTION

The file is in the format TOML. Drop-in files take precedence over the main file, in lexical
order; flags of the daemon take precedence over all files. A list is replaced as a whole. Every
key has a default, so the file need not exist. The command **criserver config validate** checks a
file, and **criserver config --default** prints a file with all keys as comments.

A key with a dot is in a table: **cni.conf_dirs** is the key **conf_dirs** of the table **[cni]**.
The flag of the key is **--cni.conf-dirs**.

# KEYS

`, date.Format("Jan 2006"), config.DefaultFile, config.DefaultFile)
	defaults := make(map[string]string)
	for _, s := range config.Default().Settings() {
		defaults[s.Key] = s.Value
	}
	for _, key := range config.Keys() {
		writeKey(&b, key, config.Help(key)+" Default: "+defaults[key])
	}
	b.WriteString("# RUNTIME HANDLERS\n\n" + escape(config.Help("runtimes")) + "\n\n")
	for _, key := range config.RuntimeKeys() {
		writeKey(&b, key, config.Help(key))
	}
	b.WriteString("# SEE ALSO\n\n**criserver(8)**, **criserver-config(8)**\n")
	return md2man.Render(b.Bytes())
}

// writeKey writes the description of a key as a definition.
func writeKey(b *bytes.Buffer, key, text string) {
	fmt.Fprintf(b, "**%s**\n:   %s\n\n", key, escape(text))
}

// escape escapes the characters of text that have a meaning in Markdown.
func escape(text string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "_", `\_`, "`", "", "[", `\[`, "]", `\]`, "<", `\<`, "{", `\{`, "|", `\|`).Replace(text)
}
