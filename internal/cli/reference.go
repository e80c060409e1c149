package cli

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/criserver/criserver/internal/cli/command"
)

// Reference returns the reference page of all commands, docs/commands.md. The flags of
// configuration keys are on the page of the configuration.
func Reference(root *cobra.Command) []byte {
	HideSettings(root, "Each key of the [configuration](configuration.md) is also a flag.")
	var b bytes.Buffer
	b.WriteString(`# Commands

This page is generated from the code by ` + "`make docs`" + `. A test checks that it is up to date.

The exit codes of all commands are 0 for success, 1 if the operation failed or a problem was found, and 2 for wrong
usage. Errors are printed to the standard error stream and begin with ` + "`criserver:`" + `. The names in the output
formats ` + "`json`" + ` and ` + "`yaml`" + ` do not change; new names may be added.

Commands that talk to the daemon find its sockets in the configuration, unless ` + "`--admin-socket`" + ` or
` + "`--socket`" + ` is given. They use the [administration API](admin-api.md).

| Command | |
|---|---|
`)
	commands := allCommands(root)
	for _, c := range commands {
		fmt.Fprintf(&b, "| [`%s`](#%s) | %s |\n", c.CommandPath(), strings.ReplaceAll(c.CommandPath(), " ", "-"), c.Short)
	}
	for _, c := range commands {
		writeCommand(&b, c)
	}
	return b.Bytes()
}

// allCommands returns a command and its subcommands, parents first, without the commands that
// cobra adds.
func allCommands(cmd *cobra.Command) []*cobra.Command {
	list := []*cobra.Command{cmd}
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() && sub.Name() != "completion" && sub.Name() != "help" {
			list = append(list, allCommands(sub)...)
		}
	}
	return list
}

// writeCommand writes the section of a command.
func writeCommand(b *bytes.Buffer, c *cobra.Command) {
	text := c.Long
	if text == "" {
		text = c.Short + "."
	}
	fmt.Fprintf(b, "\n## %s\n\n%s\n\n```usage\n%s\n```\n", c.CommandPath(), text, c.UseLine())
	var flags []*pflag.Flag
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden && f.Name != "help" {
			flags = append(flags, f)
		}
	})
	if len(flags) == 0 {
		return
	}
	slices.SortFunc(flags, func(a, b *pflag.Flag) int { return strings.Compare(a.Name, b.Name) })
	b.WriteString("\n| Flag | |\n|---|---|\n")
	for _, f := range flags {
		value, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		if value != "" {
			name += " " + strings.ToUpper(value)
		}
		if f.DefValue != "" && f.DefValue != "false" && !strings.Contains(usage, "(default") {
			usage += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		fmt.Fprintf(b, "| `%s` | %s |\n", name, strings.ReplaceAll(usage, "|", `\|`))
	}
}

// HideSettings hides the flags of configuration keys, which have a reference page of their
// own, in a command and its subcommands. It adds a note to the description of each command
// with such flags.
func HideSettings(cmd *cobra.Command, note string) {
	hidden := false
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Annotations[command.SettingAnnotation] != nil {
			f.Hidden, hidden = true, true
		}
	})
	if hidden {
		cmd.Long += "\n\n" + note
	}
	for _, sub := range cmd.Commands() {
		HideSettings(sub, note)
	}
}
