package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/cli/command"
)

func newLoadCommand(env *command.Environment) *cobra.Command {
	var out command.Output
	var name string
	cmd := &cobra.Command{
		Use:   "load [FILE|DIRECTORY|-]",
		Short: "Load images from an archive",
		Long: `Load all images of an archive with all their tags: a file that 'docker save', 'podman save' or
'criserver save' has written, also compressed with gzip, zstd, xz or bzip2, a file or a directory in
the image layout of OCI, or a directory of 'skopeo copy' to dir: or of 'podman save --format
docker-dir'. Without an argument, or with -, read the archive from the standard input. On a terminal,
show the progress of each layer.

An image without a name in the archive can be used by its id. --name gives it a name.`,
		Example: `  criserver load app.tar.gz
  criserver load ./layout --name registry.example/app:1
  docker save app:1 | criserver load`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			src, err := openArchive(env, args)
			if err != nil {
				return err
			}
			defer src.Close()
			conn, err := env.AdminConnection(cmd.Context())
			if err != nil {
				return err
			}
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			stream, err := adminv1.NewImagesClient(conn).LoadImages(ctx)
			if err != nil {
				return command.PlainError(err)
			}
			r, err := loadArchive(stream, cancel, src, name, newProgressDisplay(env.Stderr))
			if err != nil {
				return err
			}
			if err := out.Print(env.Stdout, r, func(t *command.Table) { writeLoaded(t, r) }); err != nil {
				return err
			}
			if len(r.GetErrors()) > 0 {
				return command.ErrReported
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "give this `name` to the only image of the archive, instead of the names in the archive")
	out.AddFlag(cmd)
	env.AddConnectionFlags(cmd)
	return cmd
}

// archiveSource is an archive that the command sends.
type archiveSource struct {
	io.ReadCloser
	size  int64 // exact size in bytes, or 0
	total int64 // approximate size for the progress, or 0
}

// openArchive opens the archive that the arguments name.
func openArchive(env *command.Environment, args []string) (*archiveSource, error) {
	if len(args) == 0 || args[0] == "-" {
		if f, ok := env.Stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			return nil, command.UsageErrorf("name a file or a directory: the standard input is a terminal")
		}
		return &archiveSource{ReadCloser: io.NopCloser(env.Stdin)}, nil
	}
	f, err := os.Open(args[0])
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	switch {
	case info.IsDir():
		if err := f.Close(); err != nil {
			return nil, err
		}
		return openDirectory(args[0])
	case info.Mode().IsRegular():
		return &archiveSource{f, info.Size(), info.Size()}, nil
	}
	return &archiveSource{ReadCloser: f}, nil
}

// loadStream is the stream of LoadImages.
type loadStream interface {
	Send(r *adminv1.LoadImagesRequest) error
	Recv() (*adminv1.LoadImagesResponse, error)
	CloseSend() error
}

// sharedDisplay is a display that two goroutines use. One of them may call show after finish.
type sharedDisplay struct {
	mu       sync.Mutex
	display  progressDisplay
	finished bool
}

func (d *sharedDisplay) show(p *adminv1.PullProgress) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.finished {
		d.display.show(p)
	}
}

func (d *sharedDisplay) finish() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.finished = true
	d.display.finish()
}

// loadArchive sends an archive, shows the progress, and returns the result. If the archive cannot be read, it calls
// cancel, which ends the stream.
func loadArchive(stream loadStream, cancel func(), src *archiveSource, name string, display progressDisplay) (*adminv1.LoadImagesResult, error) {
	shared := &sharedDisplay{display: display}
	defer shared.finish()
	sent := make(chan error, 1)
	go func() {
		err := sendArchive(stream, src, name, shared)
		if err != nil {
			cancel()
		}
		sent <- err
	}()
	result, err := receiveLoad(stream, shared)
	if err != nil {
		cancel()
		// A sender that waits for the archive is not waited for: the archive may be a pipe.
		select {
		case sendErr := <-sent:
			if sendErr != nil {
				err = sendErr
			}
		default:
		}
	}
	return result, err
}

// receiveLoad receives the progress and the result.
func receiveLoad(stream loadStream, display progressDisplay) (result *adminv1.LoadImagesResult, err error) {
	var layers layerStates
	for {
		r, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && result != nil:
			return result, nil
		case errors.Is(err, io.EOF):
			return nil, errors.New("the daemon has sent no result")
		case err != nil:
			return nil, command.PlainError(err)
		}
		if p := r.GetProgress(); p != nil {
			for _, l := range p.GetLayers() {
				if l.GetState() == "fetching" {
					l.State = "unpacking" // nothing is downloaded
				}
			}
			layers.add(p)
			display.show(p)
		}
		if r.GetResult() != nil {
			if result = r.GetResult(); len(result.GetErrors()) == 0 {
				display.show(layers.done())
			}
		}
	}
}

// layerStates has the last state of each layer. The end of a load comes between two messages about its progress.
type layerStates []*adminv1.PullLayer

func (s *layerStates) add(p *adminv1.PullProgress) {
	for _, l := range p.GetLayers() {
		i := slices.IndexFunc(*s, func(o *adminv1.PullLayer) bool { return o.GetDigest() == l.GetDigest() })
		if i < 0 {
			*s = append(*s, l)
		} else {
			(*s)[i] = l
		}
	}
}

// done returns the progress after the end of a load that has succeeded.
func (s *layerStates) done() *adminv1.PullProgress {
	for _, l := range *s {
		if l.GetState() != "present" {
			l.State, l.Bytes = "done", max(l.GetBytes(), l.GetTotal())
		}
	}
	return &adminv1.PullProgress{Layers: *s}
}

// sendArchive sends an archive. If the stream has ended, it returns nil, because receiveLoad returns the reason.
func sendArchive(stream loadStream, src *archiveSource, name string, display progressDisplay) error {
	next := &adminv1.LoadImagesRequest{Name: name, Size: src.size}
	progress := &adminv1.PullLayer{Digest: "archive", Total: src.total, State: "sending"}
	buf := make([]byte, 1<<20)
	for {
		n, err := io.ReadFull(src, buf)
		if n > 0 {
			next.Data = buf[:n]
			if stream.Send(next) != nil {
				return nil
			}
			next = &adminv1.LoadImagesRequest{}
			progress.Bytes += int64(n)
			display.show(&adminv1.PullProgress{Layers: []*adminv1.PullLayer{progress}})
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			progress.State = "done"
			display.show(&adminv1.PullProgress{Layers: []*adminv1.PullLayer{progress}})
			return stream.CloseSend()
		case err != nil:
			return fmt.Errorf("read archive: %w", err)
		}
	}
}

func writeLoaded(t *command.Table, r *adminv1.LoadImagesResult) {
	if len(r.GetImages()) > 0 {
		t.Row("NAME", "ID", "SIZE", "RESULT")
	}
	for _, img := range r.GetImages() {
		result := "loaded"
		if img.GetExisted() {
			result = "existed"
		}
		t.Row(strings.Join(img.GetNames(), ","), img.GetId(), command.ByteSize(img.GetSize()), result)
	}
	for _, e := range r.GetErrors() {
		t.Line("error: %s", e)
	}
}
