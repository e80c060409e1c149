package system

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"

	"github.com/criserver/criserver/test/harness"
)

// noise returns random bytes, which do not compress.
func noise(n int) string {
	b := make([]byte, n)
	rnd := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = rnd.Read(b) // Read never fails
	return string(b)
}

// gate is a handler that delivers the blobs of a registry in pieces, on request.
type gate struct {
	piece int
	begun chan string   // receives the path of each requested blob
	next  chan struct{} // a value releases one piece; closing it releases all
}

func newGate(piece int) *gate {
	return &gate{piece: piece, begun: make(chan string, 100), next: make(chan struct{})}
}

func (g *gate) serve(r *testRegistry, only string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, req *http.Request) bool {
		_, digest, ok := strings.Cut(req.URL.Path, "/blobs/")
		if !ok || only != "" && digest != only {
			return false
		}
		b := r.blob(req)
		g.begun <- digest
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		for len(b) > 0 {
			select {
			case <-g.next:
			case <-req.Context().Done():
				return true
			}
			n := min(g.piece, len(b))
			_, _ = w.Write(b[:n])
			w.(http.Flusher).Flush()
			b = b[n:]
		}
		return true
	}
}

// progress is the state of a running pull in the verbose Status.
type progress struct {
	Image, Source  string
	Since          time.Time
	Bytes, Total   int64
	BytesPerSecond int64
	Callers        int
	IdleSeconds    float64
	Layers         []struct {
		Digest, State string
		Bytes, Total  int64
	}
}

func (n *node) pulls(t *testing.T) []progress {
	t.Helper()
	st, err := n.RuntimeService.Status(t.Context(), &cri.StatusRequest{Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	var all []progress
	if err := json.Unmarshal([]byte(st.GetInfo()["pulls"]), &all); err != nil {
		t.Fatalf("decode the pulls %q in the verbose status: %v", st.GetInfo()["pulls"], err)
	}
	mustNotShow(t, "Status", st.GetInfo()["pulls"])
	return all
}

// pulling starts a pull and returns a function that waits for its result.
func (n *node) pulling(ctx context.Context, t *testing.T, ref string, auth *cri.AuthConfig) (wait func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := n.ImageService.PullImage(ctx, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: ref}, Auth: auth})
		done <- err
	}()
	return func() error { return <-done }
}

// TestPullProgress pulls from a registry that is slow for longer than the progress
// window, and then stops.
func TestPullProgress(t *testing.T) {
	window := harness.Patience(1500 * time.Millisecond)
	n := pullNode(t, "progress", fmt.Sprintf("progress_window = %q", window))
	reg := newRegistry(t)
	n.trust(t, reg)
	img := imageOf(t, v1.Config{}, layerOf(t, textFile("noise", noise(64<<10))))
	ref := reg.push(t, "slow:1", img)
	layer := blobOf(t, img)
	g := newGate(1 << 10)
	reg.set(g.serve(reg, layer))
	auth := &cri.AuthConfig{Username: authUser, Password: authPassword}

	wait := n.pulling(t.Context(), t, ref, auth)
	<-g.begun
	begun := time.Now()
	for i := 1; time.Since(begun) < 2*window; i++ {
		g.next <- struct{}{}
		waitFor(t, "the piece to be counted", func() bool {
			p := n.pulls(t)
			return len(p) == 1 && p[0].Bytes == int64(i)<<10
		})
		time.Sleep(window / 10) // the test needs a slow registry
	}
	p := n.pulls(t)[0]
	switch {
	case p.Image != ref || p.Source != ref || p.Since.IsZero() || time.Since(p.Since) > harness.Patience(time.Minute):
		t.Errorf("progress: got %+v, want image and source %s and a recent start", p, ref)
	case p.Total < 64<<10 || p.Total > 80<<10 || p.Bytes <= 0 || p.Bytes >= p.Total || p.BytesPerSecond <= 0 || p.IdleSeconds > window.Seconds():
		t.Errorf("progress: got %+v, want 64 to 80 KiB in total, some of them received", p)
	case len(p.Layers) != 1 || p.Layers[0].Digest != layer || p.Layers[0].State != "fetching" || p.Layers[0].Bytes != p.Bytes || p.Layers[0].Total != p.Total:
		t.Errorf("layers: got %+v, want layer %s in state fetching with the progress of the pull", p.Layers, layer)
	}
	// The registry stops sending.
	err := wait()
	if !kubeletSees(err, crierrors.ErrRegistryUnavailable) || !strings.Contains(err.Error(), "no data for "+window.String()) {
		t.Errorf("pull that receives no data: got error %v, want ErrRegistryUnavailable without data for %s", err, window)
	}
	if p := n.pulls(t); len(p) > 0 {
		t.Errorf("pulls after the failure: got %+v, want none", p)
	}
	close(g.next)
	if err := n.pullWith(t, ref, auth); err != nil {
		t.Errorf("pull %s: %v", ref, err)
	}
}

// TestConcurrentPullsShareDownload checks that two requests for an image cause one pull, that two images
// share the download of a common layer, and that a pull ends when its last caller leaves.
func TestConcurrentPullsShareDownload(t *testing.T) {
	n := pullNode(t, "join")
	reg := newRegistry(t)
	n.trust(t, reg)
	shared := layerOf(t, textFile("noise", noise(64<<10)))
	one := reg.push(t, "one:1", imageOf(t, v1.Config{}, shared, layerOf(t, textFile("one", ""))))
	two := reg.push(t, "two:1", imageOf(t, v1.Config{}, shared, layerOf(t, textFile("two", ""))))
	layer := digestOf(t, shared)
	g := newGate(16 << 10)
	reg.set(g.serve(reg, layer))

	ctx, leave := context.WithCancel(t.Context())
	first := n.pulling(ctx, t, one, nil)
	<-g.begun
	second, other := n.pulling(t.Context(), t, one, nil), n.pulling(t.Context(), t, two, nil)
	waitFor(t, "the others", func() bool {
		p := n.pulls(t)
		return len(p) == 2 && p[0].Callers == 2 && p[1].Callers == 1
	})
	leave() // the first caller leaves, and the pull continues for the second
	if err := first(); status.Code(err) != codes.Canceled {
		t.Errorf("first caller: got error %v, want Canceled", err)
	}
	close(g.next)
	if err := second(); err != nil {
		t.Errorf("second caller: got error %v, want none", err)
	}
	if err := other(); err != nil {
		t.Errorf("other image: got error %v, want none", err)
	}
	manifests, blobs := 0, 0
	for _, r := range reg.takeRequests("") {
		switch {
		case strings.HasSuffix(r.path, "/one/manifests/1"):
			manifests++
		case strings.HasSuffix(r.path, "/blobs/"+layer):
			blobs++
		}
	}
	if manifests != 1 || blobs != 1 {
		t.Errorf("downloads: got %d of the manifest and %d of the shared layer, want one each", manifests, blobs)
	}

	alone := imageOf(t, v1.Config{}, layerOf(t, textFile("noise", noise(65<<10))))
	ref := reg.push(t, "alone:1", alone)
	g = newGate(16 << 10)
	reg.set(g.serve(reg, blobOf(t, alone)))
	ctx, leave = context.WithCancel(t.Context())
	wait := n.pulling(ctx, t, ref, nil)
	<-g.begun
	leave()
	if err := wait(); status.Code(err) != codes.Canceled {
		t.Errorf("pull whose caller left: got error %v, want Canceled", err)
	}
	waitFor(t, "the pull to end", func() bool { return len(n.pulls(t)) == 0 })
	staged, err := os.ReadDir(filepath.Join(n.Dir, "root/tmp"))
	if err != nil || len(staged) > 0 {
		t.Errorf("staged files: got %v (error %v), want none", staged, err)
	}
}

// TestDaemonKillDuringPull checks that after a kill during a pull the next daemon lists no
// incomplete image, and does not download complete layers again.
func TestDaemonKillDuringPull(t *testing.T) {
	n := pullNode(t, "killpull")
	reg := newRegistry(t)
	n.trust(t, reg)
	complete := layerOf(t, textFile("complete", "complete"))
	img := imageOf(t, v1.Config{}, complete, layerOf(t, textFile("noise", noise(256<<10))))
	ref := reg.push(t, "a:1", img)
	g := newGate(16 << 10)
	reg.set(g.serve(reg, blobOf(t, img)))
	wait := n.pulling(t.Context(), t, ref, nil)
	<-g.begun
	g.next <- struct{}{}
	g.next <- struct{}{}
	waitFor(t, "the other layer", func() bool {
		p := n.pulls(t)
		return len(p) == 1 && len(p[0].Layers) == 2 && (p[0].Layers[0].State == "done" || p[0].Layers[1].State == "done")
	})
	n.Kill()
	if err := wait(); err == nil {
		t.Error("pull from the killed daemon succeeded, want an error")
	}
	n.restart(t)
	if st := n.imageStatus(t, ref, false).GetImage(); st != nil {
		t.Errorf("status of an incomplete image: got %v, want none", st)
	}
	staged, err := os.ReadDir(filepath.Join(n.Dir, "root/tmp"))
	if err != nil || len(staged) > 0 {
		t.Errorf("staged files: got %v (error %v), want none", staged, err)
	}
	waitFor(t, "the trash to be emptied", func() bool {
		left, err := os.ReadDir(filepath.Join(n.Dir, "root/trash"))
		return err == nil && len(left) == 0
	})
	reg.takeRequests("")
	close(g.next)
	n.Pull(t, ref)
	if requests := reg.takeRequests(digestOf(t, complete)); len(requests) > 0 {
		t.Errorf("requests for a complete layer: got %v, want none", requests)
	}
}

// TestDiskFull pulls an image that is larger than the file system of the store.
func TestDiskFull(t *testing.T) {
	n := makeNode("full")
	root := filepath.Join(n.Dir, "root")
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=24m,mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Error(err)
		}
	})
	n.start(t)
	reg := newRegistry(t)
	n.trust(t, reg)
	var small, large []v1.Layer
	for i := range 4 {
		small = append(small, layerOf(t, textFile(fmt.Sprint("s", i), noise(100<<10+i))))
		large = append(large, layerOf(t, textFile(fmt.Sprint("l", i), noise(8<<20+i))))
	}
	fits, tooLarge := reg.push(t, "fits:1", imageOf(t, v1.Config{}, small...)), reg.push(t, "large:1", imageOf(t, v1.Config{}, large...))
	used := func() uint64 {
		var st unix.Statfs_t
		if err := unix.Statfs(root, &st); err != nil {
			t.Fatal(err)
		}
		return (st.Blocks - st.Bfree) * uint64(st.Bsize)
	}
	before := used()
	for range 2 {
		err := n.pullFor(t, "", tooLarge)
		if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "no space left on device") {
			t.Errorf("pull on a full disk: got error %v, want ResourceExhausted", err)
		}
		if n.imageStatus(t, tooLarge, false).GetImage() != nil {
			t.Error("status of an incomplete image: got an image, want none")
		}
		// The layers of the failed pull are deleted, because they would fill the disk.
		waitFor(t, "the space to be free again", func() bool { return used() <= before+64<<10 })
	}
	n.Pull(t, fits)
}

// TestStatusListsPulls checks that Status lists all pulls, the oldest first.
func TestStatusListsPulls(t *testing.T) {
	n := pullNode(t, "several")
	reg := newRegistry(t)
	n.trust(t, reg)
	g := newGate(16 << 10)
	reg.set(g.serve(reg, ""))
	var refs []string
	var waits []func() error
	for i := range 3 {
		ref := reg.push(t, fmt.Sprintf("several:%d", i), imageOf(t, v1.Config{}, layerOf(t, textFile("noise", noise(32<<10+i)))))
		refs = append(refs, ref)
		waits = append(waits, n.pulling(t.Context(), t, ref, nil))
		<-g.begun
	}
	var all []string
	for _, p := range n.pulls(t) {
		all = append(all, p.Image)
	}
	if strings.Join(all, " ") != strings.Join(refs, " ") {
		t.Errorf("pulls in Status: got %v, want %v", all, refs)
	}
	close(g.next)
	var ended sync.WaitGroup
	for _, wait := range waits {
		ended.Go(func() {
			if err := wait(); err != nil {
				t.Error(err)
			}
		})
	}
	ended.Wait()
}
