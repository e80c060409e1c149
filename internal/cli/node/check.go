package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/internal/cli/command"
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

func newCheckCommand(env *command.Environment) *cobra.Command {
	var s command.Settings
	var o checkOptions
	var out command.Output
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the host and the image store",
		Long: `Check whether the host can run the daemon and its containers, and verify the image store.
The command changes nothing without --repair. While the daemon runs, the command lets the
daemon verify the image store (group images). If the daemon does not answer, the command
leaves this check out and says so, unless --only=images demands it. A repair needs a daemon
that does not run; containers may run.

The exit code is 1 if there is a finding with the severity error.
The groups are ` + strings.Join(checkGroups(), ", ") + `.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, g := range o.only {
				if !slices.Contains(checkGroups(), g) {
					return command.UsageErrorf("--only: unknown group %q; the groups are %s", g, strings.Join(checkGroups(), ", "))
				}
			}
			cfg, err := s.Load()
			if err != nil {
				return err
			}
			unix.Umask(umask)
			cfg.LogLevel = "warning" // the report lists the problems
			if err := daemon.ConfigureLogging(cfg); err != nil {
				return err
			}
			report, err := (&checkRun{o, env, cfg}).run(cmd.Context())
			if err != nil {
				return err
			}
			if err := out.Print(env.Stdout, report, report.writeTable); err != nil {
				return err
			}
			if report.errors() > 0 {
				return command.ErrReported
			}
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&o.only, "only", nil, "run only the checks of these `groups`")
	_ = cmd.RegisterFlagCompletionFunc("only", cobra.FixedCompletions(checkGroups(), cobra.ShellCompDirectiveNoFileComp))
	cmd.Flags().BoolVar(&o.repair, "repair", false, "delete broken images and layers that no container uses; the daemon must not run")
	out.AddFlag(cmd)
	s.AddFlags(cmd)
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

// checkRun is one run of the command check.
type checkRun struct {
	checkOptions
	env *command.Environment
	cfg config.Config
}

// run runs the checks of the selected groups.
func (c *checkRun) run(ctx context.Context) (*checkReport, error) {
	report := &checkReport{Findings: []hostcheck.Finding{}}
	groups := slices.DeleteFunc(slices.Clone(c.only), func(g string) bool { return g == imagesGroup })
	if len(groups) > 0 || len(c.only) == 0 {
		findings, err := daemon.CheckHost(ctx, c.cfg, groups...)
		if err != nil {
			return nil, fmt.Errorf("check the host: %w", err)
		}
		report.Findings = append(report.Findings, findings...)
	}
	if c.repair || c.has(imagesGroup) {
		if err := c.checkImages(ctx, report); err != nil {
			return nil, err
		}
	}
	return report, nil
}

// checkImages verifies the image store. If repair is set, broken images and layers are deleted
// unless a container uses them.
func (c *checkRun) checkImages(ctx context.Context, r *checkReport) error {
	r.Images = &imageReport{Problems: []string{}}
	check, err := c.checkStore(ctx)
	if errors.Is(err, daemon.ErrInUse) && ctx.Err() == nil && !c.repair && len(c.only) == 0 {
		r.Images.Skipped = err.Error()
		return nil
	}
	if err != nil {
		return fmt.Errorf("check the image store: %w", err)
	}
	r.Images.Checked = check.Images
	for _, p := range check.Problems {
		line := problemLine(p, c.repair)
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

// checkStore verifies the image store, or lets the daemon that uses the store verify it. A repair
// fails if a daemon uses the store.
func (c *checkRun) checkStore(ctx context.Context) (daemon.ImageCheck, error) {
	check, inUse := daemon.CheckImages(ctx, c.cfg, c.repair)
	if c.repair || !errors.Is(inUse, daemon.ErrInUse) {
		return check, inUse
	}
	check, err := c.requestImageCheck(ctx)
	if err != nil {
		err = fmt.Errorf("%w, which cannot verify the store: %w", inUse, err)
	}
	return check, err
}

// requestImageCheck lets the daemon verify its image store. It returns an error if the daemon at the
// socket of the configuration has another store.
func (c *checkRun) requestImageCheck(ctx context.Context) (check daemon.ImageCheck, err error) {
	conn, err := c.env.Connect(ctx, c.cfg.AdminSocket)
	if err != nil {
		return check, err
	}
	resp, err := adminv1.NewCheckClient(conn).CheckImages(ctx, &adminv1.CheckImagesRequest{})
	if err != nil {
		return check, err
	}
	if !sameFile(resp.GetRoot(), c.cfg.Root) {
		return check, fmt.Errorf("the daemon at %s has another image store: %s", c.cfg.AdminSocket, resp.GetRoot())
	}
	check.Images = int(resp.GetImages())
	for _, p := range resp.GetProblems() {
		problem := daemon.ImageProblem{Tags: p.GetTags()}
		problem.Image, problem.Layer = digest.Digest(p.GetImage()), digest.Digest(p.GetLayer())
		problem.Err, problem.User = errors.New(p.GetMessage()), p.GetUser()
		check.Problems = append(check.Problems, problem)
	}
	return check, nil
}

// sameFile reports whether two paths lead to the same file.
func sameFile(a, b string) bool {
	first, err := os.Stat(a)
	if err != nil {
		return false
	}
	second, err := os.Stat(b)
	return err == nil && os.SameFile(first, second)
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

func (r *checkReport) writeTable(t *command.Table) {
	for _, f := range r.Findings {
		if f.Group == imagesGroup {
			continue // follows with the repaired problems
		}
		t.Line("%s %s: %s", f.Severity, f.ID, f.Problem)
		t.Line("    %s", f.Reason)
		t.Line("    Remedy: %s", f.Remedy)
	}
	if i := r.Images; i != nil && i.Skipped != "" {
		t.Line("The image store was not checked: %s", i.Skipped)
	} else if i != nil {
		for _, p := range i.Problems {
			t.Line("%s", p)
		}
		t.Line("%d images checked, %d repaired", i.Checked, i.Repaired)
	}
	t.Line("%d findings, of which %d are errors", len(r.Findings), r.errors())
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
