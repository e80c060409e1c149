package system

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// scrape returns the metrics of the daemon by name and labels, without the prefix "criserver_", and the names of the
// families.
func scrape(t *testing.T, client *http.Client, url string) (values map[string]float64, families map[string]bool) {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: got status %d, %v: %s", url, resp.StatusCode, err, b)
	}
	values, families = make(map[string]float64), make(map[string]bool)
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if f := strings.Fields(line); strings.HasPrefix(line, "# TYPE ") {
			families[f[2]] = true
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || i < 0 {
			continue
		}
		if v, err := strconv.ParseFloat(line[i+1:], 64); err == nil {
			values[strings.TrimPrefix(line[:i], "criserver_")] = v
		}
	}
	return values, families
}

// unixClient returns a client of the HTTP server at a unix socket.
func unixClient(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
}

// counters compares scrapes of a daemon.
type counters struct {
	n      *node
	before map[string]float64
}

// scrape returns the metrics and the families of the daemon.
func (c *counters) scrape(t *testing.T) (map[string]float64, map[string]bool) {
	t.Helper()
	return scrape(t, unixClient(filepath.Join(c.n.Dir, "run", "metrics.sock")), "http://localhost/metrics")
}

// expect waits until counters have increased by these numbers since the last call.
func (c *counters) expect(t *testing.T, what string, increases map[string]float64) {
	t.Helper()
	var now map[string]float64
	fault := ""
	reached := func() bool {
		fault = ""
		now, _ = c.scrape(t)
		for series, want := range increases {
			if got := now[series] - c.before[series]; got != want {
				fault = fmt.Sprintf("%s increased by %v, want %v", series, got, want)
			}
		}
		return fault == ""
	}
	defer func() {
		if fault != "" {
			t.Errorf("%s: %s", what, fault)
		}
		c.before = now
	}()
	waitFor(t, what, reached)
}

// TestPrometheusMetrics makes pods start and fail, and checks that the metrics show it.
func TestPrometheusMetrics(t *testing.T) {
	n := makeNode("prom")
	// The plugin does nothing, and fails if the file refuse exists.
	plugin(t, n, "faulty", `c=$(cat)
if [ $CNI_COMMAND = ADD ] && [ -e $d/../refuse ]; then echo '{"cniVersion":"1.1.0","code":50,"msg":"injected fault"}'; exit 1; fi
[ $CNI_COMMAND = ADD ] && echo "$c" | jq -c .prevResult
exit 0`)
	n.Network = strings.Replace(n.Bridge("csprom", "10.186.0.0/16"), `{"type": "portmap"`, `{"type": "faulty"}, {"type": "portmap"`, 1)
	n.start(t)
	c := &counters{n: n}
	c.before, _ = c.scrape(t)
	checkMetricsSocket(t, filepath.Join(n.Dir, "run", "metrics.sock"))

	p := n.RunPod(t, podConfig("prom"))
	id := n.run(t, p, "sleep", "sleep", "1000")
	c.expect(t, "a pod with a container", map[string]float64{
		`rpc_requests_total{code="OK",rpc="RunPodSandbox"}`: 1, `rpc_duration_seconds_count{rpc="StartContainer"}`: 1, `rpc_in_flight{rpc="RunPodSandbox"}`: 0,
		`pods{state="ready"}`: 1, `containers{state="running"}`: 1, "monitors": 1,
		`step_duration_seconds_count{step="pod.namespaces"}`: 1, `step_duration_seconds_count{step="rootfs.mount"}`: 1, `step_duration_seconds_count{step="cni.add"}`: 1,
		`cni_plugin_duration_seconds_count{builtin="true",command="ADD",plugin="bridge"}`: 1, `cni_plugin_duration_seconds_count{builtin="false",command="ADD",plugin="faulty"}`: 1,
		`runtime_call_duration_seconds_count{operation="create"}`: 1, `runtime_call_duration_seconds_count{operation="start"}`: 1,
	})
	n.Exec(t, id, "true")
	c.expect(t, "a command in a container", map[string]float64{`runtime_call_duration_seconds_count{operation="exec"}`: 1, `rpc_requests_total{code="OK",rpc="ExecSync"}`: 1})

	n.Pull(t, nginx)
	n.Pull(t, busybox)
	if _, err := n.ImageService.PullImage(t.Context(), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: "registry.k8s.io/e2e-test-images/none:1"}}); err == nil {
		t.Error("pull of an image that does not exist succeeded, want an error")
	}
	now, _ := c.scrape(t)
	for _, series := range []string{"image_pull_received_bytes_total", `image_pull_layers_total{source="registry"}`, `image_pull_layers_total{source="store"}`, "image_layers_bytes"} {
		if now[series] <= c.before[series] {
			t.Errorf("after two pulls: %s was %v and is %v, want an increase", series, c.before[series], now[series])
		}
	}
	c.expect(t, "pulls", map[string]float64{
		`image_pulls_total{result="success"}`: 2, `image_pulls_total{result="not_found"}`: 1, `image_pull_duration_seconds_count{result="failure"}`: 1, "images": 1,
	})
	n.failAndCount(t, c, p, id)
	n.checkContrib(t, c)
}

// failAndCount makes a CNI plugin, a container and a monitor fail.
func (n *node) failAndCount(t *testing.T, c *counters, p *pod, id string) {
	t.Helper()
	refuse := filepath.Join(n.Dir, "refuse")
	if err := os.WriteFile(refuse, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := n.RuntimeService.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: podConfig("refused")}); status.Code(err) != codes.Unknown {
		t.Errorf("run pod with a failing plugin: got %v, want Unknown", err)
	}
	if err := os.Remove(refuse); err != nil {
		t.Fatal(err)
	}
	c.expect(t, "a failing CNI plugin", map[string]float64{
		`cni_plugin_errors_total{class="other",command="ADD",plugin="faulty"}`: 1, `rpc_requests_total{code="Unknown",rpc="RunPodSandbox"}`: 1,
		`step_errors_total{class="other",step="cni.add"}`: 1, `step_duration_seconds_count{step="pod.rollback"}`: 1, `steps_running{step="pod.run"}`: 0,
	})

	config := containerConfig(p, "oom", busybox, "tail", "/dev/zero")
	config.Linux.Resources = &limits{MemoryLimitInBytes: 16 << 20, MemorySwapLimitInBytes: 16 << 20}
	n.RunContainer(t, p, config)
	c.expect(t, "a container that is killed by the OOM killer", map[string]float64{
		`container_exits_total{reason="OOMKilled"}`: 1, "container_oom_kills_total": 1, `containers{state="exited"}`: 1,
	})

	n.killMonitor(t, id)
	c.expect(t, "a monitor that is killed", map[string]float64{"monitor_crashes_total": 1, "monitors": -1})
}

// checkMetricsSocket checks that only root can open the socket.
func checkMetricsSocket(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("socket of the metrics: got %v, %v, want a socket with mode 600", info, err)
	}
}

// checkContrib checks that a scrape contains each metric that the dashboard and the alerts use. Series of NRI plugins
// need a plugin.
func (n *node) checkContrib(t *testing.T, c *counters) {
	t.Helper()
	_, families := c.scrape(t)
	used := 0
	for _, file := range []string{"grafana/criserver.json", "prometheus/alerts.yaml"} {
		b, err := os.ReadFile(filepath.Join("..", "..", "contrib", file))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`\b(criserver|process|go)_[a-z_]+`).FindAllString(string(b), -1) {
			used++
			family := name
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				if base := strings.TrimSuffix(name, suffix); families[base] {
					family = base
				}
			}
			if !families[family] && !strings.HasPrefix(name, "criserver_nri_call_") {
				t.Errorf("contrib/%s uses %s, which is not in the scrape", file, name)
			}
		}
	}
	if used < 50 {
		t.Errorf("contrib uses %d metrics, want at least 50", used)
	}
}

// TestMetricsAddressInUse checks that the daemon serves the CRI although it cannot serve metrics, and that it serves
// the metrics as soon as it can.
func TestMetricsAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := newNodeWith(t, "promused", 187, fmt.Sprintf("metrics.address = %q", l.Addr()))
	n.run(t, n.RunPod(t, podConfig("used")), "c", "sleep", "1000")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	url := "http://" + l.Addr().String() + "/metrics"
	waitFor(t, "the metrics at an address that was in use", func() bool {
		resp, err := client.Get(url)
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	})
	if values, _ := scrape(t, client, url); values[`containers{state="running"}`] != 1 {
		t.Errorf("running containers: got %v, want 1", values[`containers{state="running"}`])
	}
	if _, err := os.Stat(filepath.Join(n.Dir, "run", "metrics.sock")); !os.IsNotExist(err) {
		t.Errorf("socket of the metrics with another address: got %v, want none", err)
	}
}
