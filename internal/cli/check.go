package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/internal/daemon"
)

func newCheckCommand(env *environment) *cobra.Command {
	var s settings
	var repair bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Verify the image store",
		Long: `Verify the image store, and print each problem. The daemon must not run; containers may
run. The exit code is 1 if a problem remains.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			unix.Umask(umask)
			cfg.LogLevel = "warning" // the report lists the problems
			if err := daemon.ConfigureLogging(cfg); err != nil {
				return err
			}
			return runCheck(cmd.Context(), cfg, repair, env.stdout)
		},
	}
	cmd.Flags().BoolVar(&repair, "repair", false, "delete broken images and layers that no container uses")
	s.addFlags(cmd)
	return cmd
}

// runCheck verifies the image store and prints each problem. If repair is set, broken images
// and layers are deleted unless a container uses them. The returned error says that a problem
// remains.
func runCheck(ctx context.Context, cfg config.Config, repair bool, out io.Writer) error {
	check, err := daemon.CheckImages(ctx, cfg, repair)
	remaining := 0
	for _, p := range check.Problems {
		if !p.Repaired {
			remaining++
		}
		if _, err := fmt.Fprintln(out, problemLine(p, repair)); err != nil {
			return err
		}
	}
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if remaining > 0 {
		return fmt.Errorf("check: %d problems in the image store %s", remaining, cfg.Root)
	}
	_, err = fmt.Fprintf(out, "%d images checked, %d repaired\n", check.Images, len(check.Problems))
	return err
}

// problemLine describes a problem. The line begins with the image, because the user has to pull
// the image again, and ends with the effect of a repair.
func problemLine(p daemon.ImageProblem, repair bool) string {
	var b strings.Builder
	if p.Image != "" {
		b.WriteString("image " + p.Image.String())
	} else {
		b.WriteString("layer " + p.Layer.String() + ", which no image uses")
	}
	if len(p.Tags) > 0 {
		b.WriteString(" (" + strings.Join(p.Tags, " ") + ")")
	}
	fmt.Fprintf(&b, ": %v", p.Err)
	switch {
	case p.Repaired:
		b.WriteString("; dropped")
	case repair:
	case p.User != "":
		fmt.Fprintf(&b, "; --repair leaves it as it is: %s", p.User)
	default:
		b.WriteString("; --repair drops it")
	}
	return b.String()
}
