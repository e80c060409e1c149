package images

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/cli/command"
)

// archiveFormat is the value of the flag --format.
type archiveFormat string

// The formats of archives.
const (
	formatOCI    archiveFormat = "oci-archive"
	formatDocker archiveFormat = "docker-archive"
)

// String returns the format.
func (f *archiveFormat) String() string { return string(*f) }

// Type returns the name of the values of the flag.
func (f *archiveFormat) Type() string { return "format" }

// Set sets the format.
func (f *archiveFormat) Set(s string) error {
	switch archiveFormat(s) {
	case formatOCI, formatDocker:
		*f = archiveFormat(s)
		return nil
	}
	return errors.New("must be oci-archive or docker-archive")
}

func (f *archiveFormat) message() adminv1.ArchiveFormat {
	if *f == formatDocker {
		return adminv1.ArchiveFormat_ARCHIVE_FORMAT_DOCKER
	}
	return adminv1.ArchiveFormat_ARCHIVE_FORMAT_OCI
}

func newSaveCommand(env *command.Environment) *cobra.Command {
	var file string
	format := formatOCI
	cmd := &cobra.Command{
		Use:   "save IMAGE...",
		Short: "Save images in an archive",
		Long: `Save images in an archive, for 'criserver load', 'podman load', 'docker load' and other programs.
IMAGE is a name, an id, or a unique beginning of an id. A name selects only this name for the
archive; an id selects all tags of the image. The layers are not compressed.

The store has unpacked layers, so the tars of the layers are made again. Their content is the same,
but an image that comes from a registry usually has another id after it was loaded from the archive.
The command prints this id. Archives of images that were loaded from such an archive keep the id.`,
		Example: `  criserver save registry.example/app:1 -f app.tar
  criserver save app:1 db:2 --format docker-archive | zstd >images.tar.zst`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f, ok := env.Stdout.(*os.File); ok && file == "" && term.IsTerminal(int(f.Fd())) {
				return command.UsageErrorf("name a file with --file: the standard output is a terminal")
			}
			conn, err := env.AdminConnection(cmd.Context())
			if err != nil {
				return err
			}
			stream, err := adminv1.NewImagesClient(conn).SaveImages(cmd.Context(), &adminv1.SaveImagesRequest{Names: args, Format: format.message()})
			if err != nil {
				return command.PlainError(err)
			}
			var r *adminv1.SaveImagesResult
			err = writeArchive(env, file, func(w io.Writer) (err error) {
				r, err = receiveArchive(stream.Recv, w, newProgressDisplay(env.Stderr))
				return err
			})
			if err != nil {
				return err
			}
			writeSaved(env.Stderr, r)
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "`file` that is written; by default, the archive is written to the standard output")
	cmd.Flags().Var(&format, "format", "`format` of the archive: oci-archive or docker-archive")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{string(formatOCI), string(formatDocker)}, cobra.ShellCompDirectiveNoFileComp))
	env.AddConnectionFlags(cmd)
	return cmd
}

// writeArchive calls write with the file, or with the standard output if file is "". A regular file is replaced only
// when the archive is complete. If file is a symbolic link, the file that the link refers to is replaced or created.
func writeArchive(env *command.Environment, file string, write func(io.Writer) error) (err error) {
	if file == "" {
		return write(env.Stdout)
	}
	if info, err := os.Stat(file); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(file, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(write(f), f.Close())
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if file, err = followLinks(file); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	if err = errors.Join(write(f), f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// maxFileLinks is the maximum number of symbolic links on the way to a file.
const maxFileLinks = 40

// followLinks returns the path that file refers to if file is a symbolic link, and file otherwise. Unlike
// filepath.EvalSymlinks, it accepts a link to a file that does not exist yet.
func followLinks(file string) (string, error) {
	for range maxFileLinks {
		target, err := os.Readlink(file)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.EINVAL): // not a link
			return file, nil
		case err != nil:
			return "", err
		case filepath.IsAbs(target):
			file = target
		default:
			// filepath.Join would remove "..", which is wrong behind a link to a directory.
			file = filepath.Dir(file) + string(filepath.Separator) + target
		}
	}
	return "", &fs.PathError{Op: "open", Path: file, Err: unix.ELOOP}
}

// receiveArchive writes the archive that recv returns, shows the progress, and returns the result.
func receiveArchive(recv func() (*adminv1.SaveImagesResponse, error), w io.Writer, display progressDisplay) (result *adminv1.SaveImagesResult, err error) {
	defer display.finish()
	for {
		r, err := recv()
		switch {
		case errors.Is(err, io.EOF) && result != nil:
			return result, nil
		case errors.Is(err, io.EOF):
			return nil, errors.New("the daemon has sent no complete archive")
		case err != nil:
			return nil, command.PlainError(err)
		}
		if _, err := w.Write(r.GetData()); err != nil {
			return nil, err
		}
		if p := r.GetProgress(); p != nil {
			display.show(p)
		}
		if r.GetResult() != nil {
			result = r.GetResult()
		}
	}
}

func writeSaved(w io.Writer, r *adminv1.SaveImagesResult) {
	for _, img := range r.GetImages() {
		name := strings.Join(img.GetNames(), ", ")
		if name == "" {
			name = "image without a name"
		}
		fmt.Fprintf(w, "saved %s with the id %s", name, img.GetSavedId())
		if img.GetSavedId() != img.GetId() {
			fmt.Fprintf(w, " instead of %s, because the tars of its layers differ", img.GetId())
		}
		fmt.Fprintln(w)
	}
}
