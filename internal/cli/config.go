package cli

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/criserver/criserver/config"
)

func newConfigCommand(env *environment) *cobra.Command {
	var s settings
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
				return config.PrintDefault(env.stdout)
			}
			cfg, err := s.load()
			if err != nil {
				return err
			}
			return cfg.Print(env.stdout)
		},
	}
	cmd.Flags().BoolVar(&defaults, "default", false, "print a configuration file that contains all keys as comments")
	cmd.Flags().StringVar(&reference, "reference", "", "write the reference page of all configuration keys to a `file`")
	s.addFlags(cmd)
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
