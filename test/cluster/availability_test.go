package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/criserver/criserver/test/harness"
)

// load is a client in the LAN that sends requests to a page all the time.
type load struct {
	stop context.CancelFunc
	done sync.WaitGroup

	mu       sync.Mutex
	requests int
	failures []error
}

// startLoad starts a client for each URL. Each client sends a request every 20 ms, each time on a new connection.
func startLoad(ctx context.Context, urls ...string) *load {
	l := &load{}
	ctx, l.stop = context.WithCancel(ctx)
	for _, url := range urls {
		l.done.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				_, err := getFromLAN(context.WithoutCancel(ctx), url)
				l.mu.Lock()
				l.requests++
				if err != nil {
					l.failures = append(l.failures, fmt.Errorf("%s, after %v: %w", began.Format(time.StampMilli), time.Since(began), err))
				}
				l.mu.Unlock()
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	return l
}

// check stops the clients and fails the test if a request has failed.
func (l *load) check(t *testing.T) {
	t.Helper()
	l.stop()
	l.done.Wait()
	if len(l.failures) > 0 {
		t.Errorf("%d of %d requests failed: %v", len(l.failures), l.requests, errors.Join(l.failures[:min(5, len(l.failures))]...))
	}
	if l.requests < 10 {
		t.Errorf("only %d requests were sent", l.requests)
	}
	t.Logf("%d requests", l.requests)
}

// TestAvailability checks that a client sees no failed request while parts of the cluster restart.
func TestAvailability(t *testing.T) {
	s := newSpace(t)
	// A pod that ends serves until kube-proxy has removed it, and a drain leaves two pods.
	linger := harness.PatienceSeconds(2)
	s.apply(
		workload("Deployment", "shop", `"replicas": 4, "strategy": {"rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0}}`,
			fmt.Sprintf(`"terminationGracePeriodSeconds": %d, `, linger+8)+spreadIfPossible("shop"),
			container("main", nginx, webScript, fmt.Sprintf(`"env": [{"name": "V", "value": "1"}], "lifecycle": {"preStop": {"sleep": {"seconds": %d}}}, %s`, linger, readiness()))),
		`{"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "shop"}, "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "shop"}}}}`,
		`{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "shop"}, "spec": {"type": "NodePort", "selector": {"app": "shop"}, "ports": [{"port": 80}]}}`,
	)
	s.rollout("deployment/shop")
	port := s.kubectl("get", "service", "shop", "-o", "jsonpath={.spec.ports[0].nodePort}")
	var urls []string
	for _, n := range suite.Nodes {
		url := "http://" + n.Address4() + ":" + port + "/"
		urls = append(urls, url)
		eventually(t, 20*time.Second, func() error {
			_, err := getFromLAN(t.Context(), url)
			return err
		})
	}
	for _, test := range []struct {
		name  string
		check func(space)
	}{
		{"criserver is killed", killRuntimes},
		{"criserver is upgraded", upgradeRuntimes},
		{"kubelets restart", restartKubelets},
		{"update while criserver is killed", updateWhileKilled},
		{"drain", drainNodes},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := startLoad(t.Context(), urls...)
			test.check(space{t, s.name})
			l.check(t)
		})
	}
}

// spreadIfPossible prefers to put the pods of an app on all nodes.
func spreadIfPossible(app string) string {
	return fmt.Sprintf(`"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
"whenUnsatisfiable": "ScheduleAnyway", "nodeTaintsPolicy": "Honor", "labelSelector": {"matchLabels": {"app": %q}}}]`, app)
}

// starts returns the container ids and restarts of the pods of an app, by pod.
func (s space) starts(app string) map[string]string {
	found := map[string]string{}
	for _, p := range s.pods("app=" + app) {
		for _, c := range p.Status.ContainerStatuses {
			found[p.Name] += fmt.Sprintf("%s %d ", c.ContainerID, c.RestartCount)
		}
	}
	return found
}

// wantSameStarts checks that no container was restarted, after each node has run a new pod.
func (s space) wantSameStarts(before map[string]string) {
	s.Helper()
	for _, n := range suite.Nodes {
		name := fmt.Sprintf("new-%s-%d", n.Name, time.Now().UnixNano())
		s.apply(sleeper(name, n.Name, "", ""))
		s.ready(name)
		s.kubectl("delete", "pod", name, "--wait=false")
	}
	if after := s.starts("shop"); fmt.Sprint(after) != fmt.Sprint(before) {
		s.Errorf("containers: got %v, want %v", after, before)
	}
}

// killRuntimes kills and restarts criserver on every node in turn.
func killRuntimes(s space) {
	before := s.starts("shop")
	for _, n := range suite.Nodes {
		err := n.StopService(s.Context(), Runtime, syscall.SIGKILL)
		time.Sleep(time.Second) // the node has no runtime for a while
		if err := errors.Join(err, n.StartRuntime(s.Context())); err != nil {
			s.Fatal(err)
		}
	}
	s.wantSameStarts(before)
}

// upgradedVersion is the version of the build of criserver in bin/upgrade.
const upgradedVersion = "99.0.0"

// upgradeRuntimes stops criserver on every node in turn and starts another build, and then goes back to the first one.
// The API server has the version of the running build.
func upgradeRuntimes(s space) {
	before := s.starts("shop")
	first := s.runtimeVersion(suite.Nodes[0])
	for _, build := range []struct{ program, version string }{
		{suite.program("upgrade/criserver"), "criserver://" + upgradedVersion},
		{suite.program("criserver"), first},
	} {
		for _, n := range suite.Nodes {
			err := n.StopService(s.Context(), Runtime, syscall.SIGTERM)
			if err := errors.Join(err, n.StartOtherRuntime(s.Context(), build.program)); err != nil {
				s.Fatal(err)
			}
			eventually(s.T, 30*time.Second, func() error {
				if got := s.runtimeVersion(n); got != build.version {
					return fmt.Errorf("runtime of %s: %s, want %s", n.Name, got, build.version)
				}
				return nil
			})
		}
		s.wantSameStarts(before)
	}
}

// runtimeVersion returns the last column of kubectl get nodes -o wide.
func (s space) runtimeVersion(n *Node) string {
	s.Helper()
	fields := strings.Fields(s.kubectl("get", "node", n.Name, "-o", "wide", "--no-headers"))
	return fields[len(fields)-1]
}

// restartKubelets kills and restarts the kubelet of every node in turn.
func restartKubelets(s space) {
	before := s.starts("shop")
	for _, n := range suite.Nodes {
		if err := errors.Join(n.StopService(s.Context(), Kubelet, syscall.SIGKILL), n.StartKubelet()); err != nil {
			s.Fatal(err)
		}
	}
	s.wantSameStarts(before)
}

// updateWhileKilled updates the Deployment, and kills criserver on one node in the middle.
func updateWhileKilled(s space) {
	s.kubectl("set", "env", "deployment/shop", "V=2")
	n := suite.Nodes[0]
	err := n.StopService(s.Context(), Runtime, syscall.SIGKILL)
	time.Sleep(2 * time.Second)
	if err := errors.Join(err, n.StartRuntime(s.Context())); err != nil {
		s.Fatal(err)
	}
	s.rollout("deployment/shop")
}

// drainNodes drains and uncordons every node in turn.
func drainNodes(s space) {
	for _, n := range suite.Nodes {
		s.kubectl("drain", n.Name, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout="+harness.Patience(60*time.Second).String())
		s.rollout("deployment/shop")
		for _, p := range s.pods("app=shop") {
			if p.Spec.NodeName == n.Name && p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil {
				s.Errorf("pod %s runs on the drained node", p.Name)
			}
		}
		s.kubectl("uncordon", n.Name)
		// DNS and the next node's pods need this node.
		if _, err := suite.Kubectl(s.Context(), "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout="+harness.Patience(60*time.Second).String()); err != nil {
			s.Fatal(err)
		}
	}
}
