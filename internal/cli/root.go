// Package cli is the command line of criserver. The packages below it contain the commands, one file for each, and
// package command contains what the commands share. A command parses its flags, calls the daemon over the
// administration API or the CRI, or calls package daemon, and prints the result. It decides nothing itself.
//
// A command is a function newXCommand that takes the environment and returns a *cobra.Command. The function Commands of
// each package returns its commands. The error of RunE makes the exit code 1. Errors of flags and arguments, and errors
// of command.UsageErrorf, make the exit code 2.
package cli

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/criserver/criserver/internal/cli/checkpoints"
	"github.com/criserver/criserver/internal/cli/command"
	"github.com/criserver/criserver/internal/cli/images"
	"github.com/criserver/criserver/internal/cli/networks"
	"github.com/criserver/criserver/internal/cli/node"
	"github.com/criserver/criserver/internal/cli/pods"
)

// Main runs the command that args contain, and returns the exit code of the process.
// version is the output of git-describe(1) for the source, or empty.
func Main(version string, args []string) int {
	env := &command.Environment{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Version: node.SemanticVersion(version)}
	return command.Run(stopContext(), env, newRootCommand(env), args)
}

// NewRootCommand returns the command line, from which the reference pages are generated.
func NewRootCommand() *cobra.Command {
	return newRootCommand(&command.Environment{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Version: node.SemanticVersion("")})
}

// newRootCommand returns the command criserver, which without a subcommand runs the daemon.
func newRootCommand(env *command.Environment) *cobra.Command {
	root := node.NewServeCommand(env)
	root.Use = "criserver"
	root.Short = "Kubernetes container runtime service"
	root.Long = `criserver serves the Kubernetes Container Runtime Interface (CRI) on a unix socket.

Without a command, criserver runs the daemon. The other commands help the operator of the
daemon. Most of them need root.

Exit codes: 0 success; 1 the operation failed, or a problem was found; 2 wrong usage.`
	root.AddCommand(node.Commands(env)...)
	root.AddCommand(pods.Commands(env)...)
	root.AddCommand(networks.Commands(env)...)
	root.AddCommand(images.Commands(env)...)
	root.AddCommand(checkpoints.Commands(env)...)
	command.SetUp(env, root)
	return root
}
