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

// TestPullProgressLog checks that the log has the progress of each layer of a running pull at intervals.
func TestPullProgressLog(t *testing.T) {
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
	const part = 100 << 10
	want := fmt.Sprintf("%.12s %d/%d", layer.Digest().Encoded(), part, len(layer.Blob))
	reg.Set(onBlob(layer.Digest(), func(w http.ResponseWriter, _ *http.Request, content []byte) {
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		_, _ = w.Write(content[:part])
		w.(http.Flusher).Flush()
		err := waitFor("two log lines with the first part", func() bool {
			n := 0
			for _, e := range lines() {
				layers, _ := e.Data["layers"].([]string)
				if len(layers) == 1 && layers[0] == want && e.Data["image"] == ref && e.Data["bytes"] == int64(part) && e.Data["total"] == int64(len(content)) {
					n++
				}
			}
			return n >= 2
		})
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(content[part:])
	}))
	b.pull(t, ref)
	after := len(lines())
	time.Sleep(5 * b.cfg.ReportInterval) // a log line after the end of the pull would be an error
	equal(t, "log lines after the end of the pull", len(lines()), after)
	equal(t, "running pulls", len(b.Pulls()), 0)
}

// TestErrorsRedactURLs checks that errors do not have the signed parts of URLs that a registry
// redirects to, because they are credentials.
func TestErrorsRedactURLs(t *testing.T) {
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
		t.Errorf("got error of another class: %v", err)
	}
}

// TestErrorLength checks that the message of a registry does not make an error too long for the log.
func TestErrorLength(t *testing.T) {
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
		t.Errorf("got error of %d bytes: %.3000v", len(err.Error()), err)
	}
}
