package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/internal/daemon"
	"github.com/criserver/criserver/internal/hostcheck"
)

// imagesGroup is the group of the check of the image store. The groups of package hostcheck are
// the others.
const imagesGroup = "images"

// checkGroups returns the names of all groups of checks.
func checkGroups() []string { return append(hostcheck.Groups(), imagesGroup) }

// checkOptions are the flags of the command check.
type checkOptions struct {
	only   []string // groups, or nil for all groups
	repair bool
}

func (o checkOptions) has(group string) bool {
	return len(o.only) == 0 || slices.Contains(o.only, group)
}

func newCheckCommand(env *environment) *cobra.Command {
	var s settings
	var o checkOptions
	var out output
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the host and the image store",
		Long: `Check whether the host can run the daemon and its containers, and verify the image store.
The checks of the host change nothing, and the daemon may run. The check of the image store
(group images) needs a daemon that does not run; containers may run. While the daemon runs,
the command leaves this check out and says so, unless --only=images or --repair demands it.

The exit code is 1 if there is a finding with the severity error.
The groups are ` + strings.Join(checkGroups(), ", ") + `.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, g := range o.only {
				if !slices.Contains(checkGroups(), g) {
					return &usageError{fmt.Errorf("--only: unknown group %q; the groups are %s", g, strings.Join(checkGroups(), ", "))}
				}
			}
			cfg, err := s.load()
			if err != nil {
				return err
			}
			unix.Umask(umask)
			cfg.LogLevel = "warning" // the report lists the problems
			if err := daemon.ConfigureLogging(cfg); err != nil {
				return err
			}
			report, err := runCheck(cmd.Context(), cfg, o)
			if err != nil {
				return err
			}
			if err := out.print(env.stdout, report, report.writeTable); err != nil {
				return err
			}
			if report.errors() > 0 {
				return errReported
			}
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&o.only, "only", nil, "run only the checks of these `groups`")
	_ = cmd.RegisterFlagCompletionFunc("only", cobra.FixedCompletions(checkGroups(), cobra.ShellCompDirectiveNoFileComp))
	cmd.Flags().BoolVar(&o.repair, "repair", false, "delete broken images and layers that no container uses; the daemon must not run")
	out.addFlag(cmd)
	s.addFlags(cmd)
	return cmd
}

// checkReport is the output of the command check. Its names in JSON are part of the interface of
// the command.
type checkReport struct {
	Findings []hostcheck.Finding `json:"findings"`
	Images   *imageReport        `json:"images,omitempty"` // absent if the store was not checked
}

// imageReport is the result of the check of the image store.
type imageReport struct {
	Checked  int      `json:"checked"`
	Repaired int      `json:"repaired"`
	Skipped  string   `json:"skipped,omitempty"` // the reason why the store was not checked
	Problems []string `json:"problems"`          // including the repaired ones
}

// runCheck runs the checks of the selected groups.
func runCheck(ctx context.Context, cfg config.Config, o checkOptions) (*checkReport, error) {
	report := &checkReport{Findings: []hostcheck.Finding{}}
	groups := slices.DeleteFunc(slices.Clone(o.only), func(g string) bool { return g == imagesGroup })
	if len(groups) > 0 || len(o.only) == 0 {
		findings, err := daemon.CheckHost(ctx, cfg, groups...)
		if err != nil {
			return nil, fmt.Errorf("check the host: %w", err)
		}
		report.Findings = append(report.Findings, findings...)
	}
	if o.repair || o.has(imagesGroup) {
		if err := report.checkImages(ctx, cfg, o); err != nil {
			return nil, err
		}
	}
	return report, nil
}

// checkImages verifies the image store. If repair is set, broken images and layers are deleted
// unless a container uses them.
func (r *checkReport) checkImages(ctx context.Context, cfg config.Config, o checkOptions) error {
	r.Images = &imageReport{Problems: []string{}}
	check, err := daemon.CheckImages(ctx, cfg, o.repair)
	if errors.Is(err, daemon.ErrInUse) && !o.repair && len(o.only) == 0 {
		r.Images.Skipped = err.Error()
		return nil
	}
	if err != nil {
		return fmt.Errorf("check the image store: %w", err)
	}
	r.Images.Checked = check.Images
	for _, p := range check.Problems {
		line := problemLine(p, o.repair)
		r.Images.Problems = append(r.Images.Problems, line)
		if p.Repaired {
			r.Images.Repaired++
			continue
		}
		r.Findings = append(r.Findings, hostcheck.Finding{
			Group: imagesGroup, ID: "images.broken", Severity: hostcheck.Error, Problem: line,
			Reason: "Containers of the image do not start, or read wrong files.", Remedy: "Stop the daemon, run criserver check --repair, and pull the image again.",
		})
	}
	return nil
}

// errors returns the number of findings with the severity error.
func (r *checkReport) errors() (n int) {
	for _, f := range r.Findings {
		if f.Severity == hostcheck.Error {
			n++
		}
	}
	return n
}

func (r *checkReport) writeTable(t *table) {
	for _, f := range r.Findings {
		if f.Group == imagesGroup {
			continue // follows with the repaired problems
		}
		t.line("%s %s: %s", f.Severity, f.ID, f.Problem)
		t.line("    %s", f.Reason)
		t.line("    Remedy: %s", f.Remedy)
	}
	if i := r.Images; i != nil && i.Skipped != "" {
		t.line("The image store was not checked: %s", i.Skipped)
	} else if i != nil {
		for _, p := range i.Problems {
			t.line("%s", p)
		}
		t.line("%d images checked, %d repaired", i.Checked, i.Repaired)
	}
	t.line("%d findings, of which %d are errors", len(r.Findings), r.errors())
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
