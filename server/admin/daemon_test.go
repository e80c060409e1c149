package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/patience"
)

// serve serves the API on a unix socket and returns a client and a function that stops the
// server.
func serve(t *testing.T, cfg Config) (client adminv1.DaemonClient, stop func()) {
	t.Helper()
	return serveServer(t, New(cfg))
}

func serveServer(t *testing.T, s *Server) (client adminv1.DaemonClient, stop func()) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
	t.Cleanup(func() { conn.Close(); stop() })
	return adminv1.NewDaemonClient(conn), stop
}

type fakeReloader struct {
	result ReloadResult
	err    error
}

func (f fakeReloader) Reload(context.Context) (ReloadResult, error) { return f.result, f.err }

func TestReload(t *testing.T) {
	for _, tc := range []struct {
		reloader Reloader
		code     codes.Code
		want     string
	}{
		{nil, codes.Unimplemented, "reload"},
		{fakeReloader{err: fmt.Errorf("log_level: bad: %w", errdefs.ErrInvalidArgument)}, codes.InvalidArgument, "log_level"},
		{fakeReloader{}, codes.OK, ""},
	} {
		client, _ := serve(t, Config{Reloader: tc.reloader})
		_, err := client.Reload(t.Context(), &adminv1.ReloadRequest{})
		if status.Code(err) != tc.code || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("got %v, want %s with %q", err, tc.code, tc.want)
		}
	}
	client, _ := serve(t, Config{Reloader: fakeReloader{result: ReloadResult{
		Changed: []SettingChange{{"a", "1", "2"}}, NeedRestart: []SettingChange{{"b", "3", "4"}}, Errors: []SettingError{{"c", errors.New("broken")}},
	}}})
	r, err := client.Reload(t.Context(), &adminv1.ReloadRequest{})
	if err != nil || len(r.GetChanged()) != 1 || r.GetChanged()[0].GetNewValue() != "2" || r.GetNeedRestart()[0].GetOldValue() != "3" || r.GetErrors()[0].GetMessage() != "broken" {
		t.Errorf("got %v, %v", r, err)
	}
}

func TestLogLevel(t *testing.T) {
	defer logrus.SetLevel(logrus.GetLevel())
	logrus.SetLevel(logrus.WarnLevel)
	client, _ := serve(t, Config{})
	r, err := client.SetLogLevel(t.Context(), &adminv1.SetLogLevelRequest{Level: "debug"})
	if err != nil || r.GetPreviousLevel() != "warning" || logrus.GetLevel() != logrus.DebugLevel {
		t.Errorf("got %v, %v, level %s", r, err, logrus.GetLevel())
	}
	for _, level := range []string{"", "loud", "fatal", "DEBUG"} {
		if _, err := client.SetLogLevel(t.Context(), &adminv1.SetLogLevelRequest{Level: level}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("level %q: got %v, want InvalidArgument", level, err)
		}
	}
	if l, err := client.GetLogLevel(t.Context(), &adminv1.GetLogLevelRequest{}); err != nil || l.GetLevel() != "debug" {
		t.Errorf("got %v, %v, want debug", l, err)
	}
}

// receive returns the bytes of a profile.
func receive(stream grpc.ServerStreamingClient[adminv1.GetProfileResponse], err error) ([]byte, error) {
	var b bytes.Buffer
	for err == nil {
		var r *adminv1.GetProfileResponse
		if r, err = stream.Recv(); err == nil {
			b.Write(r.GetData())
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b.Bytes(), err
}

func TestProfiles(t *testing.T) {
	client, _ := serve(t, Config{})
	b, err := receive(client.GetProfile(t.Context(), &adminv1.GetProfileRequest{Kind: adminv1.ProfileKind_PROFILE_KIND_GOROUTINES}))
	if err != nil || !bytes.Contains(b, []byte("admin.TestProfiles")) {
		t.Errorf("goroutines: got %d bytes, %v, want the stack of this test", len(b), err)
	}
	gzipMagic := []byte{0x1f, 0x8b}
	for _, req := range []*adminv1.GetProfileRequest{
		{Kind: adminv1.ProfileKind_PROFILE_KIND_HEAP},
		{Kind: adminv1.ProfileKind_PROFILE_KIND_CPU, Duration: durationpb.New(time.Second)},
	} {
		if b, err := receive(client.GetProfile(t.Context(), req)); err != nil || !bytes.HasPrefix(b, gzipMagic) {
			t.Errorf("%s: got %d bytes, %v, want a profile", req.GetKind(), len(b), err)
		}
	}
	for _, req := range []*adminv1.GetProfileRequest{
		{},
		{Kind: 99},
		{Kind: adminv1.ProfileKind_PROFILE_KIND_HEAP, Duration: durationpb.New(time.Second)},
		{Kind: adminv1.ProfileKind_PROFILE_KIND_CPU, Duration: durationpb.New(0)},
		{Kind: adminv1.ProfileKind_PROFILE_KIND_CPU, Duration: durationpb.New(time.Hour)},
	} {
		if _, err := receive(client.GetProfile(t.Context(), req)); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: got %v, want InvalidArgument", req, err)
		}
	}
}

// TestStopEndsProfile checks that only one CPU profile is in progress at a time, and that a
// profile does not delay the stop of the server: the client receives the profile until then.
func TestStopEndsProfile(t *testing.T) {
	server := New(Config{})
	client, stop := serveServer(t, server)
	req := &adminv1.GetProfileRequest{Kind: adminv1.ProfileKind_PROFILE_KIND_CPU, Duration: durationpb.New(10 * time.Minute)}
	type result struct {
		bytes []byte
		err   error
	}
	first := make(chan result, 1)
	go func() {
		b, err := receive(client.GetProfile(t.Context(), req))
		first <- result{b, err}
	}()
	for deadline := patience.Until(10 * time.Second); len(server.profiling) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("timeout: begin of the profile")
		}
	}
	if _, err := receive(client.GetProfile(t.Context(), req)); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("second profile: got %v, want FailedPrecondition", err)
	}
	stop()
	if r := <-first; r.err != nil || len(r.bytes) == 0 {
		t.Errorf("got %d bytes, %v, want the profile until the stop", len(r.bytes), r.err)
	}
}
