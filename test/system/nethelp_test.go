package system

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/criserver/criserver/test/harness"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// example reads a file of docs/examples, so that the examples are tested, and applies
// replacements, given as alternating old and new strings.
func example(t *testing.T, name string, replace ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "examples", name))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(string(b), replace[i]) {
			t.Fatalf("example %s: no %q to replace", name, replace[i])
		}
	}
	return strings.NewReplacer(replace...).Replace(string(b))
}

// conflist returns an example with the leases below the directory of the daemon.
func (n *node) conflist(t *testing.T, name string, replace ...string) string {
	t.Helper()
	return example(t, name, append(replace, "/run/criserver/ipam", filepath.Join(n.Dir, "leases"))...)
}

// netNode starts a daemon and runs first pods, which request the given networks. The
// bridges and directories of these networks remain. At the end of the test the rules of
// the firewall must be the same as after the first pods.
func netNode(t *testing.T, n *node, networks ...string) *node {
	t.Helper()
	n.start(t)
	for i, request := range networks {
		c := podConfig(fmt.Sprint("networks", i))
		c.Annotations = map[string]string{"criserver.io/networks": request}
		n.RemovePod(t, n.RunPod(t, c).ID)
	}
	if n.Network != "" {
		// The first host ports create chains that remain: the chains of the daemon, and
		// the chains of the plugin for UDP.
		for _, protocol := range []cri.Protocol{cri.Protocol_TCP, cri.Protocol_UDP} {
			c := podConfig("ports" + protocol.String())
			for _, ip := range []string{"", "127.0.0.1"} {
				c.PortMappings = append(c.PortMappings, &cri.PortMapping{Protocol: protocol, HostPort: int32(900 + len(ip)), ContainerPort: 1, HostIp: ip})
			}
			n.RemovePod(t, n.RunPod(t, c).ID)
		}
	}
	before := n.ruleset(t)
	t.Cleanup(func() {
		if err := n.empty(context.Background()); err != nil {
			t.Errorf("remove all pods: %v", err)
		}
		if after := n.ruleset(t); after != before {
			t.Errorf("rules after the test: got\n%s\nwant\n%s", after, before)
		}
	})
	n.takeBaseline(t)
	return n
}

var counted = regexp.MustCompile(`counter packets \d+ bytes \d+`)

// ruleset returns the rules of the node without counters, and with sorted tables, because
// a replaced table moves to the end.
func (n *node) ruleset(t *testing.T) string {
	t.Helper()
	all := counted.ReplaceAllString(command(t, n.NetNS, "nft", "list", "ruleset"), "counter")
	tables := strings.SplitAfter(all, "\n}\n")
	slices.Sort(tables)
	return strings.Join(tables, "")
}

// command runs a program in a network namespace. The program must succeed.
func command(t *testing.T, netns string, args ...string) string {
	t.Helper()
	out, err := try(netns, args...)
	if err != nil {
		t.Fatalf("run %q in the namespace %q: %v\n%s", args, netns, err, out)
	}
	return out
}

func try(netns string, args ...string) (string, error) {
	var out []byte
	err := harness.In(netns, func() (err error) {
		out, err = exec.Command(args[0], args[1:]...).CombinedOutput()
		return err
	})
	return string(out), err
}

// netns returns the path of a pod's network namespace.
func (n *node) netns(p *pod) string { return filepath.Join(n.Dir, "run", "ns", p.ID, "net") }

// aHost creates a network namespace in the role of another machine.
func aHost(t *testing.T, name string) (path string) {
	t.Helper()
	path = filepath.Join(suite.dir, name)
	if err := harness.NewNetNS(path); err != nil {
		t.Fatalf("make the network namespace %s: %v", path, err)
	}
	t.Cleanup(func() {
		if err := harness.RemoveNetNS(path); err != nil {
			t.Errorf("remove the network namespace %s: %v", path, err)
		}
	})
	return path
}

// wire connects two network namespaces with a veth pair; "" is the network namespace of the test.
func wire(t *testing.T, a, nameA, b, nameB string, addrs ...[2]string) {
	t.Helper()
	args := []string{"ip", "link", "add", nameA, "type", "veth", "peer", "name", nameB}
	if b != "" {
		args = append(args, "netns", b)
	}
	command(t, a, args...)
	t.Cleanup(func() {
		if out, err := try(a, "ip", "link", "del", nameA); err != nil {
			t.Errorf("delete the link %s: %v: %s", nameA, err, out)
		}
	})
	for _, end := range []struct {
		ns, name string
		side     int
	}{{a, nameA, 0}, {b, nameB, 1}} {
		for _, pair := range addrs {
			command(t, end.ns, "ip", "addr", "add", pair[end.side], "dev", end.name, "nodad")
		}
		command(t, end.ns, "ip", "link", "set", end.name, "up")
	}
}

// web starts a container with a server that returns the address of the client.
func (n *node) web(t *testing.T, p *pod) {
	t.Helper()
	const script = `mkdir -p /tmp/www/cgi-bin && cd /tmp/www && head -c 300000 /dev/zero >big &&
printf '#!/bin/sh\necho "Content-Type: text/plain"\necho\necho -n "$REMOTE_ADDR"\n' >cgi-bin/peer && chmod +x cgi-bin/peer &&
exec busybox httpd -f -p 80 -h /tmp/www`
	n.serves(t, p, n.run(t, p, "web", "sh", "-c", script))
}

// serves waits until port 80 answers inside the pod.
func (n *node) serves(t *testing.T, p *pod, container string) {
	t.Helper()
	for end := time.Now().Add(harness.Patience(30 * time.Second)); ; time.Sleep(20 * time.Millisecond) {
		_, err := fetch(n.netns(p), "127.0.0.1", 80, "/cgi-bin/peer")
		if err == nil {
			return
		}
		if time.Now().After(end) || n.ContainerStatus(t, container).GetState() == cri.ContainerState_CONTAINER_EXITED {
			log, _ := os.ReadFile(filepath.Join(p.Config.GetLogDirectory(), "web.log"))
			t.Logf("its log: %s", log)
			t.Fatalf("the server of %s does not answer: %v", p.Config.GetMetadata().GetName(), err)
		}
	}
}

var askTimeout = harness.Patience(10 * time.Second)

// fetch sends an HTTP request from a network namespace.
func fetch(netns, ip string, port int, path string) (string, error) {
	return fetchWithin(askTimeout, netns, ip, port, path)
}

func fetchWithin(timeout time.Duration, netns, ip string, port int, path string) (string, error) {
	client := http.Client{Timeout: timeout, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (c net.Conn, err error) {
			// An address needs no resolver, so this thread creates the socket.
			err = harness.In(netns, func() error {
				c, err = (&net.Dialer{}).DialContext(ctx, network, addr)
				return err
			})
			return c, err
		},
	}}
	r, err := client.Get("http://" + net.JoinHostPort(ip, fmt.Sprint(port)) + path)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", r.Status, b)
	}
	return string(b), err
}

// sees sends a request, and checks that the server sees the client address want.
func sees(t *testing.T, netns, ip string, port int, want string) {
	t.Helper()
	got, err := fetch(netns, ip, port, "/cgi-bin/peer")
	got = strings.TrimPrefix(strings.Trim(got, "[]"), "::ffff:")
	if err != nil || got != want {
		t.Errorf("%s port %d: client address: got %q (error %v), want %q", ip, port, got, err, want)
	}
}

// answers sends a request that must succeed with any client address.
func answers(t *testing.T, netns, ip string, port int) {
	t.Helper()
	if _, err := fetch(netns, ip, port, "/cgi-bin/peer"); err != nil {
		t.Errorf("%s port %d: got error %v, want none", ip, port, err)
	}
}

// silent sends a request that must not be answered. The timeout is a guess, so each such
// request accompanies one that succeeds.
func silent(t *testing.T, netns, ip string, port int) {
	t.Helper()
	if got, err := fetchWithin(time.Second, netns, ip, port, "/cgi-bin/peer"); err == nil {
		t.Errorf("%s port %d: got answer %q, want none", ip, port, got)
	}
}

// ping checks that an address answers ICMP echo requests.
func ping(t *testing.T, netns, ip string) {
	t.Helper()
	if out, err := try(netns, "busybox", "ping", "-c", "1", "-W", "5", ip); err != nil {
		t.Errorf("ping %s: %v\n%s", ip, err, out)
	}
}

// echo starts a UDP server at an address in a network namespace. It answers with the
// content and the source address of each datagram.
func echo(t *testing.T, netns, addr string) {
	t.Helper()
	var c net.PacketConn
	err := harness.In(netns, func() (err error) {
		c, err = net.ListenPacket("udp", addr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		b := make([]byte, 1500)
		for {
			k, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(b[:k], from)
		}
	}()
}

// datagram sends a datagram and checks the answer.
func datagram(netns, addr string) error {
	return harness.In(netns, func() error {
		c, err := net.Dial("udp", addr)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(askTimeout)); err != nil {
			return err
		}
		b := make([]byte, 16)
		if _, err := c.Write([]byte("hello")); err != nil {
			return err
		}
		if k, err := c.Read(b); err != nil || string(b[:k]) != "hello" {
			return errors.Join(fmt.Errorf("%s answers %q", addr, b[:k]), err)
		}
		return nil
	})
}
