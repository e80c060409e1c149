// Package cli contains the command line of criserver: one file for each command, and the
// parts that the commands share. A command parses its flags, calls the daemon over the
// administration API or the CRI, or calls package daemon, and prints the result. It decides
// nothing itself.
//
// A command is a function newXCommand that takes the environment and returns a
// *cobra.Command. The error of RunE makes the exit code 1. Errors of flags and arguments,
// and errors that RunE wraps with usageError, make the exit code 2.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// The exit codes of all commands.
const (
	exitSuccess = 0
	exitFailure = 1 // the operation failed, or a check found a problem
	exitUsage   = 2 // unknown command, flag or argument
)

// Main runs the command that args contain, and returns the exit code of the process.
// version is the output of git-describe(1) for the source, or empty.
func Main(version string, args []string) int {
	env := &environment{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, version: semanticVersion(version)}
	return run(stopContext(), env, args)
}

// NewRootCommand returns the command line, from which the reference pages are generated.
func NewRootCommand() *cobra.Command {
	return newRootCommand(&environment{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, version: semanticVersion("")})
}

// run runs a command and returns the exit code.
func run(ctx context.Context, env *environment, args []string) int {
	defer env.close()
	root := newRootCommand(env)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	var operation *operationError
	var usage *usageError
	switch {
	case err == nil:
		return exitSuccess
	case errors.Is(err, errReported):
		return exitFailure
	case errors.As(err, &usage) || !errors.As(err, &operation):
		fmt.Fprintf(env.stderr, "criserver: %v\nSee '%s --help'.\n", err, cmd.CommandPath())
		return exitUsage
	default:
		fmt.Fprintln(env.stderr, "criserver:", err)
		return exitFailure
	}
}

// newRootCommand returns the command criserver, which without a subcommand runs the daemon.
func newRootCommand(env *environment) *cobra.Command {
	root := newServeCommand(env)
	root.Use = "criserver"
	root.Short = "Kubernetes container runtime service"
	root.Long = `criserver serves the Kubernetes Container Runtime Interface (CRI) on a unix socket.

Without a command, criserver runs the daemon. The other commands help the operator of the
daemon. Most of them need root.

Exit codes: 0 success; 1 the operation failed, or a problem was found; 2 wrong usage.`
	root.SilenceErrors, root.SilenceUsage = true, true
	root.AddCommand(
		newServeCommand(env),
		newConfigCommand(env),
		newCheckCommand(env),
		newStatusCommand(env),
		newNamespacesCommand(env),
		newCgroupCommand(env),
		newTopCommand(env),
		newCheckpointCommand(env),
		newRestoreCommand(env),
		newNetworkCommand(env),
		newLayersCommand(env),
		newImagesCommand(env),
		newPullCommand(env),
		newLoadCommand(env),
		newSaveCommand(env),
		newRemoveImagesCommand(env),
		newPruneCommand(env),
		newReloadCommand(env),
		newLogLevelCommand(env),
		newDebugCommand(env),
		newTraceCommand(env),
		newVersionCommand(env),
		newWipeCommand(env),
	)
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages", ".FlagUsagesWrapped 110"))
	root.SetIn(env.stdin)
	root.SetOut(env.stdout)
	root.SetErr(env.stderr)
	markOperationErrors(root)
	return root
}

// operationError marks an error of a command that ran. All other errors are errors of usage.
type operationError struct{ err error }

func (e *operationError) Error() string { return e.err.Error() }
func (e *operationError) Unwrap() error { return e.err }

// usageError is an error of flags or arguments that a command itself has found.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// errReported is the error of a command that found a problem and has printed it already.
var errReported = errors.New("a problem was found")

// markOperationErrors wraps the errors of the command and of its subcommands in
// operationErrors.
func markOperationErrors(cmd *cobra.Command) {
	if runE := cmd.RunE; runE != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if err := runE(cmd, args); err != nil {
				return &operationError{err}
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		markOperationErrors(sub)
	}
}

// newGroupCommand returns a command that only contains other commands. Without a subcommand
// it prints its help.
func newGroupCommand(use, short string, subcommands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(subcommands...)
	return cmd
}
