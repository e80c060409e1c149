package cluster

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestWorkloads checks the controllers of Kubernetes and the kinds of containers of a pod.
func TestWorkloads(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"deployment":           testDeployment,
		"daemon set":           testDaemonSet,
		"stateful set":         testStatefulSet,
		"jobs":                 testJobs,
		"init and sidecar":     testSidecar,
		"ephemeral container":  testDebug,
		"priority and preempt": testPreemption,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

// workload returns the manifest of an apps/v1 object whose pods have the label app.
func workload(kind, name, fields, podFields string, containers ...string) string {
	if !strings.Contains(podFields, "terminationGracePeriodSeconds") {
		podFields = `"terminationGracePeriodSeconds": 1` + withComma(podFields)
	}
	return fmt.Sprintf(`{"apiVersion": "apps/v1", "kind": %[1]q, "metadata": {"name": %[2]q}, "spec": {
"selector": {"matchLabels": {"app": %[2]q}}%[3]s, "template": {"metadata": {"labels": {"app": %[2]q}},
"spec": {%[4]s, "containers": [%[5]s]}}}}`, kind, name, withComma(fields), podFields, strings.Join(containers, ", "))
}

// spread puts the pods of an app on all nodes that the scheduler uses.
func spread(app string) string {
	return fmt.Sprintf(`"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
"whenUnsatisfiable": "DoNotSchedule", "nodeTaintsPolicy": "Honor", "labelSelector": {"matchLabels": {"app": %q}}}]`, app)
}

const sleepScript = "trap exit TERM; while :; do sleep 1; done"

// testDeployment checks replicas on both nodes, a rolling update, and a rollback.
func testDeployment(t *testing.T) {
	s := newSpace(t)
	s.apply(workload("Deployment", "app", `"replicas": 4`, spread("app"), container("main", busybox, sleepScript, `"env": [{"name": "V", "value": "1"}]`)))
	s.rollout("deployment/app")
	nodes := map[string]int{}
	for _, p := range s.pods("app=app") {
		nodes[p.Spec.NodeName]++
	}
	if len(nodes) != len(suite.Nodes) {
		t.Errorf("pods per node: %v, want pods on %d nodes", nodes, len(suite.Nodes))
	}
	s.kubectl("set", "env", "deployment/app", "V=2")
	s.rollout("deployment/app")
	for _, p := range s.pods("app=app") {
		if p.DeletionTimestamp == nil {
			s.want("variable in "+p.Name+" after the update", s.sh(p.Name, "echo $V"), "2")
		}
	}
	s.kubectl("rollout", "undo", "deployment/app")
	s.rollout("deployment/app")
	eventually(t, 30*time.Second, func() error {
		for _, p := range s.pods("app=app") {
			if v := p.Spec.Containers[0].Env[0].Value; v != "1" && p.DeletionTimestamp == nil {
				return fmt.Errorf("pod %s of version %s exists after the rollback", p.Name, v)
			}
		}
		return nil
	})
}

// testDaemonSet checks that each node has one pod, with a user namespace.
func testDaemonSet(t *testing.T) {
	s := newSpace(t)
	s.apply(workload("DaemonSet", "agent", "", `"hostUsers": false`, container("main", busybox, sleepScript, "")))
	s.rollout("daemonset/agent")
	pods := s.pods("app=agent")
	if len(pods) != len(suite.Nodes) {
		t.Fatalf("%d pods, want %d", len(pods), len(suite.Nodes))
	}
	maps := map[string]string{}
	for _, p := range pods {
		fields := strings.Fields(s.sh(p.Name, "cat /proc/self/uid_map"))
		if len(fields) != 3 || fields[0] != "0" || fields[1] == "0" || fields[2] != "65536" {
			t.Errorf("user namespace of %s: %v", p.Name, fields)
		}
		maps[p.Spec.NodeName] = p.Name
	}
	if len(maps) != len(suite.Nodes) {
		t.Errorf("pods by node: %v", maps)
	}
}

// testStatefulSet checks stable names in DNS, and that a deleted pod returns with its name.
func testStatefulSet(t *testing.T) {
	s := newSpace(t)
	s.apply(
		`{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"}, "spec": {"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"port": 80}]}}`,
		workload("StatefulSet", "db", `"replicas": 2, "serviceName": "db", "podManagementPolicy": "Parallel"`, spread("db"), container("main", nginx, webScript, "")),
		sleeper("client", "", "", ""),
	)
	s.rollout("statefulset/db")
	s.ready("client")
	for _, name := range []string{"db-0", "db-1"} {
		s.answers("client", "http://"+name+".db/", name)
	}
	before := s.pod("db-1").UID
	s.kubectl("delete", "pod", "db-1")
	s.rollout("statefulset/db")
	if after := s.pod("db-1").UID; after == before {
		t.Error("the deleted pod still exists")
	}
	s.answers("client", "http://db-1.db/", "db-1")
}

// testJobs checks a Job with parallel pods, one that fails until its limit, and a CronJob that runs now. The long
// selection waits for the schedule of a CronJob, too, which has a resolution of a minute.
func testJobs(t *testing.T) {
	s := newSpace(t)
	job := func(name, fields, script string) string {
		return fmt.Sprintf(`{"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": %q}, "spec": {"template": {"spec": {
"restartPolicy": "Never", "containers": [%s]}}%s}}`, name, container("main", busybox, script, ""), withComma(fields))
	}
	s.apply(
		job("parallel", `"completions": 4, "parallelism": 4`, "echo result of $(hostname)"),
		job("failing", `"backoffLimit": 0`, "echo reason >/dev/termination-log; exit 7"),
		fmt.Sprintf(`{"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "cron"}, "spec": {"schedule": "* * * * *",
"jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [%s]}}}}}}`, container("main", busybox, "echo from cron", "")),
	)
	s.kubectl("create", "job", "now", "--from=cronjob/cron")
	s.wait("condition=Complete", "job/parallel", "job/now")
	s.wait("condition=Failed", "job/failing")
	s.want("log of the CronJob", s.kubectl("logs", "job/now"), "from cron")
	if n := strings.Count(s.kubectl("logs", "-l", "job-name=parallel", "--tail=-1"), "result of parallel-"); n != 4 {
		t.Errorf("results of the parallel Job: %d, want 4", n)
	}
	if !testing.Short() {
		eventually(t, 90*time.Second, func() error {
			const succeeded = "jsonpath={.items[?(@.status.succeeded==1)].metadata.name}"
			if out := s.kubectl("get", "jobs", "-o", succeeded); !strings.Contains(out, "cron-") {
				return fmt.Errorf("successful Jobs: %s, want one that the schedule of the CronJob has started", out)
			}
			return nil
		})
	}
	failed := s.pods("job-name=failing")
	if len(failed) != 1 || failed[0].Status.Phase != corev1.PodFailed {
		t.Fatalf("pods of the failing Job: %d", len(failed))
	}
	end := failed[0].Status.ContainerStatuses[0].State.Terminated
	if end == nil || end.ExitCode != 7 || end.Message != "reason\n" {
		t.Errorf("end of the failing pod: %+v", end)
	}
}

// testSidecar checks the order of init containers, sidecars and containers at the start, that a sidecar runs beside the
// container, and that a Job with a sidecar completes.
func testSidecar(t *testing.T) {
	s := newSpace(t)
	mount := `"volumeMounts": [{"name": "data", "mountPath": "/data"}]`
	step := func(name string) string { return "echo " + name + " >>/data/steps" }
	fields := fmt.Sprintf(`"volumes": [{"name": "data", "emptyDir": {}}], "restartPolicy": "Never", "initContainers": [%s, %s, %s]`,
		container("first", busybox, step("first"), mount),
		container("sidecar", busybox, step("sidecar")+"; "+sleepScript, mount+`, "restartPolicy": "Always", "startupProbe": {"exec": {"command": ["test", "-e", "/data/steps"]}, "periodSeconds": 1}`),
		container("last", busybox, step("last"), mount))
	s.apply(podOf("ordered", "", fields, container("main", busybox, step("main")+"; until test -e /data/end; do sleep 0.1; done", mount)))
	s.wait("jsonpath={.status.containerStatuses[0].state.running}", "pod/ordered")
	eventually(t, 10*time.Second, func() error {
		if got := s.sh("ordered/sidecar", "cat /data/steps | xargs"); got != "first sidecar last main" {
			return fmt.Errorf("order of the containers: %s", got)
		}
		return nil
	})
	s.sh("ordered/main", "touch /data/end")
	s.wait("jsonpath={.status.phase}=Succeeded", "pod/ordered")
}

// testDebug adds an ephemeral container to a running pod. The container sees the processes of its target.
func testDebug(t *testing.T) {
	s := newSpace(t)
	s.apply(sleeper("target", "", "", ""))
	s.ready("target")
	s.kubectl("debug", "target", "--image="+busybox, "--target=main", "--container=debugger", "--profile=general", "--", "sh", "-c", sleepScript)
	s.wait("jsonpath={.status.ephemeralContainerStatuses[0].state.running}", "pod/target")
	out := s.sh("target/debugger", "ps -o args; ls /proc/1/root/ | xargs")
	if !strings.Contains(out, "trap exit TERM") {
		t.Errorf("processes that the ephemeral container sees: %s", out)
	}
	if n := s.pod("target").Status.ContainerStatuses[0].RestartCount; n != 0 {
		t.Errorf("restarts of the target: %d", n)
	}
}

// testPreemption fills a node with a pod of low priority, and checks that a pod of high priority takes its place.
func testPreemption(t *testing.T) {
	s := newSpace(t)
	class := s.name + "-high"
	s.apply(fmt.Sprintf(`{"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": %q}, "value": 1000}`, class))
	s.deleteLater("priorityclass", class)
	// An extended resource that only this test requests leaves the other pods alone.
	patch, err := json.Marshal([]map[string]string{{"op": "add", "path": "/status/capacity/example.com~1preemption", "value": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	s.kubectl("patch", "node", "node2", "--subresource=status", "--type=json", "-p", string(patch))
	const resource = `"resources": {"limits": {"example.com/preemption": "1"}}`
	s.apply(sleeper("low", "", "", resource))
	s.ready("low")
	s.apply(sleeper("high", "", fmt.Sprintf(`"priorityClassName": %q`, class), resource))
	s.ready("high")
	eventually(t, 20*time.Second, func() error {
		if pods := s.pods("app=low"); len(pods) > 0 && pods[0].DeletionTimestamp == nil && pods[0].Status.Phase != corev1.PodFailed {
			return fmt.Errorf("the preempted pod is in phase %s", pods[0].Status.Phase)
		}
		return nil
	})
}
