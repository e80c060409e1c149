// Package command contains what the commands of criserver share: the connections to the daemon, the flags of the
// configuration, the output formats, the kinds of errors, and the exit codes. It knows no command.
package command

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// ExitSuccess, ExitFailure and ExitUsage are the exit codes of all commands.
const (
	ExitSuccess = 0
	ExitFailure = 1 // the operation failed, or a check found a problem
	ExitUsage   = 2 // unknown command, flag or argument
)

// SetUp sets the streams of root, the format of its help, and the kinds of the errors of all its commands. The caller
// adds the subcommands first.
func SetUp(env *Environment, root *cobra.Command) {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages", ".FlagUsagesWrapped 110"))
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	markOperationErrors(root)
}

// Run runs the command that args select below root, closes the connections of env, and returns the exit code.
func Run(ctx context.Context, env *Environment, root *cobra.Command, args []string) int {
	defer env.Close()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	var operation *operationError
	var usage *UsageError
	switch {
	case err == nil:
		return ExitSuccess
	case errors.Is(err, ErrReported):
		return ExitFailure
	case errors.As(err, &usage) || !errors.As(err, &operation):
		fmt.Fprintf(env.Stderr, "criserver: %v\nSee '%s --help'.\n", err, cmd.CommandPath())
		return ExitUsage
	default:
		fmt.Fprintln(env.Stderr, "criserver:", err)
		return ExitFailure
	}
}

// operationError marks an error of a command that ran. All other errors are errors of usage.
type operationError struct{ err error }

func (e *operationError) Error() string { return e.err.Error() }
func (e *operationError) Unwrap() error { return e.err }

// UsageErrorf returns an error of flags or arguments that a command itself has found. The exit code is then 2.
func UsageErrorf(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// UsageError is the type of the errors of UsageErrorf.
type UsageError struct{ err error }

func (e *UsageError) Error() string { return e.err.Error() }
func (e *UsageError) Unwrap() error { return e.err }

// ErrReported is the error of a command that found a problem and has printed it already.
var ErrReported = errors.New("a problem was found")

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

// NewGroup returns a command that only contains other commands. Without a subcommand
// it prints its help.
func NewGroup(use, short string, subcommands ...*cobra.Command) *cobra.Command {
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
