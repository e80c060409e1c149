package kubelet

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/criserver/criserver/test/harness"
)

// api is a client of the kubelet's API, like the API server.
type api struct {
	config *rest.Config
	client *http.Client
}

func newAPI() (*api, error) {
	config := &rest.Config{Host: apiURL, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
	client, err := rest.HTTPClientFor(config)
	return &api{config, client}, err
}

// container names a container of a pod in the default namespace.
type container struct{ pod, name string }

// url returns the URL of path/namespace/pod/container, or of path if c is empty.
func (a *api) url(path string, c container, query url.Values) *url.URL {
	u, err := url.Parse(a.config.Host + "/" + path)
	if err != nil {
		panic(err)
	}
	if c.pod != "" {
		u = u.JoinPath("default", c.pod+"-"+nodeName, c.name)
	}
	u.RawQuery = query.Encode()
	return u
}

// open sends a GET request and returns the body of a successful answer.
func (a *api) open(ctx context.Context, u *url.URL) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	answer, err := a.client.Do(request)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		return nil, fmt.Errorf("GET %s: %s: %s", u.Path, answer.Status, text)
	}
	return answer.Body, nil
}

func (a *api) get(ctx context.Context, u *url.URL) (string, error) {
	body, err := a.open(ctx, u)
	if err != nil {
		return "", err
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	return string(b), err
}

func (a *api) json(ctx context.Context, path string, into any) error {
	text, err := a.get(ctx, a.url(path, container{}, nil))
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(text), into)
}

// logs returns the log of a container.
func (a *api) logs(t *testing.T, c container, query url.Values) string {
	t.Helper()
	text, err := a.get(t.Context(), a.url("containerLogs", c, query))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// pod returns the pod with a name, or nil.
func (a *api) pod(ctx context.Context, name string) (*corev1.Pod, error) {
	var list corev1.PodList
	if err := a.json(ctx, "pods", &list); err != nil {
		return nil, err
	}
	for i := range list.Items {
		if list.Items[i].Name == name+"-"+nodeName {
			return &list.Items[i], nil
		}
	}
	return nil, nil
}

// eventually calls check until it returns nil. It fails with the last error when
// the time has passed.
func eventually(t *testing.T, within time.Duration, check func() error) {
	t.Helper()
	within = harness.Patience(within)
	end := time.Now().Add(within)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after %s: %v", within, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// protocols are the protocols for the streams of exec and attach.
var protocols = map[string]func(*rest.Config, *url.URL) (remotecommand.Executor, error){
	"spdy": func(config *rest.Config, u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewSPDYExecutor(config, http.MethodPost, u)
	},
	"websocket": func(config *rest.Config, u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutor(config, http.MethodGet, u.String())
	},
}

// stream runs exec or attach until it ends.
func (a *api) stream(ctx context.Context, protocol, path string, c container, cmd []string, o remotecommand.StreamOptions) error {
	query := url.Values{"command": cmd}
	for name, wanted := range map[string]bool{"input": o.Stdin != nil, "output": o.Stdout != nil, "error": o.Stderr != nil, "tty": o.Tty} {
		if wanted {
			query.Set(name, "1")
		}
	}
	e, err := protocols[protocol](a.config, a.url(path, c, query))
	if err != nil {
		return err
	}
	return e.StreamWithContext(ctx, o)
}

// exec runs a shell script in a container and returns its output. The script must succeed.
func (a *api) exec(t *testing.T, c container, script string) string {
	t.Helper()
	out, err := a.tryExec(t.Context(), c, script)
	if err != nil {
		t.Fatalf("exec %q in %v: %v: %s", script, c, err, out)
	}
	return out
}

func (a *api) tryExec(ctx context.Context, c container, script string) (string, error) {
	var out, errs bytes.Buffer // separate buffers, because both are written concurrently
	err := a.stream(ctx, "websocket", "exec", c, []string{"sh", "-c", script}, remotecommand.StreamOptions{Stdout: &out, Stderr: &errs})
	return strings.TrimRight(out.String(), "\n") + errs.String(), err
}
