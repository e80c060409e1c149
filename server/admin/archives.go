package admin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/image"
	"github.com/criserver/criserver/internal/ids"
)

// LoadImages loads the images of the archive that the client sends, and sends the progress. The load ends with the
// call.
//
// LoadImages returns InvalidArgument if the size is negative or wrong, and the errors of image.Manager.Load.
func (s *Server) LoadImages(stream grpc.BidiStreamingServer[adminv1.LoadImagesRequest, adminv1.LoadImagesResponse]) error {
	first, err := stream.Recv()
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("data: must not be empty: %w", errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return err
	}
	if first.GetSize() < 0 {
		return fmt.Errorf("size: must not be negative, is %d: %w", first.GetSize(), errdefs.ErrInvalidArgument)
	}
	req := image.LoadRequest{
		Archive: &archiveReader{recv: stream.Recv, rest: first.GetData(), received: int64(len(first.GetData())), size: first.GetSize()},
		Size:    first.GetSize(), Name: first.GetName(), Key: ids.New(),
	}
	var loaded []image.LoadedImage
	err = withProgress(stream.Context(), func(ctx context.Context) (err error) {
		loaded, err = s.cfg.Images.Load(ctx, req)
		return err
	}, func() error {
		if p, ok := s.cfg.Images.LoadProgress(req.Key); ok {
			return stream.Send(&adminv1.LoadImagesResponse{Progress: pullProgress(&p)})
		}
		return nil
	})
	if err != nil {
		return err
	}
	return stream.Send(&adminv1.LoadImagesResponse{Result: loadResult(loaded)})
}

func loadResult(loaded []image.LoadedImage) *adminv1.LoadImagesResult {
	result := &adminv1.LoadImagesResult{}
	for _, l := range loaded {
		if l.Err != nil {
			result.Errors = append(result.Errors, l.Err.Error())
			continue
		}
		result.Images = append(result.Images, &adminv1.LoadedImage{Id: l.Image.ID.String(), Names: l.Names, Size: l.Image.Size, Existed: l.Existed})
	}
	return result
}

// archiveReader reads the archive that a client sends.
type archiveReader struct {
	recv     func() (*adminv1.LoadImagesRequest, error)
	rest     []byte // of the last message
	received int64
	size     int64 // as announced, or 0
}

// Read implements io.Reader. It returns io.EOF only if the client has sent the complete archive.
func (r *archiveReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		m, err := r.recv()
		if errors.Is(err, io.EOF) && r.size > 0 && r.received != r.size {
			return 0, fmt.Errorf("size: is %d, and the client has sent %d bytes: %w", r.size, r.received, errdefs.ErrInvalidArgument)
		}
		if err != nil {
			return 0, err
		}
		r.rest = m.GetData()
		r.received += int64(len(r.rest))
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// archiveFormats are the formats of archives in the API.
var archiveFormats = map[adminv1.ArchiveFormat]image.ArchiveFormat{
	adminv1.ArchiveFormat_ARCHIVE_FORMAT_UNSPECIFIED: image.OCIArchive,
	adminv1.ArchiveFormat_ARCHIVE_FORMAT_OCI:         image.OCIArchive,
	adminv1.ArchiveFormat_ARCHIVE_FORMAT_DOCKER:      image.DockerArchive,
}

// messageSize is the number of bytes of an archive in one message.
const messageSize = 1 << 20

// SaveImages sends an archive of images, and the progress.
//
// SaveImages returns InvalidArgument if the format is unknown, and the errors of image.Manager.Save.
func (s *Server) SaveImages(req *adminv1.SaveImagesRequest, out grpc.ServerStreamingServer[adminv1.SaveImagesResponse]) error {
	format, ok := archiveFormats[req.GetFormat()]
	if !ok {
		return fmt.Errorf("format: %d is unknown: %w", req.GetFormat(), errdefs.ErrInvalidArgument)
	}
	w := bufio.NewWriterSize(archiveWriter{out}, messageSize)
	saved, err := s.cfg.Images.Save(out.Context(), w, image.SaveRequest{
		Refs: req.GetNames(), Format: format,
		// An error of Send ends the save with the next data.
		Progress: func(p image.PullProgress) { _ = out.Send(&adminv1.SaveImagesResponse{Progress: pullProgress(&p)}) },
	})
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		return err
	}
	result := &adminv1.SaveImagesResult{}
	for _, img := range saved {
		result.Images = append(result.Images, &adminv1.SavedImage{Id: img.ID.String(), SavedId: img.SavedID.String(), Names: img.Names})
	}
	return out.Send(&adminv1.SaveImagesResponse{Result: result})
}

// archiveWriter sends data to a client.
type archiveWriter struct {
	out grpc.ServerStreamingServer[adminv1.SaveImagesResponse]
}

func (w archiveWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), messageSize)
		if err := w.out.Send(&adminv1.SaveImagesResponse{Data: rest[:n]}); err != nil {
			return len(p) - len(rest), err
		}
		rest = rest[n:]
	}
	return len(p), nil
}
