// Command clidocs writes the documentation of the command line: the reference page, the man
// pages, and the completions of shells. It is not part of the daemon, because the libraries
// for man pages would be in its binary.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/criserver/criserver/internal/cli"
)

func main() {
	markdown := flag.String("markdown", "", "write the reference page to a `file`")
	share := flag.String("share", "", "write man pages and completions below a `directory`, as below PREFIX/share")
	zsh := flag.String("zsh", filepath.Join("zsh", "site-functions"), "`directory` of the completion of zsh below -share")
	flag.Parse()
	var errs []error
	if *markdown != "" {
		errs = append(errs, writeFile(*markdown, cli.Reference(cli.NewRootCommand())))
	}
	if *share != "" {
		errs = append(errs, writeManuals(*share), writeCompletions(*share, *zsh))
	}
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintln(os.Stderr, "clidocs:", err)
		os.Exit(1)
	}
}

func writeFile(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o644)
}

// writeManuals writes a man page for each command, and the page of the configuration file.
func writeManuals(share string) error {
	root := cli.NewRootCommand()
	cli.HideSettings(root, "Each key of criserver.toml(5) is also a flag.")
	dir := filepath.Join(share, "man", "man8")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	date, err := pageDate()
	if err != nil {
		return err
	}
	header := &doc.GenManHeader{Section: "8", Source: "criserver", Manual: "criserver", Date: &date}
	disableTag(root)
	if err := doc.GenManTree(root, header, dir); err != nil {
		return err
	}
	return writeFile(filepath.Join(share, "man", "man5", "criserver.toml.5"), settingsManual(date))
}

// pageDate returns the date of the man pages: the time in SOURCE_DATE_EPOCH, which makes builds
// reproducible, or today.
func pageDate() (time.Time, error) {
	epoch := os.Getenv("SOURCE_DATE_EPOCH")
	if epoch == "" {
		return time.Now(), nil
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// disableTag removes the line with the date of the generation from all pages.
func disableTag(cmd *cobra.Command) {
	cmd.DisableAutoGenTag = true
	for _, sub := range cmd.Commands() {
		disableTag(sub)
	}
}

// writeCompletions writes the completions of bash, zsh and fish.
func writeCompletions(share, zsh string) error {
	root := cli.NewRootCommand()
	bash := filepath.Join(share, "bash-completion", "completions", "criserver")
	zshFile := filepath.Join(share, zsh, "_criserver")
	fish := filepath.Join(share, "fish", "vendor_completions.d", "criserver.fish")
	for _, path := range []string{bash, zshFile, fish} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
	}
	return errors.Join(
		root.GenBashCompletionFileV2(bash, true),
		root.GenZshCompletionFile(zshFile),
		root.GenFishCompletionFile(fish, true),
	)
}
