package cluster

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestVolumes checks the volumes of pods, and that changes of their sources arrive in running containers.
func TestVolumes(t *testing.T) {
	s := newSpace(t)
	s.apply(
		`{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"key": "one", "other": "unchanged"}}`,
		`{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "secret"}, "stringData": {"password": "first"}}`,
	)
	s.apply(podOf("volumes", "node1", `"securityContext": {"fsGroup": 2000},
"volumes": [
 {"name": "settings", "configMap": {"name": "settings"}},
 {"name": "secret", "secret": {"secretName": "secret", "defaultMode": 256}},
 {"name": "token", "projected": {"sources": [
  {"serviceAccountToken": {"path": "token", "audience": "test", "expirationSeconds": 3600}},
  {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}, {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}},
 {"name": "disk", "emptyDir": {}},
 {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
 {"name": "host", "hostPath": {"path": "/var/lib/test-volumes", "type": "DirectoryOrCreate"}},
 {"name": "image", "image": {"reference": "registry.test/volume:1"}}]`,
		container("main", busybox, sleepScript, `
"env": [
 {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "key"}}},
 {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "password"}}},
 {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
 {"name": "POD_IPS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIPs"}}},
 {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}}],
"resources": {"limits": {"memory": "64Mi"}},
"volumeMounts": [
 {"name": "settings", "mountPath": "/settings"}, {"name": "settings", "mountPath": "/single", "subPath": "key"},
 {"name": "secret", "mountPath": "/secret"}, {"name": "token", "mountPath": "/projected"},
 {"name": "disk", "mountPath": "/disk"}, {"name": "memory", "mountPath": "/memory"},
 {"name": "host", "mountPath": "/host"}, {"name": "image", "mountPath": "/image", "readOnly": true}]`)))
	s.ready("volumes")
	for name, test := range map[string]func(space){
		"environment": checkEnvironment, "config map and secret": checkUpdates, "projected token": checkToken,
		"downward API": checkDownward, "empty dir": checkEmptyDir, "host path": checkHostPath, "image": checkImageVolume,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(space{t, s.name})
		})
	}
}

func checkEnvironment(s space) {
	addresses := strings.Join(s.addresses("volumes"), ",")
	s.want("environment", s.sh("volumes", `echo "$KEY $PASSWORD $NODE $MEMORY $POD_IPS"`), "one first node1 67108864 "+addresses)
}

// checkUpdates changes the ConfigMap and the Secret. Files change, except the files of subPath mounts.
func checkUpdates(s space) {
	s.want("files", s.sh("volumes", "cat /settings/key /settings/other /single /secret/password"), "oneunchangedonefirst")
	s.want("mode of the secret", s.sh("volumes", "stat -L -c %a:%g /secret/password"), "440:2000")
	s.kubectl("patch", "configmap", "settings", "-p", `{"data": {"key": "two"}}`)
	s.kubectl("patch", "secret", "secret", "-p", `{"stringData": {"password": "second"}}`)
	eventually(s.T, 120*time.Second, func() error {
		if got := s.sh("volumes", "cat /settings/key; echo; cat /secret/password"); got != "two\nsecond" {
			return fmt.Errorf("files after the change: %q", got)
		}
		return nil
	})
	s.want("file of a subPath mount", s.sh("volumes", "cat /single"), "one")
}

// checkToken checks that the API server accepts the projected token.
func checkToken(s space) {
	token := s.sh("volumes", "cat /projected/token")
	body, err := json.Marshal(map[string]any{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
		"spec": map[string]any{"token": token, "audiences": []string{"test"}},
	})
	if err != nil {
		s.Fatal(err)
	}
	out, err := suite.API(s.Context(), "POST", "/apis/authentication.k8s.io/v1/tokenreviews", body)
	if err != nil || !strings.Contains(string(out), `"authenticated":true`) || !strings.Contains(string(out), "system:serviceaccount:"+s.name+":default") {
		s.Errorf("review of the token: %v: %s", err, out)
	}
}

// checkDownward changes a label, which arrives in the file.
func checkDownward(s space) {
	s.want("name", s.sh("volumes", "cat /projected/name"), "volumes")
	s.kubectl("label", "pod", "volumes", "color=blue")
	eventually(s.T, 120*time.Second, func() error {
		if got := s.sh("volumes", "cat /projected/labels"); !strings.Contains(got, `color="blue"`) {
			return fmt.Errorf("labels: %s", got)
		}
		return nil
	})
}

func checkEmptyDir(s space) {
	s.want("group of the volume", s.sh("volumes", "stat -c %g /disk"), "2000")
	s.want("file system", s.sh("volumes", "grep ' /memory ' /proc/mounts | cut -d' ' -f3"), "tmpfs")
	if out, err := s.trySh("volumes", "dd if=/dev/zero of=/memory/full bs=1M count=9"); err == nil {
		s.Errorf("9 MiB fit into a volume of 8 MiB: %s", out)
	}
	s.sh("volumes", "rm -f /memory/full; echo data >/disk/file")
}

func checkHostPath(s space) {
	s.sh("volumes", "echo from the pod >/host/file")
	out, err := suite.Nodes[0].Machine.Run(s.Context(), "cat", "/var/lib/test-volumes/file")
	if err != nil || out != "from the pod\n" {
		s.Errorf("file on the node: %q, %v", out, err)
	}
}

func checkImageVolume(s space) {
	s.want("file of the image", s.sh("volumes", "cat /image/data/file"), "from the image")
	if _, err := s.trySh("volumes", "touch /image/new"); err == nil {
		s.Error("the image volume is writable")
	}
}
