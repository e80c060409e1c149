package images

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/cli/clitest"
	"github.com/criserver/criserver/internal/cli/command"
)

func TestImagesTable(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	r := &adminv1.ListImagesResponse{Images: []*adminv1.ListedImage{
		{
			Id: "sha256:0123456789abcdef", Tags: []string{"r.example/a:1", "r.example/a:2"}, Digests: []string{"r.example/a@sha256:1"}, Size: 3 << 20, UniqueSize: 1 << 20,
			Pulled: timestamppb.New(now.Add(-3 * time.Hour)), Pinned: true, Containers: []string{"c"},
		},
		{Id: "sha256:fedcba9876543210", Digests: []string{"r.example/b@sha256:2"}, Pulled: timestamppb.New(now)},
		{Id: "sha256:aaaaaaaaaaaaaaaa", Pulled: timestamppb.New(now)},
	}}
	want := `NAME                  ID             SIZE      UNIQUE    PULLED  USED  PINNED
r.example/a:1         0123456789abc  3.00 MiB  1.00 MiB  3h      1     yes
r.example/a:2         0123456789abc  3.00 MiB  1.00 MiB  3h      1     yes
r.example/b@sha256:2  fedcba9876543  0 B       0 B       0s      0     -
-                     aaaaaaaaaaaaa  0 B       0 B       0s      0     -
`
	if got := clitest.Table(t, func(tab *command.Table) { writeImages(tab, r, now) }); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestPrunedTable(t *testing.T) {
	r := &adminv1.PruneImagesResponse{
		Images: []*adminv1.RemovedImage{{Id: "sha256:1", Names: []string{"a:1"}, Freed: 2048}}, Freed: 2048, TooYoung: 3, Errors: []string{"b:1: in use"},
	}
	want := `would remove a:1 sha256:1 (2.00 KiB)
error: b:1: in use
would free 2.00 KiB
kept 3 unused images that were pulled less than --min-age ago
`
	if got := clitest.Table(t, func(tab *command.Table) { writePruned(tab, r, true) }); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestPullLines checks the output of a pull whose output is no terminal: one line for each change.
func TestPullLines(t *testing.T) {
	layers := func(a, b string) *adminv1.PullImageResponse {
		return &adminv1.PullImageResponse{Progress: &adminv1.PullProgress{Source: "m.example/a:1", Layers: []*adminv1.PullLayer{
			{Digest: "sha256:aaaaaaaaaaaaaaaaaa", Total: 1 << 20, State: a}, {Digest: "sha256:bbbbbbbbbbbbbbbbbb", Total: -1, State: b},
		}}}
	}
	messages := []*adminv1.PullImageResponse{layers("waiting", "present"), layers("fetching", "present"), layers("fetching", "present"), layers("done", "present"), {Id: "sha256:1"}}
	recv := func() (*adminv1.PullImageResponse, error) {
		if len(messages) == 0 {
			return nil, io.EOF
		}
		next := messages[0]
		messages = messages[1:]
		return next, nil
	}
	var b bytes.Buffer
	id, err := showPull(recv, newProgressDisplay(&b))
	if err != nil || id != "sha256:1" {
		t.Errorf("got %q, %v", id, err)
	}
	want := `pulling m.example/a:1
aaaaaaaaaaaaa waiting 1.00 MiB
bbbbbbbbbbbbb exists
aaaaaaaaaaaaa downloading 1.00 MiB
aaaaaaaaaaaaa done 1.00 MiB
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	failed := func() (*adminv1.PullImageResponse, error) { return nil, status.Error(codes.NotFound, "no such image") }
	if _, err := showPull(failed, newProgressDisplay(io.Discard)); err == nil || err.Error() != "no such image" {
		t.Errorf("failed pull: got %v", err)
	}
}

func TestPullCredential(t *testing.T) {
	file := filepath.Join(t.TempDir(), "auth.json")
	// The value is base64 of "bob:s3cret".
	if err := os.WriteFile(file, []byte(`{"auths":{"r.example":{"auth":"Ym9iOnMzY3JldA=="}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	env := &command.Environment{Stdin: strings.NewReader(""), Stderr: io.Discard}
	for name, tc := range map[string]struct {
		options pullOptions
		image   string
		want    string // user, password and server, or the error
		usage   bool
	}{
		"none":                 {image: "r.example/a:1"},
		"user and password":    {options: pullOptions{creds: "bob:p:w"}, image: "a", want: "bob p:w "},
		"empty password":       {options: pullOptions{creds: "bob:"}, image: "a", want: "bob  "},
		"no terminal":          {options: pullOptions{creds: "bob"}, image: "a", want: "not a terminal", usage: true},
		"no user":              {options: pullOptions{creds: ":s3cret"}, image: "a", want: "user must not be empty", usage: true},
		"file":                 {options: pullOptions{authFile: file}, image: "r.example/a:1", want: "bob s3cret r.example"},
		"file, other registry": {options: pullOptions{authFile: file}, image: "q.example/a:1", want: "no credential"},
		"file, short name":     {options: pullOptions{authFile: file}, image: "a:1", want: "must have a registry", usage: true},
		"no file":              {options: pullOptions{authFile: file + "x"}, image: "r.example/a:1", want: "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := tc.options.credential(env, tc.image)
			var usage *command.UsageError
			if errors.As(err, &usage) != tc.usage {
				t.Errorf("got error %v, want an error of usage: %v", err, tc.usage)
			}
			got := ""
			if c != nil {
				got = c.GetUsername() + " " + c.GetPassword() + " " + c.GetServer()
			}
			if err != nil {
				if got = err.Error(); !strings.Contains(got, tc.want) || strings.Contains(got, "s3cret") {
					t.Errorf("got error %q, want %q", got, tc.want)
				}
				return
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
