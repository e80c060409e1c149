package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/criserver/criserver/test/harness"
)

// The users of the cluster. Each has a token.
const (
	userAdmin             = "admin"
	userControllerManager = "system:kube-controller-manager"
	userScheduler         = "system:kube-scheduler"
	userProxy             = "system:kube-proxy"
	userNode              = "system:node:" // followed by the name of the node
)

// writeCredentials writes certificates, keys, and the file of tokens.
func (c *Cluster) writeCredentials() error {
	dir := c.path("pki")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	ca, err := newAuthority(dir)
	if err != nil {
		return err
	}
	groups := map[string]string{
		userAdmin: "system:masters", userControllerManager: "", userScheduler: "", userProxy: "",
	}
	for _, n := range c.Nodes {
		groups[userNode+n.Name] = "system:nodes"
	}
	for i := range maxExtraNodes {
		groups[userNode+extraName(i+1)] = "system:nodes"
	}
	var tokens strings.Builder
	for user, group := range groups {
		c.tokens[user] = newToken()
		fmt.Fprintf(&tokens, "%s,%s,%s", c.tokens[user], user, user)
		if group != "" {
			fmt.Fprintf(&tokens, ",%q", group)
		}
		tokens.WriteString("\n")
	}
	names := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + dnsDomain}
	return errors.Join(
		ca.issue("apiserver", pkix.Name{CommonName: "kube-apiserver"}, names,
			net.IPv4(127, 0, 0, 1), net.ParseIP(LANAddress4), net.ParseIP(LANAddress6), net.ParseIP(firstService)),
		ca.issue("apiserver-kubelet", pkix.Name{CommonName: "kube-apiserver", Organization: []string{"system:masters"}}, nil),
		writeNewKey(filepath.Join(dir, "service-accounts.key")),
		os.WriteFile(filepath.Join(dir, "tokens.csv"), []byte(tokens.String()), 0o600),
	)
}

// writeKubeconfig writes a kubeconfig for a user of the cluster.
func (c *Cluster) writeKubeconfig(path, server, user string) error {
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: %[1]s
  cluster: {server: %[2]q, certificate-authority: %[3]q}
users:
- name: %[4]q
  user: {token: %[5]q}
contexts:
- name: %[1]s
  context: {cluster: %[1]s, user: %[4]q}
current-context: %[1]s
`, c.Name, server, c.path("pki", "ca.crt"), user, c.tokens[user])
	return os.WriteFile(path, []byte(text), 0o600)
}

func (c *Cluster) apiURL() string { return fmt.Sprintf("https://%s:%d", LANAddress4, apiPort) }

// startControlPlane starts etcd, the API server, the controller manager and the scheduler.
func (c *Cluster) startControlPlane(ctx context.Context) error {
	pki := func(name string) string { return c.path("pki", name) }
	err := c.Control.StartService("etcd", nil, c.program("etcd"),
		"--data-dir=/var/lib/etcd", "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380")
	if err != nil {
		return err
	}
	err = c.Control.StartService("kube-apiserver", nil, c.program("kube-apiserver"),
		"--etcd-servers=http://127.0.0.1:2379", "--bind-address=0.0.0.0", fmt.Sprintf("--secure-port=%d", apiPort),
		"--advertise-address="+LANAddress4, "--cert-dir=/run/kube-apiserver",
		"--tls-cert-file="+pki("apiserver.crt"), "--tls-private-key-file="+pki("apiserver.key"),
		"--client-ca-file="+pki("ca.crt"), "--token-auth-file="+pki("tokens.csv"), "--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
		"--kubelet-client-certificate="+pki("apiserver-kubelet.crt"), "--kubelet-client-key="+pki("apiserver-kubelet.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-cluster-ip-range="+serviceCIDR,
		"--service-account-issuer=https://kubernetes.default.svc."+dnsDomain,
		"--service-account-key-file="+pki("service-accounts.key"), "--service-account-signing-key-file="+pki("service-accounts.key"),
		// Pods soon leave a node that does not answer, so that a test of a failed node is short.
		"--request-timeout="+harness.Patience(60*time.Second).String(), // an eviction takes more than a minute on a slow machine
		fmt.Sprintf("--default-not-ready-toleration-seconds=%d", harness.PatienceSeconds(10)),
		fmt.Sprintf("--default-unreachable-toleration-seconds=%d", harness.PatienceSeconds(10)),
	)
	if err != nil {
		return err
	}
	if err := c.waitForAPI(ctx); err != nil {
		return err
	}
	return errors.Join(
		c.startController(userControllerManager, "kube-controller-manager",
			"--allocate-node-cidrs=true", "--cluster-cidr="+podCIDR, "--node-cidr-mask-size-ipv4=24", "--node-cidr-mask-size-ipv6=64",
			"--service-cluster-ip-range="+serviceCIDR, "--use-service-account-credentials=true",
			"--service-account-private-key-file="+pki("service-accounts.key"), "--root-ca-file="+pki("ca.crt"),
			"--node-monitor-grace-period="+harness.Patience(12*time.Second).String(), "--node-monitor-period=2s", "--terminated-pod-gc-threshold=500"),
		c.startController(userScheduler, "kube-scheduler"),
	)
}

func (c *Cluster) startController(user, name string, args ...string) error {
	config := c.path("pki", name+".kubeconfig")
	if err := c.writeKubeconfig(config, c.apiURL(), user); err != nil {
		return err
	}
	args = append([]string{
		c.program(name), "--kubeconfig=" + config, "--authentication-kubeconfig=" + config,
		"--authorization-kubeconfig=" + config, "--leader-elect=false", "--cert-dir=/run/" + name, "--bind-address=127.0.0.1",
	}, args...)
	return c.Control.StartService(name, nil, args...)
}

// waitForAPI waits until the API server is ready.
func (c *Cluster) waitForAPI(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, harness.Patience(90*time.Second))
	defer cancel()
	for {
		body, err := c.API(ctx, http.MethodGet, "/readyz", nil)
		if err == nil && string(body) == "ok" {
			return nil
		}
		if s, stateErr := c.Control.State("kube-apiserver"); stateErr != nil || !s.Running {
			return fmt.Errorf("start kube-apiserver: the process exited with wait status %#x: %w; its log is %s", s.Status, stateErr, c.Control.LogPath("kube-apiserver"))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("start kube-apiserver: %w: %w", ctx.Err(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// newClient returns a client of the API server.
func (c *Cluster) newClient() (*http.Client, error) {
	pem, err := os.ReadFile(c.path("pki", "ca.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("read ca.crt: no certificate")
	}
	return &http.Client{Transport: &http.Transport{
		DialContext:     c.Dial,
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
	}}, nil
}

// Dial connects to an address in the network namespace of the control plane, which is a host in the LAN.
func (c *Cluster) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = harness.In(c.Control.NetNS(), func() error {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}
