package node

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/internal/cli/command"
	"github.com/criserver/criserver/internal/daemon"
	"github.com/criserver/criserver/internal/daemon/wipe"
)

func newWipeCommand(env *command.Environment) *cobra.Command {
	var s command.Settings
	var out command.Output
	var options wipe.Options
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use:   "wipe",
		Short: "Remove all pods and containers while the daemon is stopped",
		Long: `Remove all pods and containers with their writable layers, and with --images also all images,
while the daemon is stopped. Each object is removed as the daemon does on a request of the kubelet:
network plugins and runtimes release their resources, and nothing is deleted while it is in use.
The default bridge and the nftables tables of the daemon are deleted if no pod that remains uses them,
and so are the cgroups of the monitors if they are empty.

The command lists the objects and asks for confirmation. It refuses to remove anything while
containers run, unless --force is given. As at each start of the daemon, the command first removes
the leftovers of operations that were interrupted; --dry-run removes nothing else.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.Load()
			if err != nil {
				return err
			}
			unix.Umask(umask)
			cfg.LogLevel = "warning" // the command lists the objects
			if err := daemon.ConfigureLogging(cfg); err != nil {
				return err
			}
			c := &confirmation{env: env, out: &out, force: options.Force, yes: yes, dryRun: dryRun}
			options.Confirm = c.confirm
			err = daemon.Wipe(cmd.Context(), cfg, options)
			if errors.Is(err, wipe.ErrContainersRun) {
				return fmt.Errorf("%w; stop the pods, or use --force", err)
			}
			if err != nil || !c.confirmed {
				return err
			}
			fmt.Fprintln(env.Stderr, "Removed.")
			return nil
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&options.Images, "images", false, "also remove all images")
	fs.BoolVar(&options.Force, "force", false, "stop containers that run")
	fs.BoolVarP(&yes, "yes", "y", false, "do not ask for confirmation")
	fs.BoolVar(&dryRun, "dry-run", false, "only list the objects")
	cmd.MarkFlagsMutuallyExclusive("yes", "dry-run")
	out.AddFlag(cmd)
	s.AddFlags(cmd)
	return cmd
}

// confirmation lists the objects of the command wipe and asks for the confirmation.
type confirmation struct {
	env                *command.Environment
	out                *command.Output
	force, yes, dryRun bool
	confirmed          bool
}

// errNotConfirmed means that the user has not confirmed an operation.
var errNotConfirmed = errors.New("not confirmed; nothing was removed")

// confirm lists the objects and reports whether they are to be removed.
func (c *confirmation) confirm(plan wipe.Plan) (bool, error) {
	if err := c.out.Print(c.env.Stdout, plan, func(t *command.Table) { writeWipePlan(t, plan) }); err != nil {
		return false, err
	}
	objects := len(plan.Pods) + len(plan.Containers) + len(plan.Images)
	if c.dryRun || objects == 0 {
		return false, nil
	}
	c.confirmed = true
	if running := plan.Running(); c.yes || running > 0 && !c.force {
		return true, nil // Wipe refuses to continue while containers run
	}
	fmt.Fprintf(c.env.Stderr, "Remove %d pods, %d containers and %d images? [y/N] ", len(plan.Pods), len(plan.Containers), len(plan.Images))
	answer, err := bufio.NewReader(c.env.Stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true, nil
	}
	return false, errNotConfirmed
}

// writeWipePlan writes the objects of a plan.
func writeWipePlan(t *command.Table, plan wipe.Plan) {
	t.Row("KIND", "ID", "NAME", "STATE")
	for _, p := range plan.Pods {
		state := "not ready"
		if p.Ready {
			state = "ready"
		}
		t.Row("pod", p.ID, p.Namespace+"/"+p.Name, state)
	}
	for _, c := range plan.Containers {
		t.Row("container", c.ID, c.Name, c.State)
	}
	for _, img := range plan.Images {
		t.Row("image", img.ID, strings.Join(img.Tags, " "), "")
	}
}
