package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/internal/cli/command"
)

func newConfigCommand(env *command.Environment) *cobra.Command {
	var s command.Settings
	var defaults bool
	var reference string
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print the effective configuration with comments",
		Long: `Print the configuration that the daemon would use with the same flags: the defaults, the
configuration files, and the flags, in this order.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			switch {
			case reference != "":
				return writeReference(reference)
			case defaults:
				return config.PrintDefault(env.Stdout)
			}
			cfg, err := s.Load()
			if err != nil {
				return err
			}
			return cfg.Print(env.Stdout)
		},
	}
	cmd.Flags().BoolVar(&defaults, "default", false, "print a configuration file that contains all keys as comments")
	cmd.Flags().StringVar(&reference, "reference", "", "write the reference page of all configuration keys to a `file`")
	cmd.MarkFlagsMutuallyExclusive("default", "reference")
	s.AddFlags(cmd)
	cmd.AddCommand(newConfigValidateCommand(env), newConfigDiffCommand(env))
	return cmd
}

// writeReference writes the reference page of all configuration keys.
func writeReference(file string) error {
	f, err := os.Create(filepath.Clean(file))
	if err != nil {
		return err
	}
	return errors.Join(config.Reference(f), f.Close())
}

func newConfigValidateCommand(env *command.Environment) *cobra.Command {
	return &cobra.Command{
		Use:   "validate [FILE]",
		Short: "Validate a configuration file with its drop-in files",
		Long: `Validate a configuration file with the drop-in files in FILE.d. Without an argument, FILE is
` + config.DefaultFile + `. The command prints all problems, each with the file, the key and the
rule, and the exit code is then 1. It does not check the content of files that keys name.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			var file string
			if len(args) == 1 {
				file = args[0]
			}
			if _, err := config.Load(config.Source{File: file}); err != nil {
				return err
			}
			_, err := fmt.Fprintln(env.Stdout, "The configuration is valid.")
			return err
		},
	}
}

func newConfigDiffCommand(env *command.Environment) *cobra.Command {
	var out command.Output
	cmd := &cobra.Command{
		Use:   "diff",
		Short: "Compare the configuration files with the defaults and with the running daemon",
		Long: `List the keys whose values in the configuration files differ from the defaults, or from the
configuration of the running daemon. A value of the daemon differs if the files have changed since
the daemon read them, or if a flag of the daemon sets the key. If the daemon does not run, only the
defaults are compared.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(config.Source{File: env.ConfigFile})
			if err != nil {
				return err
			}
			running, err := runningSettings(cmd.Context(), env)
			if err != nil {
				fmt.Fprintf(env.Stderr, "criserver: no comparison with the daemon: %v\n", err)
			}
			diff := diffSettings(config.Defaults(cfg), cfg.Settings(), running)
			return out.Print(env.Stdout, diff, func(t *command.Table) { writeDiff(t, diff, running != nil) })
		},
	}
	out.AddFlag(cmd)
	env.AddConnectionFlags(cmd)
	return cmd
}

// runningSettings returns the configuration of the running daemon.
func runningSettings(ctx context.Context, env *command.Environment) ([]config.Setting, error) {
	conn, err := env.AdminConnection(ctx)
	if err != nil {
		return nil, err
	}
	r, err := adminv1.NewDaemonClient(conn).GetConfig(ctx, &adminv1.GetConfigRequest{})
	if err != nil {
		return nil, err
	}
	list := make([]config.Setting, 0, len(r.GetSettings()))
	for _, s := range r.GetSettings() {
		list = append(list, config.Setting{Key: s.GetKey(), Value: s.GetValue()})
	}
	return list, nil
}

// settingDiff is a key whose values differ. The value of a key that does not exist is empty.
type settingDiff struct {
	Key     string  `json:"key"`
	Default string  `json:"default"`
	File    string  `json:"file"`
	Running *string `json:"running"` // nil if the daemon does not run
}

// diffSettings returns the keys whose values in the files differ from the defaults or from the
// running daemon. running is nil if the daemon does not run.
func diffSettings(defaults, files, running []config.Setting) []settingDiff {
	keys, seen := []string{}, make(map[string]bool)
	index := func(list []config.Setting) map[string]string {
		m := make(map[string]string)
		for _, s := range list {
			m[s.Key] = s.Value
			if !seen[s.Key] {
				seen[s.Key] = true
				keys = append(keys, s.Key)
			}
		}
		return m
	}
	d, f, r := index(defaults), index(files), index(running)
	diff := []settingDiff{}
	for _, key := range keys {
		entry := settingDiff{Key: key, Default: d[key], File: f[key]}
		if running != nil {
			value := r[key]
			entry.Running = &value
		}
		if entry.File != entry.Default || entry.Running != nil && *entry.Running != entry.File {
			diff = append(diff, entry)
		}
	}
	return diff
}

// writeDiff writes the keys whose values differ.
func writeDiff(t *command.Table, diff []settingDiff, withRunning bool) {
	header := []any{"KEY", "DEFAULT", "FILES"}
	if withRunning {
		header = append(header, "DAEMON", "FILES AND DAEMON")
	}
	t.Row(header...)
	for _, d := range diff {
		cells := []any{d.Key, d.Default, d.File}
		if d.Running != nil {
			note := "same"
			if *d.Running != d.File {
				note = "differs"
			}
			cells = append(cells, *d.Running, note)
		}
		t.Row(cells...)
	}
}
