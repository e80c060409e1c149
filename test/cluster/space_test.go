package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/criserver/criserver/test/harness"
)

// space is a namespace of the cluster that a test has for itself.
type space struct {
	*testing.T
	name string
}

var spaces atomic.Int32

// newSpace creates a namespace, which is deleted with everything in it when the test ends.
func newSpace(t *testing.T) space {
	t.Helper()
	s := space{t, fmt.Sprintf("test-%d", spaces.Add(1))}
	if _, err := suite.Kubectl(t.Context(), "create", "namespace", s.name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			s.report()
		}
		timeout := harness.Patience(90 * time.Second)
		if _, err := suite.Kubectl(context.Background(), "delete", "namespace", s.name, "--timeout="+timeout.String()); err != nil {
			t.Error(err)
		}
	})
	// Pods are refused until the controller has created the service account.
	eventually(t, 20*time.Second, func() error {
		_, err := suite.Kubectl(t.Context(), "-n", s.name, "get", "serviceaccount", "default")
		return err
	})
	return s
}

// report logs the pods and events of the namespace.
func (s space) report() {
	for _, args := range [][]string{{"get", "pods", "-o", "wide"}, {"get", "events", "--sort-by=.lastTimestamp"}} {
		out, err := suite.Kubectl(context.Background(), append([]string{"-n", s.name}, args...)...)
		if lines := strings.SplitAfter(out, "\n"); len(lines) > 40 {
			out = strings.Join(lines[len(lines)-40:], "")
		}
		s.Logf("%v: %v\n%s", args, err, out)
	}
}

// try runs kubectl in the namespace.
func (s space) try(args ...string) (string, error) {
	return suite.Kubectl(s.Context(), append([]string{"-n", s.name}, args...)...)
}

// kubectl runs kubectl in the namespace and returns its output without the last line break.
func (s space) kubectl(args ...string) string {
	s.Helper()
	out, err := s.try(args...)
	if err != nil {
		s.Fatal(err)
	}
	return strings.TrimRight(out, "\n")
}

// apply applies manifests in the namespace.
func (s space) apply(manifests ...string) {
	s.Helper()
	if err := suite.apply(s.Context(), strings.Join(manifests, "\n---\n"), "-n", s.name); err != nil {
		s.Fatal(err)
	}
}

// wait waits for a condition of objects, as kubectl wait does.
func (s space) wait(condition string, objects ...string) {
	s.Helper()
	s.kubectl(append([]string{"wait", "--for=" + condition, "--timeout=" + harness.Patience(60*time.Second).String()}, objects...)...)
}

// ready waits until pods are ready.
func (s space) ready(names ...string) {
	s.Helper()
	for i, name := range names {
		names[i] = "pod/" + name
	}
	s.wait("condition=Ready", names...)
}

// rollout waits until a workload has been rolled out.
func (s space) rollout(object string) {
	s.Helper()
	s.kubectl("rollout", "status", object, "--timeout="+harness.Patience(90*time.Second).String())
}

// sh runs a shell command in a container of a pod. The name of a container other than the default follows a slash.
func (s space) sh(pod, script string) string {
	s.Helper()
	out, err := s.trySh(pod, script)
	if err != nil {
		s.Fatal(err)
	}
	return out
}

func (s space) trySh(pod, script string) (string, error) {
	name, container, ok := strings.Cut(pod, "/")
	args := []string{"exec", name}
	if ok {
		args = append(args, "-c", container)
	}
	out, err := s.try(append(args, "--", "sh", "-c", script)...)
	return strings.TrimRight(out, "\n"), err
}

// want fails the test if the values differ.
func (s space) want(what, got, want string) {
	s.Helper()
	if got != want {
		s.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// pod reads a pod.
func (s space) pod(name string) *corev1.Pod {
	s.Helper()
	var p corev1.Pod
	if err := suite.Get(s.Context(), "/api/v1/namespaces/"+s.name+"/pods/"+name, &p); err != nil {
		s.Fatal(err)
	}
	return &p
}

// pods returns the pods that a label selector matches.
func (s space) pods(selector string) []corev1.Pod {
	s.Helper()
	var list corev1.PodList
	err := suite.Get(s.Context(), "/api/v1/namespaces/"+s.name+"/pods?labelSelector="+url.QueryEscape(selector), &list)
	if err != nil {
		s.Fatal(err)
	}
	return list.Items
}

// sleeper returns the manifest of a pod that does nothing. fields are further fields of the pod's spec in JSON, and
// containerFields of its container main.
func sleeper(name, node, fields, containerFields string) string {
	return podOf(name, node, fields, container("main", busybox, "trap exit TERM; while :; do sleep 1; done", containerFields))
}

// web returns the manifest of a pod with a server that answers each request with the name of the pod, on IPv4 and IPv6.
func web(name, node, fields, containerFields string) string {
	return podOf(name, node, fields, container("main", nginx, webScript, containerFields+withComma(readiness())))
}

// readiness returns the readiness probe of a container that runs webScript.
func readiness() string {
	return fmt.Sprintf(`"readinessProbe": {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1, "timeoutSeconds": %d}`, harness.PatienceSeconds(1))
}

const webScript = `echo "$(hostname)" >/usr/share/nginx/html/index.html
echo "server { listen 80; listen [::]:80; root /usr/share/nginx/html; location / { try_files \$uri /index.html; } }" >/etc/nginx/conf.d/default.conf
exec nginx -g "daemon off;"`

// container returns a container that runs a shell script. fields begin with a comma.
func container(name, image, script, fields string) string {
	text, err := json.Marshal(script)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf(`{"name": %q, "image": %q, "command": ["sh", "-c", %s]%s}`, name, image, text, withComma(fields))
}

func podOf(name, node, fields string, containers ...string) string {
	if node != "" {
		fields += fmt.Sprintf(`, "nodeName": %q`, node)
	}
	return fmt.Sprintf(`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": %[1]q, "labels": {"app": %[1]q}},
"spec": {"terminationGracePeriodSeconds": 1%[2]s, "containers": [%[3]s]}}`, name, withComma(fields), strings.Join(containers, ", "))
}

// withComma puts a comma before fields unless there are none.
func withComma(fields string) string {
	fields = strings.TrimLeft(fields, ", ")
	if fields == "" {
		return ""
	}
	return ", " + fields
}
