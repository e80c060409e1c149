// Package node contains the commands for the daemon of the node: to run, check and configure the daemon, to show its
// state and profiles, and to remove its pods and containers. The commands serve, check and wipe call package daemon;
// the others call the running daemon.
package node

import (
	"github.com/spf13/cobra"

	"github.com/criserver/criserver/internal/cli/command"
)

// Commands returns the commands of this package.
func Commands(env *command.Environment) []*cobra.Command {
	return []*cobra.Command{
		NewServeCommand(env),
		newConfigCommand(env),
		newCheckCommand(env),
		newStatusCommand(env),
		newReloadCommand(env),
		newLogLevelCommand(env),
		newDebugCommand(env),
		newVersionCommand(env),
		newWipeCommand(env),
	}
}
