package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/criserver/criserver/admin/v1"
)

func newImagesCommand(env *environment) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "images",
		Short: "List the images",
		Long: `List the images with their sizes on disk. UNIQUE is the part of the size that only this image
has, which its removal frees. USED is the number of containers that use the image.`,
		Example: `  criserver images
  criserver images -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := env.adminConnection(cmd.Context())
			if err != nil {
				return err
			}
			r, err := adminv1.NewImagesClient(conn).ListImages(cmd.Context(), &adminv1.ListImagesRequest{})
			if err != nil {
				return err
			}
			return out.print(env.stdout, r, func(t *table) { writeImages(t, r, time.Now()) })
		},
	}
	out.addFlag(cmd)
	env.addConnectionFlags(cmd)
	return cmd
}

func writeImages(t *table, r *adminv1.ListImagesResponse, now time.Time) {
	t.row("NAME", "ID", "SIZE", "UNIQUE", "PULLED", "USED", "PINNED")
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
			t.row(name, shortDigest(img.GetId()), byteSize(img.GetSize()), byteSize(img.GetUniqueSize()),
				shortDuration(now.Sub(img.GetPulled().AsTime())), len(img.GetContainers()), pinned)
		}
	}
}

func newRemoveImagesCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rmi IMAGE...",
		Short: "Remove images",
		Long: `Remove images with all their names. IMAGE is a name, an id, or a unique beginning of an id. An
image that a container uses is not removed.`,
		Example: `  criserver rmi docker.io/library/nginx:1.27 3f2a`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := env.adminConnection(cmd.Context())
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
				if _, err := fmt.Fprintf(env.stdout, "removed %s, freed %s\n", imageNames(r), byteSize(r.GetFreed())); err != nil {
					return err
				}
			}
			return errors.Join(errs...)
		},
	}
	env.addConnectionFlags(cmd)
	return cmd
}

func imageNames(r *adminv1.RemovedImage) string {
	return strings.Join(append(slices.Clone(r.GetNames()), r.GetId()), " ")
}

// defaultMinAge is the age below which the command prune keeps images. The kubelet uses the same
// time.
const defaultMinAge = 2 * time.Minute

func newPruneCommand(env *environment) *cobra.Command {
	var out output
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
				return &usageError{fmt.Errorf("--min-age: must not be negative, is %s", age)}
			}
			conn, err := env.adminConnection(cmd.Context())
			if err != nil {
				return err
			}
			r, err := adminv1.NewImagesClient(conn).PruneImages(cmd.Context(), &adminv1.PruneImagesRequest{All: all, DryRun: dryRun, MinAge: durationpb.New(age)})
			if err != nil {
				return err
			}
			if err := out.print(env.stdout, r, func(t *table) { writePruned(t, r, dryRun) }); err != nil {
				return err
			}
			if len(r.GetErrors()) > 0 {
				return errReported
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "remove images with a tag, too")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only show which images would be removed")
	cmd.Flags().DurationVar(&age, "min-age", age, "keep images that were pulled less than this `time` ago")
	out.addFlag(cmd)
	env.addConnectionFlags(cmd)
	return cmd
}

func writePruned(t *table, r *adminv1.PruneImagesResponse, dryRun bool) {
	action, freed := "removed", "freed"
	if dryRun {
		action, freed = "would remove", "would free"
	}
	for _, img := range r.GetImages() {
		t.line("%s %s (%s)", action, imageNames(img), byteSize(img.GetFreed()))
	}
	for _, e := range r.GetErrors() {
		t.line("error: %s", e)
	}
	t.line("%s %s", freed, byteSize(r.GetFreed()))
	if n := r.GetTooYoung(); n > 0 {
		t.line("kept %d unused images that were pulled less than --min-age ago", n)
	}
}
