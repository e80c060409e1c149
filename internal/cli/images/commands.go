// Package images contains the commands for images and their layers. All of them call the running daemon; archives and
// directories with images are read and written here.
package images

import (
	"github.com/spf13/cobra"

	"github.com/criserver/criserver/internal/cli/command"
)

// Commands returns the commands of this package.
func Commands(env *command.Environment) []*cobra.Command {
	return []*cobra.Command{
		newLayersCommand(env),
		newImagesCommand(env),
		newPullCommand(env),
		newLoadCommand(env),
		newSaveCommand(env),
		newRemoveImagesCommand(env),
		newPruneCommand(env),
	}
}
