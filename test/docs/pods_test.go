package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/criserver/criserver/test/harness"
)

// The pods that the pages name: default/web, whose port 80 is host port 8080, and default/db. Each has the container
// "app".
var pods = map[string]string{
	"web": `[{ "container_port": 80, "host_port": 8080 }]`,
	"db":  `[]`,
}

// pods creates the pods of the pages that do not exist, are not ready, or have no timeline because the daemon was
// restarted.
func (m *machine) pods() error {
	for _, image := range []string{"busybox", "nginx"} {
		if _, err := m.bash("crictl inspecti -q docker.io/library/" + image + " >/dev/null || crictl pull docker.io/library/" + image); err != nil {
			return err
		}
	}
	for name, ports := range pods {
		running, err := m.bash("for pod in $(crictl pods -q --state ready --namespace '^default$' --name '^" + name + "$'); do" +
			" criserver trace $pod >/dev/null && crictl ps -q --state running --name '^app$' --pod $pod; done 2>/dev/null || true")
		if err != nil {
			return err
		}
		if strings.TrimSpace(running) != "" {
			continue
		}
		if err := m.pod(name, ports); err != nil {
			return err
		}
	}
	return nil
}

// pod runs one pod, in place of an earlier pod with the name.
func (m *machine) pod(name, ports string) error {
	pod := fmt.Sprintf(`{
  "metadata": { "name": %q, "namespace": "default", "uid": %q }, "hostname": %q, "log_directory": "/var/log/pods/default_%s",
  "labels": { "io.kubernetes.pod.name": %q, "io.kubernetes.pod.namespace": "default" },
  "port_mappings": %s, "linux": { "cgroup_parent": "/%s/%s", "security_context": { "namespace_options": { "pid": 1 } } }
}`, name, name, name, name, name, ports, filepath.Base(m.dir), name)
	container := `{
  "metadata": { "name": "app" }, "image": { "image": "docker.io/library/busybox:latest" }, "log_path": "app/0.log",
  "command": ["sh", "-c", "mkdir -p /www && echo hello >/www/index.html && echo started && exec busybox httpd -f -p 80 -h /www"],
  "linux": { "resources": { "cpu_period": 100000, "cpu_quota": 50000, "memory_limit_in_bytes": 67108864 } }
}`
	for file, content := range map[string]string{"pod.json": pod, "container.json": container} {
		if err := os.WriteFile(filepath.Join(m.dir, file), []byte(content), 0o600); err != nil {
			return err
		}
	}
	_, err := m.bash(fmt.Sprintf(`cd %s
crictl pods -q --namespace '^default$' --name '^%s$' | xargs -r crictl rmp -f
mkdir -p /%s /var/log/pods
id=$(crictl runp pod.json)
crictl start "$(crictl create $id container.json pod.json)"
until [ -n "$(ip netns exec criserver-$id ss -Hltn)" ]; do sleep 0.05; done`, m.dir, name, "var/log/pods/default_"+name+"/app"))
	return err
}

// remove removes all pods.
func (m *machine) remove() error {
	_, err := m.bash("crictl rmp --all --force")
	return err
}

// placeholder matches the words of the pages that stand for names that differ on each host.
var placeholder = regexp.MustCompile(`\b(ID|VETH)\b`)

// fill replaces the placeholders of a script: ID is the id of the pod default/web, VETH the name of its interface on
// the host.
func (m *machine) fill(script string) (string, error) {
	if !placeholder.MatchString(script) {
		return script, nil
	}
	out, err := m.bash(`(criserver network default/web -o json || true) | jq -r '.pods[0] | .id, (.interfaces[] | select(.link.name == "eth0") | .host.name)'`)
	names := strings.Fields(out)
	if err != nil || len(names) != 2 {
		return "", fmt.Errorf("read the names of the pod default/web: got %q, %w", out, err)
	}
	return placeholder.ReplaceAllStringFunc(script, func(word string) string { return map[string]string{"ID": names[0], "VETH": names[1]}[word] }), nil
}

// checkLeaks removes all pods, and fails the test if they leave objects that did not exist before.
func (m *machine) checkLeaks(t *testing.T) {
	t.Helper()
	if err := m.remove(); err != nil {
		t.Error(err)
		return
	}
	var leaked []string
	for end := time.Now().Add(harness.Patience(15 * time.Second)); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		after, err := harness.Take(stateDirs, filepath.Base(m.dir), 0)
		if err != nil {
			t.Error(err)
			return
		}
		if leaked = after.Since(m.before); len(leaked) == 0 {
			return
		}
	}
	for _, l := range leaked {
		t.Errorf("leak: %s", l)
	}
}
