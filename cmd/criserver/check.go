package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/sirupsen/logrus"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/image"
)

// runCheck compares the image store with what was stored in it, and with repair
// drops what is broken and not in use. The daemon must not run; containers may.
// The error says that something is broken and still there.
func runCheck(ctx context.Context, cfg config.Config, repair bool, out io.Writer) (err error) {
	locks, err := claim(cfg.Root, cfg.RunDir)
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	defer func() { err = errors.Join(err, closeAll(locks)) }()
	// What Restore reports in the log the check finds as well, but for images
	// that it drops as a layer of theirs is gone.
	logrus.SetLevel(logrus.WarnLevel)
	images, err := image.New(imageConfig(cfg))
	if err != nil {
		return err
	}
	if err := images.Restore(ctx); err != nil {
		return err
	}
	names := make(map[image.ID]string)
	for _, img := range images.List() {
		names[img.ID] = strings.Join(img.RepoTags, " ")
	}
	total := len(names)
	found, err := images.Check(ctx, repair)
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	broken := 0
	for _, p := range found {
		if !p.Repaired {
			broken++
		}
		if _, err := fmt.Fprintln(out, problemLine(p, names[p.Image], repair)); err != nil {
			return err
		}
	}
	if repair {
		if err := images.EmptyTrash(ctx); err != nil {
			return err
		}
	}
	if broken > 0 {
		return fmt.Errorf("check: %d problems in the image store %s", broken, cfg.Root)
	}
	_, err = fmt.Fprintf(out, "%d images checked, %d repaired by dropping what was broken\n", total, len(found))
	return err
}

// problemLine names the image first, as that is what has to be pulled again, and
// ends with what a repair does to it.
func problemLine(p image.Problem, names string, repair bool) string {
	var b strings.Builder
	switch {
	case p.Image != "":
		b.WriteString("image " + p.Image.String())
	default:
		b.WriteString("layer " + p.Layer.String() + " of no image")
	}
	if names != "" {
		b.WriteString(" (" + names + ")")
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
