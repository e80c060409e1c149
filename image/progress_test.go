package image

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"

	"github.com/criserver/criserver/image/internal/imagetest"
)

// TestALongPullIsInTheLog: it says how far each layer is, again and again.
func TestALongPullIsInTheLog(t *testing.T) {
	hook := test.NewGlobal()
	t.Cleanup(func() { logrus.StandardLogger().ReplaceHooks(make(logrus.LevelHooks)) })
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	b.cfg.ReportInterval = 20 * time.Millisecond
	b.restart(t)
	layer := imagetest.Files(t, imagetest.File("f", noise(1<<20)))
	reg.Push("a", "1", imagetest.Image{Layers: []imagetest.Layer{layer}})
	ref := reg.Host + "/a:1"
	lines := func() []*logrus.Entry {
		var all []*logrus.Entry
		for _, e := range hook.AllEntries() {
			if e.Message == "pulling image" && e.Level == logrus.InfoLevel {
				all = append(all, e)
			}
		}
		return all
	}
	const piece = 100 << 10
	want := fmt.Sprintf("%.12s %d/%d", layer.Digest().Encoded(), piece, len(layer.Blob))
	reg.Set(onBlob(layer.Digest(), func(w http.ResponseWriter, _ *http.Request, content []byte) {
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		_, _ = w.Write(content[:piece])
		w.(http.Flusher).Flush()
		err := soon("two lines that show a tenth", func() bool {
			n := 0
			for _, e := range lines() {
				shown, _ := e.Data["layers"].([]string)
				if len(shown) == 1 && shown[0] == want && e.Data["image"] == ref && e.Data["bytes"] == int64(piece) && e.Data["total"] == int64(len(content)) {
					n++
				}
			}
			return n >= 2
		})
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(content[piece:])
	}))
	b.pull(t, ref)
	after := len(lines())
	time.Sleep(5 * b.cfg.ReportInterval) // nothing reports any more, however long one waits
	equal(t, "lines after the end", len(lines()), after)
	equal(t, "running", len(b.Pulls()), 0)
}

// TestErrorsHaveNoSecretsOfAddresses: registries redirect to addresses that are
// signed, which is a credential of its own.
func TestErrorsHaveNoSecretsOfAddresses(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	layer := imagetest.Files(t, imagetest.File("f", "x"))
	reg.Push("a", "1", imagetest.Image{Layers: []imagetest.Layer{layer}})
	dead := imagetest.DeadHost(t)
	reg.Set(onBlob(layer.Digest(), func(w http.ResponseWriter, r *http.Request, _ []byte) {
		http.Redirect(w, r, "http://user:s3cret@"+dead+"/blob?X-Signature=s3cret&x=y", http.StatusTemporaryRedirect)
	}))
	_, err := b.Pull(t.Context(), PullRequest{Ref: reg.Host + "/a:1"})
	if err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), dead+"/blob?…") {
		t.Errorf("got %v", err)
	}
	if !errors.Is(err, ErrRegistryUnavailable) || !strings.HasPrefix(err.Error(), ErrRegistryUnavailable.Error()) {
		t.Errorf("class of %v", err)
	}
}

// TestErrorsAreBounded: a registry cannot fill the log.
func TestErrorsAreBounded(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	layer := imagetest.Files(t, imagetest.File("f", "x"))
	reg.Push("a", "1", imagetest.Image{Layers: []imagetest.Layer{layer}})
	reg.Set(onBlob(layer.Digest(), func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":%q}]}`, strings.Repeat("é", 100<<10))
	}))
	_, err := b.Pull(t.Context(), PullRequest{Ref: reg.Host + "/a:1"})
	if !errdefs.IsPermissionDenied(err) || len(err.Error()) > 3<<10 || !utf8.ValidString(err.Error()) {
		t.Errorf("%.3000v", err)
	}
}

// TestNextNameTakesOver: of the names that a short one can stand for, one fails
// in the middle, with a layer that the next one has as well.
func TestNextNameTakesOver(t *testing.T) {
	bad, good := imagetest.NewRegistry(t), imagetest.NewRegistry(t)
	b := newBed(t, bad, good)
	b.cfg.ProgressWindow = 3 * time.Second // a busy machine must not make the good registry look stalled
	b.restart(t)
	write(t, b.cfg.RegistriesConf, fmt.Sprintf("unqualified-search-registries = [%[1]q, %[2]q]\n[[registry]]\nlocation = %[1]q\ninsecure = true\n[[registry]]\nlocation = %[2]q\ninsecure = true\n", bad.Host, good.Host))
	layer := imagetest.Files(t, imagetest.File("f", noise(1<<20)))
	for _, r := range []*imagetest.Registry{bad, good} {
		r.Push("a", "1", imagetest.Image{Layers: []imagetest.Layer{layer}})
	}
	bad.Set(onBlob(layer.Digest(), imagetest.Stall))
	equalList(t, "tags", b.pull(t, "a:1").RepoTags, []string{good.Host + "/a:1"})
}
