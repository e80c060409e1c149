package cluster

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/criserver/criserver/test/harness"
)

// TestNetwork checks how pods, nodes and hosts of the LAN reach pods and Services. Pods one and near are on the first
// node, pod far is on the second one.
func TestNetwork(t *testing.T) {
	s := newSpace(t)
	s.apply(
		sleeper("one", "node1", "", ""),
		web("near", "node1", "", `"ports": [{"containerPort": 80, "hostPort": 8081}]`),
		web("far", "node2", "", `"ports": [{"containerPort": 80, "hostPort": 8082}]`),
		sleeper("host", "node2", `"hostNetwork": true`, ""),
	)
	s.ready("one", "near", "far", "host")
	for name, test := range map[string]func(*testing.T, space){
		"pod to pod":       testPodToPod,
		"host ports":       testHostPorts,
		"services":         testServices,
		"headless service": testHeadless,
		"hairpin":          testHairpin,
		"session affinity": testAffinity,
		"node port":        testNodePort,
		"host network":     testHostNetwork,
		"dns":              testDNS,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, space{t, s.name})
		})
	}
}

// get fetches a page from inside a pod.
func (s space) get(pod, url string) string {
	s.Helper()
	out, err := s.trySh(pod, wget(10, url))
	if err != nil {
		s.Error(err)
	}
	return out
}

// wget returns a shell command that fetches a page, in a number of seconds on an idle machine.
func wget(seconds int64, url string) string {
	return fmt.Sprintf("timeout %d wget -q -O - '%s'", harness.PatienceSeconds(seconds), url)
}

// getFromLAN fetches a page as a host of the LAN.
func getFromLAN(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, harness.Patience(10*time.Second))
	defer cancel()
	client := http.Client{Transport: &http.Transport{DialContext: suite.Dial, DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("get %s: %s", url, response.Status)
	}
	return strings.TrimSpace(string(text)), err
}

func (s space) getFromLAN(url string) string {
	s.Helper()
	out, err := getFromLAN(s.Context(), url)
	if err != nil {
		s.Error(err)
	}
	return out
}

// source returns the address from which a server pod has received the request for a path, by its log.
func (s space) source(server, path string) string {
	s.Helper()
	var found string
	eventually(s.T, 10*time.Second, func() error {
		for line := range strings.Lines(s.kubectl("logs", server)) {
			if strings.Contains(line, " "+path+" ") {
				found, _, _ = strings.Cut(line, " ")
				return nil
			}
		}
		return fmt.Errorf("the log of %s has no request for %s", server, path)
	})
	return found
}

// addresses returns the IPv4 and the IPv6 address of a pod.
func (s space) addresses(pod string) []string {
	s.Helper()
	var found []string
	for _, ip := range s.pod(pod).Status.PodIPs {
		found = append(found, ip.IP)
	}
	if len(found) != 2 {
		s.Fatalf("addresses of %s: %v, want one of each family", pod, found)
	}
	return found
}

// testPodToPod checks both families on one node and across nodes. The address of the client is preserved.
func testPodToPod(t *testing.T, s space) {
	for _, server := range []string{"near", "far"} {
		for i, address := range s.addresses(server) {
			path := fmt.Sprintf("/pod-to-pod-%d", i)
			s.want("page", s.get("one", "http://"+net.JoinHostPort(address, "80")+path), server)
			s.want("address of the client of "+server, s.source(server, path), s.addresses("one")[i])
		}
	}
	for i, address := range s.addresses("far") {
		path := fmt.Sprintf("/lan-to-pod-%d", i)
		s.want("page", s.getFromLAN("http://"+net.JoinHostPort(address, "80")+path), "far")
		s.want("address of the client", s.source("far", path), []string{LANAddress4, LANAddress6}[i])
	}
}

// testHostPorts checks that host ports answer on the LAN, and that the pod sees the address of a host of the LAN.
func testHostPorts(t *testing.T, s space) {
	for i, address := range []string{suite.Nodes[1].Address4(), suite.Nodes[1].Address6()} {
		path := fmt.Sprintf("/host-port-%d", i)
		s.want("page", s.getFromLAN("http://"+net.JoinHostPort(address, "8082")+path), "far")
		s.want("address of the client", s.source("far", path), []string{LANAddress4, LANAddress6}[i])
	}
	s.want("page of the other node", s.get("one", "http://"+suite.Nodes[1].Address4()+":8082/host-port-pod"), "far")
	s.want("address of the client", s.source("far", "/host-port-pod"), s.addresses("one")[0])
	out, err := suite.Nodes[0].Machine.Run(t.Context(), "curl", "-s", "--max-time", "10", "http://127.0.0.1:8081")
	if err != nil || strings.TrimSpace(out) != "near" {
		t.Errorf("host port on the loopback address of the node: got %q, %v", out, err)
	}
}

// service applies a Service for the pods with a label app, and returns its addresses.
func (s space) service(name, app, fields string) []string {
	s.Helper()
	s.apply(fmt.Sprintf(`{"apiVersion": "v1", "kind": "Service", "metadata": {"name": %q}, "spec": {
"selector": {"app": %q}, "ipFamilyPolicy": "RequireDualStack", "ports": [{"port": 80}]%s}}`, name, app, withComma(fields)))
	return strings.Fields(s.kubectl("get", "service", name, "-o", "jsonpath={.spec.clusterIPs[*]}"))
}

// answers waits until a page has a text. Rules of Services change some time after the Service.
func (s space) answers(pod, url, want string) {
	s.Helper()
	eventually(s.T, 20*time.Second, func() error {
		out, err := s.trySh(pod, wget(2, url))
		if err == nil && out != want {
			err = fmt.Errorf("%s from pod %s: got %q, want %q", url, pod, out, want)
		}
		return err
	})
}

// testServices checks cluster addresses of both families from pods of both nodes: the address of the client
// is preserved.
func testServices(t *testing.T, s space) {
	for i, address := range s.service("far-service", "far", "") {
		path := fmt.Sprintf("/service-%d", i)
		s.answers("one", "http://"+net.JoinHostPort(address, "80")+path, "far")
		s.want("address of the client", s.source("far", path), s.addresses("one")[i])
	}
	for _, address := range s.service("near-service", "near", "") {
		s.answers("one", "http://"+net.JoinHostPort(address, "80")+"/", "near")
	}
}

// testHeadless checks that the name of a headless Service has the addresses of its pods.
func testHeadless(t *testing.T, s space) {
	s.service("headless", "far", `"clusterIP": "None"`)
	s.answers("one", "http://headless/", "far")
	out := s.sh("one", "nslookup headless."+s.name+".svc."+dnsDomain)
	for _, address := range s.addresses("far") {
		if !strings.Contains(out, address) {
			t.Errorf("addresses of the headless Service lack %s: %s", address, out)
		}
	}
}

// testHairpin checks that a pod reaches itself through its Service and its host port.
func testHairpin(t *testing.T, s space) {
	for _, address := range s.service("hairpin", "near", "") {
		s.answers("near", "http://"+net.JoinHostPort(address, "80")+"/", "near")
	}
	s.want("page of the own host port", s.get("near", "http://"+suite.Nodes[0].Address4()+":8081/"), "near")
}

// testAffinity checks that a Service with session affinity leads a client always to one pod.
func testAffinity(t *testing.T, s space) {
	s.apply(`{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "sticky"}, "spec": {"selector": {"sticky": "yes"},
"sessionAffinity": "ClientIP", "ports": [{"port": 80}]}}`)
	s.kubectl("label", "pod", "near", "far", "sticky=yes")
	eventually(t, 20*time.Second, func() error {
		if out := s.kubectl("get", "endpointslices", "-l", "kubernetes.io/service-name=sticky", "-o", "jsonpath={.items[*].endpoints[*].targetRef.name}"); len(strings.Fields(out)) != 2 {
			return fmt.Errorf("endpoints %q, want 2", out)
		}
		_, err := s.trySh("one", wget(2, "http://sticky/"))
		return err
	})
	out := s.sh("one", "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do "+wget(10, "http://sticky/")+"; done | sort | uniq -c")
	if fields := strings.Fields(out); len(fields) != 2 || fields[0] != "20" {
		t.Errorf("20 requests of one client: %q, want one pod", out)
	}
}

// testNodePort checks a node port on each node. By default the address of a client is masqueraded; with the
// local traffic policy it is preserved, and a node without a pod does not answer.
func testNodePort(t *testing.T, s space) {
	s.service("node-port", "far", `"type": "NodePort"`)
	s.service("local", "far", `"type": "NodePort", "externalTrafficPolicy": "Local"`)
	port := s.kubectl("get", "service", "node-port", "-o", "jsonpath={.spec.ports[0].nodePort}")
	local := s.kubectl("get", "service", "local", "-o", "jsonpath={.spec.ports[0].nodePort}")
	s.answers("one", "http://node-port/", "far")
	s.answers("one", "http://local/", "far")
	for _, n := range suite.Nodes {
		s.want("page at the node port of "+n.Name, s.getFromLAN("http://"+net.JoinHostPort(n.Address4(), port)+"/"+n.Name), "far")
		if got := s.source("far", "/"+n.Name); got == LANAddress4 {
			t.Errorf("address of the client at the node port of %s: got %s, want a masqueraded one", n.Name, got)
		}
	}
	s.want("page at the local node port", s.getFromLAN("http://"+net.JoinHostPort(suite.Nodes[1].Address4(), local)+"/local"), "far")
	s.want("address of the client", s.source("far", "/local"), LANAddress4)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if out, err := getFromLAN(ctx, "http://"+net.JoinHostPort(suite.Nodes[0].Address4(), local)+"/local"); err == nil {
		t.Errorf("local node port of a node without a pod: got %q, want no answer", out)
	}
}

// testHostNetwork checks that a pod in the network of its node has the addresses of the node and reaches pods.
func testHostNetwork(t *testing.T, s space) {
	addresses := s.addresses("host")
	s.want("addresses of the pod", strings.Join(addresses, " "), suite.Nodes[1].Address4()+" "+suite.Nodes[1].Address6())
	for _, server := range []string{"near", "far"} {
		s.want("page", s.get("host", "http://"+s.addresses(server)[0]+"/"), server)
	}
}

// testDNS checks the names of Services and of the API server, and that other names do not exist.
func testDNS(t *testing.T, s space) {
	s.service("named", "far", "")
	s.answers("one", "http://named."+s.name+"/", "far")
	s.answers("one", "http://named."+s.name+".svc."+dnsDomain+"/", "far")
	if out := s.sh("one", "nslookup kubernetes.default.svc."+dnsDomain); !strings.Contains(out, firstService) {
		t.Errorf("address of the API server: got %s", out)
	}
	if out, err := s.trySh("one", "nslookup missing."+s.name+".svc."+dnsDomain+"."); err == nil {
		t.Errorf("name that does not exist: got %s", out)
	}
}
