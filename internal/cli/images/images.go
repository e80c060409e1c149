package images

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/cli/command"
)

func newImagesCommand(env *command.Environment) *cobra.Command {
	var out command.Output
	cmd := &cobra.Command{
		Use:   "images",
		Short: "List the images",
		Long: `List the images with their sizes on disk. UNIQUE is the part of the size that only this image
has, which its removal frees. USED is the number of containers that use the image.`,
		Example: `  criserver images
  criserver images -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := env.AdminConnection(cmd.Context())
			if err != nil {
				return err
			}
			r, err := adminv1.NewImagesClient(conn).ListImages(cmd.Context(), &adminv1.ListImagesRequest{})
			if err != nil {
				return err
			}
			return out.Print(env.Stdout, r, func(t *command.Table) { writeImages(t, r, time.Now()) })
		},
	}
	out.AddFlag(cmd)
	env.AddConnectionFlags(cmd)
	return cmd
}

func writeImages(t *command.Table, r *adminv1.ListImagesResponse, now time.Time) {
	t.Row("NAME", "ID", "SIZE", "UNIQUE", "PULLED", "USED", "PINNED")
	for _, img := range r.GetImages() {
		names := img.GetTags()
		if len(names) == 0 {
			names = img.GetDigests()[:min(1, len(img.GetDigests()))]
		}
		if len(names) == 0 {
			names = []string{""}
		}
		pinned := ""
		if img.GetPinned() {
			pinned = "yes"
		}
		for _, name := range names {
			t.Row(name, command.ShortDigest(img.GetId()), command.ByteSize(img.GetSize()), command.ByteSize(img.GetUniqueSize()),
				shortDuration(now.Sub(img.GetPulled().AsTime())), len(img.GetContainers()), pinned)
		}
	}
}

func newRemoveImagesCommand(env *command.Environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rmi IMAGE...",
		Short: "Remove images",
		Long: `Remove images with all their names. IMAGE is a name, an id, or a unique beginning of an id. An
image that a container uses is not removed.`,
		Example: `  criserver rmi docker.io/library/nginx:1.27 3f2a`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := env.AdminConnection(cmd.Context())
			if err != nil {
				return err
			}
			client := adminv1.NewImagesClient(conn)
			var errs []error
			for _, name := range args {
				r, err := client.RemoveImage(cmd.Context(), &adminv1.RemoveImageRequest{Name: name})
				if err != nil {
					errs = append(errs, err)
					continue
				}
				if _, err := fmt.Fprintf(env.Stdout, "removed %s, freed %s\n", imageNames(r), command.ByteSize(r.GetFreed())); err != nil {
					return err
				}
			}
			return errors.Join(errs...)
		},
	}
	env.AddConnectionFlags(cmd)
	return cmd
}

func imageNames(r *adminv1.RemovedImage) string {
	return strings.Join(append(slices.Clone(r.GetNames()), r.GetId()), " ")
}

// defaultMinAge is the age below which the command prune keeps images. The kubelet uses the same
// time.
const defaultMinAge = 2 * time.Minute

func newPruneCommand(env *command.Environment) *cobra.Command {
	var out command.Output
	var all, dryRun bool
	age := defaultMinAge
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove images that no container uses",
		Long: `Remove the images without a tag that no container uses, or with --all every image that no
container uses. Pinned images are kept, and images that were pulled less than --min-age ago,
because a pod that needs them may be starting.`,
		Example: `  criserver prune --all --dry-run
  criserver prune --all --min-age 24h`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if age < 0 {
				return command.UsageErrorf("--min-age: must not be negative, is %s", age)
			}
			conn, err := env.AdminConnection(cmd.Context())
			if err != nil {
				return err
			}
			r, err := adminv1.NewImagesClient(conn).PruneImages(cmd.Context(), &adminv1.PruneImagesRequest{All: all, DryRun: dryRun, MinAge: durationpb.New(age)})
			if err != nil {
				return err
			}
			if err := out.Print(env.Stdout, r, func(t *command.Table) { writePruned(t, r, dryRun) }); err != nil {
				return err
			}
			if len(r.GetErrors()) > 0 {
				return command.ErrReported
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "remove images with a tag, too")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only show which images would be removed")
	cmd.Flags().DurationVar(&age, "min-age", age, "keep images that were pulled less than this `time` ago")
	out.AddFlag(cmd)
	env.AddConnectionFlags(cmd)
	return cmd
}

func writePruned(t *command.Table, r *adminv1.PruneImagesResponse, dryRun bool) {
	action, freed := "removed", "freed"
	if dryRun {
		action, freed = "would remove", "would free"
	}
	for _, img := range r.GetImages() {
		t.Line("%s %s (%s)", action, imageNames(img), command.ByteSize(img.GetFreed()))
	}
	for _, e := range r.GetErrors() {
		t.Line("error: %s", e)
	}
	t.Line("%s %s", freed, command.ByteSize(r.GetFreed()))
	if n := r.GetTooYoung(); n > 0 {
		t.Line("kept %d unused images that were pulled less than --min-age ago", n)
	}
}
